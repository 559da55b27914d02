"""Data sets in Keras's shapes, from files on disk. Nothing is ever downloaded.

Files are looked for in the folder named by the environment variable `FASTDL_DATA`, and in `~/.keras/datasets`, where Keras keeps them.
Each data set is a small object: `mnist.load_data()`.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import fastdl as fd
from fastdl import data
from fastdl.data.sources import load_idx_folder

from .preprocessing.text import text_to_word_sequence

__all__ = ["cifar10", "fashion_mnist", "imdb", "mnist"]

_Split = tuple[np.ndarray, np.ndarray]


def _folders(*names: str) -> list[Path]:
    roots = [Path(root)] if (root := os.environ.get("FASTDL_DATA")) else []
    roots.append(Path.home() / ".keras" / "datasets")
    return [folder for root in roots for folder in (root, *(root / name for name in names))]


def _missing(what: str, files: str, folders: list[Path]) -> FileNotFoundError:
    where = ", ".join(map(str, folders))
    return FileNotFoundError(f"{what} needs {files} in one of {where} (the first come from FASTDL_DATA); fastdl does not download")


class _Mnist:
    """Handwritten digits: uint8 images (60000, 28, 28) and labels, and 10,000 for tests."""

    def load_data(self, path: str = "mnist.npz") -> tuple[_Split, _Split]:
        """((x_train, y_train), (x_test, y_test)) from `mnist.npz`, or from the four idx files.

        Raises
        ------
        FileNotFoundError
            When neither is there.
        FormatError
            When a file is broken.
        """
        folders = _folders("mnist")
        for file in ([Path(path)] if os.path.isabs(path) else [folder / path for folder in folders]):
            if file.is_file():
                arrays = data.read_npz(file)
                if missing := [n for n in ("x_train", "y_train", "x_test", "y_test") if n not in arrays]:
                    raise fd.FormatError(f"{file}: has no array {missing[0]}")
                return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])
        for folder in folders:
            try:
                return load_idx_folder(folder, "train"), load_idx_folder(folder, "test")
            except FileNotFoundError:
                continue
        raise _missing("mnist", "mnist.npz, or train-images-idx3-ubyte[.gz] and the three other idx files,", folders)


class _FashionMnist:
    """Pictures of clothes: uint8 images (60000, 28, 28) and labels, and 10,000 for tests."""

    def load_data(self) -> tuple[_Split, _Split]:
        """((x_train, y_train), (x_test, y_test)) from the four idx files; without them the 5,000 + 1,000 images that ship, with a warning."""
        for folder in _folders("fashion-mnist"):
            try:
                return load_idx_folder(folder, "train"), load_idx_folder(folder, "test")
            except FileNotFoundError:
                continue
        splits = [data.load_fashion_mnist(split, raw=True) for split in ("train", "test")]
        if len(splits[0][1]) < 60_000:
            warnings.warn("fashion_mnist: no full set found; these are the 5,000 + 1,000 images of it that ship with fastdl", fd.FastdlWarning, stacklevel=2)
        (x, y), (x_test, y_test) = splits
        return (x, y.astype(np.uint8)), (x_test, y_test.astype(np.uint8))


class _Cifar10:
    """Small photographs: uint8 images (50000, 32, 32, 3) and labels (50000, 1), and 10,000 for tests."""

    def load_data(self) -> tuple[_Split, _Split]:
        """((x_train, y_train), (x_test, y_test)) from the binary files `cifar-10-batches-bin/data_batch_1.bin` and so on.

        Raises
        ------
        FileNotFoundError
            When they are not there. (The Python files of the same set are pickles, which are not read.)
        FormatError
            When a file is broken.
        """
        folders = _folders("cifar-10-batches-bin")
        for folder in folders:
            if (folder / "data_batch_1.bin").is_file() and (folder / "test_batch.bin").is_file():
                train, test = (self._split(folder, split) for split in ("train", "test"))
                return train, test
        raise _missing("cifar10", "the folder cifar-10-batches-bin with data_batch_1.bin ... and test_batch.bin", folders)

    def _split(self, folder: Path, split: str) -> _Split:
        x, y = data.load_cifar10(split, path=folder, raw=True)
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)), y.astype(np.uint8)[:, None]


class _Imdb:
    """Film reviews as lists of word numbers, in the order of how frequent words are; label 1 is positive."""

    def _texts(self) -> list[tuple[list[str], np.ndarray]]:
        folders = _folders("aclImdb")
        for folder in folders:
            if (folder / "train" / "pos").is_dir() and (folder / "test" / "pos").is_dir():
                return [data.load_imdb(split, path=folder) for split in ("train", "test")]
        raise _missing("imdb", "the folder aclImdb with train/pos, train/neg, test/pos and test/neg", folders)

    def _index(self, words: list[list[list[str]]]) -> dict[str, int]:
        counts = Counter(w for split in words for text in split for w in text)
        return {word: k for k, (word, _) in enumerate(sorted(counts.items(), key=lambda item: (-item[1], item[0])), 1)}

    def get_word_index(self) -> dict[str, int]:
        """The number of each word, from 1; in the reviews `index_from` is added. Counted from the files, so not Keras's own table."""
        return self._index([[text_to_word_sequence(t) for t in texts] for texts, _ in self._texts()])

    def load_data(
        self, num_words: int | None = None, skip_top: int = 0, maxlen: int | None = None, seed: int = 113, start_char: int | None = 1,
        oov_char: int | None = 2, index_from: int = 3,
    ) -> tuple[_Split, _Split]:  # fmt: skip
        """((x_train, y_train), (x_test, y_test)), x object arrays of lists of int.

        Parameters
        ----------
        num_words : int, optional
            Words with this number or above become `oov_char`.
        skip_top : int
            So do words below this number.
        maxlen : int, optional
            Longer reviews are left out.
        seed : int
            Of the order of the reviews.
        start_char, oov_char : int or None
            What each review begins with, and what stands for words left out (None: nothing).
        index_from : int
            Added to the words' numbers.

        Raises
        ------
        FileNotFoundError
            When the folder `aclImdb` is not there.
        """
        loaded = self._texts()
        words = [[text_to_word_sequence(t) for t in texts] for texts, _ in loaded]
        index = self._index(words)
        result = []
        for split, (_, labels) in zip(words, loaded, strict=True):
            order = np.random.default_rng(seed).permutation(len(labels))
            rows, kept = [], []
            for k in order:
                numbers = [index[w] + index_from for w in split[k]]
                numbers = numbers if start_char is None else [start_char, *numbers]
                if maxlen is not None and len(numbers) >= maxlen:
                    continue
                known = [skip_top <= n < (num_words or n + 1) for n in numbers]
                rows.append([n if ok else oov_char for n, ok in zip(numbers, known, strict=True) if ok or oov_char is not None])
                kept.append(labels[k])
            x = np.empty(len(rows), object)
            x[:] = rows
            result.append((x, np.array(kept, np.int64)))
        return result[0], result[1]


mnist, fashion_mnist, cifar10, imdb = _Mnist(), _FashionMnist(), _Cifar10(), _Imdb()


def __getattr__(name: str) -> Any:
    raise AttributeError(f"fastdl.keras.datasets has no {name!r}; there are {', '.join(__all__)}")
