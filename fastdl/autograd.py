"""Gradients: backward, functional transforms, modes, custom rules. The tape itself is C++ (csrc/python/autograd.cpp)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from . import _C
from ._C import Tensor
from .errors import DeviceError, GradError, ShapeError, TypeError_
from .ops.creation import asarray, ones_like, zeros_like


# ---- modes -----------------------------------------------------------------------------------------------------------
class set_grad_enabled:
    """Turns recording on or off: as a statement, context manager or decorator."""

    def __init__(self, mode: bool) -> None:
        self.mode = bool(mode)
        self.before = [_C.set_grad_enabled(self.mode)]

    def __enter__(self) -> set_grad_enabled:
        return self

    def __exit__(self, *exc: Any) -> None:
        _C.set_grad_enabled(self.before.pop())

    def __call__(self, fn: Callable) -> Callable:
        _C.set_grad_enabled(self.before.pop())  # as a decorator it says nothing about the code around it
        return (enable_grad if self.mode else no_grad)()(fn)


class _Mode:
    mode = False

    def __new__(cls, fn: Callable | None = None) -> Any:
        return super().__new__(cls) if fn is None else cls()(fn)  # both @no_grad and @no_grad()

    def __init__(self, fn: None = None) -> None:
        self.before: list[bool] = []

    def __enter__(self) -> _Mode:
        self.before.append(_C.set_grad_enabled(self.mode))
        return self

    def __exit__(self, *exc: Any) -> None:
        _C.set_grad_enabled(self.before.pop())

    def __call__(self, fn: Callable) -> Callable:
        cls = type(self)

        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with cls():
                return fn(*args, **kwargs)

        return wrapper


class no_grad(_Mode):
    """Ops inside are not recorded. Context manager or decorator.

    Examples
    --------
    >>> import fastdl as fd
    >>> x = fd.ones(2, requires_grad=True)
    >>> with fd.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """


class enable_grad(_Mode):
    """Ops inside are recorded, also within no_grad. Context manager or decorator."""

    mode = True


def is_grad_enabled() -> bool:
    """Whether ops are recorded now (per thread)."""
    return _C.grad_enabled()


# ---- backward --------------------------------------------------------------------------------------------------------
def _seed(root: Tensor, grad: Any, what: str) -> Tensor:
    if not root.requires_grad:
        raise GradError(f"{what}: the tensor does not require grad; set requires_grad on an input, or leave no_grad")
    if grad is None:
        if root.size != 1:
            raise GradError(f"{what}: a gradient is needed for an output of shape {root.shape}; only scalars have a default")
        return ones_like(root)
    if isinstance(grad, Tensor):
        if grad.device != root.device:
            raise DeviceError(f"{what}: gradient on {grad.device} for an output on {root.device}; move it with .to(device)")
    else:
        grad = asarray(grad, device=root.device)
    if grad.shape != root.shape:
        raise ShapeError(f"{what}: gradient of shape {grad.shape} for an output of shape {root.shape}")
    return grad if grad.dtype == root.dtype else grad.astype(root.dtype)


def backward(self: Tensor, grad: Any = None, retain_graph: bool = False, create_graph: bool = False) -> None:
    """Adds the gradient of this tensor to ``.grad`` of all leaves that require it.

    Parameters
    ----------
    grad : tensor, optional
        Gradient of something with respect to this tensor; default 1 for a scalar.
    retain_graph : bool
        Keep what the graph saved, for another backward.
    create_graph : bool
        Record the gradients themselves, for higher order.

    Raises
    ------
    GradError
        If nothing requires grad, the graph was freed, or a saved tensor was changed in place.

    Examples
    --------
    >>> import fastdl as fd
    >>> x = fd.array([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward(); x.grad
    array([2., 4.], dtype=float32)
    """
    _C.backward((self,), (_seed(self, grad, "backward"),), None, retain_graph, create_graph)


def gradients(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of the sum of outputs with respect to inputs, without touching ``.grad`` (PyTorch's autograd.grad)."""
    outs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    ins = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    seeds = (grad_outputs,) if grad_outputs is None or isinstance(grad_outputs, Tensor) else tuple(grad_outputs)
    seeds = seeds * len(outs) if seeds == (None,) else seeds
    for x in ins:
        if not x.requires_grad:
            raise GradError(f"gradients: an input of shape {x.shape} does not require grad")
    retain = create_graph if retain_graph is None else retain_graph
    found = _C.backward(outs, tuple(_seed(o, s, "gradients") for o, s in zip(outs, seeds)), ins, retain, create_graph)
    if not allow_unused and any(g is None for g in found):
        raise GradError("gradients: an input was not used for the outputs; pass allow_unused=True to get None")
    return found


# ---- functional transforms -------------------------------------------------------------------------------------------
def _flatten(tree: Any) -> tuple[list[Tensor], Callable[[list], Any]]:
    """Tensors of nested tuples, lists and dicts, and how to put others in their place."""
    leaves: list[Tensor] = []

    def walk(t: Any) -> Callable[[list], Any]:
        if isinstance(t, dict):
            parts = {k: walk(v) for k, v in t.items()}
            return lambda new: {k: p(new) for k, p in parts.items()}
        if isinstance(t, (tuple, list)):
            rebuild, items = type(t), [walk(v) for v in t]
            if hasattr(t, "_fields"):
                return lambda new: rebuild(*(p(new) for p in items))
            return lambda new: rebuild(p(new) for p in items)
        x = asarray(t)
        if x.dtype.kind not in "fc":
            raise GradError(f"grad: cannot differentiate with respect to {x.dtype}; use a float dtype")
        leaves.append(x)
        k = len(leaves) - 1
        return lambda new: new[k]

    return leaves, walk(tree)


def _fresh(x: Tensor, outer: bool) -> Tensor:
    """A leaf for a transform to differentiate; it stays connected to x where an outer gradient wants to pass."""
    return _C.reshape(x, x.shape) if outer and x.requires_grad else x.detach().requires_grad_()


def _reaches_others(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> bool:
    """Whether outputs depend on tensors that require grad other than leaves: also those that a function sees by closure."""
    known = {id(x) for x in leaves}
    return any(id(x) not in known for x in _C.graph_leaves(tuple(outputs))[0])


def value_and_grad(fn: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable:
    """A function that returns fn's value and its gradient with respect to the positional arguments argnums.

    fn must return a scalar (with has_aux: a scalar and anything else). Arguments may be nested tuples, lists and dicts.

    Examples
    --------
    >>> import fastdl as fd
    >>> value, slope = fd.value_and_grad(lambda x: x**3)(2.0)
    >>> float(value), float(slope)
    (8.0, 12.0)
    """
    nums = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        outer = _C.grad_enabled()
        with enable_grad():
            args_list = list(args)
            leaves: list[Tensor] = []
            rebuilds = []
            for k in nums:
                xs, rebuild = _flatten(args[k])
                fresh = [_fresh(x, outer) for x in xs]
                args_list[k] = rebuild(fresh)
                leaves += fresh
                rebuilds.append((len(fresh), rebuild))
            result = fn(*args_list, **kwargs)
            value, aux = result if has_aux else (result, None)
            value = asarray(value)
            if value.size != 1:
                raise GradError(f"grad: the function must return a scalar, not shape {value.shape}; use jacobian or vjp")
            nested = outer and _reaches_others((value,), leaves)
            found = (
                _C.backward((value,), (ones_like(value),), tuple(leaves), nested, nested)
                if value.requires_grad
                else (None,) * len(leaves)
            )
        flat = [zeros_like(x.detach()) if g is None else g for g, x in zip(found, leaves)]
        grads = []
        for n, rebuild in rebuilds:
            grads.append(rebuild(flat[:n]))
            flat = flat[n:]
        gradient = grads[0] if isinstance(argnums, int) else tuple(grads)
        value = value if nested else value.detach()
        return ((value, aux) if has_aux else value), gradient

    return wrapper


def grad(fn: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable:
    """A function that returns the gradient of fn (see value_and_grad); nests for higher order.

    Examples
    --------
    >>> import fastdl as fd
    >>> float(fd.grad(fd.grad(lambda x: x**3))(2.0))
    12.0
    """
    inner = value_and_grad(fn, argnums, has_aux)

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        value, g = inner(*args, **kwargs)
        return (g, value[1]) if has_aux else g

    return wrapper


def vjp(fn: Callable, *primals: Any) -> tuple[Any, Callable]:
    """fn's value and a function from output gradients to input gradients.

    Examples
    --------
    >>> import fastdl as fd
    >>> y, pull = fd.vjp(lambda x: x * x, fd.array([1.0, 2.0]))
    >>> pull(fd.array([1.0, 1.0]))[0].tolist()
    [2.0, 4.0]
    """
    outer = _C.grad_enabled()
    with enable_grad():
        flat = [_flatten(p) for p in primals]
        fresh = [[_fresh(x, outer) for x in xs] for xs, _ in flat]
        out = fn(*(rebuild(xs) for (_, rebuild), xs in zip(flat, fresh)))
    outs, rebuild_out = _flatten(out)
    leaves = tuple(x for xs in fresh for x in xs)
    nested = outer and _reaches_others(outs, leaves)

    def pull(cotangents: Any) -> tuple:
        gs, _ = _flatten(cotangents)
        if len(gs) != len(outs):
            raise ShapeError(f"vjp: {len(gs)} output gradients for {len(outs)} outputs")
        pairs = [(o, _seed(o, g, "vjp")) for o, g in zip(outs, gs) if o.requires_grad]
        create = _C.grad_enabled() and (nested or any(g.requires_grad for _, g in pairs))
        found = list(_C.backward(tuple(o for o, _ in pairs), tuple(g for _, g in pairs), leaves, True, create))
        found = [zeros_like(x.detach()) if g is None else g for g, x in zip(found, leaves)]
        result = []
        for (_, rebuild), xs in zip(flat, fresh):
            result.append(rebuild(found[: len(xs)]))
            found = found[len(xs) :]
        return tuple(result)

    return rebuild_out([o if nested else o.detach() for o in outs]), pull


def jvp(fn: Callable, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """fn's value and its derivative along the tangents, by two reverse passes (the transpose of the vjp is linear in its argument)."""
    if len(primals) != len(tangents):
        raise TypeError_(f"jvp: {len(primals)} primals and {len(tangents)} tangents")
    outer = _C.grad_enabled()
    with enable_grad():
        flat = [_flatten(p) for p in primals]
        fresh = [[_fresh(x, outer) for x in xs] for xs, _ in flat]
        out = fn(*(rebuild(xs) for (_, rebuild), xs in zip(flat, fresh)))
        outs, rebuild_out = _flatten(out)
        leaves = tuple(x for xs in fresh for x in xs)
        dirs = tuple(t if outer else t.detach() for tree in tangents for t in _flatten(tree)[0])
        if len(dirs) != len(leaves):
            raise ShapeError(f"jvp: {len(dirs)} tangents for {len(leaves)} primals")
        nested = outer and (_reaches_others(outs, leaves) or any(t.requires_grad for t in dirs))
        for x, t in zip(leaves, dirs):
            if x.shape != t.shape:
                raise ShapeError(f"jvp: tangent of shape {t.shape} for a primal of shape {x.shape}")
        live = [o for o in outs if o.requires_grad]
        duals = tuple(zeros_like(o.detach()).requires_grad_() for o in live)
        pulled = _C.backward(tuple(live), duals, leaves, True, True) if live else ()
        pairs = [
            (p, t if t.dtype == p.dtype else t.astype(p.dtype)) for p, t in zip(pulled, dirs) if p is not None and p.requires_grad
        ]
        pushed = (
            _C.backward(tuple(p for p, _ in pairs), tuple(t for _, t in pairs), duals, nested, nested)
            if pairs
            else (None,) * len(live)
        )
    moved = iter(pushed)
    result = []
    for o in outs:
        d = next(moved) if o.requires_grad else None
        result.append(zeros_like(o.detach()) if d is None else d)
    return rebuild_out([o if nested else o.detach() for o in outs]), rebuild_out(result)


def jacobian(fn: Callable, argnums: int = 0) -> Callable:
    """A function that returns d fn(x)[i] / d x[j], shape fn(x).shape + x.shape, one reverse pass per output element.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.jacobian(lambda x: x * x)(fd.array([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Tensor:
        from .ops.shape import stack

        def of_x(x: Tensor) -> Tensor:
            a = list(args)
            a[argnums] = x
            return fn(*a, **kwargs)

        x = asarray(args[argnums])
        y, pull = vjp(of_x, x)
        rows = []
        for k in range(y.size):
            g = zeros_like(y.detach()).reshape(-1)
            g[k] = 1
            rows.append(pull(g.reshape(y.shape))[0])
        if not rows:
            return asarray(zeros_like(x)).reshape(-1)[:0].reshape((*y.shape, *x.shape))
        return stack(rows).reshape((*y.shape, *x.shape))

    return wrapper


def hessian(fn: Callable, argnums: int = 0) -> Callable:
    """A function that returns the second derivatives of a scalar function, shape x.shape + x.shape."""
    return jacobian(grad(fn, argnums), argnums)


# ---- custom rules, checkpointing -------------------------------------------------------------------------------------
def _tensors_of(tree: Any) -> tuple[list[Tensor], Callable[[Sequence], Any]]:
    """Like _flatten, for trees in which anything may stand beside the tensors."""
    leaves: list[Tensor] = []

    def walk(t: Any) -> Callable[[Sequence], Any]:
        if isinstance(t, Tensor):
            leaves.append(t)
            k = len(leaves) - 1
            return lambda new: new[k]
        if type(t) is dict:
            parts = {k: walk(v) for k, v in t.items()}
            return lambda new: {k: p(new) for k, p in parts.items()}
        if type(t) in (tuple, list):
            rebuild, items = type(t), [walk(v) for v in t]
            return lambda new: rebuild(p(new) for p in items)
        return lambda new: t

    return leaves, walk(tree)


def _custom_rule(rule: Callable, rebuild: Callable, nout: int, is_tensor: tuple) -> Callable:
    def backward_rule(*values: Tensor) -> tuple:
        found = rule(rebuild(values[nout:]), *values[:nout])
        found = found if isinstance(found, (tuple, list)) else (found,)
        if len(found) == len(is_tensor) != sum(is_tensor):
            found = tuple(g for g, t in zip(found, is_tensor) if t)
        return tuple(found)

    return backward_rule


class custom_vjp:
    """A function with a gradient rule of its own (as jax.custom_vjp).

    ``f.defvjp(forward, backward)``: forward(*args) -> (output, saved); backward(saved, *output_gradients) -> one gradient (or None) per
    tensor argument.

    Examples
    --------
    >>> import fastdl as fd
    >>> @fd.custom_vjp
    ... def clip_gradient(x):
    ...     return x
    >>> clip_gradient.defvjp(lambda x: (x * 1.0, None), lambda saved, g: (fd.clip(g, -1.0, 1.0),))
    >>> x = fd.array(3.0, requires_grad=True)
    >>> (clip_gradient(x) * 5).backward(); float(x.grad)
    1.0
    """

    def __init__(self, fn: Callable) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.forward: Callable | None = None
        self.rule: Callable | None = None

    def defvjp(self, forward: Callable, backward: Callable) -> None:
        """Sets the two functions of the rule."""
        self.forward, self.rule = forward, backward

    def __call__(self, *args: Any) -> Any:
        if self.forward is None or self.rule is None:
            return self.fn(*args)
        with no_grad():
            out, saved = self.forward(*args)
        tensors = tuple(a for a in args if isinstance(a, Tensor))
        if any(t.requires_grad for t in tensors) and _C.grad_enabled():
            kept, rebuild = _tensors_of(saved)
        else:
            kept, rebuild = [], None
        outs = tuple(out) if isinstance(out, (tuple, list)) else (out,)
        outs = tuple(
            _C.reshape(o.detach(), o.shape) if o.requires_grad or any(o is t for t in tensors) else o for o in map(asarray, outs)
        )
        if rebuild is None:
            return outs if isinstance(out, (tuple, list)) else outs[0]
        # The tape holds the saved tensors, not a closure: it notices writes to them, and an output among them makes no cycle.
        is_tensor = tuple(isinstance(a, Tensor) for a in args)
        _C.record(
            outs,
            tensors,
            _custom_rule(self.rule, rebuild, len(outs), is_tensor),
            getattr(self.fn, "__name__", "custom_vjp"),
            tuple(kept),
        )
        return outs if isinstance(out, (tuple, list)) else outs[0]


def checkpoint(fn: Callable, *args: Any, **kwargs: Any) -> Any:
    """fn(*args) without keeping its inner values: they are computed again in backward (Chen et al., arXiv 1604.06174).

    Draws from the default generator (dropout) are replayed; draws from other generators must be restored by the function itself.
    Parameters that fn reaches by closure get their gradients too.

    Examples
    --------
    >>> import fastdl as fd
    >>> x = fd.ones(3, requires_grad=True)
    >>> fd.checkpoint(lambda t: fd.exp(t * 2), x).sum().backward(); x.grad.shape
    (3,)
    """
    from .random import default_generator

    if not _C.grad_enabled():
        return fn(*args, **kwargs)
    state = default_generator.get_state()
    start = _C.graph_clock()
    # Recorded once to find the tensors that fn reaches by closure (parameters); that graph is dropped at once.
    wants = [isinstance(a, Tensor) and a.requires_grad for a in args]
    inputs = [a for a, w in zip(args, wants) if w]
    fresh = [a.detach().requires_grad_() if w else a for a, w in zip(args, wants)]
    out = fn(*fresh, **kwargs)
    several = isinstance(out, (tuple, list))
    outs = tuple(out) if several else (out,)
    reached, older = _C.graph_leaves(tuple(o for o in outs if isinstance(o, Tensor)), start)
    own = {id(f) for f in fresh}
    inputs += [leaf for leaf in reached if id(leaf) not in own]
    outs = tuple(o.detach() for o in outs)
    result = type(out)(outs) if several else outs[0]
    del out, fresh, reached

    def rule(*values: Tensor) -> tuple:
        create = _C.grad_enabled()
        now = default_generator.get_state()
        default_generator.set_state(state)
        try:
            with enable_grad():
                again_args = [_fresh(a, create) if w else a for a, w in zip(args, wants)]
                again = fn(*again_args, **kwargs)
        finally:
            default_generator.set_state(now)
        again = tuple(again) if isinstance(again, (tuple, list)) else (again,)
        explicit = [f for f, w in zip(again_args, wants) if w]
        targets = (*explicit, *inputs[len(explicit) :])
        pairs = [(o, g) for o, g in zip(again, values) if o.requires_grad]
        return _C.backward(tuple(o for o, _ in pairs), tuple(g for _, g in pairs), targets, create or older, create, True)

    kept = (
        *(a for a, w in zip(args, wants) if isinstance(a, Tensor) and not w),
        *inputs,
    )  # a write to one would change the second run
    _C.record(outs, tuple(inputs), rule, "checkpoint", kept)
    return result


class detect_anomaly:
    """Context manager: backward raises GradError when a rule turns finite gradients into NaN (slow; for debugging).

    Every gradient is checked as it is produced, and the message names the op.
    """

    def __enter__(self) -> detect_anomaly:
        self._before = _C.set_anomaly(True)
        return self

    def __exit__(self, *exc: Any) -> None:
        _C.set_anomaly(self._before)
