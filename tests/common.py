"""Helpers of the table-driven tests: tensors in many layouts, comparison by units of eps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

import fastdl
from fastdl.op import STANZAS

# fastdl with every op under its own name, also where the public function of that name has other arguments.
raw = SimpleNamespace(**{**{n: getattr(fastdl, n) for n in dir(fastdl) if not n.startswith("_") and n not in ("sklearn", "keras", "onnx", "testing")}, **STANZAS})


def rng_for(*key: Any) -> np.random.Generator:
    return np.random.default_rng(abs(hash_text(repr(key))))


def hash_text(text: str) -> int:
    import zlib

    return zlib.crc32(text.encode())


def as_layout(a: np.ndarray, dtype: str, layout: str) -> Any:
    """A tensor with the values of `a` and memory in the named layout."""
    t = fastdl.array(a).astype(dtype) if a.dtype == np.float64 else fastdl.array(a)
    if layout in ("contiguous", "scalar", "empty") or t.ndim == 0:
        return t
    if layout == "transposed":
        return t.T.contiguous().T if t.ndim > 1 else t
    if layout == "sliced":
        wide = fastdl.zeros([2 * s + 1 for s in t.shape], dtype=t.dtype)
        key = tuple(slice(1, 2 * s + 1, 2) for s in t.shape)
        wide[key] = t
        return wide[key]
    if layout == "reversed":
        key = (slice(None, None, -1),) * t.ndim
        return t[key].contiguous()[key]
    if layout == "unaligned":
        flat = fastdl.zeros(t.size + 1, dtype=t.dtype)
        flat[1:] = t.reshape(-1)
        return flat[1:].reshape(t.shape)
    if layout == "broadcast":
        return fastdl.broadcast_to(t[:1], t.shape) if t.shape[0] else t
    raise AssertionError(layout)


def values(t: Any) -> np.ndarray:
    """Float64 (or integer) values of a tensor."""
    t = t.detach().cpu()
    if t.dtype.kind == "f":
        return np.asarray(t.astype("float64"))
    return np.asarray(t)


def synchronize() -> None:
    """Waits for the default device: indices in its memory are checked by its kernels."""
    if fastdl.get_default_device().type == "cuda":
        fastdl.cuda.synchronize()


def tensors_in(args: Any) -> list:
    return [a for x in args for a in (x if isinstance(x, list) else [x]) if isinstance(a, fastdl.Tensor)]


def check_close(got: Any, want: Any, tol: float, eps: float, scale: Any, what: str, tiny: float = 1e-37) -> None:
    """|got - want| <= tol * eps * scale, elementwise; NaN and infinities in the same places."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, want {want.shape}"
    if got.dtype.kind in "biu":
        np.testing.assert_array_equal(got, want.astype(got.dtype), err_msg=what)
        return
    want = want.astype(np.float64)
    nan = np.isnan(want)
    assert (np.isnan(got) == nan).all(), f"{what}: NaN in other places"
    size = np.broadcast_to(np.abs(want) if scale is None else np.maximum(np.abs(scale), 0), want.shape)
    bound = tol * eps * size + tiny  # tiny: where numbers are subnormal, eps means nothing
    with np.errstate(invalid="ignore"):
        bad = ~nan & ~(np.abs(got - want) <= bound) & (got != want)
    if bad.any():
        i = np.unravel_index(np.argmax(np.where(bad, np.abs(got - want) / np.maximum(bound, 1e-300), 0)), want.shape)
        raise AssertionError(f"{what}: at {i} got {got[i]!r}, want {want[i]!r}, error {abs(got[i] - want[i]) / max(eps * size[i], 1e-300):.3g} eps, allowed {tol}")


def bits_of_training(step: Any, passes: dict[str, bool] | None, batches: list[list[np.ndarray]], net: Any) -> tuple[list[bytes], Any]:
    """The bits of what `step` returns for each batch and of the net's state afterwards, and the function that ran: eager where `passes` is None."""
    run = step if passes is None else fastdl.compile(step, passes=passes)
    seen = [run(*(fastdl.array(a) for a in batch)).numpy().tobytes() for batch in batches]
    return seen + [t.detach().numpy().tobytes() for t in net.state_dict().values()], run


def small_network(kind: str) -> Any:
    """For inputs (N, 12) and 3 classes: "mlp" with dropout, "norms" with layer norm, "cnn" with batch norm."""
    nn = fastdl.nn
    if kind == "mlp":
        return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    if kind == "norms":
        return nn.Sequential(nn.Linear(12, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3))
    return nn.Sequential(
        nn.Unflatten(1, (1, 3, 4)), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2, stride=1), nn.Flatten(), nn.Linear(24, 3)
    )


def record(run: Any, threads: int) -> list[tuple[int, list[int]]]:
    """Of every call of parallel_chunks in run(): what would not be cut any further, and the work of its chunks."""
    before = fastdl.get_num_threads()
    fastdl.set_num_threads(threads)
    fastdl._C._record_chunks(True)
    try:
        run()
    finally:
        calls = fastdl._C._record_chunks(False)
        fastdl.set_num_threads(before)
    assert calls, "nothing ran on the pool"
    return calls
