"""Eager cost and kernel speed against NumPy and PyTorch: engines in processes of their own, asked in turn (A B A B), minimum and median.

    python bench/eager.py [--threads 2] [--rounds 15] [--json bench/results/eager.json] [case ...]

A case is a row of CASES: a name and, per engine, a snippet (set-up, statement). Ratios are fastdl / peer: below 1 fastdl is faster. Worker
processes are warmed for a second; each answer is the best of a batch long enough to time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

ENGINES = {"fastdl": "import fastdl as fd", "numpy": "import numpy as np", "torch": "import torch"}

# name: (largest fastdl / peer wanted, peer, {engine: (set-up, statement)})
XOR = {
    "fastdl": (
        "from fastdl import nn, optim\nm = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 1), nn.Sigmoid())\n"
        "o = optim.SGD(m.parameters(), lr=0.5)\nf = nn.MSELoss()\nx = fd.array([[0.,0.],[0.,1.],[1.,0.],[1.,1.]]); y = fd.array([[0.],[1.],[1.],[0.]])\n"
        "def step():\n  o.zero_grad(); l = f(m(x), y); l.backward(); o.step()",
        "step()",
    ),
    "torch": (
        "from torch import nn, optim\nm = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 1), nn.Sigmoid())\n"
        "o = optim.SGD(m.parameters(), lr=0.5)\nf = nn.MSELoss()\nx = torch.tensor([[0.,0.],[0.,1.],[1.,0.],[1.,1.]]); y = torch.tensor([[0.],[1.],[1.],[0.]])\n"
        "def step():\n  o.zero_grad(); l = f(m(x), y); l.backward(); o.step()",
        "step()",
    ),
}
CONV_FD = "x = fd.random.normal((8, 64, 56, 56)).requires_grad_(); w = fd.random.normal((64, 64, 3, 3)).requires_grad_(); g = fd.random.normal((8, 64, 56, 56))\ndef f():\n  x.grad = None; w.grad = None; fd.conv2d(x, w, None, 1, 1).backward(g)"
CONV_T = "x = torch.randn(8, 64, 56, 56, requires_grad=True); w = torch.randn(64, 64, 3, 3, requires_grad=True); g = torch.randn(8, 64, 56, 56)\ndef f():\n  x.grad = None; w.grad = None; torch.nn.functional.conv2d(x, w, None, 1, 1).backward(g)"
CASES = {
    "add 4 floats": (0.6, "numpy", {"fastdl": ("a = fd.ones(4); b = fd.ones(4)", "a + b"), "numpy": ("a = np.ones(4, 'f'); b = np.ones(4, 'f')", "a + b")}),
    "add 1024 floats": (0.5, "numpy", {"fastdl": ("a = fd.ones(1024); b = fd.ones(1024)", "a + b"), "numpy": ("a = np.ones(1024, 'f'); b = np.ones(1024, 'f')", "a + b")}),
    "add 4 floats, gradient recorded": (
        0.15, "torch", {"fastdl": ("a = fd.ones(4, requires_grad=True); b = fd.ones(4)", "a + b"), "torch": ("a = torch.ones(4, requires_grad=True); b = torch.ones(4)", "a + b")},
    ),
    "xor step": (0.3, "torch", XOR),
    "relu 16.8 M floats": (0.4, "torch", {"fastdl": ("x = fd.random.normal(1 << 24)", "fd.relu(x)"), "torch": ("x = torch.randn(1 << 24)", "torch.relu(x)")}),
    "max-pool 2x2 of 32x64x56x56": (
        0.2, "torch",
        {"fastdl": ("x = fd.random.normal((32, 64, 56, 56))", "fd.max_pool2d(x, 2)"), "torch": ("x = torch.randn(32, 64, 56, 56)", "torch.nn.functional.max_pool2d(x, 2)")},
    ),
    "matmul 512 fp32": (
        1.3, "torch",
        {"fastdl": ("a = fd.random.normal((512, 512)); b = fd.random.normal((512, 512))", "a @ b"), "torch": ("a = torch.randn(512, 512); b = torch.randn(512, 512)", "a @ b")},
    ),
    "conv 64->64 3x3 at 56x56, batch 8, forward + backward": (1.5, "torch", {"fastdl": (CONV_FD, "f()"), "torch": (CONV_T, "f()")}),
}  # fmt: skip


def worker(engine: str, threads: int) -> None:
    """Answers requests on stdin: a case name -> seconds per call, best of a batch of about 50 ms."""
    space: dict = {}
    exec(ENGINES[engine], space)
    if engine == "torch":
        space["torch"].set_num_threads(threads)
    compiled: dict = {}
    for line in sys.stdin:
        name = json.loads(line)
        if name not in compiled:
            setup, statement = CASES[name][2][engine]
            exec(setup, space)
            exec(f"def _run(n):\n  for _ in range(n): {statement}", space)
            run = space["_run"]
            until = time.perf_counter() + 0.5
            while time.perf_counter() < until:
                run(1)
            start = time.perf_counter()
            run(3)
            per = (time.perf_counter() - start) / 3
            compiled[name] = (run, max(1, int(0.01 / per)))
        run, n = compiled[name]
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            run(n)
            best = min(best, (time.perf_counter() - start) / n)
        print(json.dumps(best), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help="parts of case names (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", help="append one line per case to this file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker, args.threads)
    env = {**os.environ, "FASTDL_NUM_THREADS": str(args.threads), "OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}
    print(f"{'case':<55} {'fastdl min':>11} {'median':>11} {'peer':>6} {'min':>11} {'median':>11} {'ratio':>6} wanted")
    for name, (wanted, peer, _) in CASES.items():
        if args.cases and not any(c in name for c in args.cases):
            continue
        engines = {e: subprocess.Popen([sys.executable, __file__, "--worker", e, "--threads", str(args.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) for e in ("fastdl", peer)}
        times: dict[str, list[float]] = {e: [] for e in engines}
        for _ in range(args.rounds):
            for e, p in engines.items():
                p.stdin.write(json.dumps(name) + "\n")
                p.stdin.flush()
                times[e].append(float(p.stdout.readline()))
        for p in engines.values():
            p.stdin.close()
            p.wait()
        a, b = times["fastdl"], times[peer]
        ratio = min(a) / min(b)
        print(f"{name:<55} {min(a) * 1e6:>9.3f}us {statistics.median(a) * 1e6:>9.3f}us {peer:>6} {min(b) * 1e6:>9.3f}us {statistics.median(b) * 1e6:>9.3f}us {ratio:>6.3f} <= {wanted}{'' if ratio <= wanted else '  MISSED'}")
        if args.json:
            row = {"case": name, "peer": peer, "threads": args.threads, "fastdl": [min(a), statistics.median(a)], "peer_time": [min(b), statistics.median(b)], "ratio": ratio, "wanted": wanted}
            with open(args.json, "a") as f:
                f.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
