"""Captured steps drop what batch norm and cheap convolutions made and make it again for the gradients: less memory, the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from common import bits_of_training

import fastdl as fd
from fastdl import nn, optim
from fastdl.nn import functional as F

C = 16


class Block(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + x): the sum is made again from that of the block before. `project`: + norm(conv(x))."""

    def __init__(self, project: bool = False) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(C, C, 3, padding=1, bias=False), nn.BatchNorm2d(C)
        self.c2, self.b2 = nn.Conv2d(C, C, 3, padding=1, bias=False), nn.BatchNorm2d(C)
        self.project = nn.Sequential(nn.Conv2d(C, C, 1, bias=False), nn.BatchNorm2d(C)) if project else None

    def forward(self, x: Any) -> Any:
        y = self.b2(self.c2(F.relu(self.b1(self.c1(x)))))
        return F.relu(y + (self.project(x) if self.project else x))


class Changed(nn.Module):
    """What the norm read is changed in place afterwards, and stays for another gradient: the norm's result cannot be made again from it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(C, C, 3, padding=1, bias=False), nn.BatchNorm2d(C)
        self.pre, self.last = nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 3, padding=1)

    def forward(self, x: Any) -> Any:
        with fd.no_grad():
            y = self.conv(x)
            z = self.norm(y)
            y *= 2.0
        more = self.pre(x) * y  # its gradient reads y after that of `last` has read z
        return self.last(z) + more


def first() -> list[Any]:
    return [nn.Conv2d(1, C, 3, padding=1, bias=False), nn.BatchNorm2d(C), nn.ReLU()]


def norms(n: int, *between: Callable[[], Any]) -> list[Any]:
    return [m for _ in range(n) for m in (nn.Conv2d(C, C, 3, padding=1, bias=False), nn.BatchNorm2d(C), *(b() for b in between))]


# layers, and how many norms and convolutions are made again, by default and where 3x3 convolutions may be
NETS: dict[str, tuple[Callable[[], list[Any]], tuple[int, int], tuple[int, int]]] = {
    "norm, relu": (lambda: [*first(), *norms(6, nn.ReLU)], (6, 1), (7, 4)),
    "norm, gelu": (lambda: [*first(), *norms(5, nn.GELU)], (6, 1), (5, 6)),
    "skip connections": (lambda: [*first(), Block(), Block(), Block()], (8, 2), (8, 3)),
    "projections": (lambda: [*first(), Block(True), Block(), Block(True)], (4, 2), (7, 5)),
    "bias and activation": (lambda: [nn.Conv2d(1, C, 3, padding=1), nn.ReLU(), *(m for _ in range(18) for m in (nn.Conv2d(C, C, 3, padding=1), nn.Tanh()))], (0, 0), (0, 25)),
    "changed": (lambda: [*first(), *(Changed() for _ in range(12))], (0, 0), (0, 0)),
}


def train(name: str, passes: dict[str, bool] | None, dtype: str = "float32", training: bool = True) -> tuple[list[bytes], Any]:
    fd.manual_seed(3)
    net = nn.Sequential(*NETS[name][0]()).to(dtype).train(training)
    optimizer = optim.SGD(net.parameters(), lr=0.05)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    rng = np.random.default_rng(5)
    size = 48 if dtype == "float64" else 64
    batches = [[rng.normal(size=(8, 1, size, size)).astype(dtype)] for _ in range(3)]
    return bits_of_training(step, passes, batches, net)


def count(step: Any, op: str) -> int:
    return sum(line.split()[1] == op for line in step.dump().splitlines()[2:])


@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_same_bits_with_less_memory(name, convolutions):
    want, _ = train(name, None)
    kept, without = train(name, {"recompute": False, "recompute_convolutions": convolutions})
    made, step = train(name, {"recompute_convolutions": convolutions})
    assert made == want
    assert kept == want
    again = tuple(count(step, op) - count(without, op) for op in ("batch_norm", "conv2d"))
    assert again == NETS[name][1 + convolutions]
    assert without.stats()["arena_bytes"] > 30e6
    if any(again):
        assert step.stats()["arena_bytes"] < (0.6 if convolutions else 0.75) * without.stats()["arena_bytes"]


def test_float64_and_evaluation():
    name = "projections"
    want, _ = train(name, None, "float64")
    made, step = train(name, {}, "float64")
    assert made == want
    assert count(step, "batch_norm") > 7
    want, _ = train(name, None, training=False)
    made, step = train(name, {}, training=False)
    assert made == want
    assert count(step, "batch_norm") == count(train(name, {"recompute": False}, training=False)[1], "batch_norm")


def test_small_programs_keep_what_they_made():
    def arena(passes: dict[str, bool]) -> Any:
        net = nn.Sequential(*first(), Block(), Block())

        def step(x: Any) -> Any:
            net.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            return loss.detach()

        run = fd.compile(step, passes=passes)
        for _ in range(3):
            run(fd.ones((2, 1, 16, 16)))
        return count(run, "batch_norm"), run.stats()["arena_bytes"]

    assert arena({}) == arena({"recompute": False})


@pytest.mark.parametrize("change", ["nothing", "argument", "weight", "view"])
def test_sources_that_are_overwritten(change):
    """A convolution is not made again once its argument or weight, or memory that it shares, was written."""
    layers = 20

    def train(passes: dict[str, bool] | None) -> tuple[list[bytes], Any]:
        fd.manual_seed(3)
        convs = [nn.Conv2d(1, C, 3, padding=1, bias=False) for _ in range(layers)]
        net = nn.Module()
        net.scale = nn.Parameter(fd.ones(layers))
        whole = fd.random.normal((10, 1, 64, 64))

        def step(x: Any) -> Any:
            net.zero_grad()
            source = whole[2:] if change == "view" else x
            with fd.no_grad():
                results = [conv(source) for conv in convs]
                if change == "argument":
                    x *= 0.5
                for weight in (conv.weight for conv in convs if change == "weight"):
                    weight *= 0.5
                if change == "view":
                    whole[:] *= 0.5
            loss = sum((net.scale[i] * y).square().mean() for i, y in enumerate(results))
            loss.backward()
            with fd.no_grad():
                net.scale[:] -= 0.1 * net.scale.grad
            return loss.detach()

        rng = np.random.default_rng(5)
        return bits_of_training(step, passes, [[rng.normal(size=(8, 1, 64, 64)).astype("float32")] for _ in range(3)], net)

    want, _ = train(None)
    kept, without = train({"recompute": False})
    made, step = train({})
    assert made == want
    assert kept == want
    assert count(without, "conv2d") == layers
    again = count(step, "conv2d") - layers
    assert again > 0 if change == "nothing" else again == 0


def test_peak_of_the_step_is_what_the_allocator_sees():
    """Not only the plan is smaller: bytes held at the highest point of a replay, arena and results together."""
    peaks = {}
    for recompute in (True, False):
        _, step = train("skip connections", {"recompute": recompute})
        x = fd.random.normal((8, 1, 64, 64))
        step(x)
        fd.memory.reset_peak()
        step(x)
        peaks[recompute] = fd.memory.stats()["peak"]
        step.clear()
    assert peaks[True] < peaks[False] - 4 * 8 * C * 64 * 64 * 4
