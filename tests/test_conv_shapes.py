"""Dense and grouped convolution, its gradients by input, weights and bias, beside float64: steps, dilation, padding, groups, rows that end
anywhere, 1x1 kernels; on whatever way the sizes take."""

import numpy as np
import pytest

import fastdl as fd

# batch, channels, height, width, filters, kernel, stride, padding, dilation, groups
SHAPES = [
    (2, 16, 9, 11, 32, 3, 1, 1, 1, 1),
    (3, 24, 16, 17, 40, 3, 2, 1, 1, 1),
    (2, 12, 20, 20, 33, 5, 1, 2, 1, 1),  # columns that end within a vector
    (4, 32, 8, 8, 64, 3, 2, 1, 1, 1),
    (2, 8, 30, 31, 16, 7, 2, 3, 1, 1),
    (2, 16, 19, 18, 32, 3, 2, 2, 2, 1),  # taps of one remainder of the step
    (2, 16, 19, 18, 32, 3, 1, 3, 3, 1),
    (3, 10, 13, 14, 20, 2, 2, 0, 1, 1),
    (2, 64, 12, 12, 64, 1, 2, 0, 1, 1),
    (2, 32, 12, 12, 64, 3, 1, 1, 1, 2),  # groups
    (1, 16, 300, 7, 32, 3, 1, 1, 1, 1),  # an image in several blocks
    (40, 16, 6, 6, 32, 3, 2, 1, 1, 1),  # images in a block
    (2, 16, 12, 12, 32, 3, 3, 1, 1, 1),
    (2, 8, 5, 5, 16, 5, 1, 4, 1, 1),
    (1, 16, 150, 90, 32, 3, 1, 40, 40, 1),  # taps that reach far
    (1, 16, 70, 70, 17, 2, 24, 0, 1, 1),  # steps that leave most pixels out
    (3, 48, 31, 29, 40, 1, 1, 0, 1, 1),  # a product of 2,697 pixels: two parts of dw
    (2, 192, 9, 9, 192, 3, 2, 1, 1, 8),  # each chunk packs its own weights; three vectors of eight
    (1, 5, 3, 2, 33, 1, 1, 0, 1, 1),
    (1, 130, 1, 1, 70, 1, 1, 0, 1, 1),
    (1, 200, 7, 6, 500, 3, 2, 1, 1, 1),  # weights packed in two passes, for 256 and 244 columns of y, 128 and 72 of dx
]  # fmt: skip


def reference(x, w, g, s, p, d, groups):
    """y, dx, dw and db, tap by tap."""
    c, (o, _, k, _) = x.shape[1], w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    y, dx, dw = np.zeros(g.shape), np.zeros(padded.shape), np.zeros(w.shape)
    for v in range(k):
        for h in range(k):
            at = (slice(v * d, v * d + s * (g.shape[2] - 1) + 1, s), slice(h * d, h * d + s * (g.shape[3] - 1) + 1, s))
            for q in range(groups):
                i, j = slice(q * c // groups, (q + 1) * c // groups), slice(q * o // groups, (q + 1) * o // groups)
                y[:, j] += np.einsum("ncyx,oc->noyx", padded[:, i, *at], w[j, :, v, h])
                dx[:, i, *at] += np.einsum("noyx,oc->ncyx", g[:, j], w[j, :, v, h])
                dw[j, :, v, h] = np.einsum("noyx,ncyx->oc", g[:, j], padded[:, i, *at])
    return y, dx[:, :, p : p + x.shape[2], p : p + x.shape[3]], dw, g.sum((0, 2, 3))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_beside_float64(shape):
    n, c, height, width, o, k, s, p, d, groups = shape
    rng = np.random.default_rng(sum(shape))
    x, w = rng.standard_normal((n, c, height, width)), rng.standard_normal((o, c // groups, k, k))
    g = rng.standard_normal((n, o, *((size + 2 * p - d * (k - 1) - 1) // s + 1 for size in (height, width))))
    bias = rng.standard_normal(o)
    exact = reference(x, w, g, s, p, d, groups)
    exact[0][:] += bias[:, None, None]
    for dtype, bound in (("float32", 1e-5), ("float64", 1e-13)):
        tx, tw, tg, tb = (fd.array(a.astype(dtype)) for a in (x, w, g, bias))
        dw, db = fd.conv2d_backward_weight(tg, tx, s, p, d, groups, (k, k))
        found = fd.conv2d(tx, tw, tb, s, p, d, groups), fd.conv2d_backward_input(tg, tw, s, p, d, groups, (height, width)), dw, db
        for name, a, e in zip(("y", "dx", "dw", "db"), found, exact):
            assert np.abs(a.numpy() - e).max() <= bound * max(1, np.sqrt((e**2).mean())), (name, dtype)


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[4] // s[9] in (24, 40, 72) or s[1] // s[9] in (24, 40, 72)], ids=str)
def test_bits_of_all_thread_counts(shape):
    """Columns of an odd number of vectors, packed by all threads or by each."""
    n, c, height, width, o, k, s, p, d, groups = shape
    rng = np.random.default_rng(sum(shape))
    x, w = (fd.array(rng.standard_normal(size).astype("f4")) for size in ((n, c, height, width), (o, c // groups, k, k)))
    before, found = fd._C.num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            fd._C.set_num_threads(threads)
            y = fd.conv2d(x, w, None, s, p, d, groups)
            found.append([a.numpy() for a in (y, fd.conv2d_backward_input(y, w, s, p, d, groups, (height, width)))])
    finally:
        fd._C.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_in_passes(dtype):
    """Results of float32 products, of which columns beyond the first pass have their own places in the scratch."""
    n, c, height, width, o, k, s, p, d, groups = SHAPES[-1]
    rng = np.random.default_rng(1)
    x, w, bias = (fd.array(rng.standard_normal(shape)).astype(dtype) for shape in ((n, c, height, width), (o, c, k, k), (o,)))
    y = fd.conv2d(x, w, bias, s, p, d, groups)
    g = fd.array(rng.standard_normal(y.shape)).astype(dtype)
    dx = fd.conv2d_backward_input(g, w, s, p, d, groups, (height, width))
    wide = [a.astype("float64").numpy() for a in (x, w, g, bias)]
    exact = reference(*wide[:3], s, p, d, groups)
    exact[0][:] += wide[3][:, None, None]
    for a, e in zip((y, dx), exact):
        assert np.abs(a.astype("float64").numpy() - e).max() <= 2.0 ** (-10 if dtype == "float16" else -7) * np.abs(e).max()


def test_kernels_of_one_tap_are_products_of_matrices():
    plans = fd._C.conv_plans(3, 48, 31, 29, 64, 1, 1, 0, 1, 1)
    assert plans == ("product",) * 3 or fd._C.isa() == "amx"
    assert "product" not in fd._C.conv_plans(3, 48, 31, 29, 64, 1, 2, 0, 1, 1) + fd._C.conv_plans(3, 48, 31, 29, 64, 1, 1, 1, 1, 1)
    assert fd._C.conv_plans(1, 4400, 40, 60, 512, 1, 1, 0, 1, 1)[2] != "product"  # what is packed would come in slabs, cut otherwise than in pieces
