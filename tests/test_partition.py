"""How evenly work is shared: what each of 1 to 64 threads gets when they claim the chunks of an op, counted, not timed.

Kernels say how much work a chunk has (`piece_work` in csrc/core/parallel.h: multiply-adds of products and convolutions, elements elsewhere)
and how little would not be cut any further. Chunks are given, in order, to the thread that has least to do, as claiming does where a unit of
work takes equal time.

Nobody can deal out, say, 128 tiles evenly to 56 threads. Where a shape is no more than some indivisible pieces, their number and the work of
the largest are written beside it, and no thread may have more than its fair number of these.
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


def unfair(run, threads: int, pieces: tuple[int, int] = (0, 0)) -> list[str]:
    """The calls of parallel_chunks in run() that give a thread too much; pieces: how many cannot be cut, and the work of the largest."""
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
    count, largest = pieces
    dealt_out = -(-count // threads) * largest
    for least, work in calls:
        top, mean = heaviest(work, threads), sum(work) / threads
        if top > max(FAIR * mean, mean + least, dealt_out):
            found.append(f"{threads} threads: {len(work)} chunks, busiest {top} of {mean:.0f} on average ({top / mean:.2f}x), least piece {least}")
    return found


def check(run, threads=THREADS, pieces=(0, 0)):
    found = [line for t in threads for line in unfair(run, t, pieces)]
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
    (64, 784, 128), (64, 128, 10), (128, 784, 1024), (128, 1024, 1024), (1024, 192, 576), (1024, 192, 768), (1024, 768, 192), (1024, 192, 96),
    (64, 5408, 128), (32, 64, 512), (32, 128, 512), (1, 4096, 4096), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024),
]  # fmt: skip
PRODUCT_PIECES = {
    (64, 5408, 128): (8 * 8, 64 * 16 * 680),  # eight parts of k, as sums do not follow the threads, by vectors of sixteen columns
    (1, 4096, 4096): (256, 16 * 4096),  # vectors of sixteen columns: a cache line of each row
}


@pytest.mark.parametrize("layout", ["NN", "NT", "TN"])
@pytest.mark.parametrize("m, k, n", PRODUCTS)
def test_products(m, k, n, layout):
    a = normal(k, m).T if layout[0] == "T" else normal(m, k)
    b = normal(n, k).T if layout[1] == "T" else normal(k, n)
    check(lambda: a @ b, pieces=PRODUCT_PIECES.get((m, k, n), (0, 0)))


def test_batch_of_products():
    a, b = normal(48, 128, 32), normal(48, 32, 128)
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
    "sum columns": lambda n: (lambda x: fd.sum(x, axis=0), normal(n // 512, 512)),
    "max": lambda n: (fd.max, normal(n)),
    "argmax": lambda n: (lambda x: fd.argmax(x, axis=0), normal(n // 512, 512)),
    "cumsum": lambda n: (lambda x: fd.cumulative_sum(x, axis=1), normal(n // 256, 256)),
    "dropout": lambda n: (lambda x: fd.dropout(x, 0.5, 1, 2), normal(n)),
}


@pytest.mark.parametrize("n", [1 << 20, 1_500_000])
@pytest.mark.parametrize("name", FAMILIES)
def test_memory_bound(name, n):
    run, *inputs = FAMILIES[name](n)
    # Columns are cut in lines of sixteen by parts of 256 rows, of which the last may be short.
    pieces = (-(-(n // 512) // 256) * 32, 16 * 256) if name in ("sum columns", "argmax") else (0, 0)
    check(lambda: run(*inputs), pieces=pieces)


BACKWARD = {
    "max_pool": lambda: (lambda x: fd.max_pool2d(x, 2), normal(32, 64, 28, 28)),
    "max_pool 3": lambda: (lambda x: fd.max_pool2d(x, 3, 2), normal(8, 64, 56, 56)),
    "avg_pool": lambda: (lambda x: fd.avg_pool2d(x, 2), normal(32, 64, 28, 28)),
    "softmax": lambda: (fd.softmax, normal(1024, 1024)),
    "softmax of columns": lambda: (lambda x: fd.softmax(x, axis=0), normal(512, 2048)),
    "layer_norm": lambda: (lambda x, w, b: fd.layer_norm(x, w, b), normal(1024, 1024), normal(1024), normal(1024)),
    "layer_norm 192": lambda: (lambda x, w, b: fd.layer_norm(x, w, b), normal(8 * 128, 192), normal(192), normal(192)),
    "batch_norm": lambda: (lambda x: fd.nn.functional.batch_norm(x, None, None, training=True), normal(16, 64, 28, 28)),
    "cross_entropy": lambda: (lambda x: fd.cross_entropy(x, fd.arange(len(x)) % 10), normal(3200, 96)),
    "gelu": lambda: (fd.gelu, normal(1 << 20)),
}


@pytest.mark.parametrize("name", BACKWARD)
def test_forward_and_backward(name):
    run, *inputs = BACKWARD[name]()
    # Columns of a softmax are cut in lines of sixteen; rows are not cut.
    pieces = (2048 // 16, 512 * 16) if name == "softmax of columns" else (0, 0)
    check(lambda: backward(run, *inputs), pieces=pieces)


@pytest.mark.parametrize("rows", ["uniform", "skewed"])
def test_embedding(rows):
    random = np.random.default_rng(2)
    at = fd.array(random.integers(0, 10_000, (32, 100)) if rows == "uniform" else random.integers(0, 100, (32, 100)) ** 2)
    check(lambda: backward(lambda w: fd.take(w, at, axis=0), normal(10_000, 64)))


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
        for m, k, n in PRODUCTS:
            for left in (False, True):
                a, b = (rng.normal(size=s).astype(np.float32) for s in ((k, m) if left else (m, k), (k, n)))
                out.append(((fd.array(a).T if left else fd.array(a)) @ fd.array(b)).numpy())
                out.append(fd.array(a).mean(axis=0).numpy())
        x = rng.normal(size=(4, 64, 28, 28)).astype(np.float32)
        w = rng.normal(size=(64, 64, 3, 3)).astype(np.float32)
        t = fd.array(x)
        more = [fd.conv2d(t, fd.array(w), padding=1), fd.gelu(t), fd.softmax(t), fd.max(t), fd.sum(t), fd.var(t), fd.dropout(t, 0.5, 1, 2)]
        wide = fd.array(rng.normal(size=(1500, 611)).astype(np.float32))  # columns that end within a vector
        more += [fd.softmax(wide, axis=0), fd.sum(wide, axis=0), fd.var(wide, axis=0), fd.argmax(wide, axis=0)]
        table = fd.array(rng.normal(size=(1000, 96)).astype(np.float32), requires_grad=True)
        fd.take(table, fd.array(rng.integers(0, 50, (40, 50)) ** 2 % 1000), axis=0).sum().backward()
        return out + [y.numpy() for y in [*more, table.grad]]

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
