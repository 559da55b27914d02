"""Readers of CIFAR-10's and IMDB's layouts, on small files of the same format; words as numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fastdl as fd
from fastdl import data


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for k, name in enumerate([*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]):
        records = rng.integers(0, 256, (4, 3073), dtype=np.uint8)
        records[:, 0] = [k, 9, 0, 3]
        records.tofile(folder / name)
    return folder


def test_cifar10(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = data.load_cifar10("train", path=cifar)
    assert images.shape == (20, 3, 32, 32) and images.dtype == np.float32 and labels.dtype == np.int64
    assert labels.tolist() == [n for k in range(5) for n in (k, 9, 0, 3)]
    record = np.fromfile(cifar / "data_batch_2.bin", np.uint8)[3073 * 2 :][:3073]
    raw, _ = data.load_cifar10("train", path=cifar.parent, raw=True)  # the folder above
    assert raw[6, 1, 2, 3] == record[1 + 1024 + 2 * 32 + 3] and images[6, 1, 2, 3] == raw[6, 1, 2, 3] / np.float32(255)
    monkeypatch.setenv("FASTDL_DATA", str(cifar.parent))
    assert data.load_cifar10("test")[1].tolist() == [5, 9, 0, 3]
    assert len(data.CIFAR10_CLASSES) == 10


def test_broken_cifar10(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (cifar / "test_batch.bin").read_bytes()
    for broken, text in ((content[:-1], "multiple"), (b"", "multiple"), (bytes([10]) + content[1:], "label 10")):
        (cifar / "test_batch.bin").write_bytes(broken)
        with pytest.raises(fd.FormatError, match=text):
            data.load_cifar10("test", path=cifar)
    monkeypatch.delenv("FASTDL_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="FASTDL_DATA"):
        data.load_cifar10()
    with pytest.raises(FileNotFoundError, match=r"data_batch_1\.bin"):
        data.load_cifar10(path=tmp_path / "none")
    with pytest.raises(ValueError, match="split"):
        data.load_cifar10("all", path=cifar)


@pytest.fixture
def imdb(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for name, files in {"neg": {"0_3": "Dull.", "10_1": "Bad<br />film", "2_4": "Naïve"}, "pos": {"1_9": "Fine", "0_10": "Great!"}}.items():
            folder = tmp_path / "aclImdb" / split / name
            folder.mkdir(parents=True)
            for stem, text in files.items():
                (folder / f"{stem}.txt").write_text(f"{split}: {text}", encoding="utf-8")
    (tmp_path / "aclImdb" / "imdb.vocab").write_text("the\n")
    return tmp_path


def test_imdb(imdb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = data.load_imdb("train", path=imdb)
    assert texts == [f"train: {t}" for t in ("Dull.", "Naïve", "Bad<br />film", "Great!", "Fine")]  # 0, 2, 10; 0, 1
    assert labels.tolist() == [0, 0, 0, 1, 1] and labels.dtype == np.int64
    monkeypatch.setenv("FASTDL_DATA", str(imdb))
    assert data.load_imdb("test", limit=1) == (["test: Dull.", "test: Great!"], pytest.approx(np.array([0, 1])))


def test_broken_imdb(imdb: Path) -> None:
    folder = imdb / "aclImdb" / "train" / "pos"
    (folder / "2_8.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(fd.FormatError, match="UTF-8"):
        data.load_imdb(path=imdb)
    (folder / "2_8.txt").rename(folder / "two_8.txt")
    with pytest.raises(fd.FormatError, match="number"):
        data.load_imdb(path=imdb)
    for file in folder.glob("*"):
        file.unlink()
    with pytest.raises(fd.FormatError, match="no reviews"):
        data.load_imdb(path=imdb)
    with pytest.raises(FileNotFoundError, match="train/pos"):
        data.load_imdb(path=folder)
    with pytest.raises(ValueError, match="limit"):
        data.load_imdb(path=imdb, limit=0)


def test_vocabulary() -> None:
    words = data.Vocabulary(["the cat. The dog!", "a cat's <b>hat</b>; the end"], min_count=1, max_size=4)
    assert words.words == ["<pad>", "<unknown>", "the", "cat"] and len(words) == 4
    assert words.counts == [0, 5, 3, 1]
    assert words["the"] == 2 and words["zebra"] == 1
    assert words.numbers("The zebra, the cat").tolist() == [2, 1, 2, 3]
    table = words.encode(["", "cat cat cat cat"], 3)
    assert table.tolist() == [[0, 0, 0], [3, 3, 3]] and table.dtype == np.int64
    assert data.Vocabulary(["a b b"], min_count=2).words[2:] == ["b"]
    with pytest.raises(ValueError, match="max_size"):
        data.Vocabulary([], max_size=1)
