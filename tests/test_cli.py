"""The command line: a run from end to end, and every way to call it wrongly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastdl as fd
from fastdl import data
from fastdl.cli import main


def _npz(path: Path, **changes: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = (rng.uniform(0, 60, (60, 8, 8)) + 80 * y[:, None, None]).astype(np.uint8)
    arrays = {"x_train": x[:48], "y_train": y[:48], "x_test": x[48:], "y_test": y[48:], **changes}
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("preset", ["cnn", "mlp"])
def test_train(tmp_path: Path, capsys: pytest.CaptureFixture[str], preset: str) -> None:
    out = tmp_path / "deep" / "run"
    source = _npz(tmp_path / "a.npz")
    assert main(["train", preset, "--data", str(source), "--epochs", "20", "--batch", "8", "--out", str(out), "--seed", "3"]) == 0
    text = capsys.readouterr().out
    assert "epoch 20/20" in text and "test accuracy" in text and str(out) in text
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["settings"]["preset"] == preset and len(metrics["history"]) == 20
    assert metrics["test_accuracy"] == metrics["history"][-1]["test_accuracy"] > 0.9
    assert not metrics["interrupted"]
    weights = fd.load(out / "model.safetensors")
    assert metrics["parameters"] == sum(w.size for w in weights.values())
    plots = {"curves.png", "samples.png"} if _has_matplotlib() else set()
    assert {p.name for p in out.iterdir()} == {"model.safetensors", "metrics.json"} | plots
    for name in plots:
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def _has_matplotlib() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def test_same_seed_same_numbers(tmp_path: Path) -> None:
    source = _npz(tmp_path / "a.npz")
    weights = []
    for k, seed in enumerate((5, 5, 6)):
        assert (
            main(["train", "mlp", "--data", str(source), "--epochs", "1", "--out", str(tmp_path / f"{k}"), "--seed", str(seed)])
            == 0
        )
        weights.append((tmp_path / f"{k}" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_without_matplotlib(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["train", "mlp", "--data", str(_npz(tmp_path / "a.npz")), "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    assert "fastdl-engine[plot]" in capsys.readouterr().out
    assert not (tmp_path / "run" / "curves.png").exists()


def test_folder_of_idx_files(tmp_path: Path) -> None:
    from test_data import _fashion_folder

    _fashion_folder(tmp_path / "idx", compress=True)
    assert main(["train", "mlp", "--data", str(tmp_path / "idx"), "--epochs", "1", "--out", str(tmp_path / "run")]) == 0


def _fails(capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str, code: int = 2) -> None:
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and "Traceback" not in error, error
    for word in words:
        assert word in error, error


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--epochs", "0"], ["--epochs", "0"]),
        (["--epochs", "many"], ["--epochs", "many"]),
        (["--batch", "-3"], ["--batch", "-3"]),
        (["--lr", "nan"], ["--lr", "nan"]),
        (["--lr", "0"], ["--lr", "positive"]),
        (["--seed", "-1"], ["--seed"]),
        (["--data", "/no/such/folder"], ["/no/such/folder", "no such"]),
        (["--device", "tpu"], ["--device", "tpu"]),
        (["--device", "cuda:99"], ["--device", "cuda:99"]),
        (["rnn"], ["rnn", "cnn"]),
        (["--speed=9"], ["--speed"]),
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    _fails(capsys, ["train", "--out", str(tmp_path / "run"), *arguments], *words)


def test_wrong_command(capsys: pytest.CaptureFixture[str]) -> None:
    _fails(capsys, ["fly"], "fly", "train")
    assert main([]) == 2 and "train" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"y_train": np.zeros(3, int)}, ["training", "(3,)"]),
        ({"y_test": np.full(12, -1)}, ["labels"]),
        ({"y_test": np.full(12, 10**9)}, ["labels"]),
        ({"y_test": np.zeros(12)}, ["integers"]),
        ({"x_test": np.zeros((12, 9, 9))}, ["(1, 9, 9)"]),
        ({"x_train": np.full((48, 8, 8), np.nan)}, ["NaN"]),
        ({"x_train": np.zeros((48, 8))}, ["(48, 8)"]),
        ({"x_train": np.array([["a"] * 8] * 8 * 48).reshape(48, 8, 8)}, ["dtype"]),
    ],
)
def test_data_that_does_not_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path, changes: dict, words: list[str]) -> None:
    source = _npz(tmp_path / "a.npz", **changes)
    _fails(capsys, ["train", "--data", str(source), "--out", str(tmp_path / "run")], str(source), *words)


def test_broken_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(3))
    _fails(capsys, ["train", "--data", str(path), "--out", str(tmp_path / "run")], "x_train")
    path.write_bytes(path.read_bytes()[:50])
    _fails(capsys, ["train", "--data", str(path), "--out", str(tmp_path / "run")], "a.npz")
    path.write_text("hello")
    _fails(capsys, ["train", "--data", str(path), "--out", str(tmp_path / "run")], "a.npz")
    (tmp_path / "empty").mkdir()
    _fails(capsys, ["train", "--data", str(tmp_path / "empty"), "--out", str(tmp_path / "run")], "train-images-idx3-ubyte")
    _npz(path, **{k: np.zeros((n, 3, 3)) for k, n in (("x_train", 48), ("x_test", 12))})
    _fails(capsys, ["train", "cnn", "--data", str(path), "--out", str(tmp_path / "run")], "mlp")


def test_out_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _fails(capsys, ["train", "--out", str(tmp_path / "file")], "--out", "file")
    _fails(capsys, ["train", "--out", "/proc/no/such"], "--out")


def test_loss_that_explodes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["train", "mlp", "--data", str(_npz(tmp_path / "a.npz")), "--lr", "1e30", "--out", str(tmp_path / "run")]
    _fails(capsys, arguments, "--lr", "loss", code=1)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_saves(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "fastdl.cli", "train", "mlp", "--data", "digits", "--epochs", "100000", "--out", str(out)]

    def interruptible() -> None:  # a test run started in the background passes an ignored SIGINT on to its children
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert "Traceback" not in error and "Ctrl-C" in output
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["interrupted"] and metrics["history"]
    assert (out / "model.safetensors").exists()


def test_config_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 0
    assert fd.__version__ in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert fd.__version__ in capsys.readouterr().out


@pytest.mark.slow
def test_the_default_run_reaches_86_percent(tmp_path: Path) -> None:
    assert main(["train", "--out", str(tmp_path / "run")]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics["history"]) == 12 and metrics["test_accuracy"] >= 0.86
    assert len(data.load_fashion_mnist("train", full=False)[1]) == 5000
