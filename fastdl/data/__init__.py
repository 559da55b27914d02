"""Datasets, loaders, batch transforms, and data to learn from that ships with the package."""

from ._seed import RngLike
from .dataset import ConcatDataset, Dataset, MapDataset, Subset, TensorDataset, random_split
from .folders import CIFAR10_CLASSES, load_cifar10, load_imdb
from .generators import make_blobs, make_circles, make_moons, make_spirals, make_xor
from .idx import read_idx, read_npz
from .loader import DataLoader
from .sources import FASHION_CLASSES, load_digits, load_fashion_mnist, load_hamlet
from .text import Vocabulary, split_words
from .transforms import Compose, Cutout, Mixup, Normalize, RandomCrop, RandomHorizontalFlip, RandomShift, Transform

__all__ = [
    "CIFAR10_CLASSES",
    "FASHION_CLASSES",
    "Compose",
    "ConcatDataset",
    "Cutout",
    "DataLoader",
    "Dataset",
    "MapDataset",
    "Mixup",
    "Normalize",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomShift",
    "RngLike",
    "Subset",
    "TensorDataset",
    "Transform",
    "Vocabulary",
    "load_cifar10",
    "load_digits",
    "load_fashion_mnist",
    "load_hamlet",
    "load_imdb",
    "make_blobs",
    "make_circles",
    "make_moons",
    "make_spirals",
    "make_xor",
    "random_split",
    "read_idx",
    "read_npz",
    "split_words",
]
