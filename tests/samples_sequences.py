"""Rows for attention and the cells of recurrent layers (see samples.py). References are formulas in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from samples import F2, FLOATS, Sample, add, draw, wrong

# ---- attention: sizes are (leading sizes, L, S, E, V, shape of the mask or None, causal) ---------------------------------
ATTENTION = (
    ((2, 3), 5, 7, 4, 6, None, False), ((2,), 33, 40, 8, 16, (33, 40), False), ((3,), 70, 70, 32, 32, None, True), ((), 40, 150, 17, 5, (1, 150), False),
    ((2, 2), 40, 20, 16, 16, None, True), ((2, 2), 9, 40, 1, 1, (2, 1, 9, 40), True), ((1,), 1, 1, 1, 1, None, True), ((0, 3), 4, 4, 4, 4, None, False), ((2,), 3, 0, 4, 4, None, False), ((2,), 0, 3, 4, 4, None, True),
    ((2,), 3, 4, 0, 5, None, False), ((2,), 3, 4, 5, 0, None, False), ((1,), 150, 300, 40, 24, None, True),
)  # fmt: skip


def attention_scores(q: Any, k: Any, mask: Any, causal: bool, scale: float) -> Any:
    s = q @ np.swapaxes(k, -1, -2) * scale + (0 if mask is None else mask)
    return np.where(np.tri(*s.shape[-2:], dtype=bool), s, -np.inf) if causal else s


def attention(q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False, scale: float = 1.0) -> Any:
    s = attention_scores(q, k, mask, causal, scale)
    peak = s.max(-1, keepdims=True, initial=-1e300)
    p = np.exp(s - peak)
    total = p.sum(-1, keepdims=True)
    return p / np.where(total == 0, 1, total) @ v


def attention_args(rng: Any, s: tuple) -> tuple:
    lead, n, m, e, w, mask, causal = s
    return draw(rng, (*lead, n, e)), draw(rng, (*lead, m, e)), draw(rng, (*lead, m, w)), None if mask is None else draw(rng, mask), causal, max(e, 1) ** -0.5


def attention_back_args(rng: Any, s: tuple) -> tuple:
    q, k, v, mask, causal, scale = attention_args(rng, s)
    scores = attention_scores(q, k, mask, causal, scale)
    peak = scores.max(-1, initial=-10)
    y = attention(q, k, v, mask, causal, scale)
    return draw(rng, y.shape), q, k, v, mask, y, peak, 1 / np.exp(scores - peak[..., None]).sum(-1).clip(1e-9), causal, scale


def attention_back(g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, peak: Any, factor: Any, causal: bool, scale: float) -> tuple:
    p = np.exp(attention_scores(q, k, mask, causal, scale) - peak[..., None]) * factor[..., None]
    ds = p * (g @ np.swapaxes(v, -1, -2) - (g * y).sum(-1, keepdims=True)) * scale
    return ds @ k, np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ g


def attention_back_scale(g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, peak: Any, factor: Any, causal: bool, scale: float) -> tuple:
    p = np.exp(attention_scores(q, k, mask, causal, scale) - peak[..., None]) * factor[..., None]
    ds = p * (np.abs(g) @ np.swapaxes(np.abs(v), -1, -2) + np.abs(g * y).sum(-1, keepdims=True)) * scale
    return ds @ np.abs(k) + 1e-30, np.swapaxes(ds, -1, -2) @ np.abs(q) + 1e-30, np.swapaxes(p, -1, -2) @ np.abs(g) + 1e-30


add(Sample("attention", attention_args, attention, ATTENTION, F2, grad=(0, 1, 2, 3), second=True, grad_sizes=(((2,), 3, 4, 2, 3, (3, 4), True), ((), 3, 3, 2, 2, (1, 3), False)), tol=32, scale=lambda q, k, v, *r: attention(q, k, np.abs(v), *r) + 1e-30,
           errors=wrong((lambda fd: fd.attention(fd.ones((2, 3)), fd.ones((4, 5)), fd.ones((4, 5))), "ShapeError"), (lambda fd: fd.attention(fd.ones((2, 3)), fd.ones((4, 3)), fd.ones((4, 3)), fd.ones((3, 4))), "ShapeError"), (lambda fd: fd.attention("a", fd.ones((4, 3)), fd.ones((4, 3))), "TypeError"),
                        (lambda fd: fd.attention(*[fd.ones((4, 3), dtype="float16")] * 3), "TypeError"))))  # fmt: skip
add(Sample("attention_backward", attention_back_args, attention_back, ATTENTION, F2, tol=64, scale=attention_back_scale,
           errors=wrong((lambda fd: fd.attention_backward(*[fd.ones((2, 3))] * 4, None, fd.ones((2, 4)), fd.ones(2), fd.ones(2)), "ShapeError"), (lambda fd: fd.attention_backward(*[fd.ones((2, 3))] * 4, None, fd.ones((2, 3)), fd.ones(3), fd.ones(2)), "ShapeError"),
                        (lambda fd: fd.attention_backward("a"), "TypeError"))))  # fmt: skip


# ---- recurrent cells: sizes are the shape of a state ----------------------------------------------------------------------
STATES = ((1, 1), (3, 4), (5,), (2, 3, 8), (33, 17), (2, 200), (0, 4), (3, 0))


def logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def lstm_cell(x: Any, r: Any, c: Any) -> tuple:
    i, f, g, o = np.split(x + r, 4, -1)
    i, f, g, o = logistic(i), logistic(f), np.tanh(g), logistic(o)
    c = f * c + i * g
    return o * np.tanh(c), c, np.concatenate((i, f, g, o), -1)


def lstm_cell_args(rng: Any, s: tuple) -> tuple:
    return draw(rng, (*s[:-1], 4 * s[-1])), draw(rng, (*s[:-1], 4 * s[-1])), draw(rng, s)


def lstm_cell_back(gh: Any, gc: Any, gates: Any, c: Any, c_next: Any) -> tuple:
    i, f, g, o = np.split(gates, 4, -1)
    y = np.tanh(c_next)
    total = gc + gh * o * (1 - y * y)
    return np.concatenate((total * g * i * (1 - i), total * c * f * (1 - f), total * i * (1 - g * g), gh * y * o * (1 - o)), -1), total * f


def lstm_cell_back_args(rng: Any, s: tuple) -> tuple:
    args = lstm_cell_args(rng, s)
    _, c_next, gates = lstm_cell(*args)
    return draw(rng, s), draw(rng, s), gates, args[2], c_next


def gru_cell(x: Any, r: Any, h: Any) -> tuple:
    (xr, xz, xn), (hr, hz, hn) = np.split(x, 3, -1), np.split(r, 3, -1)
    reset, update = logistic(xr + hr), logistic(xz + hz)
    new = np.tanh(xn + reset * hn)
    return new + update * (h - new), np.concatenate((reset, update, new, hn), -1)


def gru_cell_args(rng: Any, s: tuple) -> tuple:
    return draw(rng, (*s[:-1], 3 * s[-1])), draw(rng, (*s[:-1], 3 * s[-1])), draw(rng, s)


def gru_cell_back(g: Any, gates: Any, h: Any) -> tuple:
    reset, update, new, hn = np.split(gates, 4, -1)
    dn = g * (1 - update) * (1 - new * new)
    dr, dz = dn * hn * reset * (1 - reset), g * (h - new) * update * (1 - update)
    return np.concatenate((dr, dz, dn), -1), np.concatenate((dr, dz, dn * reset), -1), g * update


def gru_cell_back_args(rng: Any, s: tuple) -> tuple:
    x, r, h = gru_cell_args(rng, s)
    return draw(rng, s), gru_cell(x, r, h)[1], h


add(Sample("lstm_cell", lstm_cell_args, lstm_cell, STATES, FLOATS, grad=(0, 1, 2), second=True, grad_sizes=((2, 3),), tol=16, scale=lambda x, r, c: tuple(np.abs(y) + 1 for y in lstm_cell(x, r, c)),
           errors=wrong((lambda fd: fd.lstm_cell(fd.ones((2, 8)), fd.ones((2, 8)), fd.ones((2, 3))), "ShapeError"), (lambda fd: fd.lstm_cell(fd.ones((2, 8)), fd.ones((3, 8)), fd.ones((2, 2))), "ShapeError"),
                        (lambda fd: fd.lstm_cell(fd.ones(4), fd.ones(4), fd.array(1.0)), "ShapeError"), (lambda fd: fd.lstm_cell("a", fd.ones(4), fd.ones(1)), "TypeError"))))  # fmt: skip
add(Sample("lstm_cell_backward", lstm_cell_back_args, lstm_cell_back, STATES, FLOATS, tol=16, scale=lambda gh, gc, *r: (np.concatenate([np.abs(gh) + np.abs(gc)] * 4, -1) * 4, (np.abs(gh) + np.abs(gc)) * 4),
           errors=wrong((lambda fd: fd.lstm_cell_backward(fd.ones((2, 3)), None, fd.ones((2, 8)), fd.ones((2, 2)), fd.ones((2, 2))), "ShapeError"), (lambda fd: fd.lstm_cell_backward(None, None, fd.ones((2, 9)), fd.ones((2, 2)), fd.ones((2, 2))), "ShapeError"),
                        (lambda fd: fd.lstm_cell_backward("a"), "TypeError"))))  # fmt: skip
add(Sample("gru_cell", gru_cell_args, gru_cell, STATES, FLOATS, grad=(0, 1, 2), second=True, grad_sizes=((2, 3),), tol=16, scale=lambda x, r, h: tuple(np.abs(y) + 4 for y in gru_cell(x, r, h)),
           errors=wrong((lambda fd: fd.gru_cell(fd.ones((2, 8)), fd.ones((2, 8)), fd.ones((2, 2))), "ShapeError"), (lambda fd: fd.gru_cell(fd.ones((2, 6)), fd.ones((2, 3)), fd.ones((2, 2))), "ShapeError"), (lambda fd: fd.gru_cell("a", fd.ones(3), fd.ones(1)), "TypeError"))))  # fmt: skip
add(Sample("gru_cell_backward", gru_cell_back_args, gru_cell_back, STATES, FLOATS, tol=16, scale=lambda g, gates, h: (np.concatenate([np.abs(g)] * 3, -1) * 8, np.concatenate([np.abs(g)] * 3, -1) * 8, np.abs(g)),
           errors=wrong((lambda fd: fd.gru_cell_backward(fd.ones((2, 3)), fd.ones((2, 8)), fd.ones((2, 2))), "ShapeError"), (lambda fd: fd.gru_cell_backward(fd.ones((2, 2)), fd.ones((2, 6)), fd.ones((2, 2))), "ShapeError"), (lambda fd: fd.gru_cell_backward("a"), "TypeError"))))  # fmt: skip
