"""bench/gpu_run.py, the script for a machine with a GPU, goes through all its phases on the emulated device; its data hold together."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastdl as fd

ROOT = Path(__file__).resolve().parents[2]
PHASES = ("identity", "build", "correctness", "sanitizer", "bench")  # calibration has tests of its own
needs_emulator = pytest.mark.skipif(
    not fd.cuda.is_available() or not fd.cuda.get_device_properties().emulated, reason="no emulated CUDA device"
)
pytestmark = pytest.mark.skipif(not (ROOT / "bench/gpu_run.py").exists(), reason="not in a source checkout")


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        modules = []
        for name in ("gpu_cases", "gpu_engines", "gpu_run"):
            spec = importlib.util.spec_from_file_location(name, ROOT / f"bench/{name}.py")
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
            modules.append(module)
        yield modules
    finally:
        sys.path.remove(str(ROOT / "bench"))


def test_cases(bench):
    """Every case has a prediction, names are unique, statements are Python."""
    cases, engines, run = bench
    predictions = tomllib.loads(engines.PREDICTIONS.read_text())
    keys = [run.key(c) for c in cases.CASES]
    assert len(keys) == len(set(keys))
    for c in cases.CASES:
        assert 0 < predictions[c.family]["rate"] <= 1 and predictions[c.family]["why"]
        assert engines.predict(c, 3e12, 7e14) >= predictions["launch_us"]
        for engine in ("fd", "torch", "cupy"):
            if statement := getattr(c, engine):
                compile(statement, c.name, "eval")
    assert set(predictions) - {"launch_us"} == {c.family for c in cases.CASES}


def test_compare(bench):
    *_, run = bench
    assert run.compare(True, b"abcdefgh", b"abcdefgh")["ok"]
    row = run.compare(True, b"abcdefgh", b"abcdefgx")
    assert not row["ok"] and row["different"] == 1 and row["first"][0] == 1
    assert not run.compare(True, b"abcd", b"")["ok"]


@pytest.fixture(scope="module")
def emulated_calibration(tmp_path_factory):
    if not shutil.which("g++"):
        pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("calibrate")
    emulator = [p for p in (ROOT / "csrc/cuda/emu").glob("*.cpp") if not p.name.startswith("checker")]
    flags = ["-std=c++17", "-O1", "-march=x86-64-v3", "-ffp-contract=fast", "-fno-math-errno", "-DFASTDL_EMULATE", f"-I{ROOT / 'csrc'}", "-x", "c++"]
    subprocess.run(["g++", *flags, ROOT / "tests/cuda/calibrate.cu", *emulator, "-o", folder / "program", "-lpthread"], check=True)
    return folder / "program"


def test_calibration_program(bench, emulated_calibration, tmp_path):
    """The same on every schedule of threads and whenever asynchronous copies arrive; results that can be known are right."""
    *_, run = bench
    results = []
    for k, (schedule, copies) in enumerate([("index", "immediate"), ("reverse", "deferred"), ("random:7", "deferred")]):
        env = {**os.environ, "FASTDL_EMU_SCHEDULE": schedule, "FASTDL_EMU_ASYNC": copies}
        subprocess.run([emulated_calibration, tmp_path / f"{k}.bin"], env=env, check=True)
        results.append(run.read_records(tmp_path / f"{k}.bin"))
    assert results[0] == results[1] == results[2] and len(results[0]) >= 19

    import numpy as np

    widened = np.frombuffer(results[0]["widen"][1], "f4")
    assert np.array_equal(widened[:65536], np.arange(65536, dtype="u2").view("f2").astype("f4"), equal_nan=True)
    assert (widened[65536:].view("u4") >> 16 == np.arange(65536)).all()


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc")
def test_calibration_program_compiles_for_the_device(tmp_path):
    code = "-gencode=arch=compute_90a,code=sm_90a"
    subprocess.run(["nvcc", "-std=c++17", code, f"-I{ROOT / 'csrc'}", "-c", ROOT / "tests/cuda/calibrate.cu", "-o", tmp_path / "o"], check=True)


@needs_emulator
def test_dry_run(tmp_path):
    command = [sys.executable, ROOT / "bench/gpu_run.py", "--dry-run", "--out", tmp_path, "--budget", "240", "--phases", ",".join(PHASES)]
    command += ["--cases", "matmul 512,softmax,max_pool2d,100 M"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    phases = {r["phase"]: r["status"] for r in rows if r["kind"] == "phase"}
    assert phases == dict.fromkeys(PHASES, "done")
    assert all(r["status"] in ("passed", "no tests") for r in rows if r["kind"] == "correctness"), rows
    cases = [r for r in rows if r["kind"] == "case"]
    assert len(cases) >= 9
    for r in cases:
        assert "error" not in r and len(r["ours_us"]) == 3 and r.get("ok", True), r
    assert (tmp_path / "table.txt").read_text().strip() in done.stdout


@needs_emulator
@pytest.mark.parametrize("fault", ["import os; os._exit(9)", "raise RuntimeError('CUDA error 700')"])
def test_a_case_that_ends_its_process(fault, tmp_path):
    """costs that case, not the ones after it."""
    keys = ["add 16 floats, float32", "softmax 8192x1024, float32", "relu 64 Mi, float32"]
    folder = tmp_path / "bench"
    shutil.copytree(ROOT / "bench", folder, ignore=shutil.ignore_patterns("results"))
    with (folder / "gpu_cases.py").open("a") as f:
        f.write(f"CASES = [c for c in CASES if f'{{c.name}}, {{c.dtype}}' in {keys}]\n")
        f.write(f"CASES[0].setup = {{'fd': {fault!r}}}\n")
    command = [sys.executable, folder / "gpu_run.py", "--dry-run", "--out", tmp_path / "out", "--budget", "120", "--phases", "bench"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=True, timeout=150)
    rows = [json.loads(line) for line in (tmp_path / "out/run.jsonl").read_text().splitlines()]
    found = {r["case"]: "error" in r for r in rows if r["kind"] == "case"}
    assert len(found) == 3 and list(found.values()) == [True, False, False]
