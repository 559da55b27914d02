"""Readers of data sets in their official layouts, for those who have them on disk. Nothing is ever downloaded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

import fastdl as fd

from .sources import _check_split, scale_images

#: Names of CIFAR-10's classes, by label.
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_RECORD = 1 + 3 * 32 * 32  # label, then red, green and blue planes
_MOST_BYTES = 1 << 24  # of one review; the longest of the real ones has 14 kB


def _find(path: str | os.PathLike[str] | None, name: str, what: str, needs: str) -> Path:
    """`path`, or the folder `name` in it or in FASTDL_DATA: the first that has `needs`."""
    root = path if path is not None else os.environ.get("FASTDL_DATA")
    places = [] if root is None else [Path(root), Path(root) / name]
    for folder in places:
        if (folder / needs).exists():
            return folder
    where = ", ".join(map(str, places)) or "no folder: give path= or set FASTDL_DATA"
    raise FileNotFoundError(f"no {what} (a folder with {needs}) in {where}")


def load_cifar10(split: str = "train", *, path: str | os.PathLike[str] | None = None, raw: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10 (Krizhevsky, 2009) from its binary files: `data_batch_1.bin` ... `data_batch_5.bin` and `test_batch.bin`.

    Parameters
    ----------
    split : {"train", "test"}
    path : str or os.PathLike, optional
        The folder with the files, or the one above, `cifar-10-batches-bin`; default: the environment variable `FASTDL_DATA`.
    raw : bool
        Return the images as uint8.

    Returns
    -------
    images : numpy.ndarray
        float32 (N, 3, 32, 32) in [0, 1].
    labels : numpy.ndarray
        int64 (N,), see :data:`CIFAR10_CLASSES`.

    Raises
    ------
    FileNotFoundError
        When the files are not there.
    fastdl.FormatError
        When a file does not consist of whole records, or has a label above 9.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from fastdl.data import load_cifar10
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "test_batch.bin").write_bytes(bytes([7]) + bytes(3072))
    >>> images, labels = load_cifar10("test", path=folder)
    >>> images.shape, labels.tolist()
    ((1, 3, 32, 32), [7])
    """
    _check_split(split, ("train", "test"))
    first = "test_batch.bin" if split == "test" else "data_batch_1.bin"
    folder = _find(path, "cifar-10-batches-bin", "CIFAR-10", first)
    files = [folder / first] if split == "test" else [f for f in (folder / f"data_batch_{k}.bin" for k in range(1, 6)) if f.is_file()]
    parts = []
    for file in files:
        content = np.fromfile(file, np.uint8)
        if not content.size or content.size % _RECORD:
            raise fd.FormatError(f"{file}: {content.size} bytes; need a multiple of {_RECORD} (label and 3 x 32 x 32 pixels)")
        parts.append(content.reshape(-1, _RECORD))
        if parts[-1][:, 0].max() > 9:
            raise fd.FormatError(f"{file}: label {parts[-1][:, 0].max()}; need 0 to 9")
    records = np.concatenate(parts)
    images = records[:, 1:].reshape(-1, 3, 32, 32)
    return (images if raw else scale_images(images)), records[:, 0].astype(np.int64)


def load_imdb(split: str = "train", *, path: str | os.PathLike[str] | None = None, limit: int | None = None) -> tuple[list[str], np.ndarray]:
    """IMDB's film reviews (Maas et al., 2011) from the folder `aclImdb`: `train/pos/0_9.txt`, `train/neg/0_3.txt` ...

    Parameters
    ----------
    split : {"train", "test"}
    path : str or os.PathLike, optional
        `aclImdb` or the folder above; default: the environment variable `FASTDL_DATA`.
    limit : int, optional
        At most so many reviews of each class, the first by number.

    Returns
    -------
    texts : list of str
        Negative reviews first, each class in the order of the files' numbers.
    labels : numpy.ndarray
        int64 (N,), 1 for positive.

    Raises
    ------
    FileNotFoundError
        When the folders are not there.
    fastdl.FormatError
        When a class has no reviews, a file's name is not `number_rating.txt`, or a file is not UTF-8 or larger than 16 MB.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from fastdl.data import load_imdb
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for name, text in [("neg/0_2.txt", "Dull."), ("pos/0_9.txt", "A delight.")]:
    ...     (root / "train" / name).parent.mkdir(parents=True)
    ...     _ = (root / "train" / name).write_text(text)
    >>> texts, labels = load_imdb("train", path=root)
    >>> texts, labels.tolist()
    (['Dull.', 'A delight.'], [0, 1])
    """
    _check_split(split, ("train", "test"))
    if limit is not None and limit < 1:
        raise ValueError(f"load_imdb: limit must be >= 1; got {limit}")
    folder = _find(path, "aclImdb", "IMDB reviews", f"{split}/pos") / split
    texts: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(("neg", "pos")):
        files = sorted((folder / name).glob("*.txt"), key=_number)[:limit]
        if not files:
            raise fd.FormatError(f"{folder / name}: no reviews (*.txt)")
        for file in files:
            if file.stat().st_size > _MOST_BYTES:
                raise fd.FormatError(f"{file}: larger than {_MOST_BYTES >> 20} MB")
            try:
                texts.append(file.read_text(encoding="utf-8"))
            except UnicodeDecodeError as error:
                raise fd.FormatError(f"{file}: not UTF-8 at byte {error.start}") from None
            labels.append(label)
    return texts, np.array(labels, np.int64)


def _number(file: Path) -> int:
    number, _, rating = file.stem.partition("_")
    if not (number.isascii() and number.isdigit() and rating.isascii() and rating.isdigit()):
        raise fd.FormatError(f"{file}: need a name like 123_8.txt (number, rating)")
    return int(number)
