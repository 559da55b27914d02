"""`fastdl bench`: the engines agree, failures stay in their cell, files and reports are what they promise. No times are asserted."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastdl.bench.cases import STEPS, Case, all_cases, conv, engines_of, gemm, pool
from fastdl.bench.compare import compare, show
from fastdl.bench.report import page
from fastdl.bench.roofline import limit
from fastdl.bench.runner import (
    Settings,
    Worker,
    compare_answers,
    difference,
    environment,
    finish,
    installed,
    lacks,
    run,
    select,
    tolerance,
)
from fastdl.bench.worker import Engine, checked
from fastdl.cli import main

PEERS = installed(("numpy", "torch", "jax", "onnxruntime"))
QUICK = Settings(engines=("fastdl", "numpy"), seconds=0.01, warm=0.0, rounds=2)
SMALL = [
    gemm(3, 5, 4), gemm(3, 5, 4, "NT"), gemm(3, 5, 4, "TN"), gemm(2, 3, 4, "NT", (2,)), gemm(2, 3, 4, "TN", (2, 2)), conv(2, 3, 7, 4, 3), conv(1, 4, 8, 4, 3, 2, groups=4),
    conv(2, 1, 6, 3, 3, padding=0, first=True), conv(1, 2, 9, 3, 3, dilation=2), pool("max", 1, 2, 6, 3, 2, 1), pool("avg", 1, 2, 6, 2, 2),
]  # fmt: skip
BIG = ("matmul", "bmm", "conv", "pool", "Adam")  # their families have small samples above


def shrunk() -> list[Case]:
    """The cases of the table that are small as they are."""
    return [c for c in all_cases() if c.suite == "ops" and c.check and c.bytes < 1e5 and not any(b in c.name for b in BIG)]


@pytest.fixture(scope="module")
def engines() -> dict[str, Engine]:
    return {name: Engine(name, 1) for name in ("fastdl", *PEERS)}


@pytest.mark.parametrize("case", [*SMALL, *shrunk()], ids=lambda c: c.name)
def test_engines_agree(engines: dict[str, Engine], case: Case) -> None:
    found = {e: checked(engines[e], case) for e in engines if e in engines_of(case)}
    ours = found.pop("fastdl")
    assert len(ours) == 1 + len(case.grad) and ours[0]["values"]
    for theirs in found.values():
        assert difference(ours, theirs) <= tolerance(case)


@pytest.mark.parametrize("step", ["xor", "mlp"])
def test_steps_agree(engines: dict[str, Engine], step: str) -> None:
    case = next(c for c in all_cases() if c.name == step)
    ours = checked(engines["fastdl"], case)
    losses = [part["values"][0] for part in ours]
    assert len(losses) == 3 and losses[2] < losses[0]
    for peer in set(PEERS) & engines_of(case):
        assert difference(ours, checked(engines[peer], case)) <= tolerance(case)


@pytest.mark.slow
@pytest.mark.parametrize("step", list(STEPS))
def test_all_steps_agree(engines: dict[str, Engine], step: str) -> None:
    test_steps_agree(engines, step)


def test_models_have_the_parameters_that_jax_expects() -> None:
    pytest.importorskip("jax")
    from fastdl.bench.steps import fastdl_library, model
    from fastdl.bench.steps_jax import parameters

    for step in STEPS:
        ours = {k: tuple(p.shape) for k, p in model(step, fastdl_library(False), 0.0).named_parameters()}
        assert ours == parameters(step), step


def test_cases() -> None:
    cases = all_cases()
    names = [c.name for c in cases]
    assert len(set(names)) == len(names)
    assert sum(c.suite == "conv-sweep" for c in cases) >= 200
    assert [c.name for c in cases if c.suite == "steps"] == ["xor", "mlp", "mlp1024", "cnn", "lstm", "gpt", "resnet18"]
    assert all({"fastdl", "torch", "jax"} <= engines_of(c) for c in cases)
    assert {c.name for c in select("ops", ["matmul 16 NN", "ADAM"])} >= {"matmul 16 NN", "Adam 10,000,000 parameters (torch: fused)"}
    small = conv(2, 4, 8, 6, 3, 2, groups=2)  # 4 x 4 positions, 6 channels, 2 x 9 products each; forward and two gradients
    assert small.flops == 3 * 2 * (2 * 4 * 4 * 6) * (2 * 9)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    env = environment(3)
    assert "OPENBLAS_CORETYPE" not in env and "OPENBLAS_L2_SIZE" not in env
    assert {env[f"{n}_NUM_THREADS"] for n in ("FASTDL", "OMP", "MKL", "OPENBLAS")} == {"3"}


def test_a_process_runs_only_while_it_is_asked() -> None:
    """Else the spinning threads of one engine take the processors of the next."""
    worker = Worker("numpy", 1)
    try:
        for _ in range(2):
            assert worker.ask(60, do="hello") == {"version": np.__version__}
            deadline, pid, status = time.monotonic() + 10, 0, 0
            while pid == 0 and time.monotonic() < deadline:  # each stop is told once
                pid, status = os.waitpid(worker.process.pid, os.WUNTRACED | os.WNOHANG)
                time.sleep(0.01)
            assert pid == worker.process.pid
            assert os.WIFSTOPPED(status)
    finally:
        worker.close()
    assert worker.process.returncode == 0  # woken for its end


def test_a_failing_engine_keeps_its_cell() -> None:
    worker = Worker("numpy", 1)
    try:
        assert "StopIteration" in worker.ask(60, do="prepare", case="no such case", check=False)["error"]
        assert worker.ask(60, do="hello") == {"version": np.__version__}  # the process goes on
        worker.process.kill()
        assert "the process ended (signal 9)" in worker.ask(60, do="hello")["error"]
    finally:
        worker.close()
    cells: dict[str, Any] = {"fastdl": {"times": []}, "torch": {"times": []}}
    part = [{"shape": [2], "values": [1.0, 2.0]}]
    wrong = [{"shape": [2], "values": [1.0, 2.1]}]
    answered = compare_answers(SMALL[0], {"fastdl": wrong, "torch": part}, cells)
    assert answered["reference"] == "torch" and "differs from torch" in cells["fastdl"]["error"] and "times" in cells["torch"]
    cells = {"fastdl": {"times": []}, "onnxruntime": {"times": []}}
    assert compare_answers(SMALL[0], {"fastdl": wrong, "onnxruntime": part}, cells)["reference"] == "onnxruntime" and "error" in cells["fastdl"]
    assert difference(part, [{"shape": [1, 2], "values": [1.0, 2.0]}]) == difference(part, [{"shape": [2], "values": [1.0, np.nan]}]) == np.inf


def row(case: str, fastdl: float, torch: float, **more: Any) -> dict[str, Any]:
    engines = {"fastdl": {"min": fastdl, "median": fastdl, "samples": 3}, "torch": {"min": torch, "median": torch, "samples": 3}}
    return {"case": case, "suite": "ops", "family": "matmul", "threads": 1, "flops": 2e9, "bytes": 1e6, "engines": engines, **more}


PEAKS = {"fp32_gflops": 100.0, "copy_gbs": 10.0, "add_gbs": 12.0}


def test_ratios_and_shares() -> None:
    done = finish(row("a", 0.04, 0.08), PEAKS)
    assert done["ratio"] == done["ratios"]["torch"] == 2 and done["best_peer"] == "torch"
    cell = done["engines"]["fastdl"]
    assert cell["gflops"] == pytest.approx(50) and cell["share"] == pytest.approx(0.5)
    assert limit(0, 12e9, PEAKS) == limit(100e9, 1e9, PEAKS) == pytest.approx(1)
    assert limit(100e9, 0, PEAKS, "float64") == 0  # not measured
    alone = row("b", 1.0, 1.0)
    alone["engines"]["torch"] = {"error": "broken"}
    assert finish(alone, None)["ratio"] is None


def result_of(*rows: dict[str, Any]) -> dict[str, Any]:
    made = run([], Settings(engines=(), threads=(1,)))
    return {**made, "roofline": {"1": PEAKS}, "versions": {"fastdl": "<1>"}, "rows": [finish(r, PEAKS) for r in rows]}


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = result_of(row("same", 1, 2), row("worse", 1, 2), row("slow day", 1, 2), row("gone", 1, 2))
    after = result_of(row("same", 1.05, 2), row("worse", 1.5, 2), row("slow day", 1.5, 3), row("new", 1, 2))
    changes = compare(before, after)
    assert [(c.case, c.regression) for c in changes] == [("same", False), ("worse", True), ("slow day", False)]
    assert "1 regression" in show(changes)
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(json.dumps(before))
    b.write_text(json.dumps(after))
    assert main(["bench", "--compare", str(a), str(b)]) == 1
    assert "REGRESSION" in capsys.readouterr().out
    assert main(["bench", "--compare", str(a), str(a)]) == 0
    b.write_text("{}")
    assert main(["bench", "--compare", str(a), str(b)]) == 2
    assert "not a result of fastdl bench" in capsys.readouterr().err
    assert main(["bench", "--compare", str(a), str(tmp_path / "none")]) == 2


class _Check(HTMLParser):
    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {"src", "href", "xlink:href"} & {k for k, _ in attrs} and tag not in ("script", "link", "iframe", "img")
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_is_one_valid_file() -> None:
    failed = copy.deepcopy(row("<b>&\"", 1, 2))
    failed["engines"]["jax"] = {"error": "<script>alert(1)</script>"}
    text = page(result_of(row("a", 0.04, 0.08), row("b", 0.08, 0.04), failed))
    check = _Check()
    check.feed(text)
    assert not check.open and check.seen.count("svg") == 2 and "circle" in check.seen
    assert "http" not in text and "@import" not in text and "url(" not in text
    assert "&lt;b&gt;" in text and "2.00x" in text and "0.50x" in text
    # phones: no zooming out, charts and tables scroll by themselves; dark pages: every colour is a variable that both themes set
    assert 'name="viewport"' in text and text.count('<div class="wide">') == check.seen.count("svg") + check.seen.count("table")
    light, dark = (set(re.findall(r"--([a-z-]+): #", part)) for part in text.split("</style>")[0].split("prefers-color-scheme: dark"))
    assert light == dark >= set(re.findall(r"var\(--([a-z-]+)\)", text)) and "#" not in text.split("<body>")[1].replace("&#", "")
    empty = page({**result_of(), "roofline": {}})
    assert empty.endswith("</html>\n")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, web = tmp_path / "r.json", tmp_path / "r.html"
    arguments = ["bench", "--filter", "matmul 16 NN", "--engines", "fastdl,numpy", "--threads", "1,2", "--seconds", "0.01", "--quick", "--roofline"]
    assert main([*arguments, "--json", str(out), "--html", str(web)]) == 0
    text = capsys.readouterr().out
    assert "matmul 16 NN" in text and "best peer" in text and "peaks with 2 threads" in text
    result = json.loads(out.read_text())
    assert result["schema"] == 1 and [r["threads"] for r in result["rows"]] == [1, 2]
    assert result["machine"]["cpu"] and result["versions"]["numpy"] == np.__version__
    for r in result["rows"]:
        assert r["reference"] == "numpy" and r["errors"]["fastdl"] <= r["tolerance"]
        assert 0 < r["engines"]["fastdl"]["min"] <= r["engines"]["fastdl"]["median"]
    assert min(result["roofline"]["2"][k] for k in ("fp32_gflops", "fp64_gflops", "copy_gbs", "add_gbs")) > 0
    assert "Roofline, 2 threads" in web.read_text()
    assert main(["bench", "--list", "--suite", "steps"]) == 0
    assert "resnet18" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--filter", "no such case"], "no case matches no such case"), (["--engines", "fastdl,tensorflow"], "'tensorflow' is not one of"),
        (["--threads", "0"], "between 1 and 1024"), (["--threads", "two"], "not a list of integers"), (["--seconds", "nan"], "not between 0"),
        (["--json", "no/such/folder/r.json", "--filter", "xor"], "cannot write"), (["--suite", "speed"], "invalid choice"),
    ],
)  # fmt: skip
def test_wrong_arguments(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_without_peers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import fastdl.bench.runner as runner

    real = importlib.util.find_spec
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name, *a: None if name in ("torch", "jax", "onnxruntime") else real(name, *a))
    assert main(["bench", "--filter", "matmul 16 NN", "--seconds", "0.01", "--threads", "1"]) == 0
    said = capsys.readouterr()
    assert "No peer with gradients is installed" in said.err and "numpy" in said.out
    assert main(["bench", "--filter", "xor", "--engines", "torch"]) == 2
    assert "engine torch is not installed" in capsys.readouterr().err


def test_onnxruntime_needs_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    import fastdl.bench.runner as runner

    versions = {"onnx": "1.9.0", "onnxruntime": "1.23rc1"}

    def version(package: str) -> str:
        if package not in versions:
            raise runner.importlib.metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name, *a: name)
    monkeypatch.setattr(runner.importlib.metadata, "version", version)
    assert lacks("onnxruntime") == ["onnx>=1.21"] and installed(("numpy", "onnxruntime")) == ("numpy",)
    versions["onnx"] = "1.21"
    assert installed(("numpy", "onnxruntime")) == ("numpy", "onnxruntime")
    del versions["onnxruntime"]  # the module is there, from onnxruntime-gpu
    assert installed(("onnxruntime",)) == ("onnxruntime",)
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else name)
    assert lacks("onnxruntime") == ["onnxruntime>=1.23"]


def test_cases_as_onnx_graphs() -> None:
    """Every operator that a case asks for exists, with these attributes and shapes."""
    onnx = pytest.importorskip("onnx", minversion="1.21")
    from fastdl.bench.onnx_graph import build

    cases = [c for c in all_cases() if "onnxruntime" in engines_of(c)]
    assert {c.family for c in cases} == {"matmul", "elementwise", "reduction", "rows", "attention"} and not any(c.grad for c in cases)
    for case in cases:
        model, _ = build(case.code["onnxruntime"], {name: np.broadcast_to(np.float32(0), shape) for name, (_, shape) in case.inputs.items()})
        onnx.checker.check_model(model, full_check=True)


def test_one_engine() -> None:
    result = run(select("ops", ["dropout 1,048,576"]), QUICK)  # NumPy has no dropout; random results are not compared
    [only] = result["rows"]
    assert set(only["engines"]) == {"fastdl"} and only["ratio"] is None and only["reference"] is None
