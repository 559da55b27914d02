"""Names for what arguments may be, used in annotations. In op stanzas the same names choose how an argument reaches its kernel (see
`fastdl.op.KINDS`), so here they are plain aliases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, Union

import numpy as np

from ._C import Tensor
from .dtypes import DTypeLike

Axis: TypeAlias = int  # one dimension, negative from the end
Axes: TypeAlias = Union[int, Sequence[int], None]  # some dimensions; None: all
Pair: TypeAlias = Union[int, Sequence[int]]  # height and width; a number stands for both
Shape: TypeAlias = Union[int, Sequence[int]]
Pads: TypeAlias = Sequence[Sequence[int]]  # (before, after) of each dimension
Number: TypeAlias = Union[bool, int, float, complex]
TensorLike: TypeAlias = Union[Tensor, np.ndarray, np.generic, Number, Sequence[Any]]  # what ops take where they need a tensor

__all__ = ["Axes", "Axis", "DTypeLike", "Number", "Pads", "Pair", "Shape", "TensorLike"]
