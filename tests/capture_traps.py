"""What the tests of captured functions' traps share: calls compared with eager ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastdl as fd
from fastdl import nn, optim


@pytest.fixture(autouse=True)
def no_recording_is_left_behind():
    yield
    random_module = fd.random
    random_module._observe(None)  # a recording that another thread ended may be left behind


def call(f: Any, *args: Any, n: int = 4, **kwargs: Any) -> Any:
    """Calls n times: eager, recorded, replayed."""
    for _ in range(n):
        result = f(*args, **kwargs)
    return result


def same(a: Any, b: Any) -> None:
    a, b = (np.asarray(fd.asarray(v).detach()) for v in (a, b))
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def against(make: Any, calls: Any, programs: int | None = 1) -> Any:
    """The same calls of the function that make() gives, captured and eager: results and make()'s state must be equal after each."""
    eager, captured = make(), fd.compile(make())
    for args in calls:
        fd.manual_seed(sum(map(ord, repr(type(args)))))
        want = eager(*args)
        fd.manual_seed(sum(map(ord, repr(type(args)))))
        same(captured(*args), want)
    if programs is not None:
        assert captured.programs == programs, captured.reason
    return captured


X = np.arange(6, dtype=np.float32).reshape(2, 3)



def trainer(**kwargs):
    fd.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = optim.SGD(model.parameters(), lr=0.1, **kwargs)

    def step(x):
        optimizer.zero_grad()
        loss = fd.square(model(x)).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, optimizer, step
