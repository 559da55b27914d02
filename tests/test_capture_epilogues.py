"""Captured products with activations, and with their derivatives, as epilogues: the bits of the eager calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from common import bits_of_training

import fastdl as fd
from fastdl import nn, optim
from fastdl.nn import functional as F

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU, "gelu_tanh": lambda: nn.GELU(approximate="tanh")}
SHAPES = {  # of x, hidden units, results: one for each way in which products are computed
    "vectors": ((1, 20), 33, 5),
    "one unit": ((200, 30), 1, 7),
    "one result": ((200, 30), 90, 1),
    "dots": ((3, 64), 40, 24),
    "transposed": ((16, 200), 300, 30),
    "tiles": ((150, 300), 45, 700),
    "parts of long sums": ((20, 6000), 8, 6000),
    "three axes": ((3, 9, 40), 24, 11),
    "turned": ((5, 17, 4), 33, 6),  # leading axes that are no rows of one matrix
    "empty": ((0, 6), 5, 4),
}


def train(activation: str, shape: str, passes: dict[str, bool] | None, dtype: str = "float32", factor: float = 1) -> tuple[list[bytes], Any]:
    size, hidden, out = SHAPES[shape]
    fd.manual_seed(3)
    net = nn.Sequential(nn.Linear(size[-1], hidden), ACTIVATIONS[activation](), nn.Linear(hidden, out)).to(dtype)
    optimizer = optim.SGD(net.parameters(), lr=0.01)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        y = net(x.swapaxes(0, 1) if shape == "turned" else x)
        (y * y).sum().backward()
        optimizer.step()
        return y.detach()

    rng = np.random.default_rng(5)
    factors = np.where(np.arange(size[-1]) == 1, factor, 3)
    return bits_of_training(step, passes, [[(rng.normal(size=size) * factors).astype(dtype)] for _ in range(3)], net)


def left(step: Any, names: tuple[str, ...]) -> list[str]:
    return [op for op in (line.split()[1] for line in step.dump().splitlines()[2:]) if op in names]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_replay_equals_eager(activation, shape):
    names = (activation, activation + "_backward")
    for dtype in ("float32", "float64"):
        want, _ = train(activation, shape, None, dtype)
        got, step = train(activation, shape, {}, dtype)
        assert got == want
        assert left(step, names) == []
        got, step = train(activation, shape, {"epilogue": False}, dtype)
        assert got == want
        if shape != "empty":  # nothing is launched for that
            assert left(step, names)[-1:] == [names[1]]


def test_any_number_of_threads_and_short_floats():
    want, before = {a: train(a, "tiles", None)[0] for a in ("relu", "gelu")}, fd.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            fd.set_num_threads(threads)
            for activation in want:
                assert train(activation, "tiles", {})[0] == want[activation]
    finally:
        fd.set_num_threads(before)
    assert train("gelu", "transposed", {}, "float16")[0] == train("gelu", "transposed", None, "float16")[0]


@pytest.mark.parametrize("factor", [1e-36, 1e30, np.inf])
def test_numbers_that_do_not_split_into_parts_for_tiles(factor):
    for passes in ({}, {"epilogue": False}):
        with np.errstate(all="ignore"):
            assert train("gelu", "tiles", passes, factor=factor)[0] == train("gelu", "tiles", None, factor=factor)[0]


def test_weights_that_are_packed_in_slabs():
    x, w = weights(20, 3000), weights(3000, 3000)

    def f(x: Any) -> Any:
        z = F.linear(x, w)
        return F.gelu(z) + z

    run = fd.compile(f)
    want = f(x).numpy().tobytes()
    assert [run(x).numpy().tobytes() for _ in range(3)] == [want] * 3
    assert left(run, ("gelu",)) == []


def weights(*sizes: int) -> Any:
    return fd.array(np.random.default_rng(sum(sizes)).normal(size=sizes).astype("f"))


W, B, SQUARE, STACK = weights(9, 8), weights(9), weights(8, 8), weights(2, 8, 7)


def twice(x: Any) -> Any:
    """Two activations of one result: one of them is its epilogue."""
    z = F.linear(x, W, B)
    return F.gelu(z) + F.silu(z)


def leaves(x: Any) -> Any:
    """The activation's argument is a result of the function, too: it stays as it is."""
    z = F.linear(x, W, B)
    return F.gelu(z), z


def reads_both(x: Any) -> Any:
    z = F.linear(x, W, B)
    return (F.gelu(z) * z) @ fd.abs(W)


def in_place(x: Any) -> Any:
    """The result goes where the product reads."""
    h = x * 1
    fd.relu(F.linear(h, SQUARE), out=h)
    return h


def written_between(x: Any) -> Any:
    """What the derivative reads is written between the product and it."""
    y = x * 1
    g = x @ SQUARE
    fd.multiply(y, -1, out=y)
    return fd.ops.activation.relu_backward(g, y)


def batches(x: Any) -> Any:
    """Products of matrices that each have their own right operand."""
    a = (x.reshape(2, 3, 8) * 1).detach().requires_grad_()
    (F.silu(a) @ STACK).sum().backward()
    return a.grad


def reshaped(x: Any) -> Any:
    return F.gelu(F.linear(x, W, B).reshape(-1))


def gradient_read_twice(x: Any) -> Any:
    """The product with a layer's weights goes through an activation and past it."""
    a = x.detach().requires_grad_()
    h = F.tanh(a)
    (F.linear(h + a, W, B) * x[:, :1]).sum().backward()
    return a.grad


@pytest.mark.parametrize(
    ("function", "names", "count"),
    [
        (twice, ("gelu", "silu"), 1),
        (leaves, ("gelu",), 1),
        (reads_both, ("gelu",), 0),
        (in_place, ("relu",), 1),
        (written_between, ("relu_backward",), 1),
        (batches, ("silu_backward",), 0),
        (reshaped, ("gelu",), 1),
        (gradient_read_twice, ("tanh_backward",), 1),
    ],
)
def test_what_else_reads_and_writes(function: Callable[[Any], Any], names: tuple[str, ...], count: int):
    step = fd.compile(function)
    for seed in range(4):
        x = fd.array(np.random.default_rng(seed).normal(size=(6, 8)).astype("f"))
        got, want = ([t.numpy().tobytes() for t in (r if isinstance(r, tuple) else (r,))] for r in (step(x), function(x)))
        assert got == want
    assert len(left(step, names)) == count, step.dump()


def test_a_derivative_that_goes_where_its_argument_is():
    held = fd.zeros((6, 8))
    step = fd.compile(lambda x: fd.ops.activation.relu_backward(x @ SQUARE, held, out=held))
    for seed in range(4):
        x, y = np.random.default_rng(seed).normal(size=(2, 6, 8)).astype("f")
        held[...] = fd.array(y)
        want = (x @ SQUARE.numpy()) * (y > 0)
        np.testing.assert_allclose(step(fd.array(x)).numpy(), want, rtol=1e-5, atol=1e-5)
    assert left(step, ("relu_backward",)) == ["relu_backward"]


def test_activation_of_a_convolution():
    conv = nn.Conv2d(3, 5, 3)
    for activation, make in ACTIVATIONS.items():
        act = make()
        step = fd.compile(lambda x, act=act: act(conv(x)))
        with fd.no_grad():
            for seed in range(3):
                x = fd.array(np.random.default_rng(seed).normal(size=(2, 3, 9, 7)).astype("f"))
                assert step(x).numpy().tobytes() == act(conv(x)).numpy().tobytes()
        assert left(step, (activation,)) == []
