"""`fastdl train`: data, two preset networks, the training loop, and what it leaves behind."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastdl as fd
from fastdl import data, nn, optim
from fastdl.cli import CliError
from fastdl.data.sources import load_idx_folder, scale_images
from fastdl.io import write_atomically
from fastdl.nn import functional as F

_MAX_CLASSES = 10_000


class Images(NamedTuple):
    """A classification task: images float32 (N, C, H, W) in [0, 1], labels int64 (N,)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    flips: bool  # mirror images have the same label


# ---- data ----------------------------------------------------------------------------------------------------------------


def load_images(name: str) -> Images:
    """The data set called `name` on the command line, checked."""
    try:
        if name in ("fashion", "fashion-full"):
            full = name == "fashion-full"
            (x, y), (x_test, y_test) = data.load_fashion_mnist("train", full=full), data.load_fashion_mnist("test", full=full)
            return Images(x, y, x_test, y_test, data.FASHION_CLASSES, flips=True)
        if name == "digits":
            (x, y), (x_test, y_test) = data.load_digits("train"), data.load_digits("test")
            return Images(x, y, x_test, y_test, tuple("0123456789"), flips=False)
        path = Path(name)
        if path.is_dir():
            arrays = [a for split in ("train", "test") for a in load_idx_folder(path, split)]
        elif path.is_file():
            arrays = _from_npz(path)
        else:
            raise CliError(f"--data {name}: no such folder or file, and not one of fashion, fashion-full, digits")
        return _checked(arrays, name)
    except (fd.FormatError, OSError) as error:
        raise CliError(f"--data {name}: {_one_line(error)}") from error


def _from_npz(path: Path) -> list[np.ndarray]:
    arrays = data.read_npz(path)
    for names in (("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels")):
        if all(name in arrays for name in names):
            return [arrays[name] for name in names]
    raise fd.FormatError(f"need arrays x_train, y_train, x_test, y_test; the file has {', '.join(sorted(arrays)) or 'none'}")


def _checked(arrays: list[np.ndarray], name: str) -> Images:
    x_train, y_train, x_test, y_test = arrays
    for part, x, y in (("training", x_train, y_train), ("test", x_test, y_test)):
        if x.ndim not in (3, 4) or y.ndim != 1 or len(x) != len(y) or not len(x):
            raise fd.FormatError(f"{part} images {x.shape} and labels {y.shape}: need (N, H, W) or (N, C, H, W), and (N,)")
        if y.dtype.kind not in "iu" or int(y.min()) < 0 or int(y.max()) >= _MAX_CLASSES:
            raise fd.FormatError(f"{part} labels must be integers from 0 to {_MAX_CLASSES - 1}")
        if x.dtype.kind not in "iufb":
            raise fd.FormatError(f"{part} images have dtype {x.dtype}; need numbers")
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise fd.FormatError(f"{part} images contain NaN or infinity")
    x_train, x_test = scale_images(x_train), scale_images(x_test)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise fd.FormatError(f"training images are {x_train.shape[1:]} but test images {x_test.shape[1:]}")
    count = int(max(y_train.max(), y_test.max())) + 1
    return Images(x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64), tuple(map(str, range(count))), False)


# ---- networks --------------------------------------------------------------------------------------------------------------


def build(preset: str, shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """The network of a preset for images of `shape` (C, H, W)."""
    channels, height, width = shape
    if preset == "mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * height * width, 256),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(256, classes),
        )
    if min(height, width) < 4:
        raise CliError(f"preset cnn needs images of at least 4x4 pixels, these are {height}x{width}; use preset mlp")
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(128, classes),
    )


_RATES = {"cnn": 3e-3, "mlp": 3e-3}
_EPOCHS = {"cnn": 12, "mlp": 12}


# ---- the loop --------------------------------------------------------------------------------------------------------------


class Trainer:
    """One run: the model, what drives it, and its history."""

    def __init__(self, args: argparse.Namespace, images: Images) -> None:
        fd.manual_seed(args.seed)
        self.args = args
        self.images = images
        self.epochs = args.epochs or _EPOCHS[args.preset]
        self.rate = args.lr or _RATES[args.preset]
        self.model = build(args.preset, images.x_train.shape[1:], len(images.classes))
        if args.device != "cpu":
            self.model.to(args.device)
        self.loader = data.DataLoader(
            (images.x_train, images.y_train),
            args.batch,
            shuffle=True,
            transform=data.RandomHorizontalFlip() if images.flips else None,
            device=None if args.device == "cpu" else args.device,
            rng=args.seed,
        )
        self.test_loader = data.DataLoader(
            (images.x_test, images.y_test), 500, device=None if args.device == "cpu" else args.device, rng=0
        )
        self.optimizer = optim.AdamW(self.model.parameters(), lr=self.rate, weight_decay=0.05)
        steps = self.epochs * len(self.loader)
        self.schedule = optim.lr_scheduler.OneCycleLR(
            self.optimizer, self.rate, total_steps=steps + 1, pct_start=0.2, div_factor=10, cycle_momentum=False
        )
        self.history: list[dict[str, float]] = []
        self.interrupted = False
        self._step = fd.compile(self._forward_backward, strict=False)

    def run(self) -> None:
        """Train for all epochs; Ctrl-C ends it early, between two steps."""
        try:
            for epoch in range(1, self.epochs + 1):
                started = time.perf_counter()
                loss, accuracy = self._train_epoch(epoch)
                seconds = time.perf_counter() - started
                test_loss, test_accuracy = self.evaluate()
                row = {
                    "epoch": epoch,
                    "loss": loss,
                    "accuracy": accuracy,
                    "test_loss": test_loss,
                    "test_accuracy": test_accuracy,
                    "seconds": seconds,
                }
                self.history.append(row)
                print(
                    f"epoch {epoch:>{len(str(self.epochs))}}/{self.epochs}  loss {loss:.4f}  accuracy {accuracy:.4f}  "
                    f"test accuracy {test_accuracy:.4f}  {seconds:.1f} s",
                    flush=True,
                )
        except KeyboardInterrupt:
            self.interrupted = True

    def _train_epoch(self, epoch: int) -> tuple[float, float]:
        self.model.train()
        total = correct = seen = 0.0
        bar = _progress(self.loader, f"epoch {epoch}/{self.epochs}")
        for x, y in bar:
            loss, hits = self._step(x, y)
            self.schedule.step()
            value, n = loss.item(), y.shape[0]
            if not np.isfinite(value):
                raise CliError(f"the loss became {value} in epoch {epoch}; try a lower --lr than {self.rate:g}", code=1)
            total += value * n
            correct += int(hits.item())
            seen += n
            if hasattr(bar, "set_postfix_str"):
                bar.set_postfix_str(f"loss {total / seen:.4f}, accuracy {correct / seen:.4f}", refresh=False)
        return total / seen, correct / seen

    def _forward_backward(self, x: fd.Tensor, y: fd.Tensor) -> tuple[fd.Tensor, fd.Tensor]:
        """One update; the loss and the number of right answers before it."""
        self.optimizer.zero_grad()
        logits = self.model(x)
        loss = F.cross_entropy(logits, y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach(), (logits.detach().argmax(axis=1) == y).sum()

    def evaluate(self) -> tuple[float, float]:
        """Mean loss and accuracy on the test images."""
        scores = self.predict()
        y = self.images.y_test
        loss = F.cross_entropy(fd.asarray(scores), fd.asarray(y)).item()
        return loss, float(np.mean(scores.argmax(1) == y))

    def predict(self) -> np.ndarray:
        """Logits (N, classes) of the test images."""
        self.model.eval()
        with fd.no_grad():
            return np.concatenate([self.model(x).cpu().numpy() for x, _ in self.test_loader])


def _progress(batches: Any, title: str) -> Iterable[Any]:
    """A tqdm bar when there is a terminal to draw it on."""
    if not sys.stderr.isatty():
        return batches
    try:
        from tqdm import tqdm
    except ImportError:
        return batches
    size = shutil.get_terminal_size()  # 80x24 where the terminal does not say; tqdm would draw nothing
    return tqdm(batches, desc=title, leave=False, unit="batch", ncols=min(size.columns, 100), nrows=size.lines)


# ---- results -----------------------------------------------------------------------------------------------------------------


def _table(history: list[dict[str, float]]) -> str:
    head = ("epoch", "loss", "accuracy", "test loss", "test accuracy", "seconds")
    keys = ("epoch", "loss", "accuracy", "test_loss", "test_accuracy", "seconds")
    rows = [[f"{r[k]:.0f}" if k == "epoch" else f"{r[k]:.1f}" if k == "seconds" else f"{r[k]:.4f}" for k in keys] for r in history]
    widths = [max(len(row[c]) for row in [list(head), *rows]) for c in range(len(head))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in [list(head), *rows]]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def _metrics(trainer: Trainer) -> dict[str, Any]:
    args = trainer.args
    settings = {"preset": args.preset, "data": args.data, "epochs": trainer.epochs, "batch": args.batch, "lr": trainer.rate}
    return {
        "fastdl": fd.__version__,
        "settings": {**settings, "device": args.device, "seed": args.seed},
        "parameters": sum(p.size for p in trainer.model.parameters()),
        "interrupted": trainer.interrupted,
        "test_accuracy": trainer.history[-1]["test_accuracy"] if trainer.history else None,
        "seconds": sum(row["seconds"] for row in trainer.history),
        "history": trainer.history,
    }


def save_results(trainer: Trainer, folder: Path) -> list[str]:
    """Write weights, metrics and plots; returns the names of the files."""
    fd.save(trainer.model, folder / "model.safetensors")
    text = json.dumps(_metrics(trainer), indent=2) + "\n"
    write_atomically(folder / "metrics.json", [text.encode()])
    names = ["model.safetensors", "metrics.json"]
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plots: they need matplotlib (pip install 'fastdl-engine[plot]')")
        return names
    if trainer.history:
        _plot_curves(Figure(figsize=(9, 3.5), layout="constrained"), trainer.history).savefig(folder / "curves.png", dpi=120)
        names.append("curves.png")
    _plot_samples(Figure(figsize=(9, 6), layout="constrained"), trainer).savefig(folder / "samples.png", dpi=120)
    return [*names, "samples.png"]


def _plot_curves(figure: Any, history: list[dict[str, float]]) -> Any:
    epochs = [row["epoch"] for row in history]
    for axes, key in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [row[key] for row in history], marker=".", label="training")
        axes.plot(epochs, [row[f"test_{key}"] for row in history], marker=".", label="test")
        axes.set_xlabel("epoch")
        axes.set_title(key)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _plot_samples(figure: Any, trainer: Trainer) -> Any:
    """Twenty-four test images with what the network says; wrong answers in red with the truth behind."""
    images, count = trainer.images, min(24, len(trainer.images.y_test))
    guesses = trainer.predict()[:count].argmax(1)
    for k, axes in enumerate(figure.subplots(4, 6).flat):
        axes.set_axis_off()
        if k >= count:
            continue
        picture = images.x_test[k].transpose(1, 2, 0)
        axes.imshow(picture[..., 0] if picture.shape[2] != 3 else np.clip(picture, 0, 1), cmap="gray_r")
        guess, truth = images.classes[guesses[k]], images.classes[images.y_test[k]]
        right = guess == truth
        axes.set_title(guess if right else f"{guess} ({truth})", fontsize=8, color="black" if right else "red")
    return figure


# ---- the command ---------------------------------------------------------------------------------------------------------------


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _prepare_folder(name: str) -> Path:
    """Make the output folder and see that it can be written, before any time is spent on training."""
    folder = Path(name)
    probe = folder / f".write-test-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise CliError(f"--out {name}: cannot write there: {error.strerror or error}") from error
    return folder


def _check_device(name: str) -> None:
    if name == "cpu":
        return
    try:
        fd.zeros(1).to(name)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise CliError(f"--device {name}: {_one_line(error)}") from error


def train(args: argparse.Namespace) -> int:
    """Run `fastdl train`; returns the exit code."""
    folder = _prepare_folder(args.out)
    _check_device(args.device)
    images = load_images(args.data)
    trainer = Trainer(args, images)
    c, h, w = images.x_train.shape[1:]
    size = sum(p.size for p in trainer.model.parameters())
    print(
        f"{args.preset} with {size:,} parameters on {len(images.y_train):,} + {len(images.y_test):,} images of {c}x{h}x{w}, "
        f"{len(images.classes)} classes; {trainer.epochs} epochs of {len(trainer.loader)} steps"
    )
    trainer.run()
    if trainer.interrupted:
        print("\nstopped by Ctrl-C; saving what there is")
    try:
        names = save_results(trainer, folder)
    except OSError as error:
        raise CliError(f"--out {args.out}: cannot write there: {error.strerror or error}", code=1) from error
    if trainer.history:
        total = sum(row["seconds"] for row in trainer.history)
        print(f"\n{_table(trainer.history)}\n\ntest accuracy {trainer.history[-1]['test_accuracy']:.4f} after {total:.1f} s")
    print(f"saved in {folder}: {', '.join(names)}")
    return 130 if trainer.interrupted else 0
