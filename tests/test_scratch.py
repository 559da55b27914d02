"""Kernels pack into memory of their thread. A thread that finds none must have another way, to results as good."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest

import fastdl as fd
from fastdl import _C

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape)


@contextlib.contextmanager
def no_scratch() -> Iterator[None]:
    assert not _C._withhold_scratch(True)
    try:
        yield
    finally:
        assert _C._withhold_scratch(False)


def conv(n, c, h, w, o, kernel, stride=1, groups=1):
    x, weight, bias = normal(n, c, h, w), normal(o, c // groups, kernel, kernel), normal(o)
    p = kernel // 2
    g = normal(*fd.conv2d(fd.array(x), fd.array(weight), None, stride, p, 1, groups).shape)

    def run(dtype):
        a, b, d, e = (fd.array(v.astype(dtype)) for v in (x, weight, bias, g))
        return [
            fd.conv2d(a, b, d, stride, p, 1, groups),
            fd.conv2d_backward_input(e, b, stride, p, 1, groups, (h, w)),
            *fd.conv2d_backward_weight(e, a, stride, p, 1, groups, (kernel, kernel)),
        ]

    return run


def product(*shapes, turned=()):
    operands = [normal(*s) for s in shapes]

    def run(dtype):
        a, b = (fd.array(v.astype(dtype)).T if i in turned else fd.array(v.astype(dtype)) for i, v in enumerate(operands))
        return [a @ b]

    return run


def attention(heads, length, width):
    q, k, v, g = (normal(1, heads, length, width) for _ in range(4))

    def run(dtype):
        tensors = [fd.array(t.astype(dtype), requires_grad=True) for t in (q, k, v)]
        y = fd.nn.functional.scaled_dot_product_attention(*tensors, is_causal=True)
        y.backward(fd.array(g.astype(dtype)))
        return [y.detach(), *(t.grad for t in tensors)]

    return run


CASES = {
    "3x3, weights for all tiles": conv(4, 64, 28, 28, 64, 3),
    "3x3, in rounds": conv(2, 256, 8, 8, 272, 3),
    "3x3, many columns": conv(1, 512, 8, 8, 512, 3),
    "3x3 of step 2": conv(2, 64, 17, 17, 96, 3, 2),
    "large weights of step 2": conv(1, 256, 8, 8, 512, 3, 2),
    "5x5": conv(2, 48, 12, 12, 40, 5),
    "1x1": conv(2, 64, 9, 9, 80, 1),
    "first layer": conv(2, 3, 20, 20, 32, 3),
    "one channel": conv(4, 1, 28, 28, 32, 3),
    "few channels per group": conv(2, 32, 14, 14, 32, 3, 1, 8),
    "depthwise": conv(2, 48, 12, 12, 48, 3, 1, 48),
    "product": product((300, 260), (260, 200)),
    "transposed product": product((520, 300), (520, 200), turned=(0,)),
    "product of few rows": product((5, 700), (700, 400)),
    "attention": attention(3, 150, 32),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("threads", [1, 3])
def test_results_without_scratch(name, threads):
    run, before = CASES[name], _C.num_threads()
    exact = run("float64")
    with_scratch = run("float32")
    _C.set_num_threads(threads)
    try:
        with no_scratch():
            without = run("float32")
    finally:
        _C.set_num_threads(before)
    for e, w, f in zip(exact, with_scratch, without, strict=True):
        e = e.numpy()
        size = np.abs(e).max()
        error, usual = (np.abs(v.numpy() - e).max() / size for v in (f, w))
        assert error <= max(3 * usual, 5e-6)  # Winograd's algorithm, in the place of tiles, is the less exact one


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_short_floats_without_scratch(dtype):
    a, b = normal(200, 300), normal(300, 260)
    x, w = normal(2, 64, 12, 12), normal(64, 64, 3, 3)

    def run():
        return [(fd.array(a).astype(dtype) @ fd.array(b).astype(dtype)), fd.conv2d(fd.array(x).astype(dtype), fd.array(w).astype(dtype), None, 1, 1)]

    want = run()
    with no_scratch():
        got = run()
    for f, g in zip(want, got, strict=True):
        f, g = f.astype("float64").numpy(), g.astype("float64").numpy()
        np.testing.assert_allclose(g, f, rtol=2**-7, atol=2**-7 * np.abs(f).max())


@pytest.mark.parametrize("n, c, h, w, o", [(3, 32, 18, 14, 40), (2, 256, 8, 8, 272)], ids=["blocks of tiles", "rounds, or tiles of AMX"])
def test_direct_sums_stand_in_for_winograds_algorithm(n, c, h, w, o):
    x, weight = (fd.array(normal(*shape).astype("float32")) for shape in ((n, c, h, w), (o, c, 3, 3)))
    planned = _C.conv_plans(n, c, h, w, o, 3, 1, 1, 1, 1)[0]
    assert planned == "winograd" or (_C.isa() == "amx" and c > 32)
    usual = fd.conv2d(x, weight, None, 1, 1).numpy()
    with no_scratch():
        without = fd.conv2d(x, weight, None, 1, 1).numpy()
        before = fd.set_conv_winograd(False)
        direct = fd.conv2d(x, weight, None, 1, 1).numpy()
        fd.set_conv_winograd(before)
    np.testing.assert_array_equal(without, direct)
    assert (usual != direct).any()
