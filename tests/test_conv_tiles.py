"""Convolutions on AMX's bfloat16 tiles: as accurate as float32 multiply-adds, for any shape, thread count and value."""

import numpy as np
import pytest
from common import record

import fastdl as fd

pytestmark = pytest.mark.skipif(fd._C.isa() != "amx", reason="needs AMX")

# batch, channels, height, width, filters, kernel, stride, padding, dilation, groups
SHAPES = [
    (4, 64, 32, 32, 64, 3, 1, 1, 1, 1),  # tiles lie in rows of pixels
    (16, 128, 16, 16, 128, 3, 1, 1, 1, 1),  # weights' gradient in two parts, with sums of their own
    (12, 256, 4, 4, 512, 3, 1, 1, 1, 1),  # images side by side, fewer than a tile has
    (16, 64, 16, 16, 128, 3, 2, 1, 1, 1),  # step 2: neighbours in the gradient by the input see different taps
    (64, 128, 8, 8, 256, 1, 2, 0, 1, 1),  # one tap, source positions left out, pairs of tiles are two groups of images
    (37, 96, 7, 5, 72, 3, 1, 1, 1, 1),  # an odd number of tiles, of images in the last group
    (32, 64, 9, 7, 64, 5, 2, 2, 2, 2),  # groups, step and dilation with a common divisor
    (2, 60, 33, 30, 52, 5, 1, 2, 1, 1),  # images are cut in parts for the gradient by the weights
    (3, 64, 17, 19, 48, 3, 1, 2, 2, 1),  # dilation, a panel of half width
    (5, 64, 28, 28, 96, 3, 1, 1, 1, 2),  # groups
    (40, 60, 9, 11, 92, 4, 3, 2, 1, 1),  # channels that do not fill a block, pixels without gradient
    (8, 60, 9, 11, 92, 3, 1, 1, 1, 1),  # channels that do not fill a block, in both directions
    (1, 32, 90, 260, 64, 7, 1, 3, 1, 1),  # 49 taps, bands of rows
    (4, 64, 31, 33, 96, 2, 2, 1, 3, 1),  # even kernel, step and dilation
    (6, 64, 40, 40, 64, 3, 2, 4, 4, 1),  # step and dilation with a common divisor: every other source pixel is left out
    (2, 64, 15, 12, 96, 3, 1, 1, 1, 1),  # few pixels, in rows that end within a tile
    (16, 512, 4, 4, 480, 3, 1, 1, 1, 1),  # weights of some columns are packed at a time
    (1, 64, 57, 57, 64, 3, 2, 1, 1, 1),  # step 2: tiles over the end of a row are copied together
    (1, 64, 20, 20, 64, 3, 1, 8, 8, 1),  # so they are where rows lie far apart
    (33, 384, 9, 9, 416, 3, 1, 1, 1, 1),  # images go in two rounds, weights in two passes
    (32, 1024, 4, 4, 512, 3, 1, 1, 1, 2),  # weights of both groups in passes
]


def tensors(shape, scale=1.0):
    n, c, h, w, o, k, s, p, d, g = shape
    rng = np.random.default_rng(sum(shape))
    x, weight, bias = (rng.standard_normal(size) for size in ((n, c, h, w), (o, c // g, k, k), (o,)))
    grad = rng.standard_normal((n, o, *((size + 2 * p - d * (k - 1) - 1) // s + 1 for size in (h, w))))
    return [(a * scale).astype("f4") for a in (x, weight, bias, grad)]


def run(arrays, shape, dtype="f4", activation="none"):
    """The output, its gradients by the input, the weights and the bias."""
    x, weight, bias, grad = (fd.array(a.astype(dtype)) for a in arrays)
    _, _, h, w, _, k, s, p, d, g = shape
    y = fd.conv2d(x, weight, bias, s, p, d, g, activation=activation)
    dx = fd.conv2d_backward_input(grad, weight, s, p, d, g, (h, w))
    return [np.asarray(a) for a in (y, dx, *fd.conv2d_backward_weight(grad, x, s, p, d, g, (k, k)))]


def bounds(arrays, shape):
    """The same sums over absolute values: rounding errors are measured against them."""
    return run([np.abs(a) for a in arrays], shape, "f8")


def at_precision(precision, arrays, shape):
    before = fd.get_matmul_precision()
    fd.set_matmul_precision(precision)
    try:
        return run(arrays, shape)
    finally:
        fd.set_matmul_precision(before)


# how y and its gradients by the input and by the weights are computed
PLANS = [
    ("rows", "rows"), ("rows", "rows"), ("images", "images"), ("images", "images"), ("rows", "images"), ("images", "images"), ("images", "images"),
    ("runs", "runs"), ("runs", "runs"), ("runs", "runs"), ("images", "images"), ("runs", "runs"), ("runs", "runs"), ("rows", "multiply-adds"),
    ("runs", "multiply-adds"), ("runs", "runs"), ("images", "images"), ("rows", "multiply-adds"),
    ("rows", "rows", "multiply-adds"), ("images", "images"), ("images", "images"),
]  # fmt: skip


@pytest.mark.parametrize("shape, plan", list(zip(SHAPES, PLANS)), ids=str)
def test_tiles_run(shape, plan):
    """Only tiles have other precisions, and they run as planned."""
    plan = (*plan, "tiles")[:3]
    assert fd._C.conv_plans(*shape) == plan
    arrays = tensors(shape)
    found = [(a != b).any() for a, b in zip(at_precision("highest", arrays, shape), at_precision("medium", arrays, shape))]
    assert found == [True, plan[1] != "multiply-adds", plan[2] != "multiply-adds", False]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape):
    arrays = tensors(shape)
    got = run(arrays, shape)
    for result, exact, bound in zip(got, run(arrays, shape, "f8"), bounds(arrays, shape)):
        assert (np.abs(result - exact) <= 8 * 2.0**-24 * bound + 1e-30).all()
    threads = fd.get_num_threads()
    try:
        for t in (1, 3, 24):
            fd.set_num_threads(t)
            for a, b in zip(got, run(arrays, shape)):
                np.testing.assert_array_equal(a, b)
    finally:
        fd.set_num_threads(threads)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("shape", [SHAPES[2], SHAPES[15]], ids=str)
def test_activations(activation, shape):
    arrays = tensors(shape, 0.3)
    got, exact = (run(arrays, shape, dtype, activation)[0] for dtype in ("f4", "f8"))
    np.testing.assert_allclose(got, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2], SHAPES[3], SHAPES[15]], ids=str)
@pytest.mark.parametrize("where", range(4), ids=["x", "weight", "bias", "grad"])
@pytest.mark.parametrize("value", [np.inf, np.nan, 3.4e38, 1e-42])
def test_values_that_do_not_split(shape, where, value):
    """Infinities, NaN and extreme numbers give what float32 sums give, and touch only what reads them."""
    arrays = tensors(shape)
    arrays[where].flat[arrays[where].size // 3] = value
    with np.errstate(all="ignore"):
        for got, exact in zip(run(arrays, shape), run(arrays, shape, "f8")):
            known = np.isfinite(exact) & (np.abs(exact) < 1e37)
            assert np.isfinite(got[known]).all()
            np.testing.assert_array_equal(np.isnan(got[np.isnan(exact)]), True)
            np.testing.assert_allclose(got[known], exact[known], rtol=1e-3, atol=1e-3)


def test_weights_are_packed_for_some_columns_at_a_time():
    """Scratch is smaller than all weights as the multiply-adds want them that come next where numbers do not split."""
    shape = SHAPES[16]
    _, c, h, w, o, k, s, p, d, g = shape
    arrays = tensors(shape)
    arrays[0].flat[7], arrays[3].flat[7] = 3e38, 1e-42
    with np.errstate(all="ignore"):
        for got, exact in zip(run(arrays, shape), run(arrays, shape, "f8")):
            known = np.abs(exact) < 1e37
            np.testing.assert_allclose(got[known], exact[known], rtol=1e-3, atol=1e-3)
    x, weight, _, grad = (fd.array(a) for a in arrays)
    step = fd.compile(lambda: (fd.conv2d(x, weight, None, s, p), fd.conv2d_backward_input(grad, weight, s, p, d, g, (h, w)),
                               *fd.conv2d_backward_weight(grad, x, s, p, d, g, (k, k))))  # fmt: skip
    for _ in range(3):
        step()
    scratch = {s["op"]: s["workspace"] for s in step._entries[0].capture.steps() if s["op"].startswith("conv2d")}
    assert len(scratch) == 3 and max(scratch.values()) < c * o * k * k * 4


@pytest.mark.parametrize("shape, plan", [((2, 512, 16, 16, 480, 3, 1, 1, 1, 1), "rows"), ((1, 512, 20, 20, 520, 3, 1, 2, 2, 1), "runs")], ids=str)
def test_rows_in_passes_over_columns(shape, plan):
    """Where the weights of all columns are too many to pack at once: each part finds its bias, weights and place in the result."""
    _, c, _, _, o, k, s, p, d, _ = shape
    assert fd._C.conv_plans(*shape)[:2] == (plan, plan)
    arrays = tensors(shape)
    for activation in ("none", "relu", "tanh"):
        got, exact = run(arrays, shape, activation=activation), run(arrays, shape, "f8", activation)
        for result, reference, bound in zip(got[:2], exact, bounds(arrays, shape)):
            assert (np.abs(result - reference) <= 8 * 2.0**-24 * bound).all()
    x, weight = fd.array(arrays[0]), fd.array(arrays[1])
    step = fd.compile(lambda: fd.conv2d(x, weight, None, s, p, d))
    for _ in range(3):
        step()
    (scratch,) = [launch["workspace"] for launch in step._entries[0].capture.steps() if launch["op"] == "conv2d"]
    assert scratch < c * o * k * k * 6  # bytes of all weights as tiles


@pytest.mark.parametrize("scale", [1e-30, 1e-17, 1e17])
def test_scales(scale):
    shape = SHAPES[0]
    arrays, small = tensors(shape, scale), tensors(shape)
    arrays[2][:] = small[2][:] = 0  # all but the gradient by the bias are products of two of these numbers
    with np.errstate(all="ignore"):
        for got, exact, bound in zip(run(arrays, shape)[:3], run(arrays, shape, "f8"), bounds(small, shape)):
            assert (np.abs(got - exact) <= 8 * 2.0**-24 * bound * scale * scale + 2 * 2.0**-149 * 600).all()


def test_large_results_are_those_of_smaller_ones():
    """Results past the caches, finished row by row of an image of any width, have the bits of single images, which are not."""
    rng = np.random.default_rng(4)
    x, weight = (fd.array(rng.standard_normal(shape).astype("f4")) for shape in ((3, 32, 150, 150), (32, 32, 5, 5)))
    assert fd._C.conv_plans(3, 32, 150, 150, 32, 5, 1, 2, 1, 1)[0] == "runs"
    together = np.asarray(fd.conv2d(x, weight, None, 1, 2))
    for i in range(3):
        np.testing.assert_array_equal(together[i : i + 1], np.asarray(fd.conv2d(x[i : i + 1], weight, None, 1, 2)))


def test_lower_precision():
    shape = SHAPES[0]
    arrays = tensors(shape)
    exact, errors = run(arrays, shape, "f8"), {}
    for precision in ("highest", "high", "medium"):
        got = at_precision(precision, arrays, shape)
        errors[precision] = [np.sqrt(np.mean((a - e) ** 2) / np.mean(e**2)) for a, e in zip(got, exact)][:3]
    for highest, high, medium in zip(errors["highest"], errors["high"], errors["medium"]):
        assert highest < 1e-6 < high < 3e-5 < medium < 1e-2


def test_no_pixels_and_wide_rows():
    """Nothing to do, and a row of pixels that is larger than the scratch: the usual kernels take it."""
    assert fd.conv2d(fd.zeros((0, 64, 8, 8)), fd.zeros((64, 64, 3, 3))).shape == (0, 64, 6, 6)
    shape = (1, 32, 7, 20000, 32, 7, 1, 0, 1, 1)
    arrays = tensors(shape)
    for result, exact, bound in zip(run(arrays, shape), run(arrays, shape, "f8"), bounds(arrays, shape)):
        assert (np.abs(result - exact) <= 40 * 2.0**-24 * bound + 1e-30).all()


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2], SHAPES[5]], ids=str)
@pytest.mark.parametrize("dtype, digits", [(fd.bfloat16, 8), (fd.float16, 11)], ids=["bfloat16", "float16"])
def test_short_floats(shape, dtype, digits):
    """Products are exact and sums are float32, so that only the rounding of the result is seen."""
    x, weight, bias, grad = (fd.array(a).astype(dtype) for a in tensors(shape, 0.5))
    wide = [np.asarray(a.astype(fd.float64)) for a in (x, weight, bias, grad)]
    _, _, h, w, _, k, s, p, d, g = shape
    got = [fd.conv2d(x, weight, bias, s, p, d, g), fd.conv2d_backward_input(grad, weight, s, p, d, g, (h, w))]
    got += fd.conv2d_backward_weight(grad, x, s, p, d, g, (k, k))
    for result, exact, bound in zip(got, run(wide, shape, "f8"), bounds(wide, shape)):
        assert result.dtype == dtype
        error = np.abs(np.asarray(result.astype(fd.float64)) - exact)
        assert (error <= 2.0**-digits * np.abs(exact) + 8 * 2.0**-24 * bound + 2.0**-24).all()


@pytest.mark.parametrize("stride, padding, dilation", [(1, 1532345670, 1532345670), (1 << 30, 1 << 30, 1), (3, 1 << 20, 1 << 20)])
def test_far_taps(stride, padding, dilation):
    """Distances whose products overflow: only the taps that read the one pixel count."""
    x, weight = np.ones((512, 32, 1, 1), "f4"), np.ones((32, 32, 3, 3), "f4")
    settings = (stride, padding, dilation)
    y = fd.conv2d(fd.array(x), fd.array(weight), None, *settings)
    out = np.asarray(y)
    centre = tuple(size // 2 for size in out.shape[2:])
    assert out[(0, 0, *centre)] == 32 and out.sum() == 512 * 32 * 32
    assert float(fd.conv2d_backward_input(y, fd.array(weight), *settings, 1, (1, 1)).sum()) > 0
    assert float(fd.conv2d_backward_weight(y, fd.array(x), *settings, 1, (3, 3))[0].sum()) > 0


@pytest.mark.parametrize("channels, size, filters, stride", [(256, 8, 256, 1), (256, 8, 512, 2), (512, 4, 512, 1)])
def test_few_threads_share_no_packed_weights(channels, size, filters, stride):
    """With one thread or two, pieces of ResNet-18's small images pack the weights that they need; with sixteen, all share what is packed first."""
    shape = (16, channels, size, size, filters, 3, stride, 1, 1, 1)
    x, w, *_ = (fd.array(a) for a in tensors(shape))
    x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert fd._C.conv_plans(*shape)[0] == "images"
    for threads, shared in ((1, False), (2, False), (16, True)):
        calls = record(lambda: fd.conv2d(x, w, stride=stride, padding=1), threads)
        assert any(32 * 32 * 9 in work for _, work in calls[:-1]) == shared  # a block of 32 channels by 32 filters, all taps
