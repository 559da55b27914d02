"""Captured functions on a CUDA device: the replays give the bits of the eager calls, there too."""

from __future__ import annotations

import numpy as np
import pytest
from common import small_network

import fastdl as fd
from fastdl import optim
from fastdl.nn import functional as F

pytestmark = pytest.mark.skipif(fd._C.cuda_device_count() == 0, reason=f"no CUDA device: {fd._C.cuda_missing() or 'the library finds none'}")


def train(kind: str, optimizer: type, wrap, steps: int = 6):
    fd.manual_seed(3)
    model = small_network(kind).to("cuda")
    opt = optimizer(model.parameters(), lr=1e-2)

    def step(x, y):
        opt.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        loss.backward()
        opt.step()
        return loss.detach(), (logits.detach().argmax(axis=1) == y).sum()

    step = wrap(step)
    rng = np.random.default_rng(0)
    results = []
    for k in range(steps):
        x = fd.array(rng.normal(size=(8, 12)).astype("float32"), device="cuda")
        y = fd.array(rng.integers(0, 3, 8), device="cuda")
        if k == 4:
            opt.param_groups[0]["lr"] = 1e-3
        results.append([t.item() for t in step(x, y)])
    state = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
    return results, state, step


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.AdamW])
@pytest.mark.parametrize("kind", ["mlp", "norms", "cnn"])
def test_replays_equal_eager_steps(kind, optimizer):
    got, want = train(kind, optimizer, fd.compile), train(kind, optimizer, lambda f: f)
    assert got[2].programs == 1, got[2].reason
    assert got[2].stats()["replays"] >= 4
    assert got[0] == want[0]
    for name, value in want[1].items():
        np.testing.assert_array_equal(got[1][name], value, err_msg=name)


def test_programs_by_device():
    """One function on two devices: two programs."""
    f = fd.compile(lambda x: (x * 2 + 1).sum(axis=0))
    x = fd.array(np.arange(6, dtype=np.float32).reshape(2, 3))
    for _ in range(4):
        for device in ("cpu", "cuda"):
            result = f(x.to(device))
            assert str(result.device).startswith(device)
            np.testing.assert_array_equal(result.cpu().numpy(), [8, 12, 16])
    assert f.programs == 2


def test_results_stay():
    """Results of one call are not overwritten by the next."""
    f = fd.compile(lambda x: fd.exp(x) * 2)
    kept = [f(fd.full((5,), float(k), device="cuda")) for k in range(6)]
    for k, t in enumerate(kept):
        np.testing.assert_allclose(t.cpu().numpy(), np.full(5, 2 * np.exp(k)), rtol=1e-6)


def test_reading_is_refused():
    f = fd.compile(lambda x: x * x.sum().item())
    x = fd.ones(3, device="cuda")
    f(x)
    with pytest.raises(fd.CaptureError, match="item"):
        f(x)
    with pytest.raises(fd.CaptureError, match="another device"):
        g = fd.compile(lambda x: (x + 1).cpu())
        g(x), g(x)


def test_bad_indices_are_errors_at_replay():
    table = fd.array(np.arange(12, dtype=np.float32).reshape(4, 3), device="cuda")
    f = fd.compile(lambda i: table[i] + 1)
    for _ in range(3):
        np.testing.assert_array_equal(f(fd.array([3, 0], device="cuda")).cpu().numpy(), [[10, 11, 12], [1, 2, 3]])
    with pytest.raises(IndexError):
        f(fd.array([1, 7], device="cuda")).cpu()
        fd.cuda.synchronize()
    np.testing.assert_array_equal(f(fd.array([1, 1], device="cuda")).cpu().numpy(), [[4, 5, 6], [4, 5, 6]])
