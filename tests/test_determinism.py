"""Same numbers for every thread count and every run: 50 training steps of the CNN, bit for bit."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastdl as fd

HERE = Path(__file__).resolve().parent
STEPS = """
import hashlib, sys
import numpy as np
import fastdl as fd
from fastdl import nn, optim

fd.set_num_threads(int(sys.argv[1]))
fd.manual_seed(3)
rng = np.random.default_rng(0)
model = nn.Sequential(
    nn.Conv2d(1, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.GELU(), nn.AvgPool2d(2),
    nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 36, 128), nn.LayerNorm(128), nn.Tanh(), nn.Linear(128, 10),
)
optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
digest = hashlib.sha256()
for step in range(50):
    x = fd.array(rng.normal(size=(16, 1, 28, 28)).astype("float32"))
    y = fd.array(rng.integers(0, 10, 16))
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optim.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    digest.update(loss.detach().numpy().tobytes())
for p in model.state_dict().values():
    digest.update(np.ascontiguousarray(fd.asarray(p).detach().numpy()).tobytes())
assert np.isfinite(loss.item())
print(digest.hexdigest())
"""


def train(threads: int) -> str:
    run = subprocess.run([sys.executable, "-c", STEPS, str(threads)], capture_output=True, text=True, cwd=HERE, env={**os.environ, "FASTDL_NUM_THREADS": ""})
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout.strip()


def test_training_is_bitwise_equal_for_all_thread_counts():
    digests = {n: train(n) for n in (1, 2, 3, 8)}
    assert len(set(digests.values())) == 1, digests
    assert train(2) == digests[1]  # and from run to run


LARGE = {
    "sum": lambda x: fd.sum(x),
    "sum axis 0": lambda x: fd.sum(x, axis=0),
    "var": lambda x: fd.var(x),
    "softmax": lambda x: fd.softmax(x, 0),
    "matmul": lambda x: x.T @ x,
    "cumsum": lambda x: fd.cumsum(x, 1),
    "exp": lambda x: fd.exp(x),
    "normal": lambda x: fd.random.normal(x.shape, rng=5),
    "dropout": lambda x: fd.dropout(x, 0.5, 1, 2),
    "take gradient": lambda x: fd.take_backward(x, fd.array(np.arange(x.shape[0]) % 7), 0, 7),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_ops_are_bitwise_equal(name):
    x = fd.array(np.random.default_rng(1).normal(size=(1200, 700)).astype("float32"))
    before = fd.get_num_threads()
    try:
        found = set()
        for n in (1, 2, 3, 8):
            fd.set_num_threads(n)
            found.add(hashlib.sha256(np.ascontiguousarray(LARGE[name](x).numpy()).tobytes()).hexdigest())
    finally:
        fd.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.parametrize("m", [257, 266, 343])  # strips of the last tiles end with A, or within it
def test_transposed_rows_are_copied_side_by_side_with_the_same_bits(m):
    """A.T @ B with rows of A on pages of their own: sums are cut at 136 of k instead of 200 (136, too, with AVX2), whoever shares the
    work, and right.

    Float64, which no tiles multiply. 2**53 hides ones that are added to it one by one, until the next part of k begins at 0."""
    rng = np.random.default_rng(m)
    a, b = rng.normal(size=(400, m)), rng.normal(size=(400, 601))
    ones = np.ones((400, m))
    ones[0] = 2.0**53
    found, before = set(), fd.get_num_threads()
    try:
        for n in (1, 2, 3, 8):
            fd.set_num_threads(n)
            product = (fd.array(a).T @ fd.array(b)).numpy()
            found.add(hashlib.sha256(product.tobytes()).hexdigest())
            for left, cut in ((fd.array(ones).T, 136), (fd.array(np.ascontiguousarray(ones.T)), 136 if fd._C.isa() == "avx2" else 200)):
                sums = (left @ fd.ones((400, 601), dtype=fd.float64)).numpy()
                assert (sums == 2.0**53 + (400 - cut)).all()
    finally:
        fd.set_num_threads(before)
    assert len(found) == 1
    np.testing.assert_allclose(product, a.T @ b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(4, 24, 9, 7), (3, 70, 5), (1, 16, 300, 4)])
def test_batch_norm_finishes_whole_channels_with_the_same_bits(shape, dtype, training):
    """Where channels are enough to share out, one call of the pool does each way's sums and result; else three or more do."""
    rng = np.random.default_rng(0)
    data, grad = (rng.normal(2, 3, shape).astype(dtype) for _ in range(2))
    rows = rng.normal(size=(2, shape[1])).astype(dtype)
    found, calls = {}, {}
    before = fd.get_num_threads()
    for threads in (1, 2, 64):
        fd.set_num_threads(threads)
        g = fd.array(grad)
        x, w, b = (fd.array(a, requires_grad=True) for a in (data, *rows))
        mean, var = (fd.full(shape[1], a, dtype=getattr(fd, dtype)) for a in (0, 1))
        fd._C._record_chunks(True)
        try:
            y = fd.nn.functional.batch_norm(x, mean, var, w, b, training)
            forward = len(fd._C._record_chunks(False))
            fd._C._record_chunks(True)
            y.backward(g)
        finally:
            calls[threads] = forward, len(fd._C._record_chunks(False))
            fd.set_num_threads(before)
        found[threads] = [t.detach().numpy().tobytes() for t in (y, mean, var, x.grad, w.grad, b.grad)]
    assert found[1] == found[2] == found[64]
    assert calls[1] == calls[2] == ((1, 1) if training else (2, 1))
    assert calls[64] == ((3, 3) if training else (2, 3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("m, k, n", [(64, 128, 10), (20, 33, 37), (50, 5, 18), (40, 500, 100), (1100, 20, 90), (1100, 40, 90)])
def test_products_have_the_same_bits_in_every_layout(m, k, n, dtype):
    """Whatever is copied or turned, or not: transposed squares of few columns, strips of rows whose steps lie far apart."""
    rng = np.random.default_rng(m + n)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    left, right = (fd.array(a), fd.array(a.T.copy()).T), (fd.array(b), fd.array(b.T.copy()).T)
    found = [np.asarray(x @ y) for x in left for y in right]
    np.testing.assert_allclose(found[0], a.astype("f8") @ b, rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-4 if dtype == "float32" else 1e-12)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_blocks_of_columns_packed_apart_have_memory_of_their_own():
    """Long k: the last of its blocks is shorter, and one thread may be in it while its neighbour is in another."""
    rng = np.random.default_rng(5)
    a, b = fd.array(rng.standard_normal((200, 1000))), fd.array(rng.standard_normal((1000, 8192)))
    before = fd.get_num_threads()
    try:
        fd.set_num_threads(1)
        want = np.asarray(a @ b)
        fd.set_num_threads(2)
        for _ in range(12):
            np.testing.assert_array_equal(np.asarray(a @ b), want)
    finally:
        fd.set_num_threads(before)


def test_long_sums_beside_a_large_second_operand():
    """Packed whole, the second operand would take more than the workspace holds: it is packed in slabs, k is not cut in parts."""
    m, k, n = 16, 1 << 19, 20
    rng = np.random.default_rng(4)
    a, b = (rng.standard_normal(s, dtype=np.float32) for s in ((m, k), (n, k)))
    x, y = fd.array(a), fd.array(b).T
    before, found = fd.get_num_threads(), []
    try:
        for threads in (1, 3):
            fd.set_num_threads(threads)
            found.append(np.asarray(x @ y))
    finally:
        fd.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    exact, bound = a.astype("f8") @ b.T.astype("f8"), np.abs(a).astype("f8") @ np.abs(b.T).astype("f8")
    assert (np.abs(found[0] - exact) < 2.0**-24 * bound).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "float16"])
@pytest.mark.parametrize("width", [1023, 1025, 2049, 4100])
def test_reductions_of_wide_rows_in_blocks_of_columns(width, dtype):
    """Blocks of 512 to 2048 columns, copied or in place: the right values, the same bits for every thread count."""
    x = (100 * np.random.default_rng(width).standard_normal((150, width))).astype(dtype)
    both = fd.array(x), fd.array(np.repeat(x, 2, axis=1))[:, ::2]
    exact = x.astype("f8")
    wanted = {"sum": exact.sum(0), "max": exact.max(0), "argmax": x.argmax(0), "var": exact.var(0)}
    before = fd.get_num_threads()
    try:
        for name in wanted if dtype != "int64" else ("sum", "max", "argmax"):
            found = []
            for n in (1, 2, 3, 8):
                fd.set_num_threads(n)
                found += [np.asarray(getattr(t, name)(0)) for t in both]
            for other in found[1:]:
                np.testing.assert_array_equal(other, found[0], err_msg=name)
            rtol, atol = (2e-3, 2) if dtype == "float16" else (1e-5, 1e-3)
            np.testing.assert_allclose(found[0], wanted[name], rtol, atol, err_msg=name)
    finally:
        fd.set_num_threads(before)
