"""Results too large for the caches are stored past them: the same numbers as for parts of them, which are not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastdl as fd
from fastdl.nn import functional as F

SOURCE = (Path(__file__).parents[1] / "csrc/cpu/isa/past_caches.h").read_text()
(LARGE,) = (int(mb) << 20 for mb in re.findall(r"kStreamBytes = (\d+) << 20;", SOURCE))
IMAGES = (8, 64, 120, 120)  # 28 MB of float32
PARTS = 4


def last(x: Any) -> Any:
    return fd.ops.shape.copy(x, layout="channels_last")


def gradient(f: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def back(x: Any, g: Any) -> Any:
        x = x.detach().requires_grad_()
        f(x).backward(g)
        return x.grad

    return back


def batch_norm(x: Any) -> Any:
    n = x.shape[1]
    return F.batch_norm(x, fd.linspace(0, 1, n), fd.linspace(1, 2, n), fd.linspace(1, 3, n), fd.ones(n), False)


def layer_norm(x: Any) -> Any:
    return F.layer_norm(x, (x.shape[1],), fd.linspace(1, 2, x.shape[1]), fd.ones(x.shape[1]))


# What is computed for each image, or row, by itself; the shape of the input; whether it is in channels-last memory.
CASES: dict[str, tuple[Callable[[Any], Any], tuple[int, ...], bool]] = {
    "batch norm, planes": (batch_norm, IMAGES, False),
    "batch norm, channels last": (batch_norm, IMAGES, True),
    "layer norm": (layer_norm, (7168, 1024), False),
    "max-pooling, windows side by side": (lambda x: F.max_pool2d(x, 2), IMAGES, True),
    "max-pooling, windows that overlap": (lambda x: F.max_pool2d(x, 3, 2, 1), IMAGES, True),
    "max-pooling, rows that no window covers": (lambda x: F.max_pool2d(x, 7), IMAGES, True),
    "average pooling, windows side by side": (lambda x: F.avg_pool2d(x, 2), IMAGES, True),
    "average pooling, windows that overlap": (lambda x: F.avg_pool2d(x, 3, 2, 1), IMAGES, True),
    "adaptive average pooling": (lambda x: F.adaptive_avg_pool2d(x, (50, 60)), IMAGES, True),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_parts_have_the_same_bits(name, threads):
    f, shape, channels_last = CASES[name]
    rng = np.random.default_rng(0)
    data = rng.standard_normal(shape, dtype=np.float32)
    assert data.nbytes >= LARGE > data.nbytes // PARTS
    place = last if channels_last else lambda x: x
    before = fd.get_num_threads()
    fd.set_num_threads(threads)
    try:
        whole = place(fd.array(data))
        y = f(whole)
        grad = rng.standard_normal(y.shape, dtype=np.float32)
        dx = gradient(f)(whole, place(fd.array(grad))).numpy()
        y = y.numpy()
        n = shape[0] // PARTS
        for k in range(0, shape[0], n):
            part = place(fd.array(data[k : k + n]))
            np.testing.assert_array_equal(y[k : k + n], f(part).numpy())
            np.testing.assert_array_equal(dx[k : k + n], gradient(f)(part, place(fd.array(grad[k : k + n]))).numpy())
    finally:
        fd.set_num_threads(before)


@pytest.mark.parametrize("dtype, shape", [("float32", IMAGES), ("float64", (4, 64, 120, 120)), ("float32", (8, 17, 224, 224))])
@pytest.mark.parametrize("channels_last", [False, True])
def test_batch_norm_in_training(channels_last, dtype, shape):
    """17 channels are no whole lines: stored as ever."""
    rng = np.random.default_rng(1)
    data, grad = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    assert data.nbytes >= LARGE
    place = last if channels_last else lambda x: x
    x = place(fd.array(data)).requires_grad_()
    y = F.batch_norm(x, None, None, None, None, True)
    y.backward(place(fd.array(grad)))
    axes = (0, 2, 3)
    wide, g = data.astype("f8"), grad.astype("f8")
    rstd = 1 / np.sqrt(wide.var(axes, keepdims=True) + 1e-5)
    want = (wide - wide.mean(axes, keepdims=True)) * rstd
    dx = rstd * (g - g.mean(axes, keepdims=True) - want * (g * want).mean(axes, keepdims=True))
    for found, exact in ((y, want), (x.grad, dx)):
        assert np.abs(found.detach().numpy() - exact).max() < (2e-5 if dtype == "float32" else 1e-11)
