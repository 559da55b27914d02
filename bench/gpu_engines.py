"""The engines of bench/gpu_run.py: fastdl and its peers in one process on the same data, checked against float64 and timed by turns."""

from __future__ import annotations

import contextlib
import math
import statistics
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

PREDICTIONS = Path(__file__).resolve().parent / "gpu_predictions.toml"
L2_BYTES = 50 << 20


def nvidia_smi() -> dict[str, Any]:
    """Name, driver and present state of the first GPU; empty where there is none."""
    names = ["name", "driver_version", "clocks.sm", "power.draw", "temperature.gpu", "memory.total"]
    try:
        text = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return {}
    name, driver, clock, power, heat, memory = (t.strip() for t in text.split(","))
    return {"device": name, "driver": driver, "clock_mhz": clock, "power_w": power, "celsius": heat, "memory_mb": memory}


class Engines:
    """fastdl and the peers in one process, on the same inputs."""

    def __init__(self, peers: bool = True):
        import numpy as np

        import fastdl as fd

        self.np, self.fd, self.torch, self.cp = np, fd, None, None
        if peers:
            with contextlib.suppress(ImportError):
                import torch

                self.torch = torch
            if self.torch is not None and self.torch.cuda.is_available():
                with contextlib.suppress(ImportError):
                    import cupy

                    self.cp = cupy
        self.gpu_torch = self.torch is not None and self.torch.cuda.is_available()

    def names(self) -> list[str]:
        return ["fd", *(["torch"] if self.gpu_torch else []), *(["cupy"] if self.cp else [])]

    def synchronize(self) -> None:
        self.fd.cuda.synchronize()
        if self.gpu_torch:
            self.torch.cuda.synchronize()

    def arrays(self, case: Any, shrink: bool, seed: int) -> dict[str, Any]:
        """Inputs: torch tensors on the GPU, or NumPy arrays where there is no such torch."""
        from gpu_cases import tiny

        made = {}
        small = shrink and case.family != "training step"
        for n, (name, (kind, shape, *more)) in enumerate(case.inputs.items()):
            shape = tuple(tiny(s) for s in shape) if small else (2, *shape[1:]) if shrink else shape
            below = (tiny(more[0]) if small else more[0]) if more else 0
            if self.gpu_torch:
                g = self.torch.Generator("cuda").manual_seed(1000 * seed + n)
                if kind == "index":
                    x = self.torch.randint(below, shape, generator=g, device="cuda")
                else:
                    x = (
                        self.torch.randn(shape, generator=g, device="cuda")
                        if kind == "normal"
                        else self.torch.rand(shape, generator=g, device="cuda")
                    )
                    x = x.to(getattr(self.torch, case.dtype))
                    if case.memory == "channels_last" and x.ndim == 4:
                        x = x.to(memory_format=self.torch.channels_last)
            else:
                rng = self.np.random.default_rng(1000 * seed + n)
                x = (
                    rng.integers(0, below, shape)
                    if kind == "index"
                    else rng.standard_normal(shape)
                    if kind == "normal"
                    else rng.random(shape)
                )
                x = x if kind == "index" else x.astype("float32")
            made[name] = x
        return made

    def to_fd(self, case: Any, x: Any) -> Any:
        if self.gpu_torch:
            return self.fd.from_dlpack(x)
        t = self.fd.array(x, device="cuda")
        return t.astype(getattr(self.fd, case.dtype)) if x.dtype.kind == "f" else t

    def prepare(self, case: Any, shrink: bool, sets: int) -> dict[str, Any]:
        """Per engine, compiled statements over `sets` sets of inputs."""
        data = [self.arrays(case, shrink, seed) for seed in range(sets)]
        self.synchronize()
        prepared: dict[str, Any] = {"case": case, "data": data}
        for engine in self.names():
            statement = getattr(case, engine)
            if not statement:
                continue
            spaces = []
            for arrays in data:
                space: dict[str, Any] = {"DEVICE": "cuda"}
                if engine == "fd":
                    space.update(fd=self.fd, F=self.fd.nn.functional, **{k: self.to_fd(case, x) for k, x in arrays.items()})
                elif engine == "torch":
                    space.update(torch=self.torch, F=self.torch.nn.functional, **arrays)
                else:
                    space.update(cp=self.cp, **{k: self.cp.from_dlpack(x) for k, x in arrays.items()})
                if engine in case.setup:
                    exec(case.setup[engine], space)
                space["code"] = compile(statement, f"<{engine}: {case.name}>", "eval")
                spaces.append(space)
            prepared[engine] = spaces
        return prepared

    def call(self, prepared: dict[str, Any], engine: str, k: int) -> Any:
        spaces = prepared[engine]
        space = spaces[k % len(spaces)]
        return eval(space["code"], space)

    def timer(self, engine: str) -> tuple[Any, Any]:
        """(record a mark, milliseconds between two marks)"""
        if engine == "fd":
            cuda = self.fd.cuda

            def mark() -> Any:
                e = cuda.Event(enable_timing=True)
                e.record()
                return e
        elif engine == "torch":

            def mark() -> Any:
                e = self.torch.cuda.Event(enable_timing=True)
                e.record()
                return e
        else:

            def mark() -> Any:
                e = self.cp.cuda.Event()
                e.record()
                return e

        def between(a: Any, b: Any) -> float:
            b.synchronize()
            return self.cp.cuda.get_elapsed_time(a, b) if engine == "cupy" else a.elapsed_time(b)

        return mark, between

    # ---- the right result ----
    def check(self, prepared: dict[str, Any]) -> dict[str, Any]:
        """The error of fastdl's result (and torch's) against torch in float64; whether a second run gives the same bits."""
        case, torch = prepared["case"], self.torch
        if not case.check or torch is None:
            return {}
        wide = {}
        for name, x in prepared["data"][0].items():
            x = x if self.gpu_torch else torch.from_numpy(x)
            wide[name] = x.to(getattr(torch, case.dtype)).double() if x.dtype.is_floating_point else x
        reference = eval(case.torch, {"torch": torch, "F": torch.nn.functional, **wide})
        first = self.call(prepared, "fd", 0)
        nbytes, error = first.nbytes, self.error(self.as_torch(first), reference)
        kept = self.as_torch(first).clone()
        del first
        poison = self.fd.full((max(1, nbytes // 4),), math.nan, device="cuda")  # the next result lies in this memory
        del poison
        second = self.as_torch(self.call(prepared, "fd", 0))
        same = torch.equal(kept.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))
        row: dict[str, Any] = {"err_rel_fro": error[0], "max_abs": error[1], "deterministic": same}
        row["wanted"] = 20 * {"float32": 6e-8, "float64": 1e-16, "bfloat16": 4e-3, "float16": 5e-4}[case.dtype]
        if self.gpu_torch:
            row["err_torch"] = self.error(self.call(prepared, "torch", 0), reference)[0]
            row["wanted"] = max(row["wanted"], 4 * row["err_torch"])
        row["ok"] = error[0] <= row["wanted"] and same
        return row

    def as_torch(self, t: Any) -> Any:
        """The same values as a torch tensor: shared on the GPU, else on the CPU."""
        if self.gpu_torch:
            self.fd.cuda.synchronize()
            return self.torch.from_dlpack(t)
        t = t.cpu()
        return self.torch.from_numpy((t.astype(self.fd.float32) if str(t.dtype) == "bfloat16" else t).numpy().copy())

    def error(self, found: Any, reference: Any) -> tuple[float, float]:
        """||found - reference|| / ||reference||, and the largest difference; infinite where anything is not finite."""
        if found.shape != reference.shape:
            return math.inf, math.inf
        difference = (found.double() - reference.double()).abs()
        if not difference.isfinite().all():
            return math.inf, math.inf
        return float(difference.norm() / (reference.double().norm() + 1e-300)), float(
            difference.max()
        ) if difference.numel() else 0.0


def measure(engines: Engines, case: Any, dry: bool, who: dict[str, Any]) -> dict[str, Any]:
    inputs = sum(
        math.prod(shape) * (8 if kind == "index" else 4 if case.dtype == "float32" else 2)
        for kind, shape, *_ in case.inputs.values()
    )
    stateful = bool(case.setup)
    sets = (
        1
        if dry or stateful
        else max(1, min(16, math.ceil(3 * who.get("l2_bytes", L2_BYTES) / max(1, inputs)), int(16e9 // max(1, inputs))))
    )
    if case.family == "launch":
        sets = 1
    prepared = engines.prepare(case, shrink=dry, sets=sets)
    row = engines.check(prepared)
    used = [e for e in engines.names() if e in prepared]
    repeats, target_ms = (4, 0.0) if dry else (20, 3.0)
    timers, counts = {}, {}
    for e in used:
        mark, between = timers[e] = engines.timer(e)
        for k in range(1 if dry else 3):
            engines.call(prepared, e, k)
        a = mark()
        engines.call(prepared, e, 0)
        once = max(between(a, mark()), 1e-3)
        counts[e] = max(1, min(200, int(target_ms / once)))
    times: dict[str, list[float]] = {e: [] for e in used}
    if not dry and case.flops > 1e11:  # clocks settle under load
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            for k in range(10):
                engines.call(prepared, used[-1], k)
            engines.synchronize()
    for _ in range(repeats):
        for e in used:
            mark, between = timers[e]
            engines.synchronize()
            a = mark()
            for k in range(counts[e]):
                engines.call(prepared, e, k)
            times[e].append(between(a, mark()) * 1e3 / counts[e])
    row |= {k: v for k, v in nvidia_smi().items() if k in ("clock_mhz", "power_w")}
    for e, label in (("fd", "ours"), ("torch", "torch"), ("cupy", "cupy")):
        if e in times:
            t = times[e]
            q = statistics.quantiles(t, n=10) if len(t) > 1 else [t[0]] * 9
            row[f"{label}_us"] = [round(q[0], 3), round(statistics.median(t), 3), round(q[8], 3)]
    half = len(times["fd"]) // 2
    a, b = statistics.median(times["fd"][:half]), statistics.median(times["fd"][half:])
    row["noise"] = round(abs(a - b) / min(a, b), 4) if min(a, b) > 0 else None
    row["flops"], row["bytes"] = case.flops, case.bytes
    ours = row["ours_us"][1] * 1e-6
    if not dry and ours > 0:
        copy, gemm = who.get("copy_bytes_per_s", 3.0e12), who.get("gemm_flops", 7.0e14)
        if case.bytes:
            row["frac_of_copy"] = round(case.bytes / ours / copy, 4)
        if case.flops:
            row["frac_of_torch_gemm"] = round(case.flops / ours / gemm, 4)
        row["predicted_us"] = round(predict(case, copy, gemm), 2)
    row["fallbacks"] = fallbacks(engines, prepared)
    return row


def fallbacks(engines: Engines, prepared: dict[str, Any]) -> list[str]:
    """Ops of this case that ran on the host for want of a kernel."""
    before = dict(engines.fd._C.cuda_fallbacks())
    engines.call(prepared, "fd", 0)
    return sorted(op for op, n in engines.fd._C.cuda_fallbacks().items() if n > before.get(op, 0))


def predict(case: Any, copy: float, gemm: float) -> float:
    table = tomllib.loads(PREDICTIONS.read_text())
    rate = table[case.family]["rate"]
    work = max(case.flops / (gemm * rate) if case.flops else 0.0, case.bytes / (copy * (0.9 if case.flops else rate)))
    return max(work * 1e6, table["launch_us"])
