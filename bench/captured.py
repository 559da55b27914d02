"""What capturing a step costs, keeps and stands: calls beyond their kernels, memory beside PyTorch's, speed on a busy machine.

    python bench/captured.py replay                    # microseconds per call beyond the kernels, and what Python's profiler sees
    python bench/captured.py memory [--batch 16 128]   # peak bytes of the ResNet-18 step, PyTorch's beside it
    python bench/captured.py busy [--steps xor mlp]    # 2 threads while another process spins on one of their two processors

Every measurement runs in a process of its own, on a machine that does nothing else. `--json FILE` adds the rows to a file.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastdl.bench import steps as S

STEPS = ("xor", "mlp", "mlp1024", "cnn", "lstm", "gpt", "resnet18")


def times(f: Callable[[], Any], seconds: float, least: float = 5e-3) -> list[float]:
    """Seconds per call, of batches of some milliseconds."""
    for _ in range(4):  # eager, recorded, replayed
        f()
    start = time.perf_counter()
    f()
    batch = max(1, round(least / (time.perf_counter() - start)))
    out, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(batch):
            f()
        out.append((time.perf_counter() - start) / batch)
    return out


def python_calls(f: Callable[[], Any]) -> int:
    """Calls of functions that Python's profiler sees in f()."""
    events: list[str] = []
    sys.setprofile(lambda frame, event, arg: events.append(event))
    f()
    sys.setprofile(None)
    return sum(event.endswith("call") for event in events) - 2  # f itself, and setprofile


# ---- replay: chains of launches whose kernels compute one number, and a training step of 25 launches -----------------------------
def replay() -> list[dict[str, Any]]:
    import fastdl as fd
    from fastdl import nn, optim

    def row(what: str, f: Any, *args: Any) -> dict[str, Any]:
        seconds = min(times(lambda: f(*args), 1.0))
        calls = python_calls(lambda: f(*args))
        f.timed()
        for _ in range(3000):
            f(*args)
        kernels = sum(launch["seconds"] for launch in f._entries[0].capture.steps())
        launches = f.stats()["launches"]
        return {"what": what, "launches": launches, "us": seconds * 1e6, "kernels_us": kernels * 1e6, "python_calls": calls}

    def chain(launches: int) -> Any:
        def f(x: Any) -> Any:
            for _ in range(launches):
                x = -x
            return x

        return fd.compile(f, passes={"fuse": False})

    fd.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 5))
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    @fd.compile
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        logits = model(x)
        loss = nn.functional.cross_entropy(logits, y)
        loss.backward()
        optimizer.step()
        return loss, (logits.argmax(axis=1) == y).sum()

    rows = [row("chain on one number", chain(launches), fd.ones(1)) for launches in (1, 25, 100)]
    return [*rows, row("training step of docs/capture.md", step, fd.random.normal((32, 20)), fd.random.integers(0, 5, 32))]


# ---- memory ------------------------------------------------------------------------------------------------------------------
def memory(engine: str, batch: int) -> dict[str, Any]:
    """Bytes of tensors at the highest point of a step, and what parameters, gradients and momentum take of them. engine: "fastdl", "fastdl, convolutions again", "torch"."""
    data = S.data
    S.data = lambda name: tuple(np.concatenate([v] * (batch // 16)) for v in data(name))  # type: ignore[assignment, return-value]
    if engine != "torch":
        import fastdl as fd

        library = S.fastdl_library(True)
        library.compile = lambda step, net: fd.compile(step, passes={"recompute_convolutions": engine != "fastdl"})
        step = S.build("resnet18", library, 0.0)
        for _ in range(3):
            step()
        gc.collect()
        fd.memory.reset_peak()
        step()
        (program,) = (c for c in gc.get_objects() if isinstance(c, fd.graph.Compiled))
        parameters = sum(p.size * 4 for p in gc.get_objects() if isinstance(p, fd.nn.Parameter))
        more = {k: program.stats()[k] for k in ("launches", "arena_bytes", "workspace_bytes")}
        return {"engine": engine, "batch": batch, "peak": fd.memory.stats()["peak"], "kept": 3 * parameters, **more}
    import torch
    from torch.profiler import ProfilerActivity, profile

    step = S.build("resnet18", S.torch_library(False), 0.0)
    for _ in range(3):
        step()
    gc.collect()
    tensors = [t for t in gc.get_objects() if isinstance(t, torch.Tensor)]
    parameters = sum(t.numel() * 4 for t in tensors if isinstance(t, torch.nn.Parameter))
    live = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = sorted((e.start_ns(), e.nbytes()) for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]")
    return {"engine": engine, "batch": batch, "peak": live + int(max(np.cumsum([n for _, n in events]))), "kept": 3 * parameters}


# ---- busy ----------------------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def spinning(cpu: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{cpu}])\nwhile True: pass"])
    try:
        time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def busy(name: str, seconds: float, rounds: int = 5) -> dict[str, Any]:
    """Milliseconds per step in turn with 1 thread, with 2, and with 2 beside the other process; medians over rounds of means."""
    import fastdl as fd

    step = S.build(name, S.fastdl_library(True), 0.0)
    cpus = sorted(os.sched_getaffinity(0))
    ways = {"1 thread": 1, "2 threads": 2, "2 threads, busy": 2}
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, threads in ways.items():
            fd.set_num_threads(threads)
            with spinning(cpus[1]) if "busy" in way else contextlib.nullcontext():
                taken[way].append(statistics.fmean(times(step, seconds / rounds, 20e-3)) * 1e3)
    ratios = [b / a for a, b in zip(taken["1 thread"], taken["2 threads, busy"], strict=True)]
    return {"step": name, **{way: statistics.median(v) for way, v in taken.items()}, "busy / 1 thread": statistics.median(ratios)}


# ---- processes -----------------------------------------------------------------------------------------------------------------
def apart(function: str, *args: Any) -> Any:
    command = [sys.executable, __file__, "--call", json.dumps([function, *args])]
    cpus = sorted(os.sched_getaffinity(0))[:2]
    run = subprocess.run(command, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    if run.returncode:
        raise SystemExit(run.stderr)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("replay", "memory", "busy"), default="replay")
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 128], help="multiples of 16")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing, for each step and way of running it")
    parser.add_argument("--json", help="file to add the rows to")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.call:
        function, *given = json.loads(args.call)
        return print(json.dumps(globals()[function](*given)))
    rows: list[dict[str, Any]] = []
    if args.what == "replay":
        rows = apart("replay")
    elif args.what == "memory":
        rows = [apart("memory", engine, batch) for batch in args.batch for engine in ("fastdl", "fastdl, convolutions again", "torch")]
    for name in args.steps if args.what == "busy" else ():
        rows.append(apart("busy", name, args.seconds))
        print(rows[-1], flush=True)
    if args.what != "busy":
        print(*rows, sep="\n")
    if args.json:
        old = json.load(open(args.json)) if os.path.exists(args.json) else {}
        with open(args.json, "w") as file:
            json.dump({**old, args.what: rows}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
