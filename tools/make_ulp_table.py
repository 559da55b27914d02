"""Writes the table of float32 errors in docs/numerics.md.

    python tools/make_ulp_table.py --stride 1 --isas amx,baseline --log ulp.jsonl sin cos
    python tools/make_ulp_table.py --log ulp.jsonl --write

The first line measures the named functions (none: all of tests/ulp.py): each is compared with its float64 version at each stride-th of
the 2**32 bit patterns (an odd stride meets all low bits, exponents, signs and NaNs; 1 takes them all) on several instruction sets, each in
a process of its own, all beside the same float64 results. Lines of results are appended to the log; what is there is not measured
again. The second writes the table from the log: of each function and instruction set the line that covers most.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
from pages import write_table

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

CHUNK = 1 << 17  # numbers that the float64 results are shared for at a time


def serve(pipe, block: str, isa: str) -> None:
    """Child: for each (name, start, stop, stride) the worst error of these floats beside the float64 results in the shared block."""
    import ulp

    import fastdl as fd

    fd.set_num_threads(1)
    if fd._C.isa() != isa:
        return pipe.send(f"{isa}: this machine has only {fd._C.isa()}")
    pipe.send(None)
    memory = shared_memory.SharedMemory(block)
    want = np.frombuffer(memory.buf, np.float64)
    while (job := pipe.recv()) is not None:
        x = ulp.patterns(*job[1:])
        pipe.send(ulp.worst_of(job[0], x, want[: len(x)]))
    del want
    memory.close()


def measure(functions: list[str], isas: list[str], stride: int, log: Path) -> None:
    import ulp

    import fastdl as fd

    fd.set_num_threads(1)
    memory = shared_memory.SharedMemory(create=True, size=CHUNK * 8)
    want = np.frombuffer(memory.buf, np.float64)
    context, children = multiprocessing.get_context("spawn"), []
    for isa in isas:
        here, there = context.Pipe()
        os.environ["FASTDL_ISA"] = isa
        context.Process(target=serve, args=(there, memory.name, isa), daemon=True).start()
        if error := here.recv():
            raise SystemExit(error)
        children.append(here)
    for name in functions:
        begin, top = time.perf_counter(), [(0.0, 0.0)] * len(isas)
        for start in range(0, 1 << 32, CHUNK * stride):
            job = (start, min(start + CHUNK * stride, 1 << 32), stride)
            x = ulp.patterns(*job)
            want[: len(x)] = ulp.reference(name, x)
            for i, child in enumerate(children):
                child.send((name, *job))
                top[i] = max(top[i], child.recv(), key=lambda found: found[0])
        with log.open("a") as file:
            for isa, (error, at) in zip(isas, top, strict=True):
                file.write(json.dumps({"function": name, "isa": isa, "stride": stride, "error": error, "at": at}) + "\n")
        print(f"{name:12s} {time.perf_counter() - begin:5.0f} s ", *(f"{isa} {e:.3f} at {a:.9g}" for isa, (e, a) in zip(isas, top, strict=True)), flush=True)
    for child in children:
        child.send(None)
    del want
    memory.close()
    memory.unlink()


def read(log: Path) -> dict[tuple[str, str], dict]:
    """The line of each function and instruction set that covers most; of two alike, the later."""
    best: dict[tuple[str, str], dict] = {}
    for text in log.read_text().splitlines() if log.exists() else ():
        line = json.loads(text)
        key = line["function"], line["isa"]
        if key not in best or line["stride"] <= best[key]["stride"]:
            best[key] = line
    return best


def write(found: dict[tuple[str, str], dict]) -> None:
    import ulp

    isas = list(dict.fromkeys(isa for _, isa in found))
    share = {line["stride"] for line in found.values()}
    lines = [
        "Greatest error in ulp, and where, over "
        + ("all 2^32 floats:" if share == {1} else "all 2^32 floats, or one in as many as is said:"),
        "",
        "| function | asserted | " + " | ".join(isas) + " |",
        "|---" * (2 + len(isas)) + "|",
    ]
    for name, bound in ulp.BOUNDS.items():
        note = f" (besides an absolute error of {ulp.SLACK[name]:g})" if name in ulp.SLACK else ""
        cells = []
        for isa in isas:
            line = found.get((name, isa))
            part = "" if line is None or line["stride"] == 1 else f" (one in {line['stride']})"
            cells.append("not measured" if line is None else f"{line['error']:.2f} at {line['at']:.6g}{part}")
        lines.append(f"| `{name}`{note} | {bound:g} | " + " | ".join(cells) + " |")
    write_table("numerics.md", "ulp table: tools/make_ulp_table.py", lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("functions", nargs="*", help="default: all")
    parser.add_argument("--stride", type=int, default=61, help="take every stride-th float (default: %(default)s)")
    parser.add_argument("--isas", default="amx,avx512,baseline", help="instruction sets (default: %(default)s)")
    parser.add_argument("--log", type=Path, default=ROOT / "build" / "ulp.jsonl", help="results (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="only write the table")
    options = parser.parse_args()
    if not options.write:
        import ulp

        isas, known = options.isas.split(","), read(options.log)
        done = [{name for (name, isa), line in known.items() if isa == i and line["stride"] <= options.stride} for i in isas]
        functions = [name for name in options.functions or ulp.BOUNDS if not all(name in names for names in done)]
        measure(functions, isas, options.stride, options.log)
    write(read(options.log))


if __name__ == "__main__":
    main()
