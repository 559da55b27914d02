"""argmax and argmin: the first winner and the first NaN, wherever they lie among the groups and blocks that the kernel reads, in every layout and dtype."""

import numpy as np
import pytest

import fastdl as fd

SIZES = (1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 200, 1023, 1024, 1025, 2048, 2100, 5000)
DTYPES = ("float32", "float64", "int32", "int64", "uint64", "int8", "bool", "float16")


def laid_out(x, layout):
    """x (rows, n) as a tensor whose rows are contiguous, every second element, reversed, or columns of memory."""
    if layout == "strided":
        return fd.array(np.repeat(x, 2, axis=1))[:, ::2]
    if layout == "reversed":
        return fd.array(np.ascontiguousarray(x[:, ::-1]))[:, ::-1]
    return fd.array(np.ascontiguousarray(x.T)).T if layout == "transposed" else fd.array(x)


def assert_winners(x, layout):
    t = laid_out(x, layout)
    for name in ("argmax", "argmin"):
        f, g = getattr(fd, name), getattr(np, name)
        np.testing.assert_array_equal(np.asarray(f(t, axis=1)), g(x, axis=1), err_msg=name)
        assert f(t).item() == g(x)
        assert f(t[len(x) // 2]).item() == g(x[len(x) // 2])


@pytest.mark.parametrize("layout", ["rows", "strided", "reversed", "transposed"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ties(dtype, layout):
    """Few values, so that most lanes hold the winner; rows in which it comes once, at either end and in the middle."""
    rng = np.random.default_rng(0)
    for n in SIZES:
        x = rng.integers(0, 3, (7, n)).astype(dtype)
        x[0], x[1] = 1, 1
        x[1, -1], x[2, n // 2], x[3, 0] = 0, 1, 1
        assert_winners(x, layout)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_nan_infinity_and_zeros(dtype):
    """The first NaN wins, whatever comes before; infinities, and zeros of both signs, are equal among themselves."""
    rng = np.random.default_rng(1)
    for n in SIZES:
        x = rng.standard_normal((8, n)).astype(dtype)
        for row, places in enumerate(([0], [n - 1], [n // 2, n - 1], [n // 3, n // 3 + 1])):
            x[row, [min(p, n - 1) for p in places]] = np.nan
        x[4], x[5], x[6] = -np.inf, np.inf, np.where(rng.integers(0, 2, n), 0.0, -0.0)
        x[7, n // 2 :] = np.nan
        for layout in ("rows", "strided"):
            assert_winners(x, layout)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint64", "float32"])
def test_least_and_largest_values(dtype):
    """Values that the kernel itself starts from."""
    info = np.finfo(dtype) if dtype.startswith("f") else np.iinfo(dtype)
    for n in (1, 40, 130, 1100):
        x = np.empty((4, n), dtype)
        x[0], x[1], x[2], x[3] = info.min, info.max, info.min, info.max
        x[2, n // 2 :], x[3, n // 2 :] = info.max, info.min
        assert_winners(x, "rows")


def test_long_axes_do_not_depend_on_threads():
    rng = np.random.default_rng(2)
    x = rng.integers(0, 50, 300_000).astype("f4")
    threads = fd.get_num_threads()
    try:
        for t in (1, 2, 5):
            fd.set_num_threads(t)
            assert fd.argmax(fd.array(x)).item() == np.argmax(x)
            x[123_457] = np.nan
            assert fd.argmin(fd.array(x)).item() == 123_457
            x[123_457] = 1
    finally:
        fd.set_num_threads(threads)
