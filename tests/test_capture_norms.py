"""Captured batch norms with relu and additions of skip connections in the same pass: the bits of the eager calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from common import bits_of_training

import fastdl as fd
from fastdl import nn, optim
from fastdl.nn import functional as F


class Block(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + x), with a projection of x if the channels change; `order` says which side is added first."""

    def __init__(self, cin: int, cout: int, order: str = "left") -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout)
        self.c2, self.b2 = nn.Conv2d(cout, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout)
        self.project = nn.Sequential(nn.Conv2d(cin, cout, 1, bias=False), nn.BatchNorm2d(cout)) if cin != cout else nn.Identity()
        self.order = order

    def forward(self, x: Any) -> Any:
        y = self.b2(self.c2(F.relu(self.b1(self.c1(x)))))
        return F.relu(y + self.project(x) if self.order == "left" else self.project(x) + y)


class Shared(nn.Module):
    """The norm's result is read twice, its relu as well: nothing to put together but what stays right."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Any) -> Any:
        y = self.norm(x)
        z = F.relu(y)
        return F.relu(y * 0.5 + z) + z


class Twice(nn.Module):
    """relu(a + a), where a comes from a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Any) -> Any:
        y = self.norm(x)
        return F.relu(y + y)


NETS: dict[str, tuple[Callable[[], list[Any]], int]] = {  # layers, and launches of relu, relu_backward and add on images that are left
    "norm, relu": (lambda: [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()], 0),
    "row-major input": (lambda: [nn.BatchNorm2d(3), nn.ReLU()], 0),
    "identity": (lambda: [nn.Conv2d(3, 8, 3), Block(8, 8)], 2),  # relu's derivative is needed on its own; the sum of two gradients
    "projection": (lambda: [Block(3, 8)], 1),
    "projection, other order": (lambda: [Block(3, 8, "right")], 1),
    "two blocks": (lambda: [Block(3, 8), Block(8, 8, "right"), Block(8, 5)], 5),
    "shared": (lambda: [Shared()], 8),
    "twice": (lambda: [Twice()], 4),
}


def train(name: str, passes: dict[str, bool] | None, dtype: str = "float32", training: bool = True, nan: bool = False) -> tuple[list[bytes], Any]:
    fd.manual_seed(3)
    net = nn.Sequential(*NETS[name][0]()).to(dtype).train(training)
    optimizer = optim.SGD(net.parameters(), lr=0.05)
    channels = [p.shape[0] for p in net.parameters()][-1]
    weight = fd.array(np.random.default_rng(1).normal(size=(2, channels, 1, 1)).astype(dtype))
    slope = fd.array(np.random.default_rng(2).normal(size=(4, 1, 9 if name == "row-major input" else 1, 1)).astype(dtype))

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        y = net(x) if name == "row-major input" else F.conv2d(net(x), weight)
        loss = (y * slope).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    rng = np.random.default_rng(5)

    def batch() -> list[Any]:
        x = np.round(rng.normal(size=(4, 3, 9, 7)) * 4) / 4
        if nan:
            x[1, 2, 3, 4] = np.nan
        return [x.astype(dtype)]

    return bits_of_training(step, passes, [batch() for _ in range(4)], net)


@pytest.mark.parametrize("name", NETS)
def test_replay_equals_eager(name):
    want, _ = train(name, None)
    got, step = train(name, {"fuse": False})
    assert got == want
    assert step.programs == 1
    left = [line for line in step.dump().splitlines()[2:] if line.split()[1] in ("relu", "relu_backward", "add") and "(4, " in line]
    assert len(left) == NETS[name][1], left
    assert train(name, {"norms": False})[0] == want


@pytest.mark.parametrize("name", ["norm, relu", "row-major input", "two blocks"])
def test_evaluation_other_dtypes_and_nan(name):
    assert train(name, {}, training=False)[0] == train(name, None, training=False)[0]
    for dtype in ("float64", "float16"):
        assert train(name, {}, dtype)[0] == train(name, None, dtype)[0]
    assert train(name, {}, nan=True)[0] == train(name, None, nan=True)[0]


def test_relu_and_its_derivative_are_gone():
    _, step = train("norm, relu", {})
    ops = [line.split()[1] for line in step.dump().splitlines()[2:]]
    assert "relu" not in ops
    assert "relu_backward" not in ops
    _, plain = train("norm, relu", {"norms": False})
    assert "relu_backward" in plain.dump()


def test_results_that_leave_the_function():
    norm = nn.BatchNorm2d(3)

    def f(x: Any) -> Any:
        y = norm(x)
        return F.relu(y), F.relu(norm(x) + x)

    step = fd.compile(f)
    other = nn.BatchNorm2d(3)
    with fd.no_grad():
        for seed in range(4):
            x = fd.array(np.random.default_rng(seed).normal(size=(2, 3, 4, 5)).astype("f"))
            got = [t.numpy().tobytes() for t in step(x)]
            y = other(x)
            assert got == [t.numpy().tobytes() for t in (F.relu(y), F.relu(other(x) + x))]


def over_the_input(norm: Any, x: Any) -> Any:
    """The result goes where the norm reads."""
    return fd.relu(norm(x), out=x)


def over_what_is_read_between(norm: Any, x: Any) -> Any:
    """The result goes where a launch between the two reads."""
    z, y = norm(x * 1), x * 2
    fd.relu(z, out=x)
    return y


@pytest.mark.parametrize("function", [over_the_input, over_what_is_read_between])
def test_relu_that_writes_what_is_read(function):
    norm, other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    with fd.no_grad():
        run = fd.compile(lambda x: function(norm, x))
        for seed in range(4):
            x = np.random.default_rng(seed).normal(size=(2, 3, 4, 5)).astype("f")
            captured, eager = fd.array(x), fd.array(x)
            assert run(captured).numpy().tobytes() == function(other, eager).numpy().tobytes()
            assert captured.numpy().tobytes() == eager.numpy().tobytes()
