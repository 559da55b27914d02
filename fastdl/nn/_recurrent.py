"""A recurrent layer's loop over time, with one gradient rule for all of it: products of x, of its gradient and of the weights' gradients
are those of many steps at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import fastdl as fd
from fastdl import _C
from fastdl.errors import ShapeError, ValueError_
from fastdl.op import gradient_of_body


class Cell(ABC):
    """A step behind the products. States are (N, hidden); the first of them is the output, and what the product multiplies."""

    gates = 1
    states = 1
    bias_inside = False  # whether the bias of r cannot be added to x instead

    @abstractmethod
    def step(self, x: fd.Tensor, r: fd.Tensor, states: tuple) -> tuple[tuple, tuple]:
        """The next states, and what `backward` needs beside them, from the input's and the state's part of the sums."""

    @abstractmethod
    def backward(self, grads: tuple, kept: tuple, before: tuple, after: tuple) -> tuple[Any, Any, tuple]:
        """Gradients of x, r and the states (but for what comes through r; None: 0) from those of the next states: of the first one, and of
        others, or None: 0. kept: what `step` gave."""


class ElmanCell(Cell):
    forward: ClassVar = {"tanh": fd.tanh, "relu": fd.relu}
    slope: ClassVar = {"tanh": fd.tanh_backward, "relu": fd.relu_backward}

    def __init__(self, nonlinearity: str) -> None:
        if nonlinearity not in self.forward:
            raise ValueError_(f"RNN: nonlinearity must be 'tanh' or 'relu'; got {nonlinearity!r}")
        self.nonlinearity = nonlinearity

    def step(self, x: fd.Tensor, r: fd.Tensor, states: tuple) -> tuple[tuple, tuple]:
        return (self.forward[self.nonlinearity](x + r),), ()

    def backward(self, grads: tuple, kept: tuple, before: tuple, after: tuple) -> tuple[Any, Any, tuple]:
        d = self.slope[self.nonlinearity](grads[0], after[0])
        return d, d, (None,)


class LSTMCell(Cell):
    gates = 4
    states = 2

    def step(self, x: fd.Tensor, r: fd.Tensor, states: tuple) -> tuple[tuple, tuple]:
        h, c, gates = fd.lstm_cell(x, r, states[1])
        return (h, c), (gates,)

    def backward(self, grads: tuple, kept: tuple, before: tuple, after: tuple) -> tuple[Any, Any, tuple]:
        d, dc = fd.lstm_cell_backward(grads[0], grads[1], kept[0], before[1], after[1])
        return d, d, (None, dc)


class GRUCell(Cell):
    gates = 3
    bias_inside = True

    def step(self, x: fd.Tensor, r: fd.Tensor, states: tuple) -> tuple[tuple, tuple]:
        h, gates = fd.gru_cell(x, r, states[0])
        return (h,), (gates,)

    def backward(self, grads: tuple, kept: tuple, before: tuple, after: tuple) -> tuple[Any, Any, tuple]:
        dx, dr, dh = fd.gru_cell_backward(grads[0], kept[0], before[0])
        return dx, dr, (dh,)


CHUNK_ROWS = 512  # of x, which are multiplied at once: few enough that their product is in the caches when the steps read it


def _named(cell: Cell, inputs: tuple) -> tuple[Any, tuple, Any, Any, Any, Any]:
    """x, states, w_ih, w_hh, b_ih, b_hh of the tensors that `recur` records: biases are the last of them, as far as there are any."""
    n = 1 + cell.states
    b_ih, b_hh = (*inputs[n + 2 :], None, None)[:2]
    return inputs[0], inputs[1:n], inputs[n], inputs[n + 1], b_ih, b_hh


def _chunks(steps: int, rows: int, reverse: bool) -> Iterator[range]:
    """Times in the order of steps, by chunks."""
    size = max(1, CHUNK_ROWS // max(1, rows))
    for k in range(0, steps, size):
        n = min(size, steps - k)
        yield range(steps - 1 - k, steps - 1 - k - n, -1) if reverse else range(k, k + n)


def _part(x: fd.Tensor, times: range) -> fd.Tensor:
    """x at these times, in the order of time."""
    first, last = sorted((times[0], times[-1]))
    return x[first : last + 1]


def _loop(cell: Cell, reverse: bool, inputs: tuple, kept: list | None = None) -> tuple:
    """(outputs (T, N, hidden), *last states). `kept` gets what `backward` needs of every step, in the order of steps."""
    x, states, w_ih, w_hh, b_ih, b_hh = _named(cell, inputs)
    outputs = []
    for times in _chunks(x.shape[0], x.shape[1], reverse):
        sums, start = fd.linear(_part(x, times), w_ih, b_ih), min(times[0], times[-1])
        for t in times:
            states, more = cell.step(sums[t - start], fd.linear(states[0], w_hh, b_hh), states)
            outputs.append(states[0])
            if kept is not None:
                kept.append((*states[1:], *more))
    return (fd.stack(outputs[::-1] if reverse else outputs), *states)


def _add(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


def recur(
    cell: Cell, x: fd.Tensor, states: tuple, w_ih: fd.Tensor, w_hh: fd.Tensor, b_ih: fd.Tensor | None, b_hh: fd.Tensor | None, reverse: bool
) -> tuple:
    """One direction of one layer.

    Parameters
    ----------
    x : Tensor
        Input (T, N, in), T >= 1.
    states : tuple of Tensor
        Before the first step, (N, hidden) each.
    w_ih, w_hh : Tensor
        Weights (gates * hidden, in) and (gates * hidden, hidden).
    b_ih, b_hh : Tensor or None
        Biases (gates * hidden): both, the first, or none.
    reverse : bool
        From the last time to the first.

    Returns
    -------
    tuple
        Outputs (T, N, hidden), and the states after the last step.
    """
    want = (x.shape[1], w_hh.shape[1])
    if any(s.shape != want for s in states):
        raise ShapeError(f"{type(cell).__name__}: initial states have shape {', '.join(str(s.shape) for s in states)}; need {want}")
    if b_ih is None and b_hh is not None:
        raise ValueError_(f"{type(cell).__name__}: got b_hh without b_ih; need both, b_ih or none")
    if b_ih is not None and b_hh is not None and not cell.bias_inside:
        b_ih, b_hh = b_ih + b_hh, None
    inputs = (x, *states, w_ih, w_hh, *(b for b in (b_ih, b_hh) if b is not None))
    if not (_C.grad_enabled() and any(v.requires_grad for v in inputs)):
        return _loop(cell, reverse, inputs)
    nout, nin = 1 + cell.states, len(inputs)

    def rule(needs: tuple, *values: Any) -> tuple:
        grads, given, rest = values[:nout], values[nout : nout + nin], values[nout + nin :]
        if _C.grad_enabled():  # the kernels' results have no gradient: differentiate the formula
            return gradient_of_body(lambda *given: _loop(cell, reverse, given), grads, given, (), needs)
        return _gradients(cell, reverse, needs, grads, given, rest[0], rest[1:])

    kept: list = []
    with fd.no_grad():
        results = _loop(cell, reverse, inputs, kept)
    saved = (*inputs, results[0], *(v for step in kept for v in step))
    return _C.record(results, inputs, rule, type(cell).__name__, saved, selective=True)


def _gradients(cell: Cell, reverse: bool, needs: tuple, grads: tuple, inputs: tuple, outputs: fd.Tensor, kept: tuple) -> tuple:
    """Gradients of the inputs of `recur` from those of its results. kept: of all steps, one after the other."""
    x, first, w_ih, w_hh, *_ = _named(cell, inputs)
    size, more = len(kept) // x.shape[0], cell.states - 1  # kept of a step: states but the first, then what `backward` needs
    need_x, need_states, need_ih, need_hh, need_b_ih, need_b_hh = _named(cell, needs)
    back = 1 if reverse else -1  # from a time to that of the step before
    of_outputs, carried = grads[0], grads[1:]

    def states_after(k: int, t: int) -> tuple:
        return (outputs[t], *kept[k * size : k * size + more]) if k >= 0 else first

    def weight_gradient(g: fd.Tensor, rows: fd.Tensor, weight: bool, bias: Any) -> tuple:
        if bias:
            return fd.linear_backward_weight(g, rows) if weight else (None, fd.sum(g, axis=(0, 1)))
        n = g.shape[0] * g.shape[1]
        return g.reshape((n, g.shape[2])).mT @ rows.reshape((n, rows.shape[2])) if weight else None, None

    dx: list = []
    found: tuple = (None,) * 4
    k = x.shape[0]
    for times in reversed(list(_chunks(x.shape[0], x.shape[1], reverse))):
        of_sums: list = []
        of_products: list = []
        for t in reversed(times):
            k -= 1
            of_h = _add(None if of_outputs is None else of_outputs[t], carried[0])
            if of_h is None:
                of_h = fd.zeros_like(first[0])
            rest = kept[k * size + more : (k + 1) * size]
            g_x, g_r, direct = cell.backward((of_h, *carried[1:]), rest, states_after(k - 1, t + back), states_after(k, t))
            of_sums.append(g_x)
            of_products.append(g_r)
            carried = (_add(direct[0], g_r @ w_hh) if k or need_states[0] else None, *direct[1:])
        if not (need_x or any(needs[1 + cell.states :])):
            continue
        in_time = slice(None) if reverse else slice(None, None, -1)
        g_x = fd.stack(of_sums[in_time])
        if need_x:
            dx.append(g_x @ w_ih)
        of_ih, of_hh = weight_gradient(g_x, _part(x, times), need_ih, need_b_ih), (None, None)
        if need_hh or need_b_hh:
            g_r = g_x if of_products[0] is of_sums[0] else fd.stack(of_products[in_time])
            if k:  # the states before the steps are the outputs, a step back
                before = _part(outputs, range(times.start + back, times.stop + back, times.step))
            else:
                others = [_part(outputs, times[:-1])] if len(times) > 1 else []
                before = fd.concat([*others, first[0][None]] if reverse else [first[0][None], *others])
            of_hh = weight_gradient(g_r, before, need_hh, need_b_hh)
        found = tuple(_add(a, b) for a, b in zip(found, (of_ih[0], of_hh[0], of_ih[1], of_hh[1])))
    return (fd.concat(dx if reverse else dx[::-1]) if dx else None, *carried, *found)[: len(inputs)]
