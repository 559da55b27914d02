"""Rows for products, convolution, pooling, losses, normalisation, indexing, random numbers and optimiser steps (see samples.py). References
are plain loops in float64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import samples_sequences  # noqa: F401
from samples import F2, FLOATS, Sample, add, draw, moved, wrong

# ---- products --------------------------------------------------------------------------------------------------------
MATMUL = ((1, 1, 1), (2, 3, 4), (7, 5, 9), (16, 16, 16), (17, 33, 15), (64, 70, 65), (1, 130, 50), (50, 130, 1), (0, 3, 4), (3, 0, 4), (130, 300, 45))
add(Sample("matmul", lambda rng, s: (draw(rng, s[:2]), draw(rng, s[1:])), np.matmul, MATMUL, (*FLOATS, "int32", "int64", "uint8"), grad=(0, 1), second=True, grad_sizes=((2, 3, 4), (7, 5, 9)), tol=8,
           scale=lambda a, b: np.abs(a) @ np.abs(b) + 1e-30,
           errors=wrong((lambda fd: fd.matmul(fd.ones((2, 3)), fd.ones((4, 5))), "ShapeError"), (lambda fd: fd.matmul(fd.ones((2, 3)), "a"), "TypeError"), (lambda fd: fd.matmul(fd.ones((2, 2, 3)), fd.ones((3, 3, 2))), "ShapeError"))))  # fmt: skip


def linear(x: Any, w: Any, b: Any = None, activation: str = "none") -> Any:
    y = x @ w.T + (0 if b is None else b)
    return {"none": lambda v: v, "relu": lambda v: np.maximum(v, 0), "sigmoid": lambda v: 1 / (1 + np.exp(-v)), "tanh": np.tanh}[activation](y)


LINEAR = tuple(itertools.product(((1, 1, 1), (4, 3, 2), (65, 33, 17), (0, 3, 2), (3, 0, 2), (64, 100, 10)), ("none", "relu", "sigmoid", "tanh")))
add(Sample("linear", lambda rng, s: (draw(rng, (s[0][0], s[0][1])), draw(rng, (s[0][2], s[0][1])), draw(rng, s[0][2]), s[1]), linear, LINEAR, FLOATS, grad=(0, 1, 2), second=True,
           grad_sizes=(((4, 3, 2), "none"), ((4, 3, 2), "tanh"), ((4, 3, 2), "sigmoid"), ((4, 3, 2), "relu")), tol=12, scale=lambda x, w, b, a: np.abs(x) @ np.abs(w).T + np.abs(b) + 1,
           errors=wrong((lambda fd: fd.linear(fd.ones((2, 3)), fd.ones((4, 5))), "ShapeError"), (lambda fd: fd.linear(fd.ones((2, 3)), fd.ones((4, 3)), fd.ones(3)), "ShapeError"), (lambda fd: fd.linear(fd.ones((2, 3)), fd.ones((4, 3)), None, "swish"), "ValueError"))))  # fmt: skip
add(Sample("linear_backward_weight", lambda rng, s: (draw(rng, (s[0], s[2])), draw(rng, (s[0], s[1]))), lambda g, x: (g.T @ x, g.sum(0)), ((1, 1, 1), (4, 3, 2), (65, 33, 17), (300, 20, 40)), FLOATS,
           grad=(0, 1), second=True, grad_sizes=((4, 3, 2),), tol=80, scale=lambda g, x: (np.abs(g).T @ np.abs(x), np.abs(g).sum(0)),
           errors=wrong((lambda fd: fd.linear_backward_weight(fd.ones((2, 3)), fd.ones((4, 5))), "ShapeError"), (lambda fd: fd.linear_backward_weight("a", fd.ones((4, 5))), "TypeError"), (lambda fd: fd.linear_backward_weight(fd.ones((2, 3))), "TypeError"))))  # fmt: skip


# ---- convolution: sizes are (N, C, H, W, O, K, stride, padding, dilation, groups) --------------------------------------
def pad2(x: Any, p: int, value: float = 0.0) -> Any:
    return np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)), constant_values=value)


def windows(x: Any, k: int, s: int, d: int) -> Any:
    """(N, C, OH, OW, K, K) view of x."""
    n, c, h, w = x.shape
    oh, ow = (h - d * (k - 1) - 1) // s + 1, (w - d * (k - 1) - 1) // s + 1
    a, b, e, f = x.strides
    return np.lib.stride_tricks.as_strided(x, (n, c, oh, ow, k, k), (a, b, e * s, f * s, e * d, f * d))


def conv(x: Any, w: Any, b: Any = None, s: int = 1, p: int = 0, d: int = 1, groups: int = 1, activation: str = "none") -> Any:
    k = w.shape[2]
    v = windows(pad2(x, p), k, s, d)
    g, o = groups, w.shape[0]
    v = v.reshape(v.shape[0], g, x.shape[1] // g, *v.shape[2:])
    y = np.einsum("ngchwij,gocij->ngohw", v, w.reshape(g, o // g, -1, k, k)).reshape(x.shape[0], o, *v.shape[3:5])
    y = y if b is None else y + b[None, :, None, None]
    return np.maximum(y, 0) if activation == "relu" else y


def conv_input(g: Any, w: Any, s: int, p: int, d: int, groups: int, size: tuple) -> Any:
    n, o, oh, ow = g.shape
    c, k = w.shape[1] * groups, w.shape[2]
    x = np.zeros((n, c, size[0] + 2 * p, size[1] + 2 * p))
    w4 = w.reshape(groups, o // groups, -1, k, k)
    g4 = g.reshape(n, groups, o // groups, oh, ow)
    for i, j in itertools.product(range(k), range(k)):
        part = np.einsum("ngohw,goc->ngchw", g4, w4[:, :, :, i, j]).reshape(n, c, oh, ow)
        x[:, :, i * d : i * d + (oh - 1) * s + 1 : s, j * d : j * d + (ow - 1) * s + 1 : s] += part
    return x[:, :, p : p + size[0], p : p + size[1]]


def conv_weight(g: Any, x: Any, s: int, p: int, d: int, groups: int, size: tuple) -> Any:
    v = windows(pad2(x, p), size[0], s, d)[:, :, : g.shape[2], : g.shape[3]]
    v = v.reshape(v.shape[0], groups, x.shape[1] // groups, *v.shape[2:])
    g4 = g.reshape(g.shape[0], groups, g.shape[1] // groups, *g.shape[2:])
    return np.einsum("ngohw,ngchwij->gocij", g4, v).reshape(g.shape[1], -1, *size), g.sum((0, 2, 3))


CONV = (
    (2, 3, 8, 9, 4, 3, 1, 1, 1, 1), (1, 1, 5, 5, 1, 1, 1, 0, 1, 1), (2, 4, 7, 7, 6, 3, 2, 1, 1, 2), (1, 8, 9, 8, 8, 3, 1, 1, 1, 8),
    (2, 1, 12, 12, 32, 3, 1, 0, 1, 1), (1, 16, 6, 6, 24, 1, 1, 0, 1, 1), (1, 3, 15, 15, 5, 7, 2, 3, 1, 1), (2, 4, 11, 9, 5, 3, 1, 2, 2, 1),
    (1, 20, 4, 4, 33, 3, 1, 1, 1, 1), (2, 6, 9, 9, 6, 2, 3, 0, 1, 3), (0, 3, 8, 8, 4, 3, 1, 1, 1, 1), (1, 40, 14, 14, 70, 3, 1, 1, 1, 1), (1, 12, 6, 7, 24, 3, 2, 1, 1, 12),
    (4, 33, 16, 15, 40, 3, 1, 1, 1, 1),  # enough tiles and channels for Winograd
)  # fmt: skip
SMALL_CONV = (CONV[0], CONV[2], CONV[3], CONV[7])


def conv_args(rng: Any, s: tuple) -> tuple:
    n, c, h, w, o, k, st, p, d, g = s
    return draw(rng, (n, c, h, w)), draw(rng, (o, c // g, k, k)), draw(rng, o), st, p, d, g


def conv_out(s: tuple) -> tuple:
    n, _c, h, w, o, k, st, p, d, _g = s
    return n, o, (h + 2 * p - d * (k - 1) - 1) // st + 1, (w + 2 * p - d * (k - 1) - 1) // st + 1


def conv_scale(x: Any, w: Any, b: Any, *rest: Any) -> Any:
    return conv(np.abs(x), np.abs(w), np.abs(b), *rest[:4]) + 1e-30


add(Sample("conv2d", conv_args, conv, CONV, FLOATS, grad=(0, 1, 2), second=True, grad_sizes=SMALL_CONV, tol=12, scale=conv_scale,
           errors=wrong((lambda fd: fd.conv2d(fd.ones((1, 2, 4, 4)), fd.ones((3, 3, 3, 3))), "ShapeError"), (lambda fd: fd.conv2d(fd.ones((1, 2, 2, 2)), fd.ones((3, 2, 3, 3))), "ShapeError"),
                        (lambda fd: fd.conv2d(fd.ones((1, 2, 4, 4)), fd.ones((3, 2, 3, 3)), None, 0), "ValueError"))))  # fmt: skip
add(Sample("conv2d_backward_input", lambda rng, s: (draw(rng, conv_out(s)), draw(rng, (s[4], s[1] // s[9], s[5], s[5])), *s[6:], s[2:4]), conv_input, CONV, FLOATS, grad=(0, 1), second=True, grad_sizes=SMALL_CONV, tol=16,
           scale=lambda g, w, *r: conv_input(np.abs(g), np.abs(w), *r) + 1e-30,
           errors=wrong((lambda fd: fd.conv2d_backward_input(fd.ones((1, 2, 4, 4)), fd.ones((3, 3, 3, 3)), 1, 0, 1, 1, 6), "ShapeError"), (lambda fd: fd.conv2d_backward_input("a", fd.ones((3, 3, 3, 3))), "TypeError"),
                        (lambda fd: fd.conv2d_backward_input(fd.ones((1, 3, 4, 4)), fd.ones((3, 3, 3, 3)), 1, 0, 1, 1, 60), "ShapeError"))))  # fmt: skip
add(Sample("conv2d_backward_weight", lambda rng, s: (draw(rng, conv_out(s)), draw(rng, s[:4]), *s[6:], (s[5], s[5])), conv_weight, CONV, FLOATS, grad=(0, 1), second=True, grad_sizes=SMALL_CONV, tol=24,
           scale=lambda g, x, *r: tuple(v + 1e-30 for v in conv_weight(np.abs(g), np.abs(x), *r)),
           errors=wrong((lambda fd: fd.conv2d_backward_weight(fd.ones((1, 2, 4, 4)), fd.ones((3, 3, 3, 3)), 1, 0, 1, 1, 3), "ShapeError"), (lambda fd: fd.conv2d_backward_weight("a", fd.ones((3, 3, 3, 3))), "TypeError"),
                        (lambda fd: fd.conv2d_backward_weight(fd.ones((1, 3, 4, 4)), fd.ones((1, 3, 6, 6)), 1, 0, 1, 0, 3), "ValueError"))))  # fmt: skip

# ---- pooling: sizes are (shape, kernel, stride, padding) ---------------------------------------------------------------
POOL = (((2, 3, 8, 8), 2, 2, 0), ((1, 1, 5, 7), 3, 2, 1), ((2, 17, 9, 9), 3, 1, 1), ((1, 4, 6, 6), 2, 1, 0), ((1, 33, 4, 4), 4, 4, 0), ((1, 2, 7, 7), 3, 3, 1), ((0, 2, 4, 4), 2, 2, 0), ((3, 16, 12, 10), 2, 2, 0))


def max_pool(x: Any, k: int, s: int, p: int) -> Any:
    return windows(pad2(x, p, -np.inf), k, s, 1).max((-1, -2))


def max_taps(x: Any, k: int, s: int, p: int) -> Any:
    v = windows(pad2(x, p, -np.inf), k, s, 1)
    return v.reshape(*v.shape[:4], k * k).argmax(-1)


def max_pool_back(g: Any, taps: Any, k: int, s: int, p: int, d: int, ceil: bool, count: bool, size: tuple) -> Any:
    n, c, oh, ow = g.shape
    x = np.zeros((n, c, size[0] + 2 * p, size[1] + 2 * p))
    for i, j in itertools.product(range(oh), range(ow)):
        t = taps[:, :, i, j]
        np.add.at(x, (np.arange(n)[:, None], np.arange(c)[None], i * s + t // k, j * s + t % k), g[:, :, i, j])
    return x[:, :, p : p + size[0], p : p + size[1]]


def avg_pool(x: Any, k: int, s: int, p: int) -> Any:
    return windows(pad2(x, p), k, s, 1).mean((-1, -2))


def avg_pool_back(g: Any, k: int, s: int, p: int, d: int, ceil: bool, count: bool, size: tuple) -> Any:
    n, c, oh, ow = g.shape
    x = np.zeros((n, c, size[0] + 2 * p, size[1] + 2 * p))
    for i, j in itertools.product(range(oh), range(ow)):
        x[:, :, i * s : i * s + k, j * s : j * s + k] += g[:, :, i : i + 1, j : j + 1] / (k * k)
    return x[:, :, p : p + size[0], p : p + size[1]]


def distinct(rng: Any, shape: Any) -> Any:
    """Values far enough apart that differences of 1e-6 change no maximum; exact in bfloat16 for small sizes."""
    n = math.prod(shape)
    return (rng.permutation(n).reshape(shape) - n / 2) / 32.0


pool_errors = lambda name: wrong((lambda fd: getattr(fd, name)(fd.ones((2, 2)), 2), "ShapeError"), (lambda fd: getattr(fd, name)(fd.ones((1, 1, 4, 4)), 0), "ValueError"),  # noqa: E731
                                 (lambda fd: getattr(fd, name)(fd.ones((1, 1, 4, 4)), (1, 2, 3)), "ValueError"))  # fmt: skip
back_errors = lambda name: wrong((lambda fd: getattr(fd, name)(), "TypeError"), (lambda fd: getattr(fd, name)("a", 2), "TypeError"), (lambda fd: getattr(fd, name)(fd.ones(3), fd.ones(3), 2), "error"))  # noqa: E731  # fmt: skip
small_pool = POOL[:2] + POOL[5:6]
add(Sample("max_pool2d", lambda rng, s: (distinct(rng, s[0]), *s[1:]), max_pool, POOL, FLOATS, grad=(0,), second=True, grad_sizes=small_pool, errors=pool_errors("max_pool2d")))
add(Sample("avg_pool2d", lambda rng, s: (draw(rng, s[0]), *s[1:]), avg_pool, POOL, FLOATS, grad=(0,), second=True, grad_sizes=small_pool, tol=8, scale=lambda x, *r: avg_pool(np.abs(x), *r) + 0.01, errors=pool_errors("avg_pool2d")))
add(Sample("max_pool2d_backward", lambda rng, s: (draw(rng, max_pool(np.zeros(s[0]), *s[1:]).shape), max_taps(distinct(rng, s[0]), *s[1:]).astype(np.uint8), *s[1:], 1, False, True, s[0][2:]), max_pool_back, POOL, FLOATS,
           grad=(0,), second=True, grad_sizes=small_pool, tol=8, scale=lambda g, t, *r: max_pool_back(np.abs(g), t, *r) + 1e-30, errors=back_errors("max_pool2d_backward")))  # fmt: skip
add(Sample("avg_pool2d_backward", lambda rng, s: (draw(rng, avg_pool(np.zeros(s[0]), *s[1:]).shape), *s[1:], 1, False, True, s[0][2:]), avg_pool_back, POOL, FLOATS, grad=(0,), second=True, grad_sizes=small_pool, tol=8,
           scale=lambda g, *r: avg_pool_back(np.abs(g), *r) + 1e-30, errors=back_errors("avg_pool2d_backward")))  # fmt: skip
ADAPTIVE = (((2, 3, 8, 8), (1, 1)), ((1, 5, 7, 9), (3, 4)), ((2, 17, 6, 6), (6, 6)), ((1, 2, 5, 5), (7, 7)), ((1, 16, 12, 12), (5, 3)))


def cells(n: int, out: int) -> list:
    return [(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]


def adaptive(f: Any) -> Any:
    def pool(x: Any, size: tuple) -> Any:
        return np.stack([np.stack([f(x[:, :, a:b, c:d]) for c, d in cells(x.shape[3], size[1])], -1) for a, b in cells(x.shape[2], size[0])], -2)

    return pool


adaptive_avg, adaptive_max = adaptive(lambda v: v.mean((2, 3))), adaptive(lambda v: v.max((2, 3)))


def adaptive_avg_back(g: Any, size: tuple) -> Any:
    x = np.zeros((*g.shape[:2], *size))
    for (i, (a, b)), (j, (c, d)) in itertools.product(enumerate(cells(size[0], g.shape[2])), enumerate(cells(size[1], g.shape[3]))):
        x[:, :, a:b, c:d] += g[:, :, i, j][:, :, None, None] / ((b - a) * (d - c))
    return x


def adaptive_index(x: Any, size: tuple) -> Any:
    """h * W + w of each cell's maximum."""
    w = x.shape[3]
    place = np.arange(x.shape[2] * w).reshape(x.shape[2:])

    def best(v: Any, p: Any) -> Any:
        return p.reshape(-1)[v.reshape(*v.shape[:2], -1).argmax(-1)]

    return np.stack([np.stack([best(x[:, :, a:b, c:d], place[a:b, c:d]) for c, d in cells(w, size[1])], -1) for a, b in cells(x.shape[2], size[0])], -2)


def adaptive_max_back(g: Any, idx: Any, size: tuple) -> Any:
    n, c = g.shape[:2]
    x = np.zeros((n, c, size[0] * size[1]))
    np.add.at(x, (np.arange(n)[:, None, None], np.arange(c)[None, :, None], idx.reshape(n, c, -1)), g.reshape(n, c, -1))
    return x.reshape(n, c, *size)


adaptive_errors = lambda name: wrong((lambda fd: getattr(fd, name)(fd.ones((2, 2)), 2), "ShapeError"), (lambda fd: getattr(fd, name)(fd.ones((1, 1, 4, 4)), -1), "ValueError"), (lambda fd: getattr(fd, name)("a", 2), "TypeError"))  # noqa: E731  # fmt: skip
add(Sample("adaptive_avg_pool2d", lambda rng, s: (draw(rng, s[0]), s[1]), adaptive_avg, ADAPTIVE, FLOATS, grad=(0,), second=True, grad_sizes=ADAPTIVE[:2], tol=8, scale=lambda x, s: adaptive_avg(np.abs(x), s) + 0.01, errors=adaptive_errors("adaptive_avg_pool2d")))  # fmt: skip
add(Sample("adaptive_max_pool2d", lambda rng, s: (distinct(rng, s[0]), s[1]), adaptive_max, ADAPTIVE, FLOATS, grad=(0,), second=True, grad_sizes=ADAPTIVE[:2], errors=adaptive_errors("adaptive_max_pool2d")))
add(Sample("adaptive_avg_pool2d_backward", lambda rng, s: (draw(rng, (*s[0][:2], *s[1])), s[0][2:]), adaptive_avg_back, ADAPTIVE, FLOATS, grad=(0,), second=True, grad_sizes=ADAPTIVE[:2], tol=8,
           scale=lambda g, s: adaptive_avg_back(np.abs(g), s), errors=adaptive_errors("adaptive_avg_pool2d_backward")))  # fmt: skip
add(Sample("adaptive_max_pool2d_backward", lambda rng, s: (draw(rng, (*s[0][:2], *s[1])), adaptive_index(distinct(rng, s[0]), s[1]), s[0][2:]), adaptive_max_back, ADAPTIVE, F2, grad=(0,), second=True,
           grad_sizes=ADAPTIVE[:2], tol=8, scale=lambda g, i, s: adaptive_max_back(np.abs(g), i, s) + 1e-30, errors=back_errors("adaptive_max_pool2d_backward")))  # fmt: skip


# ---- softmax, losses ---------------------------------------------------------------------------------------------------
def log_softmax(x: Any, axis: int) -> Any:
    z = x - x.max(axis, keepdims=True)
    return z - np.log(np.exp(z).sum(axis, keepdims=True))


SOFT = tuple((s, a) for s in ((1,), (5,), (3, 4), (33, 65), (2, 3, 5), (2, 1000), (4, 5, 6, 7)) for a in (0, -1))
soft_small = (((5,), 0), ((3, 4), 0), ((3, 4), -1))
bad_soft = lambda name: wrong((lambda fd: getattr(fd, name)(fd.ones((2, 3)), 5), "IndexError"), (lambda fd: getattr(fd, name)(fd.ones((2, 3)), 1.5), "TypeError"), (lambda fd: getattr(fd, name)("text", 0), "TypeError"))  # noqa: E731  # fmt: skip
add(Sample("softmax", lambda rng, s: (4 * draw(rng, s[0]), s[1]), lambda x, a: np.exp(log_softmax(x, a)), SOFT, FLOATS, grad=(0,), second=True, grad_sizes=soft_small, tol=16, errors=bad_soft("softmax")))
add(Sample("log_softmax", lambda rng, s: (4 * draw(rng, s[0]), s[1]), log_softmax, SOFT, FLOATS, grad=(0,), second=True, grad_sizes=soft_small, tol=16, scale=lambda x, a: np.abs(log_softmax(x, a)) + np.abs(x).max(initial=0) + 1, errors=bad_soft("log_softmax")))  # fmt: skip
two = lambda name: wrong((lambda fd: getattr(fd, name)(fd.ones((2, 3)), fd.ones((3, 3))), "ShapeError"), (lambda fd: getattr(fd, name)(fd.ones((2, 3)), fd.ones((2, 3)), 7), "IndexError"), (lambda fd: getattr(fd, name)(fd.ones(2), "a"), "TypeError"))  # noqa: E731  # fmt: skip
add(Sample("softmax_backward", lambda rng, s: (draw(rng, s[0]), np.exp(log_softmax(draw(rng, s[0]), s[1])), s[1]), lambda g, y, a: y * (g - (g * y).sum(a, keepdims=True)), SOFT, FLOATS, grad=(0, 1), second=True, grad_sizes=soft_small, tol=16,
           scale=lambda g, y, a: y * (np.abs(g) + (np.abs(g) * y).sum(a, keepdims=True)), errors=two("softmax_backward")))  # fmt: skip
add(Sample("log_softmax_backward", lambda rng, s: (draw(rng, s[0]), log_softmax(draw(rng, s[0]), s[1]), s[1]), lambda g, y, a: g - np.exp(y) * g.sum(a, keepdims=True), SOFT, FLOATS, grad=(0, 1), second=True, grad_sizes=soft_small, tol=32,
           scale=lambda g, y, a: np.abs(g) + np.exp(y) * np.abs(g).sum(a, keepdims=True) * (1 + np.abs(y)), errors=two("log_softmax_backward")))  # fmt: skip


def ce(x: Any, t: Any, smoothing: float, ignore: int) -> Any:
    lp = log_softmax(x, 1)
    kept = t != ignore
    rows = np.arange(len(t))
    loss = -(1 - smoothing) * lp[rows, np.where(kept, t, 0)] - smoothing * lp.mean(1)
    return np.where(kept, loss, 0.0)


def ce_back(g: Any, x: Any, t: Any, lse: Any, smoothing: float, ignore: int) -> Any:
    p = np.exp(log_softmax(x, 1))
    kept = t != ignore
    hot = np.eye(x.shape[1])[np.where(kept, t, 0)] * (1 - smoothing) + smoothing / x.shape[1]
    return np.where(kept, g, 0)[:, None] * (p - hot)


CE = (((1, 1), 0.0), ((3, 4), 0.0), ((3, 4), 0.1), ((33, 10), 0.0), ((65, 33), 0.2), ((7, 1000), 0.0), ((64, 10), 0.0))


def target(rng: Any, s: tuple) -> Any:
    t = rng.integers(0, s[0][1], s[0][0])
    t[::3] = -100 if s[0][0] > 3 else t[::3]
    return t


def lse_of(x: Any) -> Any:
    return np.log(np.exp(x - x.max(1, keepdims=True)).sum(1)) + x.max(1)


add(Sample("cross_entropy", lambda rng, s: (2 * draw(rng, s[0]), target(rng, s), s[1], -100), ce, CE, FLOATS, grad=(0,), second=True, grad_sizes=CE[1:3], tol=16, scale=lambda x, t, *r: np.abs(x).max(1) + 8,
           errors=wrong((lambda fd: fd.cross_entropy(fd.ones((2, 3)), fd.array([0, 3])), "IndexError"), (lambda fd: fd.cross_entropy(fd.ones((2, 3)), fd.array([0, 1, 2])), "ShapeError"), (lambda fd: fd.cross_entropy(fd.ones((2, 3)), fd.array([0.5, 1.0])), "TypeError"))))  # fmt: skip


def ce_back_args(rng: Any, s: tuple) -> tuple:
    x = 2 * draw(rng, s[0])
    return draw(rng, s[0][0]), x, target(rng, s), lse_of(x), s[1], -100


add(Sample("cross_entropy_backward", ce_back_args, ce_back, CE, F2, tol=32, scale=lambda g, *r: np.abs(g)[:, None] + 0 * r[0],
           errors=wrong((lambda fd: fd.cross_entropy_backward(fd.ones(2), fd.ones((2, 3)), fd.array([0, 7]), fd.ones(2)), "IndexError"), (lambda fd: fd.cross_entropy_backward(fd.ones(3), fd.ones((2, 3)), fd.array([0, 1]), fd.ones(2)), "ShapeError"),
                        (lambda fd: fd.cross_entropy_backward("a", fd.ones((2, 3)), fd.array([0, 1]), fd.ones(2)), "TypeError"))))  # fmt: skip


# ---- normalisation -----------------------------------------------------------------------------------------------------
def ln(x: Any, w: Any, b: Any, nd: int, e: float) -> Any:
    ax = tuple(range(x.ndim - nd, x.ndim))
    return (x - x.mean(ax, keepdims=True)) / np.sqrt(x.var(ax, keepdims=True) + e) * w + b


def ln_back(g: Any, x: Any, m: Any, r: Any, w: Any, nd: int) -> Any:
    ax = tuple(range(x.ndim - nd, x.ndim))
    lead = tuple(range(x.ndim - nd))
    z = (x - x.mean(ax, keepdims=True)) * r.reshape(*r.shape[: x.ndim - nd], *(1,) * nd)
    gw = g * w
    dx = r.reshape(*r.shape[: x.ndim - nd], *(1,) * nd) * (gw - gw.mean(ax, keepdims=True) - z * (gw * z).mean(ax, keepdims=True))
    return dx, (g * z).sum(lead), g.sum(lead)


LN = (((3, 4), 1), ((1, 7), 1), ((33, 65), 1), ((2, 3, 5), 2), ((4, 1000), 1), ((65, 17), 1))


def ln_stats(x: Any, nd: int) -> tuple:
    ax = tuple(range(x.ndim - nd, x.ndim))
    return x.mean(ax), 1 / np.sqrt(x.var(ax) + 1e-5)


def ln_back_args(rng: Any, s: tuple) -> tuple:
    x = draw(rng, s[0])
    return draw(rng, s[0]), x, *ln_stats(x, s[1]), draw(rng, s[0][len(s[0]) - s[1] :]), s[1]


add(Sample("layer_norm", lambda rng, s: (draw(rng, s[0]), draw(rng, s[0][len(s[0]) - s[1] :]), draw(rng, s[0][len(s[0]) - s[1] :]), s[1], 1e-5), ln, LN, FLOATS, grad=(0, 1, 2), second=True, grad_sizes=(LN[0], LN[3]), tol=32,
           scale=lambda x, w, b, *r: np.abs(ln(x, w, b, *r)) + 4,
           errors=wrong((lambda fd: fd.layer_norm(fd.ones((2, 3)), fd.ones(2)), "ShapeError"), (lambda fd: fd.layer_norm(fd.ones((2, 3)), None, None, 3), "error"), (lambda fd: fd.layer_norm("a"), "TypeError"))))  # fmt: skip
add(Sample("layer_norm_backward", ln_back_args, ln_back, LN, F2, tol=256, scale=lambda g, x, m, r, w, nd: (8 * r.max() + 0 * x, np.abs(ln_back(np.abs(g), x, m, r, w, nd)[1]) + x.shape[0], np.abs(g).sum(tuple(range(x.ndim - nd)))),
           errors=wrong((lambda fd: fd.layer_norm_backward(fd.ones((2, 3)), fd.ones((2, 4)), fd.ones(2), fd.ones(2)), "ShapeError"), (lambda fd: fd.layer_norm_backward(fd.ones((2, 3)), fd.ones((2, 3)), fd.ones(3), fd.ones(2)), "ShapeError"), (lambda fd: fd.layer_norm_backward("a"), "TypeError"))))  # fmt: skip


def ch(v: Any, nd: int) -> Any:
    return v.reshape(1, -1, *(1,) * (nd - 2))


def bn(x: Any, w: Any, b: Any, rm: Any, rv: Any, training: bool, momentum: float, e: float) -> Any:
    ax = (0, *range(2, x.ndim))
    m, v = (x.mean(ax), x.var(ax)) if training else (rm, rv)
    return (x - ch(m, x.ndim)) / np.sqrt(ch(v, x.ndim) + e) * ch(w, x.ndim) + ch(b, x.ndim)


BN = tuple((s, t) for s in ((3, 4), (33, 17), (4, 3, 5), (2, 3, 4, 5), (8, 33, 3, 3), (2, 1, 1, 1)) for t in (True, False))


def bn_args(rng: Any, s: tuple) -> tuple:
    c = s[0][1]
    return draw(rng, s[0]), draw(rng, c), draw(rng, c), draw(rng, c), rng.uniform(0.5, 2, c), s[1], 0.1, 1e-5


def bn_back(g: Any, x: Any, m: Any, r: Any, w: Any, training: bool) -> Any:
    ax = (0, *range(2, x.ndim))
    n = x.size / x.shape[1]
    z = (x - ch(m, x.ndim)) * ch(r, x.ndim)
    dw, db = (g * z).sum(ax), g.sum(ax)
    core = g - (ch(db, x.ndim) + z * ch(dw, x.ndim)) / n if training else g
    return core * ch(w * r, x.ndim), dw, db


def bn_back_args(rng: Any, s: tuple) -> tuple:
    x = draw(rng, s[0])
    ax = (0, *range(2, x.ndim))
    return draw(rng, s[0]), x, x.mean(ax), 1 / np.sqrt(x.var(ax) + 1e-5), draw(rng, s[0][1]), s[1]


add(Sample("batch_norm", bn_args, bn, BN[:-2], F2, grad=(0, 1, 2), second=True, grad_sizes=(BN[0], BN[1], BN[6], BN[7]), tol=64, scale=lambda *a: np.abs(bn(*a)) + 8,
           errors=wrong((lambda fd: fd.batch_norm(fd.ones((2, 3)), fd.ones(2)), "ShapeError"), (lambda fd: fd.batch_norm(fd.ones((1, 3)), None, None, None, None, True), "ValueError"), (lambda fd: fd.batch_norm(fd.ones(3)), "ShapeError"))))  # fmt: skip
add(Sample("batch_norm_backward", bn_back_args, bn_back, BN[:-2], F2, tol=256, scale=lambda g, x, m, r, w, t: (8 * r.max() + 0 * x, 8 + np.abs(g * (x - ch(m, x.ndim))).sum((0, *range(2, x.ndim))) * r, np.abs(g).sum((0, *range(2, x.ndim)))),
           errors=wrong((lambda fd: fd.batch_norm_backward(fd.ones((2, 3)), fd.ones((2, 4)), fd.ones(3), fd.ones(3)), "ShapeError"), (lambda fd: fd.batch_norm_backward(fd.ones((2, 3)), fd.ones((2, 3)), fd.ones(2), fd.ones(3)), "ShapeError"), (lambda fd: fd.batch_norm_backward("a"), "TypeError"))))  # fmt: skip

# ---- indexing: sizes are (shape, number of indices, axis) ----------------------------------------------------------------
TAKE = (((5,), 3, 0), ((4, 3), 7, 0), ((4, 3), 2, 1), ((3, 17, 5), 40, 1), ((100, 33), 257, 0), ((4, 3), 0, 0), ((7, 1), 9, 0))


def indices(rng: Any, s: tuple) -> Any:
    n = s[0][s[2]]
    return rng.integers(-n, n, s[1])


def take_back(g: Any, i: Any, axis: int, size: int) -> Any:
    out = np.zeros((*g.shape[:axis], size, *g.shape[axis + 1 :]))
    np.add.at(out, (slice(None),) * axis + (i,), g)
    return out


def along(rng: Any, s: tuple) -> Any:
    shape = list(s[0])
    shape[s[2]] = s[1]
    return rng.integers(-s[0][s[2]], s[0][s[2]], shape)


def scatter(x: Any, i: Any, v: Any, axis: int) -> Any:
    out = x.copy()
    key = list(np.ogrid[tuple(slice(n) for n in i.shape)])
    key[axis] = i
    np.add.at(out, tuple(key), v)
    return out


bad_take = lambda name, extra: wrong((lambda fd: getattr(fd, name)(fd.ones((2, 3)), fd.array([[5]]), *extra(fd)), "IndexError"), (lambda fd: getattr(fd, name)(fd.ones((2, 3)), fd.array([[0.5]]), *extra(fd)), "error"),  # noqa: E731
                                     (lambda fd: getattr(fd, name)("a", fd.array([[0]]), *extra(fd)), "TypeError"))  # fmt: skip
add(Sample("take", lambda rng, s: (draw(rng, s[0]), indices(rng, s), s[2]), np.take, TAKE, moved, grad=(0,), second=True, grad_sizes=TAKE[1:3], errors=bad_take("take", lambda fd: ())))
add(Sample("take_backward", lambda rng, s: (draw(rng, (*s[0][: s[2]], s[1], *s[0][s[2] + 1 :])), indices(rng, s), s[2], s[0][s[2]]), take_back, TAKE, F2, grad=(0,), second=True, grad_sizes=TAKE[1:3], tol=16,
           scale=lambda g, *r: take_back(np.abs(g), *r) + 1e-30, errors=(
               (lambda fd: fd.take_backward(fd.ones((1, 3)), fd.array([5]), 0, 2), "IndexError"), (lambda fd: fd.take_backward(fd.ones((2, 3)), fd.array([5]), 0, 2), "ShapeError"), (lambda fd: fd.take_backward("a", fd.array([0]), 0, 2), "TypeError"))))  # fmt: skip
add(Sample("take_along_axis", lambda rng, s: (draw(rng, s[0]), along(rng, s), s[2]), lambda x, i, a: np.take_along_axis(x, i, a), TAKE, moved, grad=(0,), second=True, grad_sizes=TAKE[1:3], errors=bad_take("take_along_axis", lambda fd: (0,))))
add(Sample("scatter_add", lambda rng, s: (draw(rng, s[0]), along(rng, s), draw(rng, along(rng, s).shape), s[2]), scatter, TAKE, F2, grad=(0, 2), second=True, grad_sizes=TAKE[1:3], tol=16,
           scale=lambda x, i, v, a: scatter(np.abs(x), i, np.abs(v), a) + 1e-30, errors=(
               (lambda fd: fd.scatter_add(fd.ones((2, 3)), fd.array([[5, 0, 0]]), fd.ones((1, 3)), 0), "IndexError"), (lambda fd: fd.scatter_add(fd.ones((2, 3)), fd.array([[0]]), fd.ones((1, 1)), 0), "ShapeError"), (lambda fd: fd.scatter_add("a", fd.array([[0]]), fd.ones((1, 1)), 0), "TypeError"))))  # fmt: skip
add(Sample("index_get", lambda rng, s: ([draw(rng, s[0]), indices(rng, (s[0], s[1], 0))],), lambda xs: xs[0][xs[1]], tuple(t for t in TAKE), moved,
           errors=wrong((lambda fd: fd.index_get([fd.ones(3), fd.array([3])]), "IndexError"), (lambda fd: fd.index_get([fd.ones(3), fd.array([0.5])]), "error"), (lambda fd: fd.index_get(3), "TypeError"))))  # fmt: skip


def put(xs: list, accumulate: bool) -> Any:
    out = xs[0].copy()
    if accumulate:
        np.add.at(out, xs[2], xs[1])
    else:
        out[xs[2]] = xs[1]
    return out


add(Sample("index_put", lambda rng, s: ([draw(rng, s[0]), draw(rng, (s[1], *s[0][1:])), indices(rng, (s[0], s[1], 0))], True), put, TAKE, F2, tol=16, scale=lambda xs, a: put([np.abs(xs[0]), np.abs(xs[1]), xs[2]], a) + 1e-30,
           errors=wrong((lambda fd: fd.index_put([fd.ones(3), fd.ones(1), fd.array([3])]), "IndexError"), (lambda fd: fd.index_put([fd.ones(3), fd.ones(2), fd.array([0])]), "ShapeError"), (lambda fd: fd.index_put(3), "TypeError"))))  # fmt: skip


def holes(rng: Any, s: tuple) -> tuple:
    x = np.round(draw(rng, s[0]))
    return x, np.array(np.count_nonzero(x))


add(Sample("nonzero", holes, lambda x, c: np.argwhere(x), tuple((s, 0, 0) for s in ((5,), (3, 4), (33, 65), (0, 3), (2, 3, 5))), moved,
           errors=wrong((lambda fd: fd.nonzero("a", fd.array(0)), "TypeError"), (lambda fd: fd.nonzero(fd.ones(2), fd.array(5)), "error"), (lambda fd: fd.nonzero(fd.ones(2)), "TypeError"))))  # fmt: skip
add(Sample("one_hot", lambda rng, s: (rng.integers(0, 5, s[0]), 5), lambda i, n: np.eye(n)[i], tuple((s, 0, 0) for s in ((5,), (3, 4), (0,), (2, 3, 5))), ("int64",),
           errors=wrong((lambda fd: fd.one_hot(fd.array([5]), 5), "error"), (lambda fd: fd.one_hot(fd.array([0.5]), 5), "TypeError"), (lambda fd: fd.one_hot(fd.array([0]), -1), "ValueError"))))  # fmt: skip


# ---- random numbers: the reference is Philox4x32-10 itself -----------------------------------------------------------------
def philox(seed: int, offset: int, blocks: int) -> Any:
    """Words of `blocks` counters from `offset`, as uint32 (blocks, 4); Salmon et al. 2011."""
    c = np.zeros((blocks, 4), np.uint64)
    n = np.arange(blocks, dtype=np.uint64) + np.uint64(offset)
    c[:, 0], c[:, 1] = n & np.uint64(0xFFFFFFFF), n >> np.uint64(32)
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for r in range(10):
        p0, p1 = c[:, 0] * np.uint64(0xD2511F53), c[:, 2] * np.uint64(0xCD9E8D57)
        hi0, lo0, hi1, lo1 = p0 >> np.uint64(32), p0 & np.uint64(0xFFFFFFFF), p1 >> np.uint64(32), p1 & np.uint64(0xFFFFFFFF)
        c = np.stack([hi1 ^ c[:, 1] ^ np.uint64(k[0]), lo1, hi0 ^ c[:, 3] ^ np.uint64(k[1]), lo0], 1)
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
        del r
    return c.astype(np.uint32)


def words(n: int, seed: int, offset: int) -> Any:
    return philox(seed, offset, (n + 3) // 4 + 1).reshape(-1)[:n]


COUNT = (0, 1, 3, 4, 5, 17, 64, 1000, 4097)
no_args = lambda name: wrong((lambda fd: getattr(fd, name)(), "TypeError"), (lambda fd: getattr(fd, name)("a", 0, 0), "TypeError"), (lambda fd: getattr(fd, name)(fd.ones(2), 0.5, 0), "TypeError"))  # noqa: E731  # fmt: skip
add(Sample("random_bits", lambda rng, n: (np.zeros(n, np.uint32), 12345678901, 7), lambda x, s, o: words(x.size, s, o), COUNT, ("uint32",), errors=no_args("random_bits")))
add(Sample("random_uniform", lambda rng, n: (np.zeros(n), 99, 3, 0.0, 1.0), lambda x, s, o, a, b: (words(x.size, s, o) >> np.uint32(8)) * 2.0**-24, COUNT, ("float32",), tol=1, scale=lambda *a: 1.0, errors=no_args("random_uniform")))
add(Sample("random_normal", lambda rng, n: (np.zeros(n), 5, 0, 0.0, 1.0), lambda x, *r: None, COUNT, F2, errors=no_args("random_normal")))
add(Sample("random_integers", lambda rng, n: (np.zeros(n, np.int64), 5, 0, -3, 9), lambda x, *r: None, COUNT, ("int64", "int32"), errors=no_args("random_integers")))
add(Sample("dropout", lambda rng, n: (draw(rng, n), 0.4, 77, 11), lambda x, p, s, o: np.where(words(x.size, s, o).astype(np.float64) * 2.0**-32 >= p, x / (1 - p), 0.0), COUNT, FLOATS, grad=(0,), second=True, grad_sizes=(17,),
           errors=wrong((lambda fd: fd.dropout(fd.ones(2), 1.5, 0, 0), "ValueError"), (lambda fd: fd.dropout("a", 0.5, 0, 0), "TypeError"), (lambda fd: fd.dropout(fd.ones(2), 0.5), "TypeError"))))  # fmt: skip


# ---- optimisers: in place; the reference returns the new parameter ---------------------------------------------------------
def sgd(p: Any, g: Any, m: Any, h: Any) -> Any:
    lr, mu, damp, wd, nesterov, maximize, step = h
    g = -g if maximize else g
    g = g + wd * p
    buf = g if step <= 1 else mu * m + (1 - damp) * g
    g = g + mu * buf if nesterov else buf
    return p - lr * g


def adam(p: Any, g: Any, m: Any, v: Any, vmax: Any, h: Any) -> Any:
    lr, b1, b2, e, wd, decoupled, maximize, step = h
    g = -g if maximize else g
    if decoupled:
        p = p * (1 - lr * wd)
    else:
        g = g + wd * p
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    return p - lr / (1 - b1**step) * m / (np.sqrt(v) / np.sqrt(1 - b2**step) + e)


def rms(p: Any, g: Any, s: Any, m: Any, a: Any, h: Any) -> Any:
    lr, alpha, e, wd, mu, _maximize, _step = h
    g = g + wd * p
    s = alpha * s + (1 - alpha) * g * g
    return p - lr * (mu * m + g / (np.sqrt(s) + e))


def state(rng: Any, n: int, k: int) -> list:
    return [draw(rng, n), draw(rng, n), *(rng.uniform(0.1, 1, n) for _ in range(k))]


opt_errors = lambda name: wrong((lambda fd: getattr(fd, name)(), "TypeError"), (lambda fd: getattr(fd, name)("a", *[fd.ones(2)] * {"sgd_step": 3, "adam_step": 5, "rmsprop_step": 5}[name]), "error"),  # noqa: E731
                                (lambda fd: getattr(fd, name)(fd.ones(2), fd.ones(3), *[fd.ones(2)] * {"sgd_step": 1, "adam_step": 3, "rmsprop_step": 3}[name], fd.ones(8, dtype="float64")), "error"))  # fmt: skip
add(Sample("sgd_step", lambda rng, n: (*state(rng, n, 1), np.array([0.1, 0.9, 0.1, 0.01, 0, 0, 2.0])), sgd, COUNT, F2, tol=16, scale=lambda p, *r: np.abs(p) + 1, errors=opt_errors("sgd_step")))
add(Sample("adam_step", lambda rng, n: (*state(rng, n, 2), None, np.array([0.1, 0.9, 0.99, 1e-8, 0.01, 1, 0, 3.0])), adam, COUNT, F2, tol=16, scale=lambda p, *r: np.abs(p) + 1, errors=opt_errors("adam_step")))
add(Sample("rmsprop_step", lambda rng, n: (*state(rng, n, 2), None, np.array([0.1, 0.9, 1e-8, 0.01, 0.9, 0, 2.0])), rms, COUNT, F2, tol=16, scale=lambda p, *r: np.abs(p) + 1, errors=opt_errors("rmsprop_step")))
