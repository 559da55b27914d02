"""`fd.summary`: what a model is made of. One forward pass on zeros with hooks on every layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import fastdl as fd

from .attention import MultiheadAttention
from .conv import _Conv
from .linear import Bilinear, Linear
from .module import HookHandle, Module
from .rnn import _Recurrent
from .upsampling import _ConvTranspose


class LayerRow(NamedTuple):
    """One line of a summary."""

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    parameters: int
    flops: int


class Summary:
    """What :func:`summary` found; printing it shows a table.

    Attributes
    ----------
    rows : list of LayerRow
    total_parameters, trainable_parameters : int
        A shared parameter counts once.
    flops : int
        Of one example.
    parameter_bytes : int
        Of parameters and buffers.
    """

    def __init__(self, model: Module, rows: list[LayerRow]) -> None:
        parameters = list(model.parameters())
        self.title = type(model).__name__
        self.rows = rows
        self.total_parameters = sum(p.size for p in parameters)
        self.trainable_parameters = sum(p.size for p in parameters if p.requires_grad)
        self.parameter_bytes = sum(t.nbytes for t in [*parameters, *model.buffers()])
        self.flops = sum(row.flops for row in rows)

    def __str__(self) -> str:
        head = ("layer", "kind", "output shape", "parameters", "FLOPs")
        body = [(r.name, r.kind, _shape(r.output_shape), f"{r.parameters:,}", f"{r.flops:,}") for r in self.rows]
        widths = [max(len(line[k]) for line in [head, *body]) for k in range(5)]

        def text(line: tuple[str, ...]) -> str:
            return "  ".join(c.ljust(w) if k < 3 else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True))).rstrip()

        rule = "-" * (sum(widths) + 8)
        frozen = self.total_parameters - self.trainable_parameters
        foot = [
            f"parameters: {self.total_parameters:,} ({self.trainable_parameters:,} trained, {frozen:,} frozen), {_bytes(self.parameter_bytes)}",
            f"FLOPs of one example: {self.flops:,}",
        ]
        return "\n".join([self.title, rule, text(head), rule, *map(text, body), rule, *foot])

    __repr__ = __str__


def summary(model: Module, input_shape: Any, *, dtype: Any = None, batch_size: int = 1) -> Summary:
    """A table of a model's layers: output shapes, parameters, FLOPs.

    FLOPs are 2 for each multiplication with its addition in linear, convolution, recurrent and attention layers (a bias is one
    addition); cheap layers (activations, norms, pooling) count as 0. Everything is for the forward pass of one example.

    Parameters
    ----------
    model : Module
        Runs once in evaluation mode; its own mode, weights and gradients stay as they are.
    input_shape : tuple of int, or list of such tuples
        Shape of one example, without the batch axis; a list for several inputs.
    dtype : optional
        Of the input; default: the parameters' dtype. Use "int64" for models that begin with an embedding.
    batch_size : int
        The first size of the shapes in the table.

    Returns
    -------
    Summary

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 26 * 26, 10))
    >>> print(fd.summary(net, (1, 28, 28)))
    Sequential
    ---------------------------------------------------
    layer  kind     output shape    parameters    FLOPs
    ---------------------------------------------------
    0      Conv2d   (1, 8, 26, 26)          80  102,752
    1      ReLU     (1, 8, 26, 26)           0        0
    2      Flatten  (1, 5408)                0        0
    3      Linear   (1, 10)             54,090  108,170
    ---------------------------------------------------
    parameters: 54,170 (54,170 trained, 0 frozen), 0.22 MB
    FLOPs of one example: 210,922
    """
    shapes = list(input_shape) if isinstance(input_shape, list) else [tuple(input_shape)]
    first = next(model.parameters(), None)
    kind = fd.dtype(dtype) if dtype is not None else fd.float32 if first is None else first.dtype
    device = None if first is None else first.device
    inputs = [fd.zeros((batch_size, *shape), dtype=kind, device=device) for shape in shapes]
    order = [(name, module) for name, module in model.named_modules() if module._modules == {} or module._parameters or module is model]
    shape_of: dict[int, tuple[int, ...] | None] = {}
    flops: dict[int, int] = {}
    modes = [(module, module.training) for module in model.modules()]
    handles: list[HookHandle] = []

    def watch(module: Module, args: tuple[Any, ...], output: Any) -> None:
        shape_of[id(module)] = _output_shape(output)
        flops[id(module)] = flops.get(id(module), 0) + next((f(module, args, output) for t, f in _FLOPS if isinstance(module, t)), 0)

    try:
        handles += [module.register_forward_hook(watch) for _, module in order]
        model.eval()
        with fd.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.__dict__["training"] = mode
    rows, seen = [], set()
    for name, module in order:
        if module is model and module._modules and not module._parameters:
            continue
        own = {id(p): p.size for p in module._parameters.values() if p is not None and id(p) not in seen}
        seen |= set(own)
        count = flops.get(id(module), 0) // max(batch_size, 1)
        rows.append(LayerRow(name or "(model)", type(module).__name__, shape_of.get(id(module)), sum(own.values()), count))
    return Summary(model, rows)


def _biased(module: Any, output: Any) -> int:
    return output.size if getattr(module, "bias", None) is not None else 0


def _linear(module: Any, args: tuple[Any, ...], output: Any) -> int:
    return 2 * output.size * module.in_features + _biased(module, output)


def _conv(module: Any, args: tuple[Any, ...], output: Any) -> int:
    """Each output element is a dot product of one filter, in_channels / groups x kernel; transposed: each input element, by output."""
    transposed = "Transpose" in type(module).__name__
    dots = args[0].size if transposed else output.size
    return 2 * dots * math.prod(module.weight.shape[1:]) + _biased(module, output)


def _bilinear(module: Any, args: tuple[Any, ...], output: Any) -> int:
    return 2 * (output.size // module.weight.shape[0]) * module.weight.size + _biased(module, output)


def _recurrent(module: Any, args: tuple[Any, ...], output: Any) -> int:
    """Every step of every sequence multiplies with all the matrices."""
    steps = math.prod(args[0].shape[:-1])
    return sum(steps * (2 * p.size if p.ndim > 1 else p.size) for p in module.parameters())


def _attention(module: Any, args: tuple[Any, ...], output: Any) -> int:
    """Projections of query, key and value, scores, and their mean; the output's projection is a Linear with a line of its own."""
    query, key, value = args[:3]
    width = module.embed_dim
    n, length, source = 1, query.shape[0], key.shape[0]
    if query.ndim == 3:
        n, length, source = (query.shape[0], query.shape[1], key.shape[1]) if module.batch_first else (query.shape[1], length, source)
    projections = sum(t.size for t in (query, key, value))
    return 2 * projections * width + (projections if module.in_proj_bias is not None else 0) + 4 * n * length * source * width


_FLOPS: list[tuple[Any, Callable[[Any, tuple[Any, ...], Any], int]]] = [
    (Linear, _linear), (_Conv, _conv), (_ConvTranspose, _conv), (Bilinear, _bilinear), (_Recurrent, _recurrent), (MultiheadAttention, _attention),
]  # fmt: skip


def _output_shape(output: Any) -> tuple[int, ...] | None:
    if isinstance(output, (tuple, list)) and output:
        return _output_shape(output[0])
    return tuple(output.shape) if isinstance(output, fd.Tensor) else None


def _shape(shape: tuple[int, ...] | None) -> str:
    return "not run" if shape is None else str(shape)


def _bytes(n: int) -> str:
    return f"{n / 1e6:,.2f} MB" if n >= 1e5 else f"{n / 1e3:,.2f} kB"
