"""The command line of `fastdl bench`."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from fastdl.cli import CliError

from . import table
from .runner import DEFAULT_ENGINES, ENGINES, SCHEMA, Settings, installed, lacks, run, select

SUITES = ("ops", "steps", "conv-sweep", "all")


def _threads(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(t) for t in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of integers such as 1,2") from None
    if not all(1 <= c <= 1024 for c in counts):
        raise argparse.ArgumentTypeError(f"{text}: thread counts are between 1 and 1024")
    return counts


def _engines(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in ENGINES:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(ENGINES)}")
    return names


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not (math.isfinite(value) and 0 < value <= 3600):
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 3600 seconds")
    return value


def add_arguments(commands: Any) -> None:
    """Adds `bench` to the subcommands of `fastdl`."""
    parser = commands.add_parser(
        "bench",
        help="measure the speed of this installation against NumPy, PyTorch, JAX and ONNX Runtime",
        description="Time operations and whole training steps of fastdl and of every peer that is installed, each engine in a process "
        "of its own, in turn. Ratios are fastdl's speed / the peer's: above 1 fastdl is faster.",
    )
    parser.add_argument("--suite", choices=SUITES, default=None, help="what to time (default: ops and steps)")
    parser.add_argument("--filter", action="append", default=[], metavar="TEXT", help="only cases whose name or family contains TEXT; may be repeated")
    parser.add_argument("--engines", type=_engines, default=None, metavar="A,B", help=f"of {', '.join(ENGINES)} (default: all installed but fastdl-eager)")
    parser.add_argument("--threads", type=_threads, default=None, metavar="N,M", help="thread counts (default: the number of processors)")
    parser.add_argument("--seconds", type=_seconds, default=None, help="timing of each case and engine (default: 1)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the time, with noisier figures")
    parser.add_argument("--eager", action="store_true", help="fastdl's steps without fd.compile")
    parser.add_argument("--compile-ops", action="store_true", help="torch.compile for single operations as well (slow to prepare)")
    parser.add_argument("--roofline", action="store_true", help="measure the machine's peaks and show shares of them")
    parser.add_argument("--no-check", action="store_true", help="do not compare the engines' results before timing")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and exit")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report with charts")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"), help="compare two result files; code 1 if something got slower")
    parser.add_argument("--tolerance", type=float, default=0.1, help="with --compare: slower by more than this share is a regression (default: 0.1)")


def read(path: Path) -> dict[str, Any]:
    """A result file, checked."""
    try:
        result = json.loads(path.read_text())
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise CliError(f"{path}: not a JSON file") from None
    if not (isinstance(result, dict) and result.get("schema") == SCHEMA and isinstance(result.get("rows"), list)):
        raise CliError(f"{path}: not a result of fastdl bench with schema {SCHEMA}")
    return result


def bench(args: argparse.Namespace) -> int:
    """Run `fastdl bench` with parsed arguments; the exit code."""
    if args.compare:
        from .compare import compare, show

        changes = compare(read(args.compare[0]), read(args.compare[1]), args.tolerance)
        print(show(changes))
        return 1 if any(c.regression for c in changes) else 0
    cases = select(args.suite or "all", args.filter)
    if args.suite is None and not any("conv-sweep" in f or "x" in f for f in args.filter):
        cases = [c for c in cases if c.suite != "conv-sweep"]
    if not cases:
        raise CliError(f"no case matches {' or '.join(args.filter)} (see fastdl bench --list)")
    if args.list:
        print("\n".join(f"{c.suite:<11}{c.name}" for c in cases))
        return 0
    for path in (args.json, args.html):
        if path and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            raise CliError(f"{path}: cannot write to the folder {path.parent}")
    engines = installed(args.engines or DEFAULT_ENGINES)
    for missing in set(args.engines or ()) - set(engines):
        raise CliError(f"engine {missing} is not installed: pip install {' '.join(map(repr, lacks(missing)))}")
    if args.eager:
        engines = tuple("fastdl-eager" if e == "fastdl" else e for e in engines)
    if not set(engines) & {"torch", "jax", "torch-compile"} and not args.engines:
        print("No peer with gradients is installed: pip install torch or jax to compare with it.", file=sys.stderr)
    from fastdl import get_num_threads

    seconds = args.seconds or (0.1 if args.quick else 1.0)
    settings = Settings(
        engines, args.threads or (get_num_threads(),), seconds, min(1.0, seconds / 2), 3 if args.quick else 5, not args.no_check, args.roofline,
        args.compile_ops,
    )  # fmt: skip
    print(table.heading(engines, args.roofline), flush=True)
    result = run(cases, settings, lambda row: print(table.line(row, engines, args.roofline), flush=True))
    print(table.summary(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.html:
        from .report import page

        args.html.write_text(page(result))
    return 0
