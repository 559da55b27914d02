"""Captured products and convolutions with activations as epilogues: the bits of the eager calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastdl as fd
from fastdl.nn import functional as F

ACTIVATIONS = {"relu": F.relu, "sigmoid": F.sigmoid, "tanh": F.tanh}
SHAPES = {  # of x, results: one for each way in which products are computed
    "vectors": ((1, 20), 33),
    "one result": ((200, 30), 1),
    "dots": ((3, 64), 40),
    "transposed": ((16, 200), 300),
    "tiles": ((150, 300), 145),
    "parts of long sums": ((20, 6000), 8),
    "slabs": ((20, 3000), 3000),
    "three axes": ((3, 9, 40), 24),
    "turned": ((5, 17, 4), 33),  # leading axes that are no rows of one matrix
    "empty": ((0, 6), 5),
}


def weights(*sizes: int, dtype: str = "f") -> Any:
    return fd.array(np.random.default_rng(sum(sizes)).normal(size=sizes).astype(dtype))


def bits(result: Any) -> list[bytes]:
    return [t.numpy().tobytes() for t in (result if isinstance(result, tuple) else (result,))]


def left(run: Any, names: tuple[str, ...]) -> list[str]:
    return [op for op in (line.split()[1] for line in run.dump().splitlines()[2:]) if op in names]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_replay_equals_eager(name, shape, dtype):
    size, out = SHAPES[shape]
    w, b, act = weights(out, size[-1], dtype=dtype), weights(out, dtype=dtype), ACTIVATIONS[name]

    def f(x: Any) -> Any:
        return act(F.linear(x.swapaxes(0, 1) if shape == "turned" else x, w, b))

    fused, plain = fd.compile(f), fd.compile(f, passes={"epilogue": False})
    for seed in range(3):
        x = fd.array(np.random.default_rng(seed).normal(size=size).astype(dtype))
        want = f(x).numpy().tobytes()
        assert fused(x).numpy().tobytes() == want
        assert plain(x).numpy().tobytes() == want
    assert left(fused, (name,)) == []
    if shape != "empty":  # nothing is launched for that
        assert left(plain, (name,)) == [name]


def test_any_number_of_threads():
    w, b, x = weights(145, 300), weights(145), weights(150, 300)
    run, before = fd.compile(lambda x: F.tanh(F.linear(x, w, b))), fd.get_num_threads()
    want = F.tanh(F.linear(x, w, b)).numpy().tobytes()
    try:
        for threads in (1, 2, 3, 7):
            fd.set_num_threads(threads)
            assert [run(x).numpy().tobytes() for _ in range(3)] == [want] * 3
    finally:
        fd.set_num_threads(before)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_convolutions(name):
    w, b, act = weights(5, 3, 3, 3), weights(5), ACTIVATIONS[name]
    run = fd.compile(lambda x: act(F.conv2d(x, w, b)))
    for seed in range(3):
        x = fd.array(np.random.default_rng(seed).normal(size=(2, 3, 9, 7)).astype("f"))
        assert run(x).numpy().tobytes() == act(F.conv2d(x, w, b)).numpy().tobytes()
    assert left(run, (name,)) == []


W, B, SQUARE, TABLE = weights(9, 8), weights(9), weights(8, 8), weights(5, 8)


def twice(x: Any) -> Any:
    """What the product writes is read by two launches."""
    z = F.linear(x, W, B)
    return F.relu(z) + F.tanh(z)


def leaves(x: Any) -> Any:
    """The activation's argument is a result of the function, too."""
    z = F.linear(x, W, B)
    return F.relu(z), z


def over_the_input(x: Any) -> Any:
    """The result goes where the product reads."""
    return fd.relu(F.linear(x, SQUARE), out=x)


def over_what_is_read_between(x: Any) -> Any:
    """The result goes where a launch between the two reads."""
    z = F.linear(x * 1, SQUARE)
    y = x * 2
    fd.relu(z, out=x)
    return y


def reshaped(x: Any) -> Any:
    return F.relu(F.linear(x, W, B).reshape(-1))


@pytest.mark.parametrize(
    ("function", "count"), [(twice, 2), (leaves, 1), (over_the_input, 1), (over_what_is_read_between, 1), (reshaped, 1)]
)
def test_what_stays_a_launch_of_its_own(function: Callable[[Any], Any], count: int):
    run = fd.compile(function)
    for seed in range(4):
        x = np.random.default_rng(seed).normal(size=(6, 8)).astype("f")
        captured, eager = fd.array(x), fd.array(x)
        assert bits(run(captured)) == bits(function(eager))
        assert bits(captured) == bits(eager)
    assert len(left(run, ("relu", "tanh"))) == count, run.dump()


def test_a_refused_index_comes_before_the_result():
    held = fd.zeros((6, 8))

    def f(x: Any, i: Any) -> Any:
        z = F.linear(x, SQUARE)
        rows = TABLE[i + 0]  # made by the program: looked at when it is read
        fd.relu(z, out=held)
        return rows

    run, x = fd.compile(f), weights(6, 8)
    for _ in range(3):
        run(x, fd.array([1, 2]))
    held[...] = 7
    with pytest.raises(fd.IndexError):
        run(x, fd.array([1, 5]))
    np.testing.assert_array_equal(held.numpy(), 7)
