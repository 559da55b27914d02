"""Data that ships with the package, and where fuller sets are looked for. Nothing is ever downloaded."""

from __future__ import annotations

import gzip
import io
import lzma
import os
from pathlib import Path
from typing import Literal

import numpy as np

import fastdl as fd

from .idx import parse_npz, read_idx

_FILES = Path(__file__).parent / "files"

#: Names of Fashion-MNIST's ten classes, by label.
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load_digits(split: Literal["all", "train", "test"] = "all") -> tuple[np.ndarray, np.ndarray]:
    """1,797 handwritten digits of 8x8 pixels (UCI "Optical Recognition of Handwritten Digits").

    Parameters
    ----------
    split : {"all", "train", "test"}
        All in the original order, or 1,437 / 360 of them, chosen once for all by a fixed permutation.

    Returns
    -------
    images : numpy.ndarray
        float32 (N, 1, 8, 8) in [0, 1].
    labels : numpy.ndarray
        int64 (N,), 0 to 9.

    Examples
    --------
    >>> from fastdl.data import load_digits
    >>> images, labels = load_digits("train")
    >>> images.shape, labels[:5].tolist()
    ((1437, 1, 8, 8), [6, 6, 6, 2, 5])
    """
    _check_split(split, ("all", "train", "test"))
    with gzip.open(_FILES / "digits.csv.gz") as f:
        table = np.array(f.read().replace(b"\n", b",").rstrip(b",").split(b","), np.float32).reshape(-1, 65)
    images = (table[:, :64] / 16).reshape(-1, 1, 8, 8)
    labels = table[:, 64].astype(np.int64)
    if split == "all":
        return images, labels
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(labels))
    chosen = order[:1437] if split == "train" else order[1437:]
    return images[chosen], labels[chosen]


def load_fashion_mnist(
    split: Literal["train", "test"] = "train",
    *,
    path: str | os.PathLike[str] | None = None,
    full: bool | None = None,
    raw: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST: 28x28 grey images of clothes in ten classes (:data:`FASHION_CLASSES`).

    The full set (60,000 + 10,000 images) is used when its four idx files, plain or .gz, are found in `path`, in the folder named
    by the environment variable `FASTDL_DATA` (or its sub-folder `fashion-mnist`), or where Debian's package
    `dataset-fashion-mnist` puts them; otherwise the 5,000 + 1,000 images inside this package.

    Parameters
    ----------
    split : {"train", "test"}
    path : str or os.PathLike, optional
        Folder with the idx files; then only this folder is looked at.
    full : bool, optional
        True: only the full set will do. False: the embedded images.
    raw : bool
        Return the images as uint8 (N, 28, 28).

    Returns
    -------
    images : numpy.ndarray
        float32 (N, 1, 28, 28) in [0, 1].
    labels : numpy.ndarray
        int64 (N,), 0 to 9.

    Raises
    ------
    FileNotFoundError
        When `path` or `full=True` was given and the files are not there.
    fastdl.FormatError
        When a file is broken.

    Examples
    --------
    >>> from fastdl.data import load_fashion_mnist
    >>> images, labels = load_fashion_mnist("test", full=False)
    >>> images.shape, images.dtype, labels.shape
    ((1000, 1, 28, 28), dtype('float32'), (1000,))
    """
    _check_split(split, ("train", "test"))
    found = _find_fashion(path) if path is not None or full is not False else None
    if found is None:
        if path is not None or full:
            where = [str(path)] if path is not None else [str(f) for f in _fashion_folders()]
            raise FileNotFoundError(
                f"no Fashion-MNIST idx files (train-images-idx3-ubyte[.gz] and three more) in {', '.join(where)}"
            )
        name = "fashion_mnist_6k.npz.xz"
        arrays = parse_npz(io.BytesIO(lzma.decompress((_FILES / name).read_bytes())), name)
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    else:
        images, labels = load_idx_folder(found, split)
    return (images if raw else scale_images(images)), labels.astype(np.int64)


def scale_images(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W) as float32 (N, 1, H, W) in [0, 1]; other dtypes are cast only. (N, C, H, W) keeps its shape."""
    scaled = images.astype(np.float32)
    if images.dtype == np.uint8:
        scaled /= 255
    return scaled[:, None] if scaled.ndim == 3 else scaled


def load_idx_folder(folder: str | os.PathLike[str], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one split from a folder with the four idx files of the MNIST family, checked against each other.

    Raises
    ------
    FileNotFoundError
        When a file is missing.
    fastdl.FormatError
        When a file is broken or their sizes differ.
    """
    prefix = "train" if split == "train" else "t10k"
    image_file = _existing(Path(folder), f"{prefix}-images-idx3-ubyte")
    label_file = _existing(Path(folder), f"{prefix}-labels-idx1-ubyte")
    if image_file is None or label_file is None:
        missing = "images-idx3" if image_file is None else "labels-idx1"
        raise FileNotFoundError(f"no file {prefix}-{missing}-ubyte[.gz] in {os.fspath(folder)}")
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.ndim != 3 or labels.ndim != 1:
        raise fd.FormatError(f"{folder}: images have shape {images.shape} and labels {labels.shape}; need (N, H, W) and (N,)")
    if len(images) != len(labels) or not len(labels):
        raise fd.FormatError(f"{folder}: {len(images)} images but {len(labels)} labels in {image_file.name} and {label_file.name}")
    return images, labels


def _fashion_folders() -> list[Path]:
    folders = [Path("/usr/share/datasets/fashion-mnist")]
    if root := os.environ.get("FASTDL_DATA"):
        folders = [Path(root) / "fashion-mnist", Path(root), *folders]
    return folders


def _find_fashion(path: str | os.PathLike[str] | None) -> Path | None:
    for folder in [Path(path)] if path is not None else _fashion_folders():
        if all(_existing(folder, f"{p}-{k}-ubyte") for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1")):
            return folder
    return None


def _existing(folder: Path, name: str) -> Path | None:
    """The file `name`, or with .gz, or with the dot that some copies have before "idx"."""
    for candidate in (name, f"{name}.gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    return None


def _check_split(split: str, allowed: tuple[str, ...]) -> None:
    if split not in allowed:
        raise ValueError(f"split: got {split!r}; need one of {', '.join(map(repr, allowed))}")


def load_hamlet() -> str:
    """Shakespeare's Hamlet (Project Gutenberg's text, public domain): 174 kB of ASCII for character models.

    Examples
    --------
    >>> from fastdl.data import load_hamlet
    >>> load_hamlet()[:25]
    'HAMLET, PRINCE OF DENMARK'
    """
    with gzip.open(_FILES / "hamlet.txt.gz") as f:
        return f.read().decode("ascii").replace("\r\n", "\n")
