"""Weights files and checkpoints: round trips, exact resume, failed writes, broken files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import fastdl as fd
from fastdl import data, nn, optim
from fastdl.nn import functional as F

DTYPES = [
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
    "complex64",
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 4)])
def test_round_trip(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.random.default_rng(0).standard_normal(shape) * 3).astype(dtype)
    fd.save({"a": fd.array(array), "b": array}, tmp_path / "t")
    loaded = fd.load(tmp_path / "t")
    for name in "ab":
        assert loaded[name].shape == shape and loaded[name].dtype == dtype
        np.testing.assert_array_equal(loaded[name].numpy(), array)


def test_bfloat16_round_trip(tmp_path: Path) -> None:
    values = np.r_[np.random.default_rng(0).standard_normal(1000), 0.0, -0.0, np.inf, 1e-40, 3e38].astype(np.float32)
    tensor = fd.array(values).astype(fd.bfloat16)
    fd.save({"a": tensor.reshape(5, 201)}, tmp_path / "t")
    loaded = fd.load(tmp_path / "t")["a"]
    assert loaded.dtype == fd.bfloat16 and loaded.shape == (5, 201)
    np.testing.assert_array_equal(loaded.astype(fd.float32).numpy().reshape(-1), tensor.astype(fd.float32).numpy())


def test_views_and_parameters(tmp_path: Path) -> None:
    x = fd.reshape(fd.arange(12.0), (3, 4))
    fd.save({"t": x.T, "s": x[::2, ::-1], "p": nn.Parameter(x)}, tmp_path / "t")
    loaded = fd.load(tmp_path / "t")
    np.testing.assert_array_equal(loaded["t"].numpy(), x.numpy().T)
    np.testing.assert_array_equal(loaded["s"].numpy(), x.numpy()[::2, ::-1])
    assert not loaded["p"].requires_grad
    loaded["t"] += 1  # memory of its own, writable


def test_the_safetensors_library_reads_our_files(tmp_path: Path) -> None:
    from safetensors import safe_open

    tensors = {"b": np.ones(3, np.int8), "a": np.arange(6, dtype=np.float64).reshape(2, 3), "c": np.zeros((), bool)}
    fd.save(tensors, tmp_path / "t", {"who": "ünïcode"})
    with safe_open(tmp_path / "t", "np") as file:
        assert file.metadata() == {"who": "ünïcode"} and set(file.keys()) == set(tensors)
        for name, array in tensors.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)


def test_we_read_the_library_files(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    tensors = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.ones(3, np.uint32)}
    save_file(tensors, tmp_path / "t")
    for name, tensor in fd.load(tmp_path / "t").items():
        np.testing.assert_array_equal(tensor.numpy(), tensors[name])


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    for error, tensors, metadata in (
        (fd.DTypeError, {"a": np.ones(2, np.complex128)}, None),
        (fd.DTypeError, {"a": np.array(["x"])}, None),
        (ValueError, {"__metadata__": np.ones(2)}, None),
        (ValueError, {3: np.ones(2)}, None),
        (TypeError, {"a": np.ones(2)}, {"n": 3}),
    ):
        with pytest.raises(error):
            fd.save(tensors, tmp_path / "t", metadata)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t"
    fd.save({"a": np.ones(3)}, path)
    before = path.read_bytes()

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="No space"):
                fd.save({"a": np.zeros(300)}, path)
        assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    fd.save({"a": np.ones(3)}, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").is_file()


def _header(header: object, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BROKEN = {
    "empty": b"",
    "short": b"\0\0\0",
    "huge header": b"\xff" * 8 + b"{}",
    "not json": _header(b"{nonsense", b"12345678"),
    "list": _header([1, 2]),
    "unknown dtype": _header({"a": {**F32, "dtype": "F99"}}, b"12345678"),
    "negative shape": _header({"a": {**F32, "shape": [-2]}}, b"12345678"),
    "wrong shape": _header({"a": {**F32, "shape": [3]}}, b"12345678"),
    "overflow": _header({"a": {**F32, "shape": [2**62, 4]}}, b"12345678"),
    "offsets beyond the end": _header({"a": {**F32, "data_offsets": [0, 80], "shape": [20]}}, b"12345678"),
    "offsets backwards": _header({"a": {**F32, "data_offsets": [8, 0]}}, b"12345678"),
    "overlap": _header({"a": F32, "b": F32}, b"12345678"),
    "data left over": _header({"a": F32}, b"123456789"),
    "metadata is no text": _header({"__metadata__": {"a": 1}, "a": F32}, b"12345678"),
    "zip": b"PK\3\4" + b"\0" * 100,
    "float8": _header({"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, b"12345678"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(BROKEN[name])
    with pytest.raises(fd.FormatError, match=r"broken\.safetensors"):
        fd.load(path)
    with pytest.raises(fd.FormatError):
        fd.load_checkpoint(path)


def test_random_changes_never_crash_the_reader(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "t"
    fd.save({"a": np.ones((2, 3), np.float32), "b": np.arange(4)}, path, {"k": "v"})
    good = path.read_bytes()
    for _ in range(500):
        content = bytearray(good)
        for place in rng.integers(0, len(content), rng.integers(1, 6)):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content[: rng.integers(0, len(content) + 1)] if rng.random() < 0.3 else content)
        try:
            fd.load(path)
        except fd.FormatError:
            pass


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError):
        fd.load("/nonexistent/file")


# ---- checkpoints -----------------------------------------------------------------------------------------------------


class Run:
    """A training run with everything that has state: dropout, batch norm, momentum, schedule, shuffling, augmentation."""

    def __init__(self, seed: int, optimiser: str = "Adam") -> None:
        fd.manual_seed(seed)
        x, y = data.load_digits("train")
        self.model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(144, 10)
        )
        self.optimizer = getattr(optim, optimiser)(self.model.parameters(), lr=0.01)
        self.scheduler = optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 100)
        self.loader = data.DataLoader((x[:200], y[:200]), 32, shuffle=True, transform=data.RandomShift(1), rng=seed)
        self.batches = self._stream()

    def _stream(self):
        while True:
            yield from self.loader

    def steps(self, n: int) -> list[float]:
        losses = []
        for _ in range(n):
            x, y = next(self.batches)
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            losses.append(loss.item())
        return losses

    def parts(self) -> dict:
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler, "loader": self.loader}


@pytest.mark.parametrize("optimiser", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_resume_is_exact(tmp_path: Path, optimiser: str) -> None:
    whole = Run(1, optimiser)
    losses = whole.steps(20)
    state = {name: tensor.numpy().copy() for name, tensor in whole.model.state_dict().items()}
    half = Run(1, optimiser)
    assert half.steps(9) == losses[:9]
    fd.save_checkpoint(tmp_path / "c", **half.parts(), extra={"note": ["anything", 1.5, None]})
    other = Run(2, optimiser)
    other.steps(3)
    other = Run(2, optimiser)
    assert fd.load_checkpoint(tmp_path / "c", **other.parts()) == {"note": ["anything", 1.5, None]}
    assert other.steps(11) == losses[9:]
    for name, tensor in other.model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), state[name], err_msg=name)


def test_checkpoint_parts_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "c"
    model = nn.Linear(2, 2)
    fd.save_checkpoint(path, model)
    assert fd.load_checkpoint(path, nn.Linear(2, 2)) is None
    with pytest.raises(fd.FormatError, match="no optimizer"):
        fd.load_checkpoint(path, model, optim.SGD(model.parameters()))
    with pytest.raises(nn.StateDictError):
        fd.load_checkpoint(path, nn.Linear(3, 2))
    fd.save(model, path)
    with pytest.raises(fd.FormatError, match="not a fastdl checkpoint"):
        fd.load_checkpoint(path, model)
    with pytest.raises(TypeError):
        fd.save_checkpoint(path, model, extra=object())
    fd.save({}, path, {"fastdl.checkpoint": json.dumps({"version": 99, "rng": [0, 0], "extra": None})})
    with pytest.raises(fd.FormatError, match="version 99"):
        fd.load_checkpoint(path)
