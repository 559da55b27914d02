"""SimpleRNN, LSTM, GRU over (N, T, C), and the wrappers Bidirectional and TimeDistributed. Gates are in Keras's order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastdl as fd
from fastdl import _C
from fastdl.errors import ShapeError, ValueError_
from fastdl.nn import functional as F
from fastdl.nn._recurrent import Cell, ElmanCell, LSTMCell, recur

from .. import activations
from .._serial import pack, unpack
from .._tensor import floating
from .base import Layer


def _slices(x: fd.Tensor) -> Sequence[fd.Tensor]:
    """x[0], x[1], ... whose gradients are put together once, not added up one by one."""
    plain = x.detach()
    rows = tuple([plain[k] for k in range(x.shape[0])])
    return _C.record(rows, (x,), lambda *grads: (fd.stack(grads),), "slices") if rows else rows


class _Recurrent(Layer):
    """Settings, weights and the loop over time; subclasses define one step.

    Weights are kernel (in, gates * units), recurrent_kernel (units, gates * units) and bias, as in Keras.
    """

    _gates = 1
    _states = 1

    def __init__(
        self, units: int, activation: Any = "tanh", use_bias: bool = True, kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal", bias_initializer: Any = "zeros", kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None, bias_regularizer: Any = None, kernel_constraint: Any = None, recurrent_constraint: Any = None,
        bias_constraint: Any = None, dropout: float = 0.0, recurrent_dropout: float = 0.0, return_sequences: bool = False,
        return_state: bool = False, go_backwards: bool = False, unroll: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.units, self.use_bias, self.activation = units, use_bias, activations.get(activation)
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
        self.return_sequences, self.return_state, self.go_backwards = return_sequences, return_state, go_backwards
        self._kernel = dict(initializer=kernel_initializer, regularizer=kernel_regularizer, constraint=kernel_constraint)
        self._recurrent = dict(initializer=recurrent_initializer, regularizer=recurrent_regularizer, constraint=recurrent_constraint)
        self._bias = dict(initializer=bias_initializer, regularizer=bias_regularizer, constraint=bias_constraint)

    def build(self, input_shape: Any) -> None:
        if isinstance(input_shape, list):
            input_shape = input_shape[0]
        if len(input_shape) != 3:
            raise ShapeError(f"{type(self).__name__}: got shape {input_shape}; need (N, T, C)")
        columns = self._gates * self.units
        self.w = self.add_weight((input_shape[-1], columns), name="kernel", axes=(1, 0), **self._kernel)
        self.u = self.add_weight((self.units, columns), name="recurrent_kernel", axes=(1, 0), **self._recurrent)
        self._build_bias(columns)

    def _build_bias(self, columns: int) -> None:
        self.b = self.add_weight((columns,), name="bias", **self._bias) if self.use_bias else None

    def _input_bias(self) -> Any:
        return self.b

    def _parts(self, x: Any) -> Any:
        """(N, gates * units) as one (N, units) per gate."""
        return _slices(fd.swapaxes(x.reshape((x.shape[0], self._gates, self.units)), 0, 1))

    def _cell(self) -> Cell | None:
        """What the steps are, where one rule for all of them is known (nn/_recurrent.py)."""
        return None

    def _step(self, x: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
        """The next states from the input's part of the gates (N, gates * units); the first of them is the output."""
        raise NotImplementedError(f"{type(self).__name__} must define _step(x, states)")

    def call(self, sequences: Any, initial_state: Any = None, training: bool | None = None) -> Any:
        if isinstance(sequences, (list, tuple)):
            sequences, initial_state = sequences[0], list(sequences[1:])
        x = fd.swapaxes(floating(sequences), 0, 1)
        n = x.shape[1]
        if initial_state is None:
            states = (fd.zeros((n, self.units), device=x.device),) * self._states
        else:
            states = tuple(initial_state) if isinstance(initial_state, (list, tuple)) else (initial_state,)
            if len(states) != self._states:
                raise ValueError_(f"{self.name}: got {len(states)} initial states; need {self._states}")
            n = fd.broadcast_shapes((n, self.units), *(s.shape for s in states))[0]
            states = tuple(fd.broadcast_to(s, (n, self.units)) for s in states)
            x = fd.broadcast_to(x, (x.shape[0], n, x.shape[2]))
        if self.training and self.dropout:
            x = x * F.dropout(fd.ones((1, n, x.shape[2])), self.dropout)
        mask = F.dropout(fd.ones((n, self.units)), self.recurrent_dropout) if self.training and self.recurrent_dropout else None
        cell = self._cell() if mask is None and x.shape[0] else None
        if cell is not None:
            y, *last = recur(cell, x, states, self.w, self.u, self._input_bias(), None, self.go_backwards)
            if self.return_sequences:
                y = fd.swapaxes(fd.flip(y, axis=0) if self.go_backwards else y, 0, 1)
            else:
                y = last[0]
            return [y, *last] if self.return_state else y
        steps = list(_slices(fd.linear(x, self.w, self._input_bias())))
        outputs = []
        for step in reversed(steps) if self.go_backwards else steps:
            states = self._step(step, states if mask is None else (states[0] * mask, *states[1:]))
            outputs.append(states[0])
        y = fd.stack(outputs, axis=1) if self.return_sequences else outputs[-1]
        return [y, *states] if self.return_state else y


class SimpleRNN(_Recurrent):
    """h' = activation(x @ kernel + h @ recurrent_kernel + bias).

    Parameters
    ----------
    units : int
    activation : str or callable
    use_bias : bool
    dropout, recurrent_dropout : float
        Of the inputs and of the states, one draw for all steps.
    return_sequences, return_state, go_backwards : bool

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import keras
    >>> keras.layers.SimpleRNN(4, return_sequences=True)(np.ones((2, 5, 3))).shape
    (2, 5, 4)
    """

    def _cell(self) -> Cell | None:
        known = [name for name in ("tanh", "relu") if self.activation is activations.get(name)]
        return ElmanCell(known[0]) if known else None

    def _step(self, x: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.activation(x + fd.linear(states[0], self.u)),)


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997); gates input, forget, cell, output. Other arguments: :class:`SimpleRNN`."""

    _gates = 4
    _states = 2

    def __init__(
        self, units: int, activation: Any = "tanh", recurrent_activation: Any = "sigmoid", use_bias: bool = True,
        unit_forget_bias: bool = True, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(units, activation, use_bias, **kwargs)
        self.recurrent_activation, self.unit_forget_bias = activations.get(recurrent_activation), unit_forget_bias

    def _build_bias(self, columns: int) -> None:
        super()._build_bias(columns)
        if self.b is not None and self.unit_forget_bias:
            with fd.no_grad():
                self.b[self.units : 2 * self.units] = 1.0

    def _cell(self) -> Cell | None:
        usual = self.activation is activations.get("tanh") and self.recurrent_activation is activations.get("sigmoid")
        return LSTMCell() if usual else None

    def _step(self, x: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
        h, c = states
        i, f, g, o = self._parts(x + fd.linear(h, self.u))
        gate = self.recurrent_activation
        c = gate(f) * c + gate(i) * self.activation(g)
        return gate(o) * self.activation(c), c


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al., 2014); gates update, reset, new. `reset_after` applies the reset after the product, as cuDNN does.

    Other arguments: :class:`SimpleRNN`.
    """

    _gates = 3

    def __init__(
        self, units: int, activation: Any = "tanh", recurrent_activation: Any = "sigmoid", use_bias: bool = True, reset_after: bool = True,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(units, activation, use_bias, **kwargs)
        self.recurrent_activation, self.reset_after = activations.get(recurrent_activation), reset_after

    def _build_bias(self, columns: int) -> None:
        shape = (2, columns) if self.reset_after else (columns,)
        self.b = self.add_weight(shape, name="bias", **self._bias) if self.use_bias else None

    def _input_bias(self) -> Any:
        return self.b[0] if self.b is not None and self.reset_after else self.b

    def _step(self, x: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
        h, u, gate = states[0], self.units, self.recurrent_activation
        xz, xr, xn = self._parts(x)
        if self.reset_after:
            hz, hr, hn = self._parts(fd.linear(h, self.u, None if self.b is None else self.b[1]))
            z, r = gate(xz + hz), gate(xr + hr)
            new = self.activation(xn + r * hn)
        else:
            first = fd.linear(h, self.u[: 2 * u])
            z, r = gate(xz + first[:, :u]), gate(xr + first[:, u:])
            new = self.activation(xn + fd.linear(r * h, self.u[2 * u :]))
        return (z * h + (1.0 - z) * new,)


class Bidirectional(Layer):
    """A recurrent layer and a copy that reads backwards; their outputs are joined by `merge_mode` ("concat", "sum", "mul", "ave", None)."""

    def __init__(self, layer: Any, merge_mode: str | None = "concat", weights: Any = None, backward_layer: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if merge_mode not in ("concat", "sum", "mul", "ave", None):
            raise ValueError_(f"Bidirectional: merge_mode must be 'concat', 'sum', 'mul', 'ave' or None; got {merge_mode!r}")
        packed = pack(layer)
        self.merge_mode = merge_mode
        if "input_shape" not in kwargs and layer._given_shape is not None:
            self.__dict__["_given_shape"] = layer._given_shape
        self.forward_layer = unpack({**packed, "config": {**packed["config"], "name": f"forward_{layer.name}"}}, {packed["class"]: type(layer)})
        if backward_layer is None:
            config = {**packed["config"], "name": f"backward_{layer.name}", "go_backwards": not layer.go_backwards}
            backward_layer = unpack({**packed, "config": config}, {packed["class"]: type(layer)})
        self.backward_layer = backward_layer

    def call(self, x: Any, initial_state: Any = None) -> Any:
        half = None if initial_state is None else len(initial_state) // 2
        one = self.forward_layer(x) if half is None else self.forward_layer(x, initial_state=initial_state[:half])
        two = self.backward_layer(x) if half is None else self.backward_layer(x, initial_state=initial_state[half:])
        states: list[Any] = []
        if self.forward_layer.return_state:
            (one, *first), (two, *second) = one, two
            states = [*first, *second]
        if self.forward_layer.return_sequences:
            two = fd.flip(two, axis=1)
        if self.merge_mode is None:
            joined: Any = [one, two]
        elif self.merge_mode == "concat":
            joined = fd.concat([one, two], axis=-1)
        else:
            joined = {"sum": lambda: one + two, "mul": lambda: one * two, "ave": lambda: (one + two) / 2}[self.merge_mode]()
        if not states:
            return joined
        return [*(joined if isinstance(joined, list) else [joined]), *states]


class TimeDistributed(Layer):
    """The layer applied to each step of (N, T, ...)."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layer = layer

    def call(self, x: Any) -> Any:
        n, t = x.shape[:2]
        y = self.layer(x.reshape((n * t, *x.shape[2:])))
        return y.reshape((n, t, *y.shape[1:]))
