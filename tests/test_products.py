"""Products of matrices in every way that their plan may cut them (csrc/cpu/isa/gemm.h): tiles of all heights, columns of an odd number
of vectors, right operands that are packed, read in place, or have rows pages apart, steps of k that do not come in fours."""

import numpy as np
import pytest

import fastdl as fd

ROWS = (2, 3, 5, 6, 7, 11, 12, 13, 18, 19, 31, 66, 70)
COLUMNS = (2, 10, 16, 20, 24, 33, 40, 41, 100)
DEPTHS = (1, 3, 4, 6, 65, 131, 385)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    before = fd.get_num_threads()
    fd.set_num_threads(request.param)
    yield request.param
    fd.set_num_threads(before)


def amid_nan(x, more):
    """x as a view whose rows are `more` elements longer, all NaN."""
    wide = np.full((x.shape[0] + 2, x.shape[1] + more), np.nan, x.dtype)
    wide[1:-1, : x.shape[1]] = x
    return fd.array(wide)[1:-1, : x.shape[1]]


def check(got, a, b, where):
    """No sum is off by more than its k roundings could make it."""
    exact, scale = a.astype("f8") @ b.astype("f8"), np.abs(a).astype("f8") @ np.abs(b).astype("f8")
    assert got.shape == exact.shape, where
    worst = np.abs(np.asarray(got) - exact) / (scale * np.finfo(a.dtype).eps * (a.shape[1] + 1))
    assert np.isfinite(worst).all() and worst.max(initial=0) <= 1, where


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("layout", ["NN", "NT", "TN", "TT"])
def test_heights_widths_and_depths(layout, dtype, threads):
    rng = np.random.default_rng(1)
    sizes = [(m, DEPTHS[(m + n) % len(DEPTHS)], n) for m in ROWS for n in COLUMNS]
    for m, k, n in [*sizes, (70, 385, 100), (130, 400, 97), (67, 700, 129)]:  # these pack a row-major right operand
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        left = amid_nan(np.ascontiguousarray(a.T), 3).T if layout[0] == "T" else amid_nan(a, 3)
        right = amid_nan(np.ascontiguousarray(b.T), 5).T if layout[1] == "T" else amid_nan(b, 5)
        check(left @ right, a, b, (layout, m, k, n))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("m, k, n", [(2, 64, 1030), (4, 200, 1100), (6, 65, 2051), (12, 130, 1024), (18, 129, 1040), (19, 129, 1040), (66, 70, 1032), (3, 1000, 40), (70, 400, 24)])
def test_rows_pages_apart(m, k, n, dtype, threads):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    check(fd.array(a) @ amid_nan(b, 1100), a, b, "rows")
    check(fd.array(np.ascontiguousarray(a.T)).T @ amid_nan(b, 1100), a, b, "transposed")


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("m, k, n", [(2, 3, 150), (5, 64, 130), (13, 193, 200), (70, 401, 301), (100, 380, 700)])
@pytest.mark.parametrize("beyond", [0, 32, 4064])  # bytes
def test_left_rows_multiples_of_4_kb_apart(beyond, m, k, n, dtype, threads):
    """Strips of such rows are copied, where many panels pass over them: with the sums of rows that are not."""
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    left = amid_nan(a, (4096 + beyond) // a.itemsize - k)
    for right in (fd.array(b), fd.array(np.ascontiguousarray(b.T)).T):
        got = left @ right
        check(got, a, b, (beyond, m, k, n))
        np.testing.assert_array_equal(np.asarray(got), np.asarray(amid_nan(a, 2800 // a.itemsize - k % 8) @ right))


@pytest.mark.parametrize("n", [10, 20, 24, 40, 72])
def test_epilogues_of_all_panels(n):
    rng = np.random.default_rng(n)
    x, w, bias = rng.standard_normal((50, 90)).astype("f4"), rng.standard_normal((n, 90)).astype("f4"), rng.standard_normal(n).astype("f4")
    plain = np.asarray(fd.array(x) @ fd.array(w).T)
    for activation, function in (("none", lambda v: v), ("relu", lambda v: np.maximum(v, 0)), ("tanh", np.tanh)):
        got = fd.linear(fd.array(x), fd.array(w), fd.array(bias), activation)
        np.testing.assert_allclose(got, function(plain + bias), rtol=2e-6, atol=2e-6)


def with_threads(count, function):
    before = fd.get_num_threads()
    fd.set_num_threads(count)
    try:
        return np.asarray(function())
    finally:
        fd.set_num_threads(before)


@pytest.mark.parametrize(
    "layout, m, k, n",
    [
        *(("NN", 300, 70, n) for n in (8 * 97, 8 * 49 - 3, 8 * 193)),  # the last panel of three vectors is in the last block of columns
        ("NN", 300, 700, 8 * 97), ("NN", 12, 1000, 2056), ("NN", 18, 500, 1030), ("NN", 3, 2000, 1500), ("TN", 12, 1000, 2056), ("NT", 18, 900, 1030),
        ("TT", 8, 16384, 64), ("TT", 9, 16384, 61), ("TN", 8, 16384, 64), ("NN", 40, 16384, 40), ("NT", 24, 9000, 33),  # parts of k
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_bits_of_all_thread_counts(layout, m, k, n, dtype):
    """How columns are shared decides neither how sums are cut nor what is where. Left operands that are transposed have rows pages apart."""
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    left = amid_nan(np.ascontiguousarray(a.T), 1100).T if layout[0] == "T" else fd.array(a)
    right = fd.array(np.ascontiguousarray(b.T)).T if layout[1] == "T" else fd.array(b)
    one = with_threads(1, lambda: left @ right)
    check(one, a, b, layout)
    for count in (2, 3, 5, 16, 32):
        np.testing.assert_array_equal(one, with_threads(count, lambda: left @ right), err_msg=f"{count} threads")
