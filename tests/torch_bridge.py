"""Helpers of the differential tests: the same module, function or optimiser in fastdl and in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastdl as fd

try:
    import torch
except ImportError:  # the tests that compare are skipped, the others run
    torch = None  # type: ignore[assignment]
else:
    torch.set_num_threads(1)

needs_torch = pytest.mark.skipif(torch is None, reason="compares with PyTorch, which is not installed")


def numpy(value: Any) -> np.ndarray:
    """A tensor of either library as an array."""
    return value.detach().cpu().numpy()


def pair(array: np.ndarray, grad: bool = True) -> tuple[Any, Any]:
    """The same values as a fastdl and a torch tensor; floats require grad."""
    ours, theirs = fd.array(array), torch.tensor(array)
    if grad and array.dtype.kind == "f":
        ours.requires_grad_()
        theirs.requires_grad_()
    return ours, theirs


def copy_weights(ours: Any, theirs: Any) -> None:
    """theirs' state into ours, by name: keys, shapes and order must agree."""
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)


def close(ours: Any, theirs: Any, what: str, work: float = 1.0) -> None:
    """Equal up to rounding: the dtype's epsilon, times the square root of the work, times the values' scale."""
    a, b = numpy(ours), numpy(theirs)
    assert a.shape == b.shape, f"{what}: shapes {a.shape} and {b.shape}"
    if a.dtype.kind != "f":
        assert a.dtype == b.dtype, f"{what}: dtypes {a.dtype} and {b.dtype}"
        np.testing.assert_array_equal(a, b, err_msg=what)
        return
    assert a.dtype == b.dtype, f"{what}: dtypes {a.dtype} and {b.dtype}"
    eps = np.finfo(a.dtype).eps
    scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
    np.testing.assert_allclose(a, b, rtol=16 * eps, atol=16 * eps * np.sqrt(work) * max(scale, 1e-3), err_msg=what)


def compare(ours: Any, theirs: Any, inputs: list[np.ndarray], *, work: float = 1.0, modules: bool = True) -> None:
    """Outputs, and gradients of inputs and parameters, of two callables."""
    pairs = [pair(x) for x in inputs]
    y, z = ours(*[p[0] for p in pairs]), theirs(*[p[1] for p in pairs])
    close(y, z, "output", work)
    if not z.requires_grad:
        return
    weights = np.random.default_rng(0).standard_normal(tuple(z.shape)).astype(numpy(z).dtype)
    (y * fd.asarray(weights)).sum().backward()
    (z * torch.tensor(weights)).sum().backward()
    for k, (p, q) in enumerate(pairs):
        if q.grad is not None:
            close(p.grad, q.grad, f"gradient of input {k}", work)
    if modules:
        for (name, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            close(p.grad, q.grad, f"gradient of {name}", work * max(1, weights.size))
