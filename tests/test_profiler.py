"""`fd.profiler`: every launch is seen once, eager or captured; tables and traces say what they promise."""

import json

import pytest

import fastdl as fd

PEAKS = {"fp32_gflops": 100.0, "fp64_gflops": 50.0, "copy_gbs": 10.0}


def small(x, w):
    return fd.tanh(x @ w).sum()


@pytest.mark.parametrize("captured", [False, True])
def test_launches(captured):
    x, w = fd.ones((32, 64)), fd.ones((64, 16))
    f = fd.compile(small) if captured else small
    for _ in range(3):
        f(x, w)
    with fd.profiler.profile() as p:
        f(x, w)
    assert [launch.op for launch in p.launches] == ["matmul", "tanh", "sum"]
    product = p.launches[0]
    assert product.flops == 2 * 32 * 64 * 16 and product.bytes == 4 * (32 * 64 + 64 * 16 + 32 * 16) and product.shape == (32, 16)
    assert all(launch.seconds > 0 and launch.start >= 0 for launch in p.launches)
    assert sum(launch.seconds for launch in p.launches) <= p.seconds


def test_shares_of_the_peaks():
    launch = fd.profiler.Launch("matmul", "float32", 0.0, 0.004, 10_000, 200_000_000, (1,), 1)
    assert launch.least_seconds(PEAKS) == pytest.approx(0.002)  # 200 MFLOP at 100 GFLOP/s; 10 KB would take 1 us
    assert launch._replace(dtype="float64").least_seconds(PEAKS) == pytest.approx(0.004)
    assert launch._replace(flops=0, bytes=20_000_000).least_seconds(PEAKS) == pytest.approx(0.002)
    assert launch.least_seconds({}) == 0 and launch._replace(device="cuda").least_seconds(PEAKS) == 0
    bf16 = launch._replace(dtype="bfloat16")
    assert bf16.least_seconds(PEAKS) == pytest.approx(1e-6) and bf16.least_seconds({**PEAKS, "amx_bf16_gflops": 1000.0}) == pytest.approx(2e-4)


def test_table_and_trace(tmp_path):
    x, w = fd.ones((32, 64)), fd.ones((64, 16), dtype="float64")
    with fd.profiler.profile() as p:
        fd.tanh(x), fd.tanh(x), w.sum()
    lines = p.table(sort="count").splitlines()
    assert lines[1].split()[:3] == ["tanh", "float32", "2"] and lines[2].split()[:3] == ["sum", "float64", "1"]
    assert "of peak" not in lines[0] and lines[-1].startswith("3 launches")
    with_peaks = p.table(peaks=PEAKS).splitlines()
    assert with_peaks[0].endswith("of peak") and all(line.endswith("%") for line in with_peaks[1:-1])
    with pytest.raises(ValueError, match="sort"):
        p.table(sort="size")
    for show in (p.table, lambda peaks: p.chrome_trace(tmp_path / "no.json", peaks=peaks)):
        with pytest.raises(ValueError, match="peaks"):
            show(peaks={"bogus": 1})
    assert not (tmp_path / "no.json").exists()
    assert len(p.table(limit=1).splitlines()) == 3

    p.chrome_trace(tmp_path / "trace.json", peaks=PEAKS)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [e["name"] for e in events] == ["tanh", "tanh", "sum"]
    for event, launch in zip(events, p.launches, strict=True):
        assert event["args"]["of_peak"] == pytest.approx(launch.least_seconds(PEAKS) / launch.seconds)
        assert event["dur"] == pytest.approx(launch.seconds * 1e6)
    p.chrome_trace(tmp_path / "plain.json")
    assert "of_peak" not in json.loads((tmp_path / "plain.json").read_text())["traceEvents"][0]["args"]


def test_measured_peaks():
    peaks = fd.profiler.peaks(seconds=0.05, threads=1)
    assert peaks["threads"] == 1 and all(peaks[k] > 0 for k in ("fp32_gflops", "fp64_gflops", "copy_gbs", "add_gbs"))
    for wrong in ({"threads": 0}, {"seconds": 0}, {"seconds": float("nan")}):
        with pytest.raises(ValueError, match="peaks"):
            fd.profiler.peaks(**wrong)
