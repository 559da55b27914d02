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
@pytest.mark.parametrize("layout", ["NN", "NT", "TN"])
def test_heights_widths_and_depths(layout, dtype, threads):
    rng = np.random.default_rng(1)
    for m in ROWS:
        for n in COLUMNS:
            k = DEPTHS[(m + n) % len(DEPTHS)]
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
    np.testing.assert_array_equal(fd.array(a) @ amid_nan(b, 1100), fd.array(a) @ amid_nan(b, 1101))


@pytest.mark.parametrize("n", [10, 20, 24, 40, 72])
def test_epilogues_of_all_panels(n):
    rng = np.random.default_rng(n)
    x, w, bias = rng.standard_normal((50, 90)).astype("f4"), rng.standard_normal((n, 90)).astype("f4"), rng.standard_normal(n).astype("f4")
    plain = np.asarray(fd.array(x) @ fd.array(w).T)
    for activation, function in (("none", lambda v: v), ("relu", lambda v: np.maximum(v, 0)), ("tanh", np.tanh)):
        got = fd.linear(fd.array(x), fd.array(w), fd.array(bias), activation)
        np.testing.assert_allclose(got, function(plain + bias), rtol=2e-6, atol=2e-6)


def test_large_products_in_rounds_of_columns():
    """The last panel of three vectors belongs to the last block of columns, however many threads share them."""
    rng = np.random.default_rng(3)
    a = rng.standard_normal((300, 70)).astype("f4")
    for n in (8 * 97, 8 * 49 - 3, 8 * 193):
        b = rng.standard_normal((70, n)).astype("f4")
        results = []
        for count in (1, 2, 5, 16):
            before = fd.get_num_threads()
            fd.set_num_threads(count)
            results.append(np.asarray(fd.array(a) @ fd.array(b)))
            fd.set_num_threads(before)
        check(results[0], a, b, n)
        for other in results[1:]:
            np.testing.assert_array_equal(results[0], other)
