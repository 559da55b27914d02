"""Winograd's algorithm for 3x3 convolutions: used where documented, as exact as documented, the same for every thread count."""

from __future__ import annotations

import numpy as np
import pytest

import fastdl as fd

# Where there are no AMX tiles: few tiles for many weights, in one round and in two; a single column beyond a panel; gradients by the
# weights in several rounds, the last also for some columns at a time.
EVERYWHERE = [(3, 32, 18, 14, 40, 1), (3, 48, 17, 15, 33, 1), (2, 64, 22, 20, 32, 0), (2, 32, 20, 22, 48, 2)]
WITHOUT_TILES = [(2, 80, 8, 8, 144, 1), (2, 96, 32, 31, 112, 1), (3, 96, 8, 9, 81, 1), (4, 64, 28, 28, 64, 1), (4, 256, 20, 20, 192, 1)]


@pytest.fixture(params=EVERYWHERE + WITHOUT_TILES, ids=str)
def case(request):
    n, c, h, w, o, p = request.param
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((n, c, h, w)), rng.standard_normal((o, c, 3, 3)), rng.standard_normal(o)
    g = rng.standard_normal((n, o, h + 2 * p - 2, w + 2 * p - 2))
    return x, weight, bias, g, p


def results(x, weight, bias, g, p, dtype, allowed):
    x, weight, bias, g = (fd.array(a.astype(dtype)) for a in (x, weight, bias, g))
    before = fd.set_conv_winograd(allowed)
    try:
        y = fd.conv2d(x, weight, bias, 1, p, activation="relu")
        dx = fd.conv2d_backward_input(g, weight, 1, p, 1, 1, x.shape[2:])
        dw, db = fd.conv2d_backward_weight(g, x, 1, p, 1, 1, (3, 3))
        return y.numpy(), dx.numpy(), dw.numpy(), db.numpy()
    finally:
        assert fd.set_conv_winograd(before) == allowed


def test_rounding_errors_are_near_those_of_the_direct_sum(case):
    exact = results(*case, "float64", True)
    direct, fast = results(*case, "float32", False), results(*case, "float32", True)
    x, weight, *_, p = case
    everywhere = (*x.shape, weight.shape[0], p) in EVERYWHERE
    differ = set()
    for name, e, d, f in zip(("y", "dx", "dw", "db"), exact, direct, fast):
        rms = lambda a, e=e: np.sqrt(np.mean((a - e) ** 2))  # noqa: E731
        assert rms(f) <= (8 if fd._C.isa() == "amx" else 4) * rms(d)  # on tiles, the direct sum is the more exact one
        assert np.abs(f - e).max() <= (1e-5 if everywhere and name in ("y", "dx") else 4e-5) * e.std()
        if (f != d).any():
            differ.add(name)
    plans = fd._C.conv_plans(*x.shape, weight.shape[0], 3, 1, p, 1, 1)
    planned = {name for name, plan in zip(("y", "dx", "dw"), plans) if plan == "winograd"}
    assert planned <= differ and (planned or (not everywhere and fd._C.isa() == "amx")), f"sizes were chosen so that Winograd's algorithm runs: {plans}"
    if fd._C.isa() != "amx" and weight.shape[0] % 16 == 0:
        assert planned == {"y", "dx", "dw"}


def test_results_do_not_depend_on_threads(case):
    before = fd._C.num_threads()
    try:
        runs = []
        for threads in (1, 2, 3):
            fd._C.set_num_threads(threads)
            runs.append(results(*case, "float32", True))
    finally:
        fd._C.set_num_threads(before)
    for run in runs[1:]:
        for a, b in zip(runs[0], run):
            np.testing.assert_array_equal(a, b)


def test_nan_stays_within_its_tiles():
    x = np.ones((3, 32, 18, 14), np.float32)
    x[1, 5, 9, 9] = np.nan
    y = fd.conv2d(fd.array(x), fd.ones((32, 32, 3, 3)), None, 1, 1).numpy()
    bad = np.isnan(y)
    assert bad[1, :, 8:11, 8:11].all()
    assert not bad[[0, 2]].any() and not bad[1, :, :4].any() and not bad[1, :, :, :4].any()
