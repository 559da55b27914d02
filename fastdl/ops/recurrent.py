"""Cells of recurrent layers behind their matrix products. The gradient kernels are ops; where their own gradient is wanted, the formula
is differentiated instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _C
from ..op import gradient_of_body, op
from .activation import sigmoid
from .elementwise import tanh
from .shape import concat, split

if TYPE_CHECKING:
    from .._C import Tensor


def _lstm_cell(x: Tensor, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    i, f, g, o = split(x + r, 4, -1)
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    c_next = f * c + i * g
    return o * tanh(c_next), c_next, concat((i, f, g, o), -1)


def _lstm_cell_vjp(g0: Any, g1: Any, g2: Any, gates: Tensor, c_next: Tensor, x: Tensor, r: Tensor, c: Tensor, needs: tuple) -> tuple:
    if _C.grad_enabled() or g2 is not None:  # the kernel's results have no gradient, and it knows none of the gates
        return gradient_of_body(_lstm_cell, (g0, g1, g2), (x, r, c), (), needs)
    d, dc = lstm_cell_backward(g0, g1, gates, c, c_next)
    return d, d, dc


@op(vjp=_lstm_cell_vjp, returns="h_next, c_next, gates", visible=3, zeros=False)
def lstm_cell(x: Tensor, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The next states h and c of an LSTM, and its gates: what follows the products of a step.

    Parameters
    ----------
    x, r : Tensor
        (..., 4 H): the input's and the state's part of the gates' sums, in PyTorch's order: input, forget, cell, output. Any float dtype;
        16-bit floats are computed in float32.
    c : Tensor
        (..., H): the cell state before the step.

    Returns
    -------
    tuple of Tensor
        h and c (..., H), and the gates' values (..., 4 H).

    Raises
    ------
    ShapeError
        If x or r is not c's shape with 4 times as many columns.

    Notes
    -----
    Hochreiter & Schmidhuber, "Long short-term memory", 1997; forget gate: Gers, Schmidhuber & Cummins, 2000.

    Examples
    --------
    >>> import fastdl as fd
    >>> h, c, gates = fd.lstm_cell(fd.zeros((2, 12)), fd.zeros((2, 12)), fd.ones((2, 3)))
    >>> c[0].tolist(), gates.shape
    ([0.5, 0.5, 0.5], (2, 12))
    """
    return _lstm_cell(x, r, c)


@op(returns="d, dc", visible=2)
def lstm_cell_backward(
    grad_h: Tensor | None, grad_c: Tensor | None, gates: Tensor, c: Tensor, c_next: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of lstm_cell's x (and r, which is the same) and c from those of the next states (None: 0)."""


def _gru_cell(x: Tensor, r: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    (xr, xz, xn), (hr, hz, hn) = split(x, 3, -1), split(r, 3, -1)
    reset, update = sigmoid(xr + hr), sigmoid(xz + hz)
    new = tanh(xn + reset * hn)
    return new + update * (h - new), concat((reset, update, new, hn), -1)


def _gru_cell_vjp(g0: Any, g1: Any, gates: Tensor, x: Tensor, r: Tensor, h: Tensor, needs: tuple) -> tuple:
    if _C.grad_enabled() or g1 is not None:
        return gradient_of_body(_gru_cell, (g0, g1), (x, r, h), (), needs)
    return gru_cell_backward(g0, gates, h)


@op(vjp=_gru_cell_vjp, returns="h_next, gates", visible=2, zeros=False)
def gru_cell(x: Tensor, r: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """The next state of a GRU, and its gates: what follows the products of a step.

    Parameters
    ----------
    x, r : Tensor
        (..., 3 H): the input's and the state's part of the gates' sums, in PyTorch's order: reset, update, new. Any float dtype; 16-bit
        floats are computed in float32.
    h : Tensor
        (..., H): the state before the step.

    Returns
    -------
    tuple of Tensor
        The next h (..., H), and (..., 4 H): the gates' values and r's part of new.

    Raises
    ------
    ShapeError
        If x or r is not h's shape with 3 times as many columns.

    Notes
    -----
    Cho et al., arXiv 1406.1078, with the reset gate behind the product, as cuDNN has it.

    Examples
    --------
    >>> import fastdl as fd
    >>> h, gates = fd.gru_cell(fd.zeros((2, 9)), fd.zeros((2, 9)), fd.ones((2, 3)))
    >>> h[0].tolist(), gates.shape
    ([0.5, 0.5, 0.5], (2, 12))
    """
    return _gru_cell(x, r, h)


@op(returns="dx, dr, dh", visible=3)
def gru_cell_backward(grad: Tensor, gates: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of gru_cell's x, r and h (without what reaches h through r)."""
