"""What captured functions do with convolution and pooling: large arrays that live image by image, gradients spread inside the kernel that
needs them. Always the bits of the eager call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from common import bits_of_training

import fastdl as fd
from fastdl import nn, optim
from fastdl.nn import functional as F

N = 20


def head(features: int) -> list[Any]:
    return [nn.Flatten(), nn.Linear(features, 4)]


Net = tuple[Callable[[], Any], tuple[int, ...]]
NETS: dict[str, Net] = {
    "first layer": (lambda: [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), *head(32 * 13 * 13)], (1, 28, 28)),
    "colours, padding, stride": (lambda: [nn.Conv2d(3, 40, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(3), *head(40 * 5 * 5)], (3, 32, 30)),
    "uncovered pixels": (lambda: [nn.Conv2d(2, 24, 3), nn.ReLU(), nn.MaxPool2d((2, 3)), *head(24 * 13 * 9)], (2, 29, 30)),
    "clipped windows": (lambda: [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True), *head(32 * 14 * 13)], (1, 29, 28)),
    "windows that overlap": (lambda: [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *head(32 * 13 * 13)], (1, 28, 28)),
    "average": (lambda: [nn.Conv2d(1, 32, 3), nn.Tanh(), nn.AvgPool2d(2), *head(32 * 13 * 13)], (1, 28, 28)),
    "two layers": (
        lambda: [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 48, 3), nn.ReLU(), nn.MaxPool2d(2), *head(48 * 25)],
        (1, 28, 28),
    ),
    "few filters": (lambda: [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), *head(6 * 24 * 24)], (1, 52, 52)),
    "no activation": (lambda: [nn.Conv2d(4, 32, (1, 3)), nn.MaxPool2d(2), *head(32 * 14 * 13)], (4, 28, 28)),
}


def train(name: str, passes: dict[str, bool] | None, dtype: str = "float32", nan: bool = False) -> tuple[list[bytes], Any]:
    """Bits of losses and parameters; and the step. `passes` None: eager."""
    layers, shape = NETS[name]
    fd.manual_seed(3)
    net = nn.Sequential(*layers()).to(dtype)
    optimizer = optim.SGD(net.parameters(), lr=0.01)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    rng = np.random.default_rng(5)

    def batch() -> list[Any]:
        x = np.round(rng.normal(size=(N, *shape)) * 2).astype(dtype)  # many equal values: ties in the windows
        if nan:
            x[::3, :, 4:7, 5] = np.nan
        return [x, rng.integers(0, 4, N)]

    return bits_of_training(step, passes, [batch() for _ in range(4)], net)


@pytest.mark.parametrize("name", NETS)
def test_replay_equals_eager(name):
    want, _ = train(name, None)
    for passes in ({}, {"images": False}, {"pooling": False}, {"images": False, "pooling": False}):
        got, step = train(name, passes)
        assert got == want, passes
        assert step.programs == 1


@pytest.mark.parametrize("name", ["first layer", "windows that overlap"])
def test_other_dtypes_and_nan(name):
    assert train(name, {}, "float64")[0] == train(name, None, "float64")[0]
    assert train(name, {}, nan=True)[0] == train(name, None, nan=True)[0]


def test_thread_counts():
    before = fd.get_num_threads()
    try:
        seen = []
        for threads in (1, 2, 5):
            fd.set_num_threads(threads)
            seen.append(train("colours, padding, stride", {})[0])
        assert seen[0] == seen[1] == seen[2]
    finally:
        fd.set_num_threads(before)


def launches(step: Any) -> list[str]:
    return [line.split()[1].lstrip("|") for line in step.dump().splitlines()[2:]]


def test_the_gradient_of_the_first_layer_is_never_spread_in_memory():
    _, step = train("first layer", {})
    ops = launches(step)
    assert "max_pool2d_backward" not in ops
    assert ops.count("relu_backward") == 1  # on the pooled array
    _, plain = train("first layer", {"pooling": False, "images": False})
    assert "max_pool2d_backward" in launches(plain)
    activations = N * 32 * 26 * 26 * 4
    assert plain.stats()["arena_bytes"] > 2 * activations
    assert step.stats()["arena_bytes"] - step.stats()["workspace_bytes"] < activations


def test_where_more_than_the_windows_reads_the_gradient_it_is_spread():
    fd.manual_seed(0)
    conv, x = nn.Conv2d(1, 32, 3), fd.array(np.random.default_rng(0).normal(size=(N, 1, 28, 28)).astype("f"))
    x.requires_grad_()

    def gradients(x: Any) -> Any:
        conv.zero_grad()
        x.grad = None
        y = F.max_pool2d(F.relu(conv(x)), 2)
        (y * y).sum().backward()
        return x.grad, conv.weight.grad

    want = [g.numpy().tobytes() for g in gradients(x)]
    step = fd.compile(gradients)
    for _ in range(3):
        assert [g.numpy().tobytes() for g in step(x)] == want


def test_timed_calls_and_dumps():
    layers, shape = NETS["first layer"]
    net = nn.Sequential(*layers())
    run = fd.compile(lambda x: net(x))
    x = fd.array(np.random.default_rng(0).normal(size=(N, *shape)).astype("f"))
    with fd.no_grad():
        want = run(x).numpy().tobytes()
        run(x)
        run.timed()
        assert run(x).numpy().tobytes() == want
    assert "| conv2d" in run.dump()
    with fd.profiler.profile() as seen, fd.no_grad():
        assert run(x).numpy().tobytes() == want
    assert "conv2d" in str(seen.table())
