"""One engine in a process of its own: reads a JSON request a line from standard input, answers one on the pipe it was given.

    python -m fastdl.bench.worker ENGINE THREADS PIPE

Requests: `{"do": "prepare", "case": name, "check": bool}` -> a sample of the results; `{"do": "time", "seconds": s, "warm": s}` -> seconds
per call; `{"do": "roofline", ...}` -> peaks. An exception is answered as `{"error": text}`; the process goes on.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

SAMPLES = 2048  # values of each result that are compared between engines
STEPS_CHECKED = 3


def versions(engine: str) -> str:
    import importlib

    module = {"fastdl-eager": "fastdl", "torch-compile": "torch"}.get(engine, engine)
    version = str(importlib.import_module(module).__version__)
    return f"{version} (onnx {versions('onnx')})" if engine == "onnxruntime" else version


class Engine:
    """How one library makes arrays, runs an expression with or without gradients, and hands out numbers."""

    def __init__(self, name: str, threads: int) -> None:
        import numpy as np

        self.name, self.np, self.threads = name, np, threads
        self.base = {"fastdl-eager": "fastdl", "torch-compile": "torch"}.get(name, name)
        self.space: dict[str, Any] = {"np": np}
        if self.base == "fastdl":
            import fastdl as fd

            fd.set_num_threads(threads)
            self.array: Any = fd.array
            self.space.update(fd=fd, F=fd.nn.functional)
        elif self.base == "torch":
            import torch

            torch.set_num_threads(threads)
            self.array = torch.from_numpy
            self.space.update(torch=torch, F=torch.nn.functional)
        elif self.base == "jax":
            import jax
            import jax.numpy as jnp

            self.array = jnp.asarray
            self.space.update(jax=jax, jnp=jnp, lax=jax.lax)
        elif self.base in ("numpy", "onnxruntime"):
            self.array = np.asarray
        else:
            raise ValueError(f"bench: engine {name!r} is unknown")

    def random(self, shape: tuple[int, ...], seed: int, dtype: str = "float32") -> Any:
        return self.cast(self.array(self.np.random.default_rng(seed).standard_normal(shape).astype("f")), dtype)

    def cast(self, value: Any, dtype: str) -> Any:
        return value.to(getattr(self.space["torch"], dtype)) if self.base == "torch" else value.astype(dtype)

    def numpy(self, value: Any) -> Any:
        if self.base == "torch":
            value = value.detach()
        elif self.base == "fastdl":
            value = value.detach() if hasattr(value, "detach") else value
        if "bfloat16" in str(getattr(value, "dtype", "")):  # NumPy has none
            value = self.cast(value, "float32")
        return self.np.asarray(value.numpy() if self.base in ("torch", "fastdl", "onnxruntime") else value)

    def wait(self, value: Any) -> None:
        """JAX answers before the work is done."""
        if self.base == "jax":
            self.space["jax"].block_until_ready(value)

    def prepare(self, case: Any, check: bool) -> Any:
        """A function without arguments that does the work of a case once and returns its results in a tuple."""
        if case.suite == "steps":
            return self.step(case.name, check)
        arrays = {}
        for seed, (key, (kind, shape, *below)) in enumerate(case.inputs.items()):
            if kind == "index":
                arrays[key] = self.array(self.np.random.default_rng(seed).integers(0, below[0], shape))
            else:
                arrays[key] = self.random(shape, seed, case.dtype)
            if key in case.inner:
                arrays[key] = self.handed_on(arrays[key])
        space = {**self.space, **arrays}
        if self.base in case.setup:
            exec(case.setup[self.base], space)
            run = space["run"]
            return lambda: (run(),)
        if self.base == "onnxruntime":
            from .onnx_graph import prepare

            run = prepare(case.code[self.base], arrays, self.threads)
            return lambda: (run(),)
        exec(f"def f({', '.join(arrays)}):\n  return {case.code[self.base]}", space)
        f = space["f"]
        if self.name == "torch-compile":
            f = self.space["torch"].compile(f)
        values = list(arrays.values())
        if not case.grad:
            if self.base == "jax":
                f = self.space["jax"].jit(f)
            if self.base == "torch":
                f = self.space["torch"].no_grad()(f)
            return lambda: (f(*values),)
        return self.with_gradient(f, arrays, case)

    def handed_on(self, image: Any) -> Any:
        """An image as this library's convolutions and pooling write it: fastdl's channels last, the others' channels first."""
        return self.space["fd"].ops.shape.copy(image, layout="channels_last") if self.base == "fastdl" else image

    def with_gradient(self, f: Any, arrays: dict[str, Any], case: Any) -> Any:
        names = case.grad
        values = list(arrays.values())
        if self.base == "jax":
            jax = self.space["jax"]

            def part(*given: Any) -> Any:
                return f(**{**arrays, **dict(zip(names, given))})

            wanted = [arrays[n] for n in names]
            g = self.random(jax.eval_shape(part, *wanted).shape, 77)

            def both(wanted: Any, rest: Any, g: Any) -> Any:
                out, back = jax.vjp(lambda *given: f(**{**rest, **dict(zip(names, given))}), *wanted)
                return out, *back(g)

            rest = {k: v for k, v in arrays.items() if k not in names}
            step = jax.jit(both)
            return lambda: step(wanted, rest, g)
        leaves = [arrays[n].requires_grad_() for n in names]
        g = self.random(tuple(f(*values).shape), 77)
        if case.inner or case.family == "conv":  # to a first layer, too, it comes from the next one
            g = self.handed_on(g)

        def run() -> tuple:
            for leaf in leaves:
                leaf.grad = None
            out = f(*values)
            out.backward(g)
            return (out, *(leaf.grad for leaf in leaves))

        return run

    def step(self, name: str, check: bool) -> Any:
        dropout = 0.0 if check else 0.2  # engines draw different random numbers: compared without
        if self.base == "jax":
            from .steps_jax import build as build_jax

            run = build_jax(name, dropout)
        else:
            from .steps import build, fastdl_library, torch_library

            library = fastdl_library(self.name == "fastdl") if self.base == "fastdl" else torch_library(self.name == "torch-compile")
            run = build(name, library, dropout)
        return lambda: (run(),)


def sample(engine: Engine, results: tuple) -> list[dict[str, Any]]:
    """Shape, and some values spread over each result."""
    np, found = engine.np, []
    for result in results:
        a = np.asarray(engine.numpy(result))
        flat = a.astype(np.float64).reshape(-1)
        at = np.linspace(0, max(0, flat.size - 1), min(flat.size, SAMPLES)).astype(np.int64)
        found.append({"shape": list(a.shape), "values": flat[at].tolist()})
    return found


def checked(engine: Engine, case: Any) -> list[dict[str, Any]]:
    run = engine.prepare(case, True)
    if case.suite != "steps":
        return sample(engine, run())
    return [part for _ in range(STEPS_CHECKED) for part in sample(engine, run())]


def timed(engine: Engine, run: Any, seconds: float, warm: float) -> list[float]:
    """Seconds per call, one figure per batch of calls; batches last about 2 ms, so that reading the clock costs nothing."""
    clock = time.perf_counter
    until, n, last = clock() + warm, 0, None
    while n == 0 or clock() < until:
        engine.wait(run())
        n += 1
    start = clock()
    engine.wait(run())
    calls = max(1, int(0.002 / max(clock() - start, 1e-9)))
    times: list[float] = []
    begin = clock()
    while not times or clock() - begin < seconds:
        start = clock()
        for _ in range(calls):
            last = run()
        engine.wait(last)
        times.append((clock() - start) / calls)
    return times


def answer(engine: Engine, request: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    from .cases import all_cases

    if request["do"] == "hello":
        return {"version": versions(engine.name)}
    if request["do"] == "roofline":
        from .roofline import measure

        return measure(request["threads"], request["seconds"])
    if request["do"] == "prepare":
        state.clear()
        case = next(c for c in all_cases() if c.name == request["case"])
        found = checked(engine, case) if request["check"] and case.check else []
        state["run"] = engine.prepare(case, False)
        return {"results": found}
    return {"times": timed(engine, state["run"], request["seconds"], request["warm"])}


def main(name: str, threads: int, pipe: int) -> None:
    out = os.fdopen(pipe, "w")
    state: dict[str, Any] = {}
    engine: Engine | None = None
    for line in sys.stdin:
        try:
            engine = engine or Engine(name, threads)
            reply = answer(engine, json.loads(line), state)
        except Exception as error:
            state.clear()
            text = f"{type(error).__name__}: {error}".splitlines()
            reply = {"error": (text[0] if text else type(error).__name__)[:300]}
        out.write(json.dumps(reply) + "\n")
        out.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
