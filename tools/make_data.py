"""Make the data files that ship inside the package (run by hand; the results are committed).

    python tools/make_data.py fashion [FOLDER]     from the full Fashion-MNIST idx files (default /usr/share/datasets/fashion-mnist)
    python tools/make_data.py digits FILE          from scikit-learn's sklearn/datasets/data/digits.csv.gz
    python tools/make_data.py hamlet FILE          from hamlet_gut.txt of the `shakespeare` 0.6 source distribution

Everything is deterministic: the same inputs give the same bytes. Sources and licences are listed in
fastdl/data/files/LICENSES.md.
"""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import sys
from pathlib import Path

import numpy as np

FILES = Path(__file__).resolve().parent.parent / "fastdl" / "data" / "files"
CLASSES = 10


def _idx(folder: Path, name: str, header: int) -> np.ndarray:
    with gzip.open(folder / f"{name}.gz") as f:
        return np.frombuffer(f.read(), np.uint8)[header:]


def _stratified(labels: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of `per_class` examples of every class, in random order."""
    chosen = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in range(CLASSES)])
    return rng.permutation(chosen)


def fashion(folder: Path) -> Path:
    """5,000 training and 1,000 test images, the same number of every class; about 2 MB."""
    rng = np.random.Generator(np.random.PCG64(2017))
    arrays = {}
    for split, prefix, per_class in (("train", "train", 500), ("test", "t10k", 100)):
        images = _idx(folder, f"{prefix}-images-idx3-ubyte", 16).reshape(-1, 28, 28)
        labels = _idx(folder, f"{prefix}-labels-idx1-ubyte", 8)
        keep = _stratified(labels, per_class, rng)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[keep], labels[keep]
    raw = io.BytesIO()
    np.savez(raw, **arrays)
    target = FILES / "fashion_mnist_6k.npz.xz"
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]
    target.write_bytes(lzma.compress(raw.getvalue(), filters=filters))
    return target


def digits(source: Path) -> Path:
    return Path(shutil.copyfile(source, FILES / "digits.csv.gz"))


def hamlet(source: Path) -> Path:
    target = FILES / "hamlet.txt.gz"
    target.write_bytes(gzip.compress(source.read_bytes(), 9, mtime=0))
    return target


def main(argv: list[str]) -> int:
    makers = {"fashion": fashion, "digits": digits, "hamlet": hamlet}
    if not argv or argv[0] not in makers or (len(argv) < 2 and argv[0] != "fashion"):
        print(__doc__, file=sys.stderr)
        return 2
    target = makers[argv[0]](Path(argv[1] if len(argv) > 1 else "/usr/share/datasets/fashion-mnist"))
    print(f"{target} {target.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
