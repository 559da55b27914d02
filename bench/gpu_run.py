"""One run on a bare GPU machine: build, calibrate the emulator, test, sanitize, measure, within a time budget.

    python bench/gpu_run.py [--out FOLDER] [--budget 480] [--phases identity,build,...] [--cases TEXT] [--package FOLDER] [--dry-run]

Needs the repository, a driver, nvcc, cmake and ninja (or make), pybind11, NumPy and PyTorch; CuPy and compute-sanitizer are used if they
are there; no network. Every phase runs in processes of its own with a time limit, so that a hang or a lost context costs one phase or one
case. What a phase finds is appended to FOLDER/run.jsonl at once, what programs print goes to FOLDER/log.txt, and a short table is
printed last and written to FOLDER/table.txt. A dry run (a test does one) goes through all of it with tiny sizes on the device that
FASTDL_CUDA_LIBRARY offers, the emulator, with the package that is importable.

Rules of the measurements. Device events around batches of calls, back to back; engines take turns (A B C A B C) in one process on the same
data; median, 10th and 90th percentile of 20 batches, and the medians of both halves, whose difference is the noise. Inputs are random and
rotate over three times the L2 cache. Cases are data (gpu_cases.py), with a prediction for each (gpu_predictions.toml). Each result is first
compared with PyTorch's in float64, on fresh memory filled with NaN, and computed twice: a difference between the two is a race.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import datetime
import hashlib
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))
from gpu_engines import Engines, measure, nvidia_smi  # noqa: E402

PHASES = {"identity": 30, "build": 150, "calibration": 40, "correctness": 110, "sanitizer": 50, "bench": 200}  # seconds at most
CAPABILITY = "90a"
LOST = 3  # exit status of a worker whose CUDA context is lost


class Run:
    """Where results and logs go, and how much time is left."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.out = Path(args.out).resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.rows = self.out / "run.jsonl"
        self.log = self.out / "log.txt"
        self.start = time.monotonic()
        self.deadline = self.start + args.budget
        self.build = Path(args.build).resolve()
        self.package = Path(args.package).resolve() if args.package else None

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def write(self, **row: Any) -> None:
        with self.rows.open("a") as f:
            f.write(json.dumps(row) + "\n")

    def read(self, kind: str) -> list[dict[str, Any]]:
        if not self.rows.exists():
            return []
        return [r for line in self.rows.read_text().splitlines() if (r := json.loads(line)).get("kind") == kind]

    def env(self) -> dict[str, str]:
        env = dict(os.environ)
        if self.package:
            env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(self.package), env.get("PYTHONPATH", "")]))
        return env

    def command(self, *command: Any, limit: float, env: dict[str, str] | None = None, cwd: Path | None = None) -> tuple[int, str]:
        """Runs a program in a process group of its own; (status, output), status 124 where it ran out of time."""
        limit = max(1.0, min(limit, self.left() - 3))
        process = subprocess.Popen(
            [str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env=env or self.env(), cwd=cwd or ROOT, start_new_session=True,
        )  # fmt: skip
        try:
            text, status = process.communicate(timeout=limit)[0], process.returncode
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            text, status = process.communicate()[0], 124
        with self.log.open("a") as f:
            f.write(f"\n$ {' '.join(str(c) for c in command)}\n[status {status}]\n{text}")
        return status, text

    def worker(self, what: str, *more: str, limit: float, env: dict[str, str] | None = None) -> tuple[int, str]:
        options = ["--out", self.out, "--build", self.build] + (["--dry-run"] if self.args.dry_run else [])
        return self.command(sys.executable, __file__, "--worker", what, *options, *more, limit=limit, env=env)


# ---- identity ----------------------------------------------------------------------------------------------------------------------------
def identity(run: Run, limit: float) -> None:
    row: dict[str, Any] = {"kind": "identity", "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    row["sha"] = run.command("git", "rev-parse", "HEAD", limit=5)[1].strip()[:40]
    if len(row["sha"]) != 40:  # no git where the tree was copied to: a digest of the sources instead
        digest = hashlib.sha1()
        for path in sorted((ROOT / "csrc").rglob("*.*")):
            digest.update(path.read_bytes())
        row["sha"] = "sources " + digest.hexdigest()
    row["cpus"] = os.cpu_count()
    row["python"] = sys.version.split()[0]
    status, text = run.worker("ceilings", limit=limit - 5)
    row.update(json.loads(text.splitlines()[-1]) if status == 0 else {"error": text[-300:]})
    run.write(**row)


def ceilings_worker(args: argparse.Namespace) -> None:
    """What the card can do, by the peers: the copy (bytes read and written) and PyTorch's largest product."""
    row = nvidia_smi()
    try:
        import torch

        row["torch"] = torch.__version__
        if torch.cuda.is_available() and not args.dry_run:
            x = torch.randn(1 << 29, device="cuda", dtype=torch.bfloat16)
            y = torch.empty_like(x)
            a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))

            def timed(f, n: int) -> float:
                for _ in range(3):
                    f()
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                best = math.inf
                for _ in range(5):
                    start.record()
                    for _ in range(n):
                        f()
                    end.record()
                    end.synchronize()
                    best = min(best, start.elapsed_time(end) / n / 1e3)
                return best

            row["copy_bytes_per_s"] = 2 * x.nbytes / timed(lambda: y.copy_(x), 10)
            row["gemm_flops"] = 2 * 8192**3 / timed(lambda: a @ b, 20)
            row["l2_bytes"] = torch.cuda.get_device_properties(0).L2_cache_size
    except ImportError as e:
        row["torch"] = str(e)
    print(json.dumps(row))


# ---- build -------------------------------------------------------------------------------------------------------------------------------
def build(run: Run, limit: float) -> None:
    start = time.monotonic()
    if run.args.dry_run or run.package:
        return run.write(kind="build", seconds=0.0, package=str(run.package), status="as it is")
    config = [
        "cmake", "-S", ROOT, "-B", run.build, *(["-G", "Ninja"] if shutil.which("ninja") else []), "-DFASTDL_CUDA=ON",
        f"-DFASTDL_CUDA_ARCHS={CAPABILITY}", "-DFASTDL_ISAS=baseline;avx2", f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_BUILD_TYPE=Release",
    ]  # fmt: skip
    if where := pybind11_folder():
        config.append(f"-Dpybind11_DIR={where}")
    for step in (config, ["cmake", "--build", run.build, "-j", os.cpu_count() or 4]):
        status, text = run.command(*step, limit=limit - (time.monotonic() - start))
        if status:
            run.write(kind="build", status="failed", seconds=time.monotonic() - start, error=text[-1500:])
            raise SystemExit(f"build failed:\n{text[-3000:]}")
    package = run.build / "package"
    shutil.copytree(ROOT / "fastdl", package / "fastdl", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for extension in run.build.glob("_C*.so"):
        shutil.copy2(extension, package / "fastdl")
    library = next(run.build.rglob("libfastdl_cuda.so"))
    (package / "fastdl/lib").mkdir(exist_ok=True)
    shutil.copy2(library, package / "fastdl/lib")
    run.package = package
    digest = hashlib.sha1(library.read_bytes()).hexdigest()
    status, text = run.command(sys.executable, ROOT / "tools/check_cuda.py", run.build, limit=60)
    run.write(kind="build", status="built", seconds=time.monotonic() - start, library_sha1=digest, library_bytes=library.stat().st_size,
              static_checks=text.strip().splitlines()[-1:])  # fmt: skip


def pybind11_folder() -> str:
    """pybind11's CMake files; where only PyTorch's copy of its headers is at hand, a package description around them."""
    with contextlib.suppress(ImportError):
        import pybind11

        return pybind11.get_cmake_dir()
    with contextlib.suppress(ImportError):
        import torch

        headers = Path(torch.__file__).parent / "include"
        folder = ROOT / "build/pybind11-from-torch"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pybind11Config.cmake").write_text(
            "find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)\n"
            "function(pybind11_add_module name)\n"
            "  set(sources ${ARGN})\n"
            "  list(REMOVE_ITEM sources MODULE NO_EXTRAS)\n"
            "  Python_add_library(${name} MODULE WITH_SOABI ${sources})\n"
            f"  target_include_directories(${{name}} SYSTEM PRIVATE {headers})\n"
            "  set_target_properties(${name} PROPERTIES CXX_VISIBILITY_PRESET hidden)\n"
            "endfunction()\n"
        )
        return str(folder)
    return ""


# ---- calibration -------------------------------------------------------------------------------------------------------------------------
def calibration(run: Run, limit: float) -> None:
    """tests/cuda/calibrate.cu on the emulator and on the device (in a dry run: on the emulator with another order of threads)."""
    source, folder = ROOT / "tests/cuda/calibrate.cu", run.out / "calibration"
    folder.mkdir(exist_ok=True)
    emulator = sorted(p for p in (ROOT / "csrc/cuda/emu").glob("*.cpp") if not p.name.startswith("checker"))
    flags = ["-std=c++17", f"-I{ROOT / 'csrc'}"]
    builds = [["g++", *flags, "-O1", "-march=x86-64-v3", "-ffp-contract=fast", "-fno-math-errno", "-DFASTDL_EMULATE", "-x", "c++", source,
               *emulator, "-o", folder / "emulated", "-lpthread"]]  # fmt: skip
    if not run.args.dry_run:
        code = f"-gencode=arch=compute_{CAPABILITY},code=sm_{CAPABILITY}"
        builds.append(["nvcc", *flags, "-O3", code, source, "-o", folder / "device"])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for (status, text), command in zip(pool.map(lambda c: run.command(*c, limit=limit), builds), builds):
            if status:
                return run.write(kind="calibration", error=f"{command[0]}: {text[-500:]}")
    run.command(folder / "emulated", folder / "emulated.bin", limit=15)
    if run.args.dry_run:
        env = {**run.env(), "FASTDL_EMU_SCHEDULE": "random:5", "FASTDL_EMU_ASYNC": "deferred"}
        run.command(folder / "emulated", folder / "device.bin", limit=15, env=env)
    else:
        run.command(folder / "device", folder / "device.bin", limit=15)
    expected, found = (read_records(folder / name) for name in ("emulated.bin", "device.bin"))
    for name, (exact, data) in expected.items():
        other = found.get(name, (exact, b""))[1]
        run.write(kind="calibration", probe=name, exact=exact, **compare(exact, data, other))
    shutil.rmtree(folder)


def read_records(path: Path) -> dict[str, tuple[bool, bytes]]:
    records, data, at = {}, path.read_bytes() if path.exists() else b"", 0
    while at < len(data):
        end = data.index(b"\n", at)
        name, kind, size = data[at:end].decode().split("\t")
        records[name] = (kind == "exact", data[end + 1 : end + 1 + int(size)])
        at = end + 1 + int(size)
    return records


def compare(exact: bool, expected: bytes, found: bytes) -> dict[str, Any]:
    import numpy as np

    if len(expected) != len(found):
        return {"ok": False, "error": "no result"}
    words, others = (np.frombuffer(b, "<u4") for b in (expected, found))
    wrong = np.flatnonzero(words != others)
    row: dict[str, Any] = {"ok": True, "words": len(words), "different": len(wrong)}
    if len(wrong):
        row["first"] = [int(wrong[0]), f"{words[wrong[0]]:#010x}", f"{others[wrong[0]]:#010x}"]
    if exact:
        row["ok"] = not len(wrong)
    else:
        a, b = (np.frombuffer(w, "<f4").astype(float) for w in (expected, found))
        row["relative_error"] = float(np.abs(a - b).max() / np.abs(a).max())
        row["ok"] = row["relative_error"] < 1e-5
    return row


# ---- correctness -------------------------------------------------------------------------------------------------------------------------
def correctness(run: Run, limit: float) -> None:
    """The tests with CUDA as default device, side by side in many processes: a lost context ends one of them."""
    end = time.monotonic() + limit
    env = {**run.env(), "FASTDL_DEVICE": "cuda", "PYTHONSAFEPATH": "1"}
    names = op_names()
    if run.args.cases:
        names = [n for n in names if any(c in n for c in run.args.cases.split(","))]
    workers = 1 if run.args.dry_run else min(12, os.cpu_count() or 1)
    if run.args.dry_run:
        names = names[:2]
    # The op table in groups of ops: ids begin with the op, as test_op[add-float32-contiguous-7]
    size = max(1, len(names) // (4 * workers))
    jobs = [
        (g, ["tests/test_ops.py", "-k", " or ".join(f"[{n}-" for n in g)])
        for g in (names[k : k + size] for k in range(0, len(names), size))
    ]
    whole = (
        ["cuda/test_runtime.py"]
        if run.args.dry_run
        else ["cuda/test_runtime.py", "test_nn.py", "test_gradients.py", "test_losses.py", "test_optim.py"]
    )
    jobs = [([name], [f"tests/{name}"]) for name in whole] + jobs
    if not run.args.dry_run:
        others = "not table and not layers and not every_access and not other_thread"  # those that start processes of their own
        jobs.insert(0, (["cuda/test_device.py"], ["tests/cuda/test_device.py", "-k", others]))

    def test(job: tuple[list[str], list[str]]) -> None:
        what, options = job
        if time.monotonic() > end - 5:
            return run.write(kind="correctness", ops=what, status="no time")
        status, text = run.command(
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line", "--maxfail=20", f"--rootdir={ROOT}", *options,
            limit=end - time.monotonic(), env=env,
        )  # fmt: skip
        lines = text.strip().splitlines()
        failed = [line[:300] for line in lines if line.startswith(("FAILED", "ERROR"))][:10]
        outcome = {0: "passed", 5: "no tests", 124: "out of time"}.get(status, "failed")
        run.write(kind="correctness", ops=what, status=outcome, summary=lines[-1][:200] if lines else "", failed=failed)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        list(pool.map(test, jobs))


def op_names() -> list[str]:
    text = (ROOT / "csrc/ops.def").read_text()
    return re.findall(r"^FD_(?:OP|UNARY|TEST|BINARY|COMPARE)\((\w+),", text, re.M)


# ---- sanitizer ---------------------------------------------------------------------------------------------------------------------------
def sanitizer(run: Run, limit: float) -> None:
    """Every case once, on tiny sizes, under compute-sanitizer's tools, side by side."""
    program = shutil.which("compute-sanitizer") or next(
        (p for p in ("/usr/local/cuda/bin/compute-sanitizer",) if Path(p).exists()), None
    )
    if run.args.dry_run or program is None:
        return run.write(kind="sanitizer", status="not here")

    def use(tool: str) -> None:
        status, text = run.command(
            program, "--tool", tool, "--error-exitcode", "9", "--launch-timeout", "20", sys.executable, __file__, "--worker", "tiny", "--out", run.out,
            "--dry-run", limit=limit,
        )  # fmt: skip
        summary = [line for line in text.splitlines() if "ERROR SUMMARY" in line or "RACECHECK SUMMARY" in line]
        hazards = [
            line.strip()
            for line in text.splitlines()
            if "=========" in line and ("Invalid" in line or "hazard" in line or "Barrier error" in line)
        ]
        run.write(kind="sanitizer", tool=tool, status={0: "clean", 9: "errors", 124: "out of time"}.get(status, f"status {status}"),
                  summary=summary[-1:], first=hazards[:5])  # fmt: skip

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(use, ("memcheck", "racecheck", "synccheck")))


def tiny_worker(args: argparse.Namespace) -> None:
    engines = Engines(peers=False)
    for case in selected(args):
        if case.family != "training step":
            try:
                engines.call(engines.prepare(case, shrink=True, sets=1), "fd", 0)
                engines.synchronize()
            except Exception as e:
                print(f"{case.name}: {e}")


# ---- measurements ------------------------------------------------------------------------------------------------------------------------
def bench(run: Run, limit: float) -> None:
    """A worker goes through the cases; where it hangs or loses its context, another one goes on with the next case."""
    end = time.monotonic() + limit
    stall = 45.0
    names = [key(c) for c in selected(run.args) if run.args.cases or not run.args.dry_run or c.family != "training step"]
    done: set[str] = set()
    while len(done) < len(names) and time.monotonic() < end - 8:
        todo = [n for n in names if n not in done]
        listing = run.out / "todo.json"
        listing.write_text(json.dumps(todo))
        process = subprocess.Popen(
            [sys.executable, __file__, "--worker", "bench", "--out", str(run.out), "--todo", str(listing), "--until", str(end - 5)]
            + (["--dry-run"] if run.args.dry_run else []),
            env=run.env(), cwd=ROOT, stdout=run.log.open("a"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        seen, since = len(run.read("case")), time.monotonic()
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
            if (now := len(run.read("case"))) > seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > stall:
                break
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        done |= {r["case"] for r in run.read("case")}
        remaining = [n for n in todo if n not in done]
        if process.returncode == 0:
            break
        if process.returncode == LOST:  # its row says why
            continue
        if remaining and time.monotonic() < end - 8:  # the case in work when the worker went: not again
            hung = process.returncode == -signal.SIGKILL
            error = f"hung for {stall:.0f} s" if hung else f"ended the worker (status {process.returncode})"
            run.write(kind="case", case=remaining[0], error=error)
            done.add(remaining[0])
    (run.out / "todo.json").unlink(missing_ok=True)


def key(case: Any) -> str:
    return f"{case.name}, {case.dtype}"


def selected(args: argparse.Namespace) -> list[Any]:
    from gpu_cases import CASES

    wanted = args.cases.split(",") if args.cases else [""]
    return [c for c in CASES if any(w in key(c) for w in wanted)]


def bench_worker(args: argparse.Namespace) -> None:
    todo = json.loads(Path(args.todo).read_text())
    cases = {key(c): c for c in selected(args)}
    run = Run(args)
    who = (run.read("identity") or [{}])[-1]
    engines = Engines()
    for name in todo:
        if time.monotonic() > args.until - 5:
            return
        row: dict[str, Any] = {"kind": "case", "case": name, "family": cases[name].family, "dtype": cases[name].dtype, "seed": 0}
        row |= {k: who[k] for k in ("sha", "date", "device", "driver") if k in who}
        start = time.monotonic()
        try:
            row |= measure(engines, cases[name], args.dry_run, who)
        except Exception as e:
            row["error"] = f"{type(e).__name__}: {e}"[:500]
            if "context" in row["error"] or "CUDA error" in row["error"]:
                run.write(**row)
                sys.exit(LOST)  # the next worker goes on
        row["seconds"] = round(time.monotonic() - start, 2)
        run.write(**row)


# ---- the table ---------------------------------------------------------------------------------------------------------------------------
def table(run: Run) -> str:
    lines = []
    who = (run.read("identity") or [{}])[-1]
    copy, gemm = who.get("copy_bytes_per_s", 0), who.get("gemm_flops", 0)
    lines.append(
        f"{who.get('device', 'no GPU')}, driver {who.get('driver', '-')}, copy {copy / 1e12:.2f} TB/s, torch bf16 {gemm / 1e12:.0f} TFLOP/s, {who.get('sha', '')[:12]}"
    )
    lines += [f"build: {r['status']}, {r['seconds']:.0f} s {' '.join(r.get('static_checks', []))}" for r in run.read("build")]
    probes = run.read("calibration")
    bad = [p for p in probes if not p.get("ok")]
    lines.append(
        f"calibration: {len(probes) - len(bad)} of {len(probes)} probes agree"
        + "".join(f"\n  {p.get('probe')}: {p.get('first', p.get('error', p.get('relative_error')))}" for p in bad[:12])
    )
    groups = run.read("correctness")
    failed = [g for g in groups if g["status"] not in ("passed", "no tests")]
    lines.append(f"correctness: {len(groups) - len(failed)} of {len(groups)} groups pass")
    lines += [
        f"  {' '.join(g['ops'])[:60]}: {g['status']} {g.get('summary', '')[:80]} {' '.join(g.get('failed', []))[:160]}"
        for g in failed[:12]
    ]
    lines += [
        f"sanitizer {s.get('tool', '')}: {s['status']} {' '.join(s.get('summary', []) + s.get('first', []))[:200]}"
        for s in run.read("sanitizer")
    ]
    cases = run.read("case")
    lines.append(
        f"{'case':<58} {'ours us':>10} {'torch':>7} {'cupy':>7} {'ceiling':>7} {'predict':>7}  (torch, cupy: their time / ours; ceiling: ours / possible)"
    )
    ratios: dict[str, list[float]] = {}
    for r in cases:
        name = r["case"][:58]
        if "ours_us" not in r:
            lines.append(f"{name:<58} {r.get('error', '')[:110]}")
            continue
        ours = r["ours_us"][1]
        peer = {e: (r[f"{e}_us"][1] / ours if f"{e}_us" in r and ours else None) for e in ("torch", "cupy")}
        if peer["torch"]:
            ratios.setdefault(r["family"], []).append(peer["torch"])
        ceiling = r.get("frac_of_torch_gemm", r.get("frac_of_copy"))
        cells = [
            f"{v:>7.2f}" if v else f"{'-':>7}"
            for v in (peer["torch"], peer["cupy"], ceiling, (r.get("predicted_us") or 0) / ours if ours else None)
        ]
        notes = []
        if r.get("ok") is False:
            notes.append(
                f"WRONG: error {r['err_rel_fro']:.2g}, wanted {r['wanted']:.2g}" if r["deterministic"] else "NOT DETERMINISTIC"
            )
        if r.get("fallbacks"):
            notes.append("on the host: " + " ".join(r["fallbacks"]))
        lines.append(f"{name:<58} {ours:>10.1f} {' '.join(cells)} {'; '.join(notes)}")
    for family, values in sorted(ratios.items()):
        lines.append(
            f"{family:<24} geometric mean of torch / ours {math.exp(statistics.fmean(map(math.log, values))):.2f}, worst {min(values):.2f}, {len(values)} cases"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out", default=os.environ.get("OUT") or "build/gpu_run", help="folder for results (default: $OUT or build/gpu_run)"
    )
    parser.add_argument("--build", default="build/gpu", help="build folder")
    parser.add_argument("--package", help="a folder with a built fastdl package: no build")
    parser.add_argument("--budget", type=float, default=480, help="seconds for all")
    parser.add_argument("--phases", default=",".join(PHASES), help="which, in this order")
    parser.add_argument("--cases", default="", help="only measurements and ops whose name contains one of these, comma-separated")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on whatever device there is")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--todo", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=math.inf, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        {"ceilings": ceilings_worker, "tiny": tiny_worker, "bench": bench_worker}[args.worker](args)
        return 0
    run = Run(args)
    run.rows.unlink(missing_ok=True)
    run.log.unlink(missing_ok=True)
    phases = {
        "identity": identity,
        "build": build,
        "calibration": calibration,
        "correctness": correctness,
        "sanitizer": sanitizer,
        "bench": bench,
    }
    scale = 1.0 if args.dry_run else args.budget / sum(PHASES.values())
    for name in args.phases.split(","):
        limit = min(PHASES[name] * max(scale, 1.0) if name == "build" else PHASES[name] * scale, run.left() - 5)
        if name == "bench":
            limit = run.left() - 5  # what the others have left over
        if limit < 2:
            run.write(kind="phase", phase=name, status="no time")
            continue
        start = time.monotonic()
        status = "done"
        try:
            phases[name](run, limit)
        except SystemExit as e:
            print(e)
            status = "failed"
        except Exception as e:
            status = f"{type(e).__name__}: {e}"
        run.write(kind="phase", phase=name, status=status, seconds=round(time.monotonic() - start, 1))
        print(f"[{time.monotonic() - run.start:5.0f} s] {name}: {status}", flush=True)
    text = table(run)
    (run.out / "table.txt").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
