"""Depthwise convolution, whose 3x3 kernels of step 1 slide along rows of the image: any size, padding, number of channels and thread
count; and results that are stored past the caches."""

import numpy as np
import pytest

import fastdl as fd

# batch, channels, height, width, kernel, stride, padding, dilation
SHAPES = [
    (2, 48, 9, 11, 3, 1, 1, 1),
    (1, 130, 14, 7, 3, 1, 1, 1),  # the last vector of channels is not full
    (2, 5, 1, 6, 3, 1, 1, 1),  # one row: two of three rows of the kernel are outside
    (3, 16, 2, 1, 3, 1, 1, 1),  # one column
    (1, 17, 3, 3, 3, 1, 0, 1),  # one pixel of the result
    (2, 33, 4, 5, 3, 1, 2, 1),  # rows and columns of the result that read one row or column
    (1, 20, 5, 4, 3, 1, 4, 1),  # and some that read nothing
    (2, 24, 9, 8, 3, 2, 1, 1),
    (2, 24, 9, 8, 5, 1, 2, 1),
    (1, 24, 9, 8, 3, 1, 2, 2),
    (1, 40, 6, 13, 5, 1, 2, 1),  # nine pixels inside: eight, and eight once more; a part of a vector
    (1, 24, 5, 11, 5, 1, 2, 1),  # seven: four and four
    (1, 24, 4, 18, 5, 1, 2, 1),  # fourteen: eight, eight; twelve with four
    (1, 24, 13, 29, 6, 5, 1, 1),  # five columns of dx that take turns
    (1, 24, 2, 3, 5, 5, 2, 1),  # and some without pixels
    (1, 24, 9, 9, 2, 5, 0, 1),  # steps that leave pixels out
    (1, 24, 6, 6, 2, 1, 3, 1),
    (1, 24, 14, 14, 3, 4, 1, 2),
]


def arrays(shape):
    n, c, h, w, k, s, p, d = shape
    rng = np.random.default_rng(sum(shape))
    out = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size in (h, w)]
    return [rng.standard_normal(size) for size in ((n, c, h, w), (c, 1, k, k), (c,), (n, c, *out))]


def run(given, shape, dtype, activation="none"):
    """The output, its gradients by the input, the weights and the bias."""
    x, weight, bias, grad = (fd.array(a.astype(dtype)) for a in given)
    _, c, h, w, k, s, p, d = shape
    y = fd.conv2d(x, weight, bias, s, p, d, c, activation=activation)
    dx = fd.conv2d_backward_input(grad, weight, s, p, d, c, (h, w))
    return [np.asarray(a) for a in (y, dx, *fd.conv2d_backward_weight(grad, x, s, p, d, c, (k, k)))]


def reference(given, shape):
    """Taps one by one, in float64."""
    x, weight, bias, grad = given
    _, _, h, w, k, s, p, d = shape
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    y, dx, dw = np.zeros(grad.shape), np.zeros(padded.shape), np.zeros(weight.shape)
    for v in range(k):
        for j in range(k):
            at = (..., slice(v * d, v * d + s * grad.shape[2], s), slice(j * d, j * d + s * grad.shape[3], s))
            y += padded[at] * weight[:, 0, v, j, None, None]
            dx[at] += grad * weight[:, 0, v, j, None, None]
            dw[:, 0, v, j] = (padded[at] * grad).sum((0, 2, 3))
    return [y + bias[:, None, None], dx[:, :, p : p + h, p : p + w], dw, grad.sum((0, 2, 3))]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_shapes(shape, dtype):
    n, c, h, w, k, s, p, d = shape
    plan = fd._C.conv_plans(n, c, h, w, c, k, s, p, d, c)
    assert plan == (("sliding",) if (k, s, d) == (3, 1, 1) else ("multiply-adds",)) * 3
    given = [a.astype(dtype).astype("f8") for a in arrays(shape)]
    eps = np.finfo(dtype).eps
    for got, exact, bound in zip(run(given, shape, dtype), reference(given, shape), reference([np.abs(a) for a in given], shape)):
        assert (np.abs(got - exact) <= 4 * eps * bound).all()


@pytest.mark.parametrize("shape", [*SHAPES[:3], *SHAPES[10:14], (4, 64, 40, 40, 3, 1, 1, 1)], ids=str)
def test_threads_and_activations(shape):
    """The same numbers however rows are shared out; activations are applied to finished rows."""
    given, before, found = arrays(shape), fd._C.num_threads(), []
    try:
        for threads in (1, 2, 3):
            fd._C.set_num_threads(threads)
            found.append(run(given, shape, "f4", "tanh"))
        fd._C.set_num_threads(7)  # while chunks are recorded, no thread need exist for that
        fd._C._record_chunks(True)
        found.append(run(given, shape, "f4", "tanh"))
        largest = max(len(work) for _, work in fd._C._record_chunks(False))
        assert largest > 1 or given[0].size < 100_000, "the large one is cut between rows"
    finally:
        fd._C._record_chunks(False)
        fd._C.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(found[0][0], np.tanh(reference(given, shape)[0]), rtol=1e-4, atol=1e-5)


def test_border_reads_nothing():
    """Infinities and NaN reach the pixels that read them, and no others: padding is left out, not multiplied."""
    x = np.ones((1, 16, 5, 5), "f4")
    x[:, :, 4, 4] = np.inf
    weight = np.ones((16, 1, 3, 3), "f4")
    weight[0, 0, 0, 0] = np.nan  # of the pixel above on the left
    y = np.asarray(fd.conv2d(fd.array(x), fd.array(weight), None, 1, 1, 1, 16))
    assert np.isnan(y[0, 0, 1:, 1:]).all() and np.isfinite(y[0, 0, 0]).all() and np.isfinite(y[0, 0, :, 0]).all()
    assert np.isinf(y[0, 1:, 3:, 3:]).all() and np.isfinite(y[0, 1:, :3]).all() and np.isfinite(y[0, 1:, :, :3]).all()


@pytest.mark.parametrize("groups, channels, size, filters, kernel", [(64, 64, 100, 64, 3), (1, 3, 100, 64, 3), (1, 64, 80, 128, 1)], ids=["depthwise", "first", "1x1"])
def test_large_results(groups, channels, size, filters, kernel):
    """Results that go past the caches are those of a part of the batch, which does not."""
    batch = 4
    assert 4 * batch * filters * size**2 > 8 << 20 > 4 * 2 * filters * size**2
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, channels, size, size)).astype("f4")
    weight = fd.array(rng.standard_normal((filters, channels // groups, kernel, kernel)).astype("f4"))
    y = np.asarray(fd.conv2d(fd.array(x), weight, None, 1, kernel // 2, 1, groups))
    for n in (0, batch - 2):
        np.testing.assert_array_equal(y[n : n + 2], np.asarray(fd.conv2d(fd.array(x[n : n + 2]), weight, None, 1, kernel // 2, 1, groups)))


@pytest.mark.parametrize("kernel, stride", [(5, 1), (3, 2)])
def test_large_depthwise(kernel, stride):
    """The same of kernels that do not slide, whose rows are fetched ahead, and of a gradient whose columns take turns."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((4, 64, 100, 100)).astype("f4"), fd.array(rng.standard_normal((64, 1, kernel, kernel)).astype("f4"))
    y = np.asarray(fd.conv2d(fd.array(x), weight, None, stride, kernel // 2, 1, 64))
    dx = np.asarray(fd.conv2d_backward_input(fd.array(y), weight, stride, kernel // 2, 1, 64, (100, 100)))
    for n in range(4):
        one = fd.conv2d(fd.array(x[n : n + 1]), weight, None, stride, kernel // 2, 1, 64)
        np.testing.assert_array_equal(y[n : n + 1], np.asarray(one))
        np.testing.assert_array_equal(dx[n : n + 1], np.asarray(fd.conv2d_backward_input(one, weight, stride, kernel // 2, 1, 64, (100, 100))))


def test_steps_far_beyond_the_image():
    """Nothing is fetched ahead for pixels that do not exist."""
    x = fd.array(np.ones((1, 64, 400, 100), "f4"))
    y = fd.conv2d(x, fd.array(np.ones((64, 1, 1, 1), "f4")), None, (1, 2**31 - 1), 0, 1, 64)
    assert y.shape == (1, 64, 400, 1) and (np.asarray(y) == 1).all()
