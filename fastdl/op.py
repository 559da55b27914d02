"""`@op`: turns a stanza (name, docstring, body, vjp) into a callable of the extension.

A stanza is a plain function. Its annotations say how arguments reach the kernel (see `KINDS`): tensors first, then parameters, which
fill the attribute slots of csrc/ops.def in order. If csrc/ops.def has a row of that name, calls go to its kernel without entering
Python; the body, if there is one, is then the op's meaning: the reference in the tests and the gradient that ``vjp="body"`` uses. Without a
row the body is the op.

The vjp is a function, or a tuple with one function (or None) per tensor argument. Its parameter names choose what is kept for backward:
``g`` (gradient of the output; ``g0 g1 ...`` for several), output names (``returns``), argument names, ``<tensor>_shape``, and
``needs`` (which inputs want a gradient). Nothing else is kept alive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import _C
from ._C import Tensor

KINDS = {
    "Tensor": "tensor",
    "Tensor | None": "opt_tensor",
    "Sequence[Tensor]": "tensors",
    "int": "int",
    "bool": "bool",
    "float": "float",
    "Axis": "axis",  # int
    "Axis | None": "axis",  # None: the flattened tensor
    "Axes": "axes",  # None (all), int or tuple of int
    "Pair": "pair",  # int or (int, int)
    "Pair | None": "pair",  # None: the previous pair
    "DTypeLike | None": "dtype",
    "Shape": "shape",
    "Pads": "pads",  # ((before, after), ...) per dimension
    "Any": "object",  # seen by body and vjp only
}

ROWS = {row[0]: row for row in _C.op_table()}
STANZAS: dict[str, Any] = {}  # name -> Op, in order of definition


def _signature(fn: Callable) -> list[tuple]:
    code, hints = fn.__code__, fn.__annotations__
    names = code.co_varnames[: code.co_argcount]
    defaults = fn.__defaults__ or ()
    first_default = len(names) - len(defaults)
    params = []
    for k, name in enumerate(names):
        hint = hints.get(name, "Tensor")
        choices: tuple = ()
        kind: str | None
        if hint.startswith("Literal["):
            kind, choices = "choice", tuple(c.strip(" \"'") for c in hint[8:-1].split(","))
        else:
            kind = KINDS.get(hint)
            if kind is None:
                raise TypeError(f"op {fn.__name__}: no parameter kind for annotation {hint!r} of {name!r}")
        has_default = k >= first_default
        params.append((name, kind, has_default, defaults[k - first_default] if has_default else None, choices))
    return params


def has_body(fn: Callable) -> bool:
    """Whether a stanza's function computes something (is more than its docstring)."""
    import dis

    return any(i.opname not in ("RESUME", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "NOP") for i in dis.get_instructions(fn))


def _tokens(rule: Callable, params: list[tuple], returns: list[str]) -> tuple:
    tensors = {p[0]: k for k, p in enumerate(params) if p[1] in ("tensor", "opt_tensor", "tensors")}
    attrs = {p[0]: k for k, p in enumerate(params)}
    tokens = []
    for name in rule.__code__.co_varnames[: rule.__code__.co_argcount]:
        if name == "g" or (name[0] == "g" and name[1:].isdigit()):
            tokens.append(("g", int(name[1:] or 0)))
        elif name == "needs":
            tokens.append(("needs", 0))
        elif name in returns:
            tokens.append(("out", returns.index(name)))
        elif name in tensors:
            tokens.append(("in", tensors[name]))
        elif name in attrs:
            tokens.append(("attr", attrs[name]))
        elif name.endswith("_shape") and name[:-6] in tensors:
            tokens.append(("shape", tensors[name[:-6]]))
        else:
            raise TypeError(f"vjp parameter {name!r} is neither g, needs, an output ({', '.join(returns)}) nor an argument")
    return tuple(tokens)


def gradient_of_body(body: Callable, g: tuple, inputs: tuple, attrs: tuple, needs: tuple) -> tuple:
    """Gradients of body(*inputs, *attrs) for the inputs in needs, by recording the body."""
    create = _C.grad_enabled()
    _C.set_grad_enabled(True)
    try:
        aliases = tuple(_C.reshape(x, x.shape) if n and create else x.detach().requires_grad_() if n else x for x, n in zip(inputs, needs))
        outputs = body(*aliases, *attrs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    finally:
        _C.set_grad_enabled(create)
    pairs = [(o, gk) for o, gk in zip(outputs, g) if gk is not None and o.requires_grad]
    targets = tuple(a for a, n in zip(aliases, needs) if n)
    found = iter(_C.backward(tuple(o for o, _ in pairs), tuple(gk for _, gk in pairs), targets, False, create))
    return tuple(next(found) if n else None for n in needs)


def _body_rule(body: Callable, ntensors: int, visible: int) -> Callable:
    def rule(*values: Any) -> tuple:
        g, inputs = values[:visible], values[visible : visible + ntensors]
        return gradient_of_body(body, g, inputs, values[visible + ntensors : -1], values[-1])

    return rule


def op(*, vjp: Any = None, returns: str = "y", visible: int = 1, outputs_if: str | None = None, zeros: bool = True) -> Callable[[Callable], Any]:
    """Registers a stanza.

    Parameters
    ----------
    vjp : function, tuple of functions, "body" or None
        The vector-Jacobian product; None: the op has no gradient (or, without a row, the body's ops carry it).
    returns : str
        Names of the kernel's outputs, for the vjp's parameters.
    visible : int
        How many of them a call returns; the others are for backward only.
    outputs_if : str, optional
        Keep outputs for backward only if this parameter differs from its default.
    zeros : bool
        What the vjp gets for a visible output that has no gradient: zeros, or None.
    """

    def register(fn: Callable) -> Any:
        name = fn.__name__
        if name not in ROWS:
            if vjp is not None:
                raise TypeError(f"op {name}: a vjp needs a row in csrc/ops.def; ops without one get their gradient from the body")
            o = _C.Op(name, fn, (), 1, (), False, -1, True)
        else:
            params = _signature(fn)
            outs = returns.split(", ")
            ntensors = sum(p[1] in ("tensor", "opt_tensor", "tensors") for p in params)
            parts: list[tuple] = []
            if vjp == "body":
                tokens = tuple(("g", k) for k in range(visible))
                tokens += tuple(("in", k) for k in range(ntensors)) + tuple(("attr", k) for k in range(ntensors, len(params)))
                parts = [(_body_rule(fn, ntensors, visible), (*tokens, ("needs", 0)))]
            elif isinstance(vjp, tuple):
                parts = [(f, _tokens(f, params, outs) if f else ()) for f in vjp]
            elif vjp is not None:
                parts = [(vjp, _tokens(vjp, params, outs))]
            condition = [p[0] for p in params].index(outputs_if) if outputs_if else -1
            o = _C.Op(name, fn, tuple(params), visible, tuple(parts), not isinstance(vjp, tuple), condition, zeros)
        STANZAS[name] = o
        return o

    return register


__all__ = ["STANZAS", "Tensor", "has_body", "op"]
