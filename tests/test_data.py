"""Datasets, loaders, transforms, and file readers that meet broken files."""

from __future__ import annotations

import gc
import gzip
import io
import itertools
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import fastdl as fd
from fastdl import data
from fastdl.data import (
    Compose,
    ConcatDataset,
    DataLoader,
    Dataset,
    MapDataset,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomShift,
    Subset,
    TensorDataset,
    random_split,
    read_idx,
    read_npz,
)

X, Y = np.arange(40, dtype=np.float32).reshape(20, 2), np.arange(20)


def batches(loader: DataLoader) -> list[list]:
    return [y.tolist() for _, y in loader]


# ---- datasets --------------------------------------------------------------------------------------------------------


def test_tensor_dataset() -> None:
    tensor = fd.array(X)
    dataset = TensorDataset(tensor, Y)
    x, y = dataset[np.array([3, 1])]
    assert x.tolist() == [[6, 7], [2, 3]] and y.tolist() == [3, 1]
    tensor[3] = 0.0
    assert dataset[np.array([3])][0].tolist() == [[0, 0]]  # shares memory
    for arrays in ((), (X, Y[:-1]), (np.float32(1),)):
        with pytest.raises(ValueError):
            TensorDataset(*arrays)


def test_subset_concat_split() -> None:
    both = ConcatDataset([TensorDataset(X, Y), TensorDataset(X + 100, Y + 100), TensorDataset(X[:1], Y[:1] - 1)])
    assert len(both) == 41
    assert both[np.array([40, 0, 39, 20])][1].tolist() == [-1, 0, 119, 100]
    assert both[np.array([-1])][1].tolist() == [-1] and both[np.array([], np.int64)][1].tolist() == []
    with pytest.raises(IndexError):
        both[np.array([41])]
    subset = Subset(both, [25, 3])
    assert subset[np.array([1, 0])][1].tolist() == [3, 105]
    for wrong in ([41], [[1]], [0.5]):
        with pytest.raises((ValueError, IndexError)):
            Subset(both, wrong)
    parts = random_split(TensorDataset(Y), [0.5, 0.25, 0.25], rng=3)
    assert [len(p) for p in parts] == [10, 5, 5]
    assert sorted(np.concatenate([p[np.arange(len(p))][0] for p in parts]).tolist()) == list(range(20))
    again = random_split(TensorDataset(Y), [10, 5, 5], rng=3)
    assert all((a.indices == b.indices).all() for a, b in zip(parts, again, strict=True))
    for lengths in ([10, 5], [0.5, 0.6], [25, -5]):
        with pytest.raises(ValueError):
            random_split(TensorDataset(Y), lengths, rng=0)


def test_map_dataset() -> None:
    loader = DataLoader(MapDataset(lambda i: {"x": np.full(3, i, np.float32), "y": i}, 5), 2)
    found = list(loader)
    assert found[0]["x"].shape == (2, 3) and found[2]["y"].tolist() == [4]


# ---- loader ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 3])
def test_order(num_workers: int) -> None:
    loader = DataLoader((X, Y), 6, num_workers=num_workers, rng=0)
    assert batches(loader) == [list(range(k, min(k + 6, 20))) for k in (0, 6, 12, 18)]
    assert len(loader) == 4 and len(DataLoader((X, Y), 6, drop_last=True, rng=0)) == 3
    shuffled = DataLoader((X, Y), 6, shuffle=True, num_workers=num_workers, rng=5)
    first, second = batches(shuffled), batches(shuffled)
    assert first != second and all(sorted(itertools.chain(*epoch)) == list(range(20)) for epoch in (first, second))
    assert first == batches(DataLoader((X, Y), 6, shuffle=True, rng=5))


def test_batches_are_tensors() -> None:
    x, y = next(iter(DataLoader((X, Y), 4, rng=0)))
    assert isinstance(x, fd.Tensor) and x.dtype == fd.float32 and y.dtype == fd.int64
    x += 1
    assert X[0, 0] == 0  # a batch is a copy
    assert isinstance(next(iter(DataLoader(X, 4, rng=0)))[0], fd.Tensor)


def test_global_seed() -> None:
    fd.manual_seed(3)
    first = batches(DataLoader((X, Y), 5, shuffle=True))
    assert first != batches(DataLoader((X, Y), 5, shuffle=True))
    fd.manual_seed(3)
    assert first == batches(DataLoader((X, Y), 5, shuffle=True))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 3, 4, 5, 9])
def test_exact_resume(num_workers: int, taken: int) -> None:
    def make() -> DataLoader:
        images = np.arange(20 * 16, dtype=np.float32).reshape(20, 1, 4, 4)
        augment = Compose([RandomHorizontalFlip(), RandomShift(1)])
        return DataLoader((images, Y), 6, shuffle=True, transform=augment, num_workers=num_workers, rng=9)

    def stream(loader: DataLoader):
        while True:
            yield from loader

    reference, loader = make(), make()
    wanted, running = stream(reference), stream(loader)
    for _ in range(taken):
        next(wanted), next(running)
    resumed = make()
    resumed.seed = 0  # comes from the state
    resumed.load_state_dict(loader.state_dict())
    running = stream(resumed)
    for _ in range(10):
        (a, b), (c, d) = next(wanted), next(running)
        assert b.tolist() == d.tolist()
        np.testing.assert_array_equal(a.numpy(), c.numpy())


def test_leaving_an_epoch_starts_the_next() -> None:
    a, b = DataLoader((X, Y), 6, shuffle=True, rng=1), DataLoader((X, Y), 6, shuffle=True, rng=1)
    next(iter(a))
    batches(b)
    assert batches(a) == batches(b)


def test_state_is_checked() -> None:
    loader = DataLoader((X, Y), 6, rng=0)
    with pytest.raises(KeyError):
        loader.load_state_dict({"seed": 0, "epoch": 0})
    with pytest.raises(ValueError):
        loader.load_state_dict({"seed": 0, "epoch": 0, "position": 5})


class Failing(Dataset):
    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        if 42 in index:
            raise RuntimeError("example 42 is broken")
        return index


@pytest.mark.parametrize("num_workers", [0, 2])
def test_exceptions_arrive_in_their_place(num_workers: int) -> None:
    seen = []
    with pytest.raises(RuntimeError, match="example 42"):
        for batch in DataLoader(Failing(), 10, num_workers=num_workers, rng=0):
            seen.append(batch.tolist()[0])  # noqa: PERF401
    assert seen == [0, 10, 20, 30]


class Counting(Dataset):
    def __init__(self) -> None:
        self.calls = 0

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        self.calls += 1
        return index


def test_prefetch_is_bounded_and_stops() -> None:
    dataset = Counting()
    iterator = iter(DataLoader(dataset, 10, num_workers=2, prefetch_factor=3, rng=0))
    next(iterator)
    time.sleep(0.05)
    assert dataset.calls <= 1 + 2 * 3
    del iterator
    gc.collect()
    deadline = time.time() + 5
    while any(t.name.startswith("fastdl-loader") for t in threading.enumerate()) and time.time() < deadline:
        time.sleep(0.01)
    assert not any(t.name.startswith("fastdl-loader") for t in threading.enumerate())
    assert dataset.calls <= 1 + 2 * 3


def test_loader_arguments() -> None:
    for settings in ({"batch_size": 0}, {"batch_size": 2.5}, {"batch_size": True}, {"num_workers": -1}, {"prefetch_factor": 0}):
        with pytest.raises(ValueError):
            DataLoader((X, Y), **settings)
    for rng in (-1, 0.5, True, "seed"):
        with pytest.raises((ValueError, TypeError)):
            DataLoader((X, Y), rng=rng)
    for rng in (3, np.random.default_rng(0), np.random.SeedSequence(0), fd.Generator(0), None):
        assert DataLoader((X, Y), rng=rng).seed >= 0


# ---- transforms ------------------------------------------------------------------------------------------------------


def test_flip() -> None:
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(RandomHorizontalFlip(1.0)(x), x[..., ::-1])
    np.testing.assert_array_equal(RandomHorizontalFlip(0.0)(x), x)
    many = RandomHorizontalFlip(0.5, rng=0)(np.tile(np.array([0.0, 1.0]), (1000, 1, 1)))
    assert 430 < many[:, 0, 0].sum() < 570


def test_shift_and_crop() -> None:
    x = np.zeros((500, 1, 7, 7), np.float32)
    x[:, :, 3, 3] = 1
    moved = RandomShift(2, rng=0)(x)
    assert moved.shape == x.shape and (moved.sum((1, 2, 3)) == 1).all()
    places = {(int(i), int(j)) for _, _, i, j in np.argwhere(moved)}
    assert places == {(i, j) for i in range(1, 6) for j in range(1, 6)}
    cropped = RandomCrop(5, rng=0)(x)
    assert cropped.shape == (500, 1, 5, 5) and (cropped.sum((1, 2, 3)) == 1).all()
    assert RandomCrop((6, 9), padding=1, fill=3.0, rng=0)(x).max() == 3.0
    with pytest.raises(ValueError, match="smaller"):
        RandomCrop(8)(x)
    for make in (lambda: RandomCrop(0), lambda: RandomShift(-1), lambda: RandomHorizontalFlip(2.0), lambda: Normalize(0.0, 0.0)):
        with pytest.raises(ValueError):
            make()
    with pytest.raises(ValueError):
        RandomHorizontalFlip()(np.zeros((3, 4)))


def test_normalize_and_compose() -> None:
    x = np.random.default_rng(0).uniform(size=(3, 2, 4, 4)).astype(np.float32)
    y = Normalize([0.2, 0.4], [0.5, 2.0])(x)
    np.testing.assert_allclose(y[:, 1], (x[:, 1] - 0.4) / 2, rtol=1e-5, atol=1e-6)
    assert y.dtype == np.float32 and Normalize(127.5, 127.5)(np.zeros((1, 1, 2, 2), np.uint8)).min() == -1
    both = Compose([lambda a: a + 1, RandomShift(1), Normalize(0.0, 2.0)], rng=4)
    np.testing.assert_array_equal(both(x), Compose([lambda a: a + 1, RandomShift(1), Normalize(0.0, 2.0)], rng=4)(x))


# ---- sources ---------------------------------------------------------------------------------------------------------


def test_digits() -> None:
    x, y = data.load_digits()
    assert x.shape == (1797, 1, 8, 8) and x.min() == 0 and x.max() == 1 and set(y.tolist()) == set(range(10))
    train, test = data.load_digits("train"), data.load_digits("test")
    assert len(train[1]) == 1437 and len(test[1]) == 360
    rows = {a.tobytes() + bytes([b]) for a, b in zip(np.concatenate([train[0], test[0]]), np.r_[train[1], test[1]], strict=True)}
    assert rows == {a.tobytes() + bytes([b]) for a, b in zip(x, y, strict=True)}
    with pytest.raises(ValueError, match="validation"):
        data.load_digits("validation")


def test_fashion_embedded() -> None:
    for split, count in (("train", 5000), ("test", 1000)):
        x, y = data.load_fashion_mnist(split, full=False)
        assert x.shape == (count, 1, 28, 28) and x.dtype == np.float32 and 0 <= x.min() < x.max() <= 1
        assert np.bincount(y).tolist() == [count // 10] * 10
    assert data.load_fashion_mnist("test", full=False, raw=True)[0].dtype == np.uint8


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def _fashion_folder(folder: Path, compress: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, n in (("train", 7), ("t10k", 3)):
        for kind, array in (("images-idx3", np.arange(n * 28 * 28).reshape(n, 28, 28) % 256), ("labels-idx1", np.arange(n))):
            name = folder / f"{prefix}-{kind}-ubyte"
            name.with_name(name.name + ".gz").write_bytes(gzip.compress(_idx(array))) if compress else name.write_bytes(_idx(array))


@pytest.mark.parametrize("compress", [False, True])
def test_fashion_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: bool) -> None:
    _fashion_folder(tmp_path / "fashion-mnist", compress)
    assert data.load_fashion_mnist("train", path=tmp_path / "fashion-mnist")[0].shape == (7, 1, 28, 28)
    monkeypatch.setenv("FASTDL_DATA", str(tmp_path))
    assert data.load_fashion_mnist("test")[1].tolist() == [0, 1, 2]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.load_fashion_mnist(path=tmp_path / "nowhere")
    labels = next((tmp_path / "fashion-mnist").glob("t10k-labels*"))
    labels.write_bytes(_idx(np.arange(2)))
    with pytest.raises(fd.FormatError, match="3 images but 2 labels"):
        data.load_fashion_mnist("test")


def test_hamlet() -> None:
    text = data.load_hamlet()
    assert len(text) > 170_000 and "To be, or not to be" in text and text.isascii() and "\r" not in text


def test_generators() -> None:
    for make in (data.make_moons, data.make_circles, data.make_spirals, data.make_blobs, data.make_xor):
        x, y = make(60, rng=1)
        assert x.shape == (60, 2) and x.dtype == np.float32 and y.shape == (60,) and y.dtype == np.int64
        np.testing.assert_array_equal(x, make(60, rng=1)[0])
        counts = np.bincount(y)
        assert counts.min() == counts.max()
        for wrong in (0, -1):
            with pytest.raises(ValueError):
                make(wrong, rng=0)
    assert len(set(data.make_spirals(90, classes=5, rng=0)[1].tolist())) == 5


# ---- readers and broken files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code,dtype", [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")])
def test_idx_types(tmp_path: Path, code: int, dtype: str) -> None:
    array = np.array([[1, 2, 3], [-4 if dtype != "u1" else 4, 5, 6]], dtype)
    path = tmp_path / "a"
    path.write_bytes(struct.pack(">BBBBII", 0, 0, code, 2, 2, 3) + array.astype(f">{dtype}").tobytes())
    found = read_idx(path)
    assert found.dtype == np.dtype(dtype) and found.dtype.isnative and found.flags.writeable
    np.testing.assert_array_equal(found, array)


GOOD = _idx(np.arange(24).reshape(2, 3, 4))
BROKEN_IDX = {
    "empty": (b"", "truncated"),
    "short": (GOOD[:3], "truncated"),
    "magic": (b"\1" + GOOD[1:], "not an idx file"),
    "type": (GOOD[:2] + b"\7" + GOOD[3:], "not an idx file"),
    "rank 0": (GOOD[:3] + b"\0", "not an idx file"),
    "rank 255": (GOOD[:3] + b"\xff" + b"\0\0\0\1" * 255 + b"x", "255 dimensions"),
    "sizes": (GOOD[:9], "truncated in the header"),
    "data": (GOOD[:-1], "truncated"),
    "more data": (GOOD + b"x", "after the 24 bytes"),
    "huge": (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "the limit is"),
    "large": (GOOD[:4] + struct.pack(">III", 1000, 1000, 1000) + GOOD[16:], "truncated"),
    "gzip cut": (gzip.compress(GOOD)[:-9], "broken gzip"),
    "gzip crc": (gzip.compress(GOOD)[:-8] + b"\0" * 8, "broken gzip"),
    "gzip garbage": (b"\x1f\x8b" + b"\xff" * 30, "broken gzip"),
    "text": (b"<html>not found</html>", "not an idx file"),
}


@pytest.mark.parametrize("name", BROKEN_IDX)
def test_broken_idx(tmp_path: Path, name: str) -> None:
    content, text = BROKEN_IDX[name]
    path = tmp_path / "broken-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(fd.FormatError, match=text) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_idx_header_that_lies_allocates_nothing(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "a"
    path.write_bytes(GOOD[:4] + struct.pack(">III", 4, 1000, 1000_000) + GOOD[16:])
    tracemalloc.start()
    with pytest.raises(fd.FormatError):
        read_idx(path)
    assert tracemalloc.get_traced_memory()[1] < 16e6
    tracemalloc.stop()


def test_random_bytes_never_crash_the_readers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(5), b=np.ones((2, 3), np.float32))
    path = tmp_path / "a"
    for good, read in ((GOOD, read_idx), (gzip.compress(GOOD), read_idx), (buffer.getvalue(), read_npz)):
        for _ in range(300):
            content = bytearray(good)
            for place in rng.integers(0, len(content), rng.integers(1, 6)):
                content[place] = rng.integers(0, 256)
            path.write_bytes(content[: rng.integers(0, len(content) + 1)] if rng.random() < 0.3 else content)
            try:
                read(path)
            except fd.FormatError:
                pass


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays = {"x": np.arange(6).reshape(2, 3), "f": np.asfortranarray(np.ones((2, 3))), "s": np.float32(3), "e": np.zeros((0, 4))}
    np.savez_compressed(path, **arrays)
    found = read_npz(path)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    with pytest.raises(fd.FormatError, match="limit"):
        read_npz(path, max_bytes=100)
    np.savez(path, a=np.array([{}, []], object))
    with pytest.raises(fd.FormatError, match="Python objects"):
        read_npz(path)
    path.write_bytes(b"PK\3\4 no")
    with pytest.raises(fd.FormatError):
        read_npz(path)
