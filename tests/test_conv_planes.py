"""Convolutions with few channels per group, on planes whose lanes are pixels: any size, padding, dilation, groups and thread count."""

import numpy as np
import pytest

import fastdl as fd

P, M = "planes", "multiply-adds"
# batch, channels, height, width, filters, kernel, padding, dilation, groups; how y and its gradients by x and by w are computed with
# vectors of sixteen floats, or four, and with eight, which fewer channels fill
CASES = [
    ((3, 64, 28, 28, 64, 3, 1, 1, 4), (P, P, M), (P, P, M)),  # groups of one vector
    ((8, 32, 14, 14, 32, 3, 1, 1, 4), (P, P, P), (P, P, M)),  # several images in one run of dw ...
    ((8, 16, 14, 14, 16, 3, 1, 1, 4), (P, P, P), (P, P, P)),  # ... with eight lanes, too
    ((3, 20, 30, 70, 10, 3, 1, 1, 5), (P, P, P), (P, P, P)),  # four and two channels, blocks of filters that do not exist
    ((2, 48, 60, 60, 36, 3, 0, 1, 3), (P, P, P), (P, P, P)),  # blocks of eight and four, bands of rows
    ((1, 24, 33, 90, 6, 5, 2, 1, 1), (P, P, P), (P, P, M)),  # one group, five taps in a row
    ((2, 12, 40, 37, 15, 2, 1, 3, 3), (P, P, M), (P, P, P)),  # even kernel, dilation
    ((2, 8, 18, 21, 8, 3, 4, 1, 2), (P, P, P), (P, P, P)),  # padding wider than the kernel: rows that read nothing
    ((2, 16, 28, 30, 16, 4, 1, 2, 4), (P, P, P), (P, P, P)),
]
SHAPES = [shape for shape, *_ in CASES]


def arrays(shape):
    n, c, h, w, o, k, p, d, g = shape
    rng = np.random.default_rng(sum(shape))
    out = [size + 2 * p - d * (k - 1) for size in (h, w)]
    return [rng.standard_normal(size) for size in ((n, c, h, w), (o, c // g, k, k), (o,), (n, o, *out))]


def run(given, shape, dtype, activation="none"):
    """The output, its gradients by the input, the weights and the bias."""
    x, weight, bias, grad = (fd.array(a.astype(dtype)) for a in given)
    _, _, h, w, _, k, p, d, g = shape
    y = fd.conv2d(x, weight, bias, 1, p, d, g, activation=activation)
    dx = fd.conv2d_backward_input(grad, weight, 1, p, d, g, (h, w))
    return [np.asarray(a) for a in (y, dx, *fd.conv2d_backward_weight(grad, x, 1, p, d, g, (k, k)))]


def reference(given, shape):
    """Taps one by one, in float64."""
    x, weight, bias, grad = given
    n, c, h, w, o, k, p, d, g = shape
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p))).reshape(n, g, c // g, h + 2 * p, w + 2 * p)
    weight, dy = weight.reshape(g, o // g, c // g, k, k), grad.reshape(n, g, o // g, *grad.shape[2:])
    y, dx, dw = np.zeros(dy.shape), np.zeros(padded.shape), np.zeros(weight.shape)
    for v in range(k):
        for j in range(k):
            at = (..., slice(v * d, v * d + grad.shape[2]), slice(j * d, j * d + grad.shape[3]))
            y += np.einsum("ngchw,goc->ngohw", padded[at], weight[..., v, j])
            dx[at] += np.einsum("ngohw,goc->ngchw", dy, weight[..., v, j])
            dw[..., v, j] = np.einsum("ngohw,ngchw->goc", dy, padded[at])
    dx = dx.reshape(n, c, h + 2 * p, w + 2 * p)[:, :, p : p + h, p : p + w]
    return [y.reshape(grad.shape) + bias[:, None, None], dx, dw.reshape(o, c // g, k, k), grad.sum((0, 2, 3))]


@pytest.mark.parametrize("shape, sixteen, eight", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_shapes(shape, sixteen, eight, dtype):
    n, c, h, w, o, k, p, d, g = shape
    assert fd._C.conv_plans(n, c, h, w, o, k, 1, p, d, g) == (eight if fd._C.isa() == "avx2" else sixteen)
    given = [a.astype(dtype).astype("f8") for a in arrays(shape)]
    eps = np.finfo(dtype).eps
    for got, exact, bound in zip(run(given, shape, dtype), reference(given, shape), reference([np.abs(a) for a in given], shape)):
        assert (np.abs(got - exact) <= 4 * eps * bound).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_threads_and_activations(shape):
    """The same numbers however bands are shared out; activations are applied to finished rows."""
    given, before, found = arrays(shape), fd._C.num_threads(), {}
    try:
        for activation in ("tanh", "relu"):
            found[activation] = []
            for threads in (1, 2, 3):
                fd._C.set_num_threads(threads)
                found[activation].append(run(given, shape, "f4", activation))
        fd._C.set_num_threads(48)  # while chunks are recorded, no thread need exist for that
        fd._C._record_chunks(True)
        found["tanh"].append(run(given, shape, "f4", "tanh"))
    finally:
        fd._C._record_chunks(False)
        fd._C.set_num_threads(before)
    exact = reference(given, shape)[0]
    for activation, expected in (("tanh", np.tanh(exact)), ("relu", np.maximum(exact, 0))):
        first, *others = found[activation]
        np.testing.assert_allclose(first[0], expected, rtol=1e-4, atol=1e-4)
        for other in others:
            for a, b in zip(first, other):
                np.testing.assert_array_equal(a, b)


def test_infinities_stay_where_they_are_read():
    """Positions between rows are no pixels: no product of theirs reaches a result."""
    shape = (2, 32, 28, 28, 32, 3, 1, 1, 4)
    assert fd._C.conv_plans(2, 32, 28, 28, 32, 3, 1, 1, 1, 4) == (P,) * 3
    x, weight, bias, grad = arrays(shape)
    left, right = x.copy(), grad.copy()
    left[0, :, 5, 0] = np.inf  # the first pixel of a row, beside the end of the row above
    right[1, :, 3, 27] = np.inf  # and the last of one
    y, _, dw, _ = run([left, weight, bias, grad], shape, "f4")
    reads = np.zeros((2, 28, 28), bool)
    reads[0, 4:7, :2] = True
    assert (np.isfinite(y) == ~reads[:, None]).all()
    assert np.isfinite(dw[..., 2]).all() and np.isinf(dw[..., :2]).all()  # a tap to the right never reads the first column
    _, dx, dw, db = run([x, weight, bias, right], shape, "f4")
    reads = np.zeros((2, 28, 28), bool)
    reads[1, 2:5, 26:] = True
    assert (np.isfinite(dx) == ~reads[:, None]).all()
    assert np.isfinite(dw[..., 2]).all() and np.isinf(dw[..., :2]).all() and np.isinf(db).all()
