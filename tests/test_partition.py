"""How evenly work is shared: what each of 1 to 64 threads gets when they claim the chunks of an op, counted, not timed.

Kernels say how much work a chunk has (`piece_work` in csrc/core/parallel.h: multiply-adds of products and convolutions, elements elsewhere)
and how little would not be cut any further. Chunks are given, in order, to the thread that has least to do, as claiming does where a unit of
work takes equal time.
"""

import heapq

import numpy as np
import pytest

import fastdl as fd
from fastdl import _C

FAIR = 1.15  # the busiest thread's work / the mean
THREADS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 63, 64)


def heaviest(work: list[int], threads: int) -> int:
    loads = [0] * threads
    for chunk in work:
        heapq.heapreplace(loads, loads[0] + chunk)
    return max(loads)


def unfair(run, threads: int) -> list[str]:
    """The calls of parallel_chunks in run() that give a thread too much."""
    before = fd.get_num_threads()
    fd.set_num_threads(threads)
    _C._record_chunks(True)
    try:
        run()
    finally:
        calls = _C._record_chunks(False)
        fd.set_num_threads(before)
    assert calls, "nothing ran on the pool"
    found = []
    for least, work in calls:
        top, mean = heaviest(work, threads), sum(work) / threads
        if top > FAIR * mean and top - mean > least:
            found.append(f"{threads} threads: {len(work)} chunks, busiest {top} of {mean:.0f} on average ({top / mean:.2f}x), least piece {least}")
    return found


def check(run, threads=THREADS):
    found = [line for t in threads for line in unfair(run, t)]
    assert not found, "\n".join(found)


rng = np.random.default_rng(0)


def normal(*shape):
    return fd.array(rng.normal(size=shape).astype(np.float32))


def backward(f, *inputs):
    """f forwards and backwards, by float32 tensors."""
    inputs = [fd.array(x, requires_grad=True) for x in inputs]
    y = f(*inputs)
    g = fd.ones_like(y)
    y.backward(g)


# m, k, n
PRODUCTS = [
    (64, 784, 128), (64, 128, 10), (1024, 192, 576), (1024, 192, 768), (1024, 768, 192), (1024, 192, 96), (32, 64, 512), (32, 128, 512),
    (256, 256, 256), (512, 512, 512),
]  # fmt: skip
MORE_PRODUCTS = [(128, 784, 1024), (128, 1024, 1024), (64, 5408, 128), (1, 4096, 4096), (1024, 1024, 1024)]


@pytest.mark.parametrize("layout", ["NN", "NT", "TN"])
@pytest.mark.parametrize("m, k, n", PRODUCTS)
def test_products(m, k, n, layout):
    a = normal(k, m).T if layout[0] == "T" else normal(m, k)
    b = normal(n, k).T if layout[1] == "T" else normal(k, n)
    check(lambda: a @ b)


# batch, channels, size, filters, kernel, stride, groups
CONVOLUTIONS = [
    (16, 128, 16, 128, 3, 1, 1), (16, 256, 28, 64, 1, 1, 1), (16, 64, 28, 256, 1, 1, 1), (16, 128, 28, 128, 3, 1, 128),
]  # fmt: skip


@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_convolutions(shape):
    batch, channels, size, filters, kernel, stride, groups = shape
    x, w = normal(batch, channels, size, size), normal(filters, channels // groups, kernel, kernel)
    few = THREADS[::3]

    def conv(x, w):
        return fd.conv2d(x, w, stride=stride, padding=kernel // 2, groups=groups)

    check(lambda: conv(x, w), few)
    check(lambda: backward(lambda x: conv(x, w), x), few)
    # The gradient by the weights sums pixels in at most 32 parts, as sums must not follow the thread count: fair to some threads.
    check(lambda: backward(lambda w: conv(x, w), w), (1, 2, 4, 8))


FAMILIES = {
    "add": lambda n: (lambda x: x + x, normal(n)),
    "exp": lambda n: (fd.exp, normal(n)),
    "add a row": lambda n: (lambda x, b: x + b, normal(n // 1000, 1000), normal(1000)),
    "transpose": lambda n: (lambda x: fd.contiguous(x.T), normal(n // 512, 512)),
    "sum": lambda n: (fd.sum, normal(n)),
    "sum rows": lambda n: (lambda x: fd.sum(x, axis=1), normal(n // 512, 512)),
    "max": lambda n: (fd.max, normal(n)),
    "cumsum": lambda n: (lambda x: fd.cumulative_sum(x, axis=1), normal(n // 256, 256)),
    "dropout": lambda n: (lambda x: fd.dropout(x, 0.5, 1, 2), normal(n)),
}


@pytest.mark.parametrize("n", [1 << 20, 1_500_000])
@pytest.mark.parametrize("name", FAMILIES)
def test_memory_bound(name, n):
    run, *inputs = FAMILIES[name](n)
    check(lambda: run(*inputs))


BACKWARD = {
    "max_pool": lambda: (lambda x: fd.max_pool2d(x, 2), normal(32, 64, 28, 28)),
    "max_pool 3": lambda: (lambda x: fd.max_pool2d(x, 3, 2), normal(8, 64, 56, 56)),
    "avg_pool": lambda: (lambda x: fd.avg_pool2d(x, 2), normal(32, 64, 28, 28)),
    "softmax": lambda: (fd.softmax, normal(1024, 1024)),
    "layer_norm": lambda: (lambda x, w, b: fd.layer_norm(x, w, b), normal(1024, 1024), normal(1024), normal(1024)),
    "layer_norm 192": lambda: (lambda x, w, b: fd.layer_norm(x, w, b), normal(8 * 128, 192), normal(192), normal(192)),
    "batch_norm": lambda: (lambda x: fd.nn.functional.batch_norm(x, None, None, training=True), normal(16, 64, 28, 28)),
    "cross_entropy": lambda: (lambda x: fd.cross_entropy(x, fd.arange(len(x)) % 10), normal(3200, 96)),
    "gelu": lambda: (fd.gelu, normal(1 << 20)),
}


@pytest.mark.parametrize("name", BACKWARD)
def test_forward_and_backward(name):
    run, *inputs = BACKWARD[name]()
    check(lambda: backward(run, *inputs))


def test_optimiser():
    p = fd.nn.Parameter(normal(1_000_000))
    p.grad = normal(1_000_000)
    adam = fd.optim.Adam([p])
    adam.step()
    check(adam.step)


def test_the_count_sees_an_unfair_partition():
    assert heaviest([1] * 9, 8) == 2 and heaviest([4, 1, 1, 1, 1], 2) == 4
    x = normal(100_000)
    _C._record_chunks(True)
    fd.exp(x)
    ((least, work),) = _C._record_chunks(False)
    assert sum(work) == 100_000 and len(work) > 8 and least < max(work)
    assert _C._record_chunks(False) == []


@pytest.mark.parametrize("threads", [3, 7, 64])
def test_same_bits_however_finely_work_is_cut(threads):
    """Many threads cut products and loops finer; while chunks are recorded, no thread need exist for that."""

    def results():
        rng = np.random.default_rng(1)
        out = []
        for m, k, n in PRODUCTS + MORE_PRODUCTS:
            for left in (False, True):
                a, b = (rng.normal(size=s).astype(np.float32) for s in ((k, m) if left else (m, k), (k, n)))
                out.append(((fd.array(a).T if left else fd.array(a)) @ fd.array(b)).numpy())
                out.append(fd.array(a).mean(axis=0).numpy())
        x = rng.normal(size=(4, 64, 28, 28)).astype(np.float32)
        w = rng.normal(size=(64, 64, 3, 3)).astype(np.float32)
        t = fd.array(x)
        more = [fd.conv2d(t, fd.array(w), padding=1), fd.gelu(t), fd.softmax(t), fd.max(t), fd.sum(t), fd.var(t), fd.dropout(t, 0.5, 1, 2)]
        return out + [y.numpy() for y in more]

    before = fd.get_num_threads()
    fd.set_num_threads(1)
    want = results()
    fd.set_num_threads(threads)
    _C._record_chunks(True)
    try:
        got = results()
    finally:
        _C._record_chunks(False)
        fd.set_num_threads(before)
    for a, b in zip(want, got, strict=True):
        np.testing.assert_array_equal(a, b)
