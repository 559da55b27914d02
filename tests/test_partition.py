"""How evenly work is shared: what each of 1 to 64 threads gets when they claim the chunks of an op, counted, not timed.

Kernels say how much work a chunk has (`piece_work` in csrc/core/parallel.h: multiply-adds of products and convolutions, elements elsewhere)
and how little would not be cut any further. Chunks are given, in order, to the thread that has least to do, as claiming does where a unit of
work takes equal time.

Nobody can deal out, say, 128 tiles evenly to 56 threads. Where a shape has only so many pieces that do not cut a sum, a vector of columns
or a tile, their number is written beside it, and no thread may have more of them than the fairest dealing gives it.
"""

import heapq
import threading
from collections.abc import Iterable

import numpy as np
import pytest
from common import record

import fastdl as fd
from fastdl import _C

FAIR = 1.15  # the busiest thread's work / the mean
THREADS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 63, 64)


def heaviest(work: list[int], threads: int) -> int:
    loads = [0] * threads
    for chunk in work:
        heapq.heapreplace(loads, loads[0] + chunk)
    return max(loads)


def unfair(run, threads: int, pieces: Iterable[tuple[int, float]] = ()) -> list[str]:
    """The calls in run() that give a thread too much. pieces: (how many cannot be cut, the largest / the mean) of calls in it."""
    found = []
    for least, work in record(run, threads):
        top, mean = heaviest(work, threads), sum(work) / threads
        dealt_out = [-(-count // threads) * uneven * sum(work) / count for count, uneven in pieces]
        if top > max(FAIR * mean, mean + least, *dealt_out):
            found.append(f"{threads} threads: {len(work)} chunks, busiest {top} of {mean:.0f} on average ({top / mean:.2f}x), least piece {least}")
    return found


def check(run, threads=THREADS, pieces=()):
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
    (64, 5408, 128): [(8 * 8, 1.05)],  # eight parts of k, as sums do not follow the threads, by vectors of sixteen columns
    (1, 4096, 4096): [(256, 1)],  # vectors of sixteen columns: a cache line of each row
}


@pytest.mark.parametrize("layout", ["NN", "NT", "TN"])
@pytest.mark.parametrize("m, k, n", PRODUCTS)
def test_products(m, k, n, layout):
    a = normal(k, m).T if layout[0] == "T" else normal(m, k)
    b = normal(n, k).T if layout[1] == "T" else normal(k, n)
    check(lambda: a @ b, pieces=PRODUCT_PIECES.get((m, k, n), ()))


def test_batch_of_products():
    a, b = normal(48, 128, 32), normal(48, 32, 128)
    check(lambda: a @ b)


# batch, channels, size, filters, kernel, stride, groups
CONVOLUTIONS = [
    (64, 1, 28, 32, 3, 1, 1), (16, 3, 32, 64, 3, 1, 1), (2, 3, 224, 64, 7, 2, 1), (16, 64, 56, 64, 3, 1, 1), (16, 64, 32, 64, 3, 1, 1),
    (16, 128, 28, 128, 3, 1, 1), (16, 128, 16, 128, 3, 1, 1), (16, 256, 14, 256, 3, 1, 1), (16, 256, 8, 256, 3, 1, 1),
    (16, 512, 7, 512, 3, 1, 1), (16, 512, 4, 512, 3, 1, 1), (16, 64, 56, 128, 3, 2, 1), (16, 64, 56, 128, 1, 2, 1), (16, 256, 28, 64, 1, 1, 1),
    (16, 64, 28, 256, 1, 1, 1), (16, 128, 28, 128, 3, 1, 128), (1, 64, 56, 64, 3, 1, 1),
]  # fmt: skip
TILE_PIECES = {
    (16, 128, 16, 128, 3, 1, 1): (256, 1.05),  # four rows of an image by 32 channels
    # Pairs of pixels of sixteen images by 32 channels: inner pixels see more taps than those of the border.
    (16, 512, 7, 512, 3, 1, 1): (25 * 16, 1.25),
    (16, 512, 4, 512, 3, 1, 1): (8 * 16, 1.25),
}


def pixel_pieces(shape) -> list[tuple[int, float]]:
    """How many pieces y and dx are cut into at most."""
    batch, channels, size, filters, kernel, stride, groups = shape
    if fd._C.isa() == "amx":
        return [TILE_PIECES.get(shape, (1 << 20, 1)) if batch > 1 else (1 << 20, 1)]
    squares = batch * (-(-size // 4)) ** 2
    if fd._C.conv_plans(batch, channels, size, size, filters, kernel, stride, kernel // 2, 1, groups)[0] != "winograd" or (
        squares >= 48 and 36 * (channels * filters + 16 * filters // 8) <= 200_000
    ):
        return [(1 << 20, 1)]
    # Winograd's algorithm in rounds of up to 96 squares of 4x4 pixels: rows of the register tile by two vectors of columns.
    rows, lanes = {"baseline": (4, 4), "avx2": (6, 8)}.get(fd._C.isa(), (14, 16))
    rounds = -(-squares // 96)
    found = []
    for part in (-(-squares // rounds), squares - (rounds - 1) * -(-squares // rounds)):
        strips = -(-part // rows)
        found.append((strips * -(-filters // (2 * lanes)), -(-part // strips) * strips / part))
    return found


def weight_pieces(shape) -> tuple[int, float]:
    """The gradient by the weights: parts of the pixels, whose sums do not follow the threads, by channels."""
    batch, channels, _, filters, _, _, groups = shape
    if groups > 1:
        return 16 * (channels // 32), 1.05  # depthwise: sixteen parts by two vectors of channels
    if channels < 32:
        return 32, 1.1  # first layers: parts by vectors of filters
    pairs = -(-channels // 32) * -(-filters // 32)  # of blocks of 32
    return (max(pairs, 32) if batch > 1 else 28), 1.1


@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_convolutions(shape):
    batch, channels, size, filters, kernel, stride, groups = shape
    x, w = normal(batch, channels, size, size), normal(filters, channels // groups, kernel, kernel)
    pixels, weights = pixel_pieces(shape), weight_pieces(shape)
    few = THREADS[::2]

    def conv(x, w):
        return fd.conv2d(x, w, stride=stride, padding=kernel // 2, groups=groups)

    check(lambda: conv(x, w), few, pixels)
    check(lambda: backward(lambda x: conv(x, w), x), few, pixels)
    check(lambda: backward(lambda w: conv(x, w), w), few, [*pixels, weights])


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
    pieces = [(-(-(n // 512) // 256) * 32, 1.05)] if name in ("sum columns", "argmax") else ()
    check(lambda: run(*inputs), pieces=pieces)


BACKWARD = {
    "max_pool": lambda: (lambda x: fd.max_pool2d(x, 2), normal(32, 64, 28, 28)),
    "max_pool 3": lambda: (lambda x: fd.max_pool2d(x, 3, 2), normal(8, 64, 56, 56)),
    "avg_pool": lambda: (lambda x: fd.avg_pool2d(x, 2), normal(32, 64, 28, 28)),
    "softmax": lambda: (fd.softmax, normal(1024, 1024)),
    "softmax of columns": lambda: (lambda x: fd.softmax(x, axis=0), normal(512, 2048)),
    "lstm_cell": lambda: (lambda x, c: fd.lstm_cell(x, x, c)[0], normal(32, 512 * 4), normal(32, 512)),
    "gru_cell, few units": lambda: (lambda x, h: fd.gru_cell(x, x, h)[0], normal(4096, 8 * 3), normal(4096, 8)),
    "layer_norm": lambda: (lambda x, w, b: fd.layer_norm(x, w, b), normal(1024, 1024), normal(1024), normal(1024)),
    "layer_norm 192": lambda: (lambda x, w, b: fd.layer_norm(x, w, b), normal(8 * 128, 192), normal(192), normal(192)),
    "batch_norm": lambda: (lambda x: fd.nn.functional.batch_norm(x, None, None, training=True), normal(16, 64, 28, 28)),
    "cross_entropy": lambda: (lambda x: fd.cross_entropy(x, fd.arange(len(x)) % 10), normal(3200, 96)),
    "gelu": lambda: (fd.gelu, normal(1 << 20)),
}


@pytest.mark.parametrize("name", BACKWARD)
def test_forward_and_backward(name):
    run, *inputs = BACKWARD[name]()
    # Columns of a softmax are cut in lines of sixteen; rows are not cut. The gradients of layer norm's parameters are sums over blocks of
    # rows, 16384 and 8064 elements: 64 of sixteen rows, and 25 of 42, the last shorter.
    pieces = {"softmax of columns": [(2048 // 16, 1)], "layer_norm": [(64, 1)], "layer_norm 192": [(25, 42 * 25 / 1024)]}.get(name, ())
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


# batch, channels, size, filters, stride, groups
SMALL_CONVOLUTIONS = [
    (4, 64, 28, 64, 1, 1), (16, 128, 7, 96, 1, 1), (16, 64, 12, 64, 2, 1), (16, 256, 4, 256, 1, 1), (8, 3, 32, 32, 1, 1),
    (2, 48, 12, 40, 1, 1), (4, 48, 12, 48, 1, 48), (8, 32, 14, 32, 1, 4),
]  # fmt: skip


@pytest.mark.parametrize("threads", [2, 3, 10, 64])
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
        for batch, channels, size, filters, stride, groups in SMALL_CONVOLUTIONS:
            x = fd.array(rng.normal(size=(batch, channels, size, size)).astype(np.float32), requires_grad=True)
            w = fd.array(rng.normal(size=(filters, channels // groups, 3, 3)).astype(np.float32), requires_grad=True)
            y = fd.conv2d(x, w, padding=1, stride=stride, groups=groups)
            y.backward(fd.array(rng.normal(size=y.shape).astype(np.float32)))
            out += [y.detach().numpy(), x.grad.numpy(), w.grad.numpy()]
        # More taps than are summed at once, in tiles of inner and border pixels that follow the chunks.
        x = fd.array(rng.normal(size=(4, 16, 64, 64)).astype(np.float32), requires_grad=True)
        y = fd.conv2d(x, fd.array(rng.normal(size=(16, 16, 9, 9)).astype(np.float32)), padding=4)
        y.sum().backward()
        out += [y.detach().numpy(), x.grad.numpy()]
        t = fd.array(rng.normal(size=(4, 64, 28, 28)).astype(np.float32))
        more = [fd.gelu(t), fd.softmax(t), fd.max(t), fd.sum(t), fd.var(t), fd.dropout(t, 0.5, 1, 2)]
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


def test_only_the_thread_that_asks_is_recorded():
    x = normal(1 << 18)
    want = fd.exp(x).numpy()
    got = []
    _C._record_chunks(True)
    try:
        workers = [threading.Thread(target=lambda: got.extend(fd.exp(x).numpy() for _ in range(20))) for _ in range(3)]
        for worker in workers:
            worker.start()
        mine = [fd.exp(x).numpy() for _ in range(20)]
        for worker in workers:
            worker.join()
    finally:
        calls = _C._record_chunks(False)
    assert len(calls) == len(mine) and all(sum(work) == x.size for _, work in calls)
    for y in mine + got:
        np.testing.assert_array_equal(y, want)
