"""Recurrent layers: RNN, LSTM, GRU, over whole sequences (the loop over time: _recurrent.py)."""

from __future__ import annotations

import math
from typing import Any

import fastdl as fd

from . import functional as F, init
from ._recurrent import Cell, ElmanCell, GRUCell, LSTMCell, recur
from .module import Module
from .parameter import Parameter


class _Recurrent(Module):
    """Settings, parameters and the loops over layers and directions; subclasses name their cell."""

    _cell: Cell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if hidden_size < 1 or num_layers < 1 or input_size < 0:
            raise ValueError(f"{name}: need hidden_size and num_layers >= 1; got {hidden_size} and {num_layers}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"{name}: dropout must be in [0, 1]; got {dropout}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.bidirectional = bias, batch_first, dropout, bidirectional
        directions = 2 if bidirectional else 1
        rows = self._cell.gates * hidden_size
        for layer in range(num_layers):
            columns = input_size if layer == 0 else hidden_size * directions
            for suffix in self._suffixes(layer):
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, columns), "weight_hh": (rows, hidden_size)}
                if bias:
                    shapes.update(bias_ih=(rows,), bias_hh=(rows,))
                for kind, shape in shapes.items():
                    self.register_parameter(f"{kind}_{suffix}", Parameter(fd.empty(shape, dtype=dtype, device=device)))
        self.reset_parameters()

    def _suffixes(self, layer: int) -> list[str]:
        return [f"l{layer}", f"l{layer}_reverse"] if self.bidirectional else [f"l{layer}"]

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _run(self, x: fd.Tensor, states: tuple[fd.Tensor, ...], suffix: str) -> tuple[fd.Tensor, tuple[fd.Tensor, ...]]:
        """One direction of one layer: x (T, N, in) -> outputs (T, N, hidden), last states."""
        w_ih, w_hh = getattr(self, f"weight_ih_{suffix}"), getattr(self, f"weight_hh_{suffix}")
        b_ih, b_hh = (getattr(self, f"bias_ih_{suffix}"), getattr(self, f"bias_hh_{suffix}")) if self.bias else (None, None)
        y, *last = recur(self._cell, x, states, w_ih, w_hh, b_ih, b_hh, suffix.endswith("_reverse"))
        return y, tuple(last)

    def forward(self, input: fd.Tensor, hx: Any = None) -> tuple[fd.Tensor, Any]:
        """Outputs of the last layer, and the last states of all layers.

        Parameters
        ----------
        input : Tensor
            (T, N, input_size), (N, T, input_size) with batch_first, or (T, input_size).
        hx : Tensor or tuple of Tensor, optional
            Initial states, (num_layers * directions, N, hidden_size), or without N; default zeros.
        """
        name = type(self).__name__.lower()
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            raise fd.ShapeError(f"{name}: got shape {tuple(input.shape)}; need (T, N, {self.input_size}) or (T, {self.input_size})")
        batched = input.ndim == 3
        x = (fd.swapaxes(input, 0, 1) if self.batch_first else input) if batched else fd.expand_dims(input, 1)
        if not x.shape[0]:
            raise fd.ShapeError(f"{name}: got shape {tuple(input.shape)}; need at least one time step")
        directions = 2 if self.bidirectional else 1
        shape = (self.num_layers * directions, x.shape[1], self.hidden_size)
        given = self._initial(hx, shape, batched, x)
        last: list[tuple[fd.Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = F.dropout(x, self.dropout)
            outputs = []
            for suffix in self._suffixes(layer):
                y, states = self._run(x, tuple(s[len(last)] for s in given), suffix)
                outputs.append(y)
                last.append(states)
            x = outputs[0] if len(outputs) == 1 else fd.concat(outputs, axis=-1)
        final = tuple(fd.stack([states[k] for states in last]) for k in range(self._cell.states))
        if not batched:
            return fd.squeeze(x, axis=1), self._packed(tuple(fd.squeeze(s, axis=1) for s in final))
        return fd.swapaxes(x, 0, 1) if self.batch_first else x, self._packed(final)

    def _packed(self, states: tuple[fd.Tensor, ...]) -> Any:
        return states[0] if self._cell.states == 1 else states

    def _initial(self, hx: Any, shape: tuple[int, ...], batched: bool, x: fd.Tensor) -> tuple[fd.Tensor, ...]:
        if hx is None:
            return (fd.zeros(shape, dtype=x.dtype, device=x.device),) * self._cell.states
        given = tuple(hx) if self._cell.states > 1 else (hx,)
        given = given if batched else tuple(fd.expand_dims(s, 1) for s in given)
        if len(given) != self._cell.states or any(tuple(s.shape) != shape for s in given):
            got = ", ".join(str(tuple(s.shape)) for s in given)
            raise fd.ShapeError(f"{type(self).__name__.lower()}: initial states have shape {got}; need {self._cell.states} of {shape}")
        return given

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        return text + "".join(f", {key}={getattr(self, key)}" for key, value in defaults.items() if getattr(self, key) != value)


class RNN(_Recurrent):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu (Elman, 1990).

    Parameters
    ----------
    input_size, hidden_size : int
    num_layers : int
    nonlinearity : {"tanh", "relu"}
    bias, batch_first : bool
    dropout : float
        Between layers, in training.
    bidirectional : bool
        A second set of layers reads backwards; outputs are joined.
    device, dtype : optional

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> output, h = nn.RNN(3, 5)(fd.ones((7, 2, 3)))
    >>> output.shape, h.shape
    ((7, 2, 5), (1, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype)

    @property
    def _cell(self) -> Cell:  # type: ignore[override]
        return ElmanCell(self.nonlinearity)


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000). Arguments as :class:`RNN`.

    Weights hold the gates in PyTorch's order: input, forget, cell, output. States are the pair (h, c).

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> output, (h, c) = nn.LSTM(3, 5, num_layers=2, batch_first=True)(fd.ones((2, 7, 3)))
    >>> output.shape, h.shape, c.shape
    ((2, 7, 5), (2, 2, 5), (2, 2, 5))
    """

    _cell = LSTMCell()


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al., 2014), in the form PyTorch and cuDNN use. Arguments as :class:`RNN`.

    Weights hold the gates in PyTorch's order: reset, update, new.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> output, h = nn.GRU(3, 5, bidirectional=True)(fd.ones((7, 2, 3)))
    >>> output.shape, h.shape
    ((7, 2, 10), (2, 2, 5))
    """

    _cell = GRUCell()
