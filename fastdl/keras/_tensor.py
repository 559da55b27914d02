"""Symbolic tensors of the functional API: shapes without values, and which layer makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastdl as fd
from fastdl.errors import TypeError_


class KerasTensor:
    """What `Input` returns and layers return for it: shape (None for what is not known before data come), dtype, maker.

    Attributes
    ----------
    shape : tuple of int or None
    dtype : str
    node : Node or None
        The call of a layer that makes it; None for an input.
    """

    def __init__(self, shape: tuple[int | None, ...], dtype: str = "float32", node: Any = None, name: str | None = None) -> None:
        self.shape, self.dtype, self.node, self.name = tuple(shape), dtype, node, name

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<KerasTensor shape={self.shape}, dtype={self.dtype}, name={self.name}>"

    def _apply(self, op: str, other: Any, reflected: bool = False) -> Any:
        from .layers.merging import Arithmetic

        if isinstance(other, KerasTensor):
            return Arithmetic(op)([other, self] if reflected else [self, other])
        return Arithmetic(op, float(other), reflected)(self)

    def __add__(self, other: Any) -> Any:
        return self._apply("add", other)

    def __radd__(self, other: Any) -> Any:
        return self._apply("add", other, True)

    def __sub__(self, other: Any) -> Any:
        return self._apply("subtract", other)

    def __rsub__(self, other: Any) -> Any:
        return self._apply("subtract", other, True)

    def __mul__(self, other: Any) -> Any:
        return self._apply("multiply", other)

    def __rmul__(self, other: Any) -> Any:
        return self._apply("multiply", other, True)

    def __truediv__(self, other: Any) -> Any:
        return self._apply("divide", other)

    def __neg__(self) -> Any:
        return self._apply("multiply", -1.0)

    def __bool__(self) -> bool:
        raise TypeError_("KerasTensor: has no value before data come; it cannot decide an if")

    def __iter__(self) -> Any:
        raise TypeError_("KerasTensor: cannot be iterated over; it has no values before data come")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError_("KerasTensor: NumPy and fastdl functions need values; use a layer (Lambda takes any function)")


class Node:
    """One symbolic call: the layer, its arguments, and what it gave."""

    def __init__(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.layer, self.args, self.kwargs = layer, args, kwargs
        self.outputs: Any = None
        self.inputs = leaves((args, kwargs), KerasTensor)


def leaves(tree: Any, kind: type | tuple[type, ...]) -> list[Any]:
    """All objects of a kind in nested tuples, lists and dicts, in order."""
    if isinstance(tree, kind):
        return [tree]
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, (tuple, list)):
        return [x for item in tree for x in leaves(item, kind)]
    return []


def map_tree(function: Callable[[Any], Any], tree: Any) -> Any:
    """`function` of every leaf, in the same containers."""
    if isinstance(tree, dict):
        return {k: map_tree(function, v) for k, v in tree.items()}
    if isinstance(tree, (tuple, list)):
        return type(tree)([map_tree(function, v) for v in tree])
    return function(tree)


def as_tensor(value: Any) -> Any:
    """Arrays as tensors, float64 narrowed to float32, as Keras does; everything else stays."""
    if isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value, np.float32) if value.dtype.kind == "f" and value.dtype != np.float16 else value
        return fd.asarray(value)
    return value


def floating(x: Any) -> Any:
    """Integers and booleans as float32."""
    return x if x.dtype.kind == "f" else x.astype(fd.float32)


_BATCH = 1
_SIZES = (24, 36)  # stand for a dimension that is not known; what differs between the two is not known in the output either


def infer(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Node:
    """Call `layer` on zeros to learn what it makes of these symbolic arguments; the first call makes its weights."""
    node = Node(layer, args, kwargs)
    unknown = any(None in t.shape[1:] for t in node.inputs)
    shapes: list[list[tuple[int, ...]]] = []
    results: list[Any] = []
    for size in _SIZES if unknown else _SIZES[:1]:

        def zeros(value: Any, size: int = size) -> Any:
            if not isinstance(value, KerasTensor):
                return as_tensor(value)
            filled = [size if d is None else d for d in value.shape]
            return fd.zeros((_BATCH if value.shape[0] is None else filled[0], *filled[1:]), dtype=value.dtype)

        with fd.no_grad():
            result = layer(*map_tree(zeros, args), **map_tree(zeros, kwargs))
        layer.take_losses()
        results.append(result)
        shapes.append([tuple(t.shape) for t in leaves(result, fd.Tensor)])
    batch = any(t.shape[:1] == (None,) for t in node.inputs)
    known = iter(range(len(shapes[0])))

    def symbolic(value: Any) -> Any:
        if not isinstance(value, fd.Tensor):
            return value
        k = next(known)
        dims: list[int | None] = [a if all(a == s[k][axis] for s in shapes) else None for axis, a in enumerate(shapes[0][k])]
        if batch and dims:
            dims[0] = None
        return KerasTensor(tuple(dims), str(value.dtype), node, layer.name)

    node.outputs = map_tree(symbolic, results[0])
    return node
