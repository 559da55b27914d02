"""Gradients of slices in captured functions: one array, written in its places, with the bits of the eager sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastdl as fd

SHAPE = (6, 5, 3, 4)


def parts(x: Any) -> tuple[Any, ...]:
    return tuple(x[:, :, i] for i in range(3))


CASES: dict[str, tuple[Callable[[Any], Any], int]] = {  # a function of x, and the launches that fill with zeros in its gradient
    "thirds": (lambda x: (parts(x)[0] * parts(x)[1]).sum() + (parts(x)[2] ** 2).sum(), 0),
    "halves": (lambda x: (x[:3] * x[3:]).sum(), 0),
    "every other": (lambda x: (x[..., ::2] * fd.exp(x[..., 1::2])).sum(), 0),
    "a part only": (lambda x: (x[:2] * x[4:6]).sum(), 1),
    "reversed": (lambda x: (x[2::-1] * x[3:]).sum(), 0),
    "overlap": (lambda x: (x[:4] * x[2:]).sum(), 2),
    "single column": (lambda x: (x[..., 0] + x[..., 1] * x[..., 2] - x[..., 3]).sum(), 0),
    "zeros of both signs": (lambda x: (fd.relu(x[:3]) * -0.0 - fd.relu(x[3:]) * 0.0).sum(), 0),
}


def gradient(f: Callable[[Any], Any], x: Any) -> Any:
    return fd.grad(f)(x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_bits_and_launches(name, dtype):
    f, fills = CASES[name]
    rng = np.random.default_rng(1)
    runs = {on: fd.compile(lambda x: gradient(f, x), passes={"slices": on}) for on in (True, False)}
    for _ in range(4):
        x = fd.array(np.round(rng.normal(size=SHAPE), 1).astype(dtype))
        want = gradient(f, x).numpy().tobytes()
        for run in runs.values():
            assert run(x).numpy().tobytes() == want
    lines = {on: run.dump().splitlines()[2:] for on, run in runs.items()}
    wide = {on: sum(" fill " in line and str(SHAPE) in line for line in lines[on]) for on in runs}
    assert wide[True] == fills
    assert wide[False] >= 2


def test_an_array_that_is_read_elsewhere_stays():
    def f(x):
        z = fd.zeros(SHAPE)
        z[:3] = x[:3] * 2
        y = fd.zeros(SHAPE)
        y[3:] = x[3:] * 3
        return z + y, z.sum(), y

    step = fd.compile(f)
    for seed in range(4):
        x = fd.array(np.random.default_rng(seed).normal(size=SHAPE).astype("f"))
        assert [t.numpy().tobytes() for t in step(x)] == [t.numpy().tobytes() for t in f(x)]


@pytest.mark.parametrize("first", [0, 1])
def test_zeros_are_set_before_any_slice_is_written(first):
    """Whichever of the two arrays is made first, and whichever is added to."""

    def f(x):
        a, b = (fd.zeros(SHAPE), fd.zeros(SHAPE)) if first else (None, fd.zeros(SHAPE))
        b[4:] = x[4:] * 3
        a = fd.zeros(SHAPE) if a is None else a
        a[:2] = x[:2] * 2
        a += b
        return a * 1.5

    step = fd.compile(f)
    for seed in range(4):
        x = fd.array(np.random.default_rng(seed).normal(size=SHAPE).astype("f"))
        assert step(x).numpy().tobytes() == f(x).numpy().tobytes()
    assert sum(" fill " in line and str(SHAPE) in line for line in step.dump().splitlines()) == 1


def test_nan_and_infinity():
    run = fd.compile(lambda x: gradient(lambda t: (t[:3] * t[3:]).sum(), x))
    x = np.random.default_rng(0).normal(size=SHAPE).astype("f")
    x[0, 0, 0], x[4, 1, 1], x[5, 2] = np.nan, np.inf, -0.0
    want = gradient(lambda t: (t[:3] * t[3:]).sum(), fd.array(x)).numpy().tobytes()
    for _ in range(3):
        assert run(fd.array(x)).numpy().tobytes() == want
