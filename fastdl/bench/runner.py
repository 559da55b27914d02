"""Asks the engines in turn: each in a process of its own with the same processors and thread count, A B A B, minimum and median."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import queue
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from .cases import Case, all_cases, engines_of
from .roofline import limit

SCHEMA = 1
ENGINES = ("fastdl", "fastdl-eager", "torch", "torch-compile", "jax", "onnxruntime", "numpy")
DEFAULT_ENGINES = tuple(e for e in ENGINES if e != "fastdl-eager")
OURS = ("fastdl", "fastdl-eager")
NEEDS = {"fastdl-eager": {"fastdl": ""}, "torch-compile": {"torch": ""}, "onnxruntime": {"onnx": "1.21", "onnxruntime": "1.23"}}  # packages, least versions
PREPARE_TIMEOUT = 300.0  # seconds: a compiler of a peer may be slow
REPLY_TIMEOUT = 60.0


@dataclasses.dataclass
class Settings:
    engines: tuple[str, ...] = DEFAULT_ENGINES
    threads: tuple[int, ...] = (1,)
    seconds: float = 1.0  # of timing per case and engine
    warm: float = 0.5
    rounds: int = 5
    check: bool = True
    roofline: bool = False
    compile_ops: bool = False  # torch.compile on single ops, too


def lacks(engine: str) -> list[str]:
    """The packages that an engine needs and that are not installed, or too old: `name` or `name>=version`.

    >>> from fastdl.bench.runner import lacks
    >>> lacks("fastdl"), lacks("numpy")
    ([], [])
    """

    def old(package: str, least: str) -> bool:
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # of a distribution with another name, such as onnxruntime-gpu: its process will say
            return False
        return [int(n) for n in re.findall(r"\d+", found)[:2]] < [int(n) for n in least.split(".")]

    needs = NEEDS.get(engine, {engine: ""})
    return [f"{p}>={v}" if v else p for p, v in needs.items() if importlib.util.find_spec(p) is None or (v and old(p, v))]


def installed(engines: tuple[str, ...]) -> tuple[str, ...]:
    """Those engines whose packages are there."""
    return tuple(e for e in engines if not lacks(e))


def processors(threads: int) -> list[int]:
    """The processors that `threads` threads are pinned to."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return allowed[:threads]


def environment(threads: int) -> dict[str, str]:
    """What a worker sees: one thread count for every library, and none of the settings that would slow NumPy down."""
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    for name in ("FASTDL", "OMP", "MKL", "OPENBLAS", "NUMEXPR"):
        env[f"{name}_NUM_THREADS"] = str(threads)
    one = " --xla_cpu_multi_thread_eigen=false" if threads == 1 else ""
    env["XLA_FLAGS"] = env.get("XLA_FLAGS", "") + one
    env["JAX_PLATFORMS"] = "cpu"
    return env


class Worker:
    """One engine's process, which runs only while it is asked: threads that wait for their next work by spinning, as those of OpenMP and
    OpenBLAS do for tens of milliseconds, would take the processors of whoever is asked next. `ask` never raises: whatever goes wrong is an
    answer {"error": text}.
    """

    def __init__(self, engine: str, threads: int) -> None:
        self.engine, self.threads = engine, threads
        self.replies: queue.Queue[str] = queue.Queue()
        self.log = tempfile.TemporaryFile("w+", errors="replace")
        reading, writing = os.pipe()
        cpus = processors(threads)
        command = [sys.executable, "-c", START, json.dumps(cpus), json.dumps(sys.path), engine, str(threads), str(writing)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, text=True, env=environment(threads), pass_fds=(writing,)
        )
        os.close(writing)
        threading.Thread(target=self._listen, args=(reading,), daemon=True).start()

    def _listen(self, pipe: int) -> None:
        with os.fdopen(pipe) as stream:
            for line in stream:
                self.replies.put(line)
        self.replies.put("")

    def ask(self, timeout: float, **request: Any) -> dict[str, Any]:
        try:
            assert self.process.stdin
            self._signal(signal.SIGCONT)
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.replies.get(timeout=timeout)
            self._signal(signal.SIGSTOP)
        except (BrokenPipeError, OSError):
            line = ""
        except queue.Empty:
            self.close()
            return {"error": f"no answer within {timeout:.0f} s"}
        if line:
            return json.loads(line)
        self.close()
        code = self.process.returncode
        return {"error": f"the process ended ({'signal' if code < 0 else 'code'} {abs(code)}){self._last_words()}"}

    def _signal(self, number: int) -> None:
        if self.alive:
            self.process.send_signal(number)

    def _last_words(self) -> str:
        self.log.seek(0)
        lines = self.log.read().strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        self._signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            assert self.process.stdin
            self.process.stdin.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


# Affinity before any library is imported: they size their thread pools by it. The parent's path, so that the same packages are
# found. On Linux the process ends with the thread that started it (PR_SET_PDEATHSIG), which may die while it is stopped.
START = """\
import ctypes, json, os, signal, sys
if sys.platform == "linux": ctypes.CDLL(None).prctl(1, signal.SIGKILL)
cpus = json.loads(sys.argv[1])
if cpus: os.sched_setaffinity(0, cpus)
sys.path[:] = json.loads(sys.argv[2])
from fastdl.bench.worker import main
main(sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
"""


class Workers:
    """The processes of one thread count, started when first asked."""

    def __init__(self, threads: int) -> None:
        self.threads, self.running, self.versions = threads, dict[str, Worker](), dict[str, str]()

    def get(self, engine: str) -> Worker:
        worker = self.running.get(engine)
        if worker is None or not worker.alive:
            worker = self.running[engine] = Worker(engine, self.threads)
        return worker

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.running.values():
            worker.close()


def difference(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> float:
    """The largest ||found - wanted|| / ||wanted|| over the results; infinite where shapes differ or only one is finite."""
    worst = 0.0
    if len(found) != len(wanted):
        return float("inf")
    for a, b in zip(found, wanted):
        x, y = np.array(a["values"], float), np.array(b["values"], float)
        if a["shape"] != b["shape"] or not np.array_equal(np.isfinite(x), np.isfinite(y)):
            return float("inf")
        norm = float(np.linalg.norm(y))
        worst = max(worst, float(np.linalg.norm(x - y)) / (norm if norm else 1.0))
    return worst


def tolerance(case: Case) -> float:
    """float32's epsilon times the root of the longest sum, or bfloat16's; a step's losses may drift as its weights do."""
    eps = float(np.finfo(np.float32).eps)
    if case.suite == "steps":
        return 2e4 * eps
    if case.dtype == "bfloat16":
        return 2.0**-8  # each result is rounded to that
    return eps * (32 + 8 * case.depth**0.5)


def run_case(case: Case, settings: Settings, workers: Workers) -> dict[str, Any]:
    """One row of the results: times of each engine, or why there are none."""
    cells: dict[str, dict[str, Any]] = {}
    answers: dict[str, list] = {}
    possible = engines_of(case)
    for engine in settings.engines:
        if engine not in possible or (engine == "torch-compile" and case.suite != "steps" and not settings.compile_ops):
            continue
        reply = workers.get(engine).ask(PREPARE_TIMEOUT, do="prepare", case=case.name, check=settings.check)
        cells[engine] = {"error": reply["error"]} if "error" in reply else {"times": []}
        if reply.get("results"):
            answers[engine] = reply["results"]
    agreement = compare_answers(case, answers, cells)
    live = [e for e in cells if "times" in cells[e]]
    for number in range(settings.rounds):
        for engine in live if number % 2 == 0 else live[::-1]:
            if "times" not in cells[engine]:
                continue
            reply = workers.get(engine).ask(
                REPLY_TIMEOUT + 10 * settings.seconds, do="time", seconds=settings.seconds / settings.rounds,
                warm=settings.warm if number == 0 else settings.warm / 20,
            )  # fmt: skip
            if "error" in reply:
                cells[engine] = {"error": reply["error"]}
            else:
                cells[engine]["times"] += reply["times"]
    for engine, cell in cells.items():
        if "times" in cell:
            times = cell.pop("times")
            cells[engine] = {**cell, "min": min(times), "median": statistics.median(times), "samples": len(times)}
    return {
        "case": case.name, "suite": case.suite, "family": case.family, "threads": workers.threads, "flops": case.flops, "bytes": case.bytes,
        "engines": cells, **agreement,
    }  # fmt: skip


def compare_answers(case: Case, answers: dict[str, list], cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every engine against the first peer that answered; a wrong result gets no time."""
    reference = next((e for e in ("torch", "jax", "numpy", *(e for e in answers if e not in OURS), *answers) if e in answers), None)
    if reference is None or len(answers) < 2:
        return {"reference": None, "errors": {}, "tolerance": tolerance(case)}
    errors = {e: difference(found, answers[reference]) for e, found in answers.items() if e != reference}
    for engine, error in errors.items():
        if not error <= tolerance(case):
            cells[engine] = {"error": f"differs from {reference}: {error:.2g} > {tolerance(case):.2g}"}
    return {"reference": reference, "errors": errors, "tolerance": tolerance(case)}


def finish(row: dict[str, Any], roofline: dict[str, Any] | None) -> dict[str, Any]:
    """Adds rates, shares of the peak and ratios: the speed of fastdl / the speed of the peer, by minima (and by medians)."""
    cells = row["engines"]
    ours = next((e for e in OURS if "min" in cells.get(e, {})), None)
    peers = {e: c for e, c in cells.items() if "min" in c and e not in OURS}
    for cell in cells.values():
        if "min" in cell:
            cell["gflops"] = row["flops"] / cell["min"] / 1e9
            cell["gbs"] = row["bytes"] / cell["min"] / 1e9
            if roofline:
                cell["share"] = limit(row["flops"], row["bytes"], roofline) / cell["min"]
    row["ratios"] = {e: c["min"] / cells[ours]["min"] for e, c in peers.items()} if ours else {}
    row["median_ratios"] = {e: c["median"] / cells[ours]["median"] for e, c in peers.items()} if ours else {}
    row["best_peer"] = min(peers, key=lambda e: peers[e]["min"]) if peers else None
    row["ratio"] = row["ratios"].get(row["best_peer"])
    return row


def measure_peaks(workers: Workers, settings: Settings) -> dict[str, Any]:
    return workers.get("fastdl").ask(REPLY_TIMEOUT + 10 * settings.seconds, do="roofline", threads=workers.threads, seconds=2 * settings.seconds)


def highest(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Of each peak the higher of two measurements."""
    return {**a, **b, **{k: max(v, b.get(k, 0.0)) for k, v in a.items() if isinstance(v, float)}}


def cpu_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """What the results were measured on."""
    import fastdl as fd
    from fastdl import _C

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": cpu_name(), "processors": len(processors(1 << 20)) or os.cpu_count(), "memory_gb": round(memory / 2**30, 1), "isa": _C.isa(),
        "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(), "fastdl": fd.__version__,
        "compiler": _C.compiler(), "load": [round(v, 2) for v in os.getloadavg()] if hasattr(os, "getloadavg") else [],
    }  # fmt: skip


def select(suite: str, filters: list[str]) -> list[Case]:
    """The cases of a suite whose name or family contains one of the words."""
    words = [w.lower() for w in filters]
    return [
        c for c in all_cases()
        if suite in ("all", c.suite) and (not words or any(w in c.name.lower() or w in c.family for w in words))
    ]  # fmt: skip


def run(cases: list[Case], settings: Settings, show: Callable[[dict[str, Any]], None] = lambda row: None) -> dict[str, Any]:
    """Measure; `show` is called with every finished row.

    Examples
    --------
    >>> from fastdl.bench.runner import Settings, run, select
    >>> quick = Settings(engines=("fastdl", "numpy"), seconds=0.01, warm=0.0, rounds=1)
    >>> result = run(select("ops", ["matmul 16 NN"]), quick)
    >>> [row["case"] for row in result["rows"]], sorted(result["rows"][0]["ratios"])
    (['matmul 16 NN'], ['numpy'])
    """
    result: dict[str, Any] = {
        "schema": SCHEMA, "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "machine": machine(),
        "versions": {}, "settings": dataclasses.asdict(settings), "roofline": {}, "rows": [],
    }  # fmt: skip
    for threads in settings.threads:
        with Workers(threads) as workers:
            for engine in settings.engines:
                reply = workers.get(engine).ask(PREPARE_TIMEOUT, do="hello")
                result["versions"][engine] = reply.get("version") or reply["error"]
            peaks = measure_peaks(workers, settings) if settings.roofline else None
            first = len(result["rows"])
            for case in cases:
                row = finish(run_case(case, settings, workers), peaks)
                result["rows"].append(row)
                show(row)
            if peaks is not None:  # measured again: a busy machine lowers a peak, nothing raises it
                result["roofline"][str(threads)] = peaks = highest(peaks, measure_peaks(workers, settings))
                for row in result["rows"][first:]:
                    finish(row, peaks)
    return result
