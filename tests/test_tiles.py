"""float32 products on AMX's bfloat16 tiles: as accurate as sums of float32 products, for any shape, layout, thread count and value."""

import threading

import numpy as np
import pytest

import fastdl as fd

pytestmark = pytest.mark.skipif(fd._C.isa() != "amx", reason="needs AMX")
EPS = 2.0**-24
FULL_NAN = float(np.array(0xFFFFFFFF, "u4").view("f4"))  # rounding its bits to bfloat16 would carry into the sign


@pytest.fixture
def restore_precision():
    before = fd.get_matmul_precision()
    yield
    fd.set_matmul_precision(before)


def laid_out(x, layout):
    if layout == "transposed":
        return fd.array(np.ascontiguousarray(x.T)).T
    return fd.array(np.repeat(x, 2, axis=1))[:, ::2] if layout == "strided" else fd.array(x)


def error(a, b, c):
    """Largest error beside |a| |b|, as a share of what k roundings in a row may give."""
    a, b = a.astype("f8"), b.astype("f8")
    return float((np.abs(np.asarray(c) - a @ b) / (np.abs(a) @ np.abs(b) + 1e-300)).max()) / EPS


@pytest.mark.parametrize("left", ["rows", "transposed", "strided"])
@pytest.mark.parametrize("right", ["rows", "transposed", "strided"])
@pytest.mark.parametrize("m, k, n", [(64, 64, 128), (70, 1000, 130), (256, 33, 192), (96, 64, 384), (97, 65, 400), (300, 96, 130), (128, 784, 1024), (257, 1600, 161), (511, 33 * 7, 321), (2000, 100, 97)])
def test_shapes_and_layouts(m, k, n, left, right):
    rng = np.random.default_rng(m + k + n)
    a, b = rng.standard_normal((m, k)).astype("f4"), rng.standard_normal((k, n)).astype("f4")
    got = laid_out(a, left) @ laid_out(b, right)
    assert error(a, b, got) < 8
    threads = fd.get_num_threads()
    try:
        for t in (1, 2, 3):
            fd.set_num_threads(t)
            np.testing.assert_array_equal(np.asarray(laid_out(a, left) @ laid_out(b, right)), np.asarray(got))
    finally:
        fd.set_num_threads(threads)


@pytest.mark.parametrize("m, k, n", [(128, 32, 128), (64, 784, 128), (96, 64, 1024), (600, 1090, 530), (1100, 96, 600)])
def test_layouts_give_the_same_bits(m, k, n):
    """Rows and columns are packed while tiles are multiplied, other strides before: the numbers are the same."""
    rng = np.random.default_rng(m * k)
    a, b = rng.standard_normal((m, k)).astype("f4"), rng.standard_normal((k, n)).astype("f4")
    want = np.asarray(laid_out(a, "strided") @ laid_out(b, "strided"))
    assert error(a, b, want) < 8
    for left in ("rows", "transposed"):
        for right in ("rows", "transposed"):
            np.testing.assert_array_equal(np.asarray(laid_out(a, left) @ laid_out(b, right)), want)


@pytest.mark.parametrize("a, b", [((3, 96, 70), (3, 70, 130)), ((2, 1, 100, 66), (1, 3, 66, 97)), ((5, 64, 200), (200, 160))])
def test_batches(a, b):
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal(a).astype("f4"), rng.standard_normal(b).astype("f4")
    x, y = fd.array(a), fd.array(b)
    threads = fd.get_num_threads()
    try:
        fd.set_num_threads(1)
        fd._C._record_chunks(True)
        got = np.asarray(x @ y)
        ((_, work),) = fd._C._record_chunks(False)
        assert sum(work) % 32**3 == 0 and sum(work) >= a.shape[-1] * got.size, "not on tiles, whose work is counted in whole blocks"
        assert error(a, b, got) < 8
        for t in (2, 3):
            fd.set_num_threads(t)
            np.testing.assert_array_equal(np.asarray(x @ y), got)
    finally:
        fd._C._record_chunks(False)
        fd.set_num_threads(threads)


@pytest.mark.parametrize("threads", [1, 3, 8, 40])
@pytest.mark.parametrize("m, k, n", [(64, 100, 1000), (1000, 100, 64), (300, 1300, 500), (700, 64, 700)])
def test_pieces_are_equal_stretches(m, k, n, threads):
    """A piece may begin and end within a row of blocks and span several groups of panels."""
    rng = np.random.default_rng(m)
    a, b = rng.standard_normal((m, k)).astype("f4"), rng.standard_normal((k, n)).astype("f4")
    x, y = fd.array(a), fd.array(b)
    before = fd.get_num_threads()
    try:
        fd.set_num_threads(threads)
        fd._C._record_chunks(True)
        got = x @ y
        ((_, work),) = fd._C._record_chunks(False)
    finally:
        fd._C._record_chunks(False)
        fd.set_num_threads(before)
    block = -(-k // 32) * 32**3
    assert sum(work) == -(-m // 32) * -(-n // 32) * block and max(work) - min(work) <= block
    assert (len(work) == 1) == (threads == 1)
    assert error(a, b, got) < 8


@pytest.mark.parametrize("m, k, n", [(2000, 3000, 2600), (2600, 3000, 2000)])
def test_large_products(m, k, n):
    """Several passes over k and over the columns; with a bias."""
    rng = np.random.default_rng(7)
    x, w, bias = (rng.standard_normal(s).astype("f4") for s in ((m, k), (n, k), (n,)))
    got = np.asarray(fd.nn.functional.linear(fd.array(x), fd.array(w), fd.array(bias)))
    rows = rng.integers(0, m, 20)
    want = x[rows].astype("f8") @ w.T.astype("f8") + bias
    bound = np.abs(x[rows]).astype("f8") @ np.abs(w.T).astype("f8") + np.abs(bias)
    assert (np.abs(got[rows] - want) <= 8 * EPS * bound).all()


@pytest.mark.parametrize("spread", [0, 5, 20])
@pytest.mark.parametrize("k", [256, 1024, 3000])
def test_error_is_not_larger_than_numpys(k, spread):
    """NumPy's float32 product sums with multiply-adds. Spread 20: seventeen orders of magnitude."""
    rng = np.random.default_rng(k + spread)

    def draw(shape):
        return (rng.standard_normal(shape) * np.exp(rng.uniform(-spread, spread, shape))).astype("f4")

    a, b = draw((256, k)), draw((k, 256))
    exact = a.astype("f8") @ b.astype("f8")
    ours = np.linalg.norm(np.asarray(fd.array(a) @ fd.array(b)) - exact)
    # Half of NumPy's error on even data; the more the largest terms of a sum stand out, the more the tiles' additional roundings count.
    assert ours <= {0: 0.8, 5: 0.8, 20: 1.25}[spread] * np.linalg.norm(a @ b - exact)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, FULL_NAN, 3.4e38, 1e-40])
@pytest.mark.parametrize("where", ["a", "b", "both"])
@pytest.mark.parametrize("m", [128, 400])
def test_values_that_do_not_split(value, where, m):
    """Infinities and NaN spread as in float32 sums; the rest of the result is as accurate as ever."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, 100)).astype("f4"), rng.standard_normal((100, 300)).astype("f4")
    if where != "b":
        a[m - 3, 5] = value
    if where != "a":
        b[7, 290] = value
    if value == 3.4e38:
        np.abs(a, out=a), np.abs(b, out=b)  # or the order of sums decides what overflows
    got = np.asarray(fd.array(a) @ fd.array(b))
    with np.errstate(all="ignore"):
        want = a.astype("f8") @ b.astype("f8")
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_array_equal(np.isinf(got), np.isinf(want.astype("f4")))
        fine = np.isfinite(got)
        bound = np.abs(a.astype("f8")) @ np.abs(b.astype("f8"))
        assert (np.abs(got - want)[fine] <= 16 * EPS * bound[fine]).all()


@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e-20, 1e20, 1e30])
def test_scales(scale):
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((200, 300)) * scale).astype("f4"), rng.standard_normal((300, 200)).astype("f4")
    got = np.asarray(fd.array(a) @ fd.array(b))
    want = a.astype("f8") @ b.astype("f8")
    assert np.linalg.norm(got - want) < 8 * EPS * np.linalg.norm(want)


@pytest.mark.parametrize("count", [3, 70])
def test_matrices_of_a_batch_are_judged_apart(count):
    """One that does not split, or is small beside others, has the bits that it has alone."""
    rng = np.random.default_rng(8)
    a, b = rng.standard_normal((count, 96, 80)).astype("f4"), rng.standard_normal((count, 80, 100)).astype("f4")
    a[1] *= 2.0**-60
    b[1] *= 2.0**-60
    a[2, 5, 6] = np.inf
    got = np.asarray(fd.array(a) @ fd.array(b))
    for i in range(count):
        np.testing.assert_array_equal(got[i], np.asarray(fd.array(a[i]) @ fd.array(b[i])))
    want = a[1].astype("f8") @ b[1].astype("f8")
    assert np.linalg.norm(got[1] - want) < 8 * EPS * np.linalg.norm(want)
    assert not np.isfinite(got[2, 5]).any() and np.isfinite(got[2, :5]).all()


def test_epilogues_and_gradients():
    """linear with bias and activation, and both gradients, at sizes that run on tiles."""
    rng = np.random.default_rng(2)
    x, w, bias, g = (rng.standard_normal(s).astype("f4") for s in ((200, 150), (250, 150), (250,), (200, 250)))
    tx, tw, tb = (fd.array(v).requires_grad_() for v in (x, w, bias))
    y = fd.nn.functional.relu(fd.nn.functional.linear(tx, tw, tb))
    y.backward(fd.array(g))
    x, w, bias, g = (v.astype("f8") for v in (x, w, bias, g))
    pre = x @ w.T + bias
    np.testing.assert_allclose(np.asarray(y.detach()), np.maximum(pre, 0), rtol=1e-5, atol=1e-4)
    sure = np.abs(pre) > 1e-4
    gp = g * (pre > 0)
    assert sure.all()
    np.testing.assert_allclose(np.asarray(tx.grad), gp @ w, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(np.asarray(tw.grad), gp.T @ x, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(np.asarray(tb.grad), gp.sum(0), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("m, k, n", [(64, 192, 128), (200, 96, 170), (128, 784, 100), (96, 1100, 96)])
@pytest.mark.parametrize("scale", [1, 1e6, 1e-33])
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_bias_is_added_with_one_rounding(m, k, n, scale, precision, restore_precision):
    """The bits of the float32 sum of product and bias, although tiles add it; numbers that do not split, too."""
    fd.set_matmul_precision(precision)
    rng = np.random.default_rng(m + k)
    x, w, bias = (rng.standard_normal(s).astype("f4") for s in ((m, k), (n, k), (n,)))
    bias *= np.float32(scale)
    bias[3], bias[40], bias[n - 1] = 0, -0.0, 1e-40
    for special in (0, np.inf, np.nan, 3.4e38):
        bias[5] = special
        x, w, b = fd.array(x), fd.array(w), fd.array(bias)
        product = np.asarray(fd.nn.functional.linear(x, w))
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(np.asarray(fd.nn.functional.linear(x, w, b)), product + bias)


@pytest.mark.parametrize("tokens, width, outputs", [(64, 128, 96), (100, 160, 70), (1024, 192, 100), (1111, 64, 161), (33, 300, 500), (1100, 600, 600)])
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_gradient_of_the_bias(tokens, width, outputs, precision, restore_precision):
    """Summed while its operand is multiplied, in float32: the same bits for any thread count, exact to its rounding at any precision."""
    fd.set_matmul_precision(precision)
    rng = np.random.default_rng(tokens)
    x, w, g = (rng.standard_normal(s).astype("f4") for s in ((tokens, width), (outputs, width), (tokens, outputs)))
    g[-1, 3] = np.inf  # products of it are made again, without tiles
    threads = fd.get_num_threads()

    def gradient(g):
        b = fd.zeros(outputs).requires_grad_()
        fd.nn.functional.linear(fd.array(x), fd.array(w).requires_grad_(), b).backward(g)
        return np.asarray(b.grad)

    try:
        results = []
        for count in (1, 2, 5):
            fd.set_num_threads(count)
            results += [gradient(fd.array(g)), gradient(fd.array(np.repeat(g, 2, axis=1))[:, ::2])]
    finally:
        fd.set_num_threads(threads)
    want, bound = g.astype("f8").sum(0), np.abs(g).astype("f8").sum(0)
    fine = np.isfinite(want)
    assert fine.sum() == outputs - 1 and np.isinf(results[0][3])
    for i, got in enumerate(results):
        assert (np.abs(got[fine] - want[fine]) <= 8 * EPS * bound[fine]).all()
        np.testing.assert_array_equal(got, results[i % 2])


def test_precision():
    """highest, high and medium: three, two and one part; gradients of the error as documented."""
    rng = np.random.default_rng(3)
    a, b = rng.uniform(-1, 1, (300, 500)).astype("f4"), rng.uniform(-1, 1, (500, 300)).astype("f4")
    exact = a.astype("f8") @ b.astype("f8")
    errors = {}
    try:
        for precision in ("medium", "high", "highest"):
            fd.set_matmul_precision(precision)
            errors[precision] = np.linalg.norm(np.asarray(fd.array(a) @ fd.array(b)) - exact) / np.linalg.norm(exact)
    finally:
        fd.set_matmul_precision("highest")
    assert errors["highest"] < 3e-7 < 1e-6 < errors["high"] < 1e-5 < 5e-4 < errors["medium"] < 5e-3


def bfloat16(x, layout="rows"):
    """x rounded, laid out, and as exact float64."""
    rounded = laid_out(x, layout).astype("bfloat16") if layout == "rows" else laid_out(np.asarray(fd.array(x).astype("bfloat16").astype("float32")), layout)
    if layout == "transposed":
        rounded = rounded.T.astype("bfloat16").T
    elif layout == "strided":
        rounded = fd.array(np.repeat(x, 2, axis=1)).astype("bfloat16")[:, ::2]
    return rounded, np.asarray(rounded.astype("float64"))


def assert_rounded_once(got, a, b):
    """Products of bfloat16 are exact in float32: what remains are its sums and one rounding."""
    want, bound = a @ b, np.abs(a) @ np.abs(b)
    assert (np.abs(np.asarray(got.astype("float64")) - want) <= 2.0**-8 * np.abs(want) + 8 * EPS * bound).all()


@pytest.mark.parametrize("left", ["rows", "transposed", "strided"])
@pytest.mark.parametrize("right", ["rows", "transposed", "strided"])
@pytest.mark.parametrize("m, k, n", [(1, 5, 3), (17, 31, 16), (48, 64, 32), (49, 100, 33), (70, 784, 130), (130, 1500, 70), (33, 2100, 600), (100, 64, 1), (1, 300, 200)])
def test_bfloat16(m, k, n, left, right):
    rng = np.random.default_rng(m * k + n)
    (a, exact_a), (b, exact_b) = bfloat16(rng.standard_normal((m, k)).astype("f4"), left), bfloat16(rng.standard_normal((k, n)).astype("f4"), right)
    got = a @ b
    assert_rounded_once(got, exact_a, exact_b)
    want = np.asarray(got.astype("float32"))
    threads = fd.get_num_threads()
    try:
        for t in (1, 2, 5):
            fd.set_num_threads(t)
            np.testing.assert_array_equal(np.asarray((a @ b).astype("float32")), want)
    finally:
        fd.set_num_threads(threads)
    np.testing.assert_array_equal(np.asarray((a[m // 3 :] @ b[:, n // 3 :]).astype("float32")), want[m // 3 :, n // 3 :])


@pytest.mark.parametrize("a, b", [((3, 4, 20, 30), (3, 4, 30, 40)), ((3, 1, 20, 30), (4, 30, 40)), ((5, 20, 30), (30, 40)), ((2, 3, 0), (0, 4)), ((2, 0, 3), (3, 4))])
def test_bfloat16_batches(a, b):
    rng = np.random.default_rng(8)
    a, b = (fd.array(rng.standard_normal(s).astype("f4")).astype("bfloat16") for s in (a, b))
    got = a @ b
    want = np.asarray(a.astype("float64")) @ np.asarray(b.astype("float64"))
    assert tuple(got.shape) == want.shape
    assert_rounded_once(got, np.asarray(a.astype("float64")), np.asarray(b.astype("float64")))


def test_bfloat16_is_multiplied_where_it_lies():
    """No copies in float32: they would take four times the memory of an operand."""
    a, b = fd.zeros((512, 512), dtype="bfloat16"), fd.zeros((512, 512), dtype="bfloat16")
    a @ b.T  # the threads' scratch
    fd.memory.reset_peak()
    before = fd.memory.stats()["in_use"]
    c = a @ b.T
    assert fd.memory.stats()["peak"] - before <= 2 * c.size + 4096


def test_bfloat16_epilogues_and_gradients():
    rng = np.random.default_rng(2)
    x, w, bias, g = (fd.array(rng.standard_normal(s).astype("f4")).astype("bfloat16") for s in ((70, 50), (90, 50), (90,), (70, 90)))
    fx, fw, fb, fg = (np.asarray(v.astype("float64")) for v in (x, w, bias, g))
    for leaf in (x, w, bias):
        leaf.requires_grad_()
    y = fd.nn.functional.relu(fd.nn.functional.linear(x, w, bias))
    y.backward(g)
    pre = fx @ fw.T + fb
    gp = fg * (np.asarray(y.detach().astype("float64")) > 0)
    assert (pre > 0).any() and (pre < 0).any()
    for got, want, bound in ((y, np.maximum(pre, 0), np.abs(fx) @ np.abs(fw.T) + np.abs(fb)), (x.grad, gp @ fw, np.abs(gp) @ np.abs(fw)),
                             (w.grad, gp.T @ fx, np.abs(gp.T) @ np.abs(fx)), (bias.grad, gp.sum(0), np.abs(gp).sum(0))):  # fmt: skip
        assert got.dtype == fd.bfloat16
        assert (np.abs(np.asarray(got.detach().astype("float64")) - want) <= 2.0**-8 * np.abs(want) + 8 * EPS * bound).all()


@pytest.mark.parametrize("activation, function", [("sigmoid", lambda v: 1 / (1 + np.exp(-v))), ("tanh", np.tanh)])
def test_bfloat16_fused_activations(activation, function):
    rng = np.random.default_rng(9)
    x, w = (fd.array(rng.standard_normal(s).astype("f4") / 4).astype("bfloat16") for s in ((20, 40), (35, 40)))
    step = fd.compile(lambda x: getattr(fd.nn.functional, activation)(fd.nn.functional.linear(x, w)))
    for _ in range(3):
        got = np.asarray(step(x).astype("float64"))
    want = function(np.asarray(x.astype("float64")) @ np.asarray(w.astype("float64")).T)
    assert np.abs(got - want).max() < 2.0**-7


def test_bfloat16_special_values():
    """Infinities and NaN spread along their row and column, as in sums of products."""
    rng = np.random.default_rng(10)
    a, b = rng.standard_normal((70, 45)).astype("f4"), rng.standard_normal((45, 50)).astype("f4")
    a[3, 4], a[60, 40], b[7, 33] = np.inf, np.nan, -np.inf
    got = np.asarray((fd.array(a).astype("bfloat16") @ fd.array(b).astype("bfloat16")).astype("float32"))
    with np.errstate(invalid="ignore"):
        want = a @ b
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isposinf(got), np.isposinf(want))
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(want))


def test_threads_with_small_stacks():
    rng = np.random.default_rng(5)
    a, b = (fd.array(rng.standard_normal((s, 600)).astype("f4")) for s in (400, 600))
    want = np.asarray(a @ b), np.asarray(a[:128] @ b)
    got = []
    before = threading.stack_size(160 * 1024)
    try:
        thread = threading.Thread(target=lambda: got.append((np.asarray(a @ b), np.asarray(a[:128] @ b))))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    for x, y in zip(got[0], want, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("left, right", [(1e-19, 1e-19), (1e-19, 1e-17), (1e-10, 1e-20), (1e-12, 1e-3), (1e20, 1e-20)])
def test_scales_of_products(left, right):
    """Parts of the products may vanish although those of the operands do not."""
    rng = np.random.default_rng(6)
    a, b = (rng.standard_normal((256, 256)) * left).astype("f4"), (rng.standard_normal((256, 256)) * right).astype("f4")
    want = a.astype("f8") @ b.astype("f8")
    got = np.asarray(fd.array(a) @ fd.array(b))
    assert np.linalg.norm(got - want) <= 1.1 * np.linalg.norm(a @ b - want)


def test_sums_that_overflow():
    a, b = np.full((256, 256), 1e25, "f4"), np.full((256, 256), 1e20, "f4")
    assert np.isposinf(np.asarray(fd.array(a) @ fd.array(b))).all()
    near = np.eye(256, dtype="f4") * np.float32(1.8446e19)
    np.testing.assert_array_equal(np.asarray(fd.array(near) @ fd.array(near)), near @ near)
