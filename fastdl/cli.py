"""The command `fastdl`: `fastdl train` trains a network on images, `fastdl bench` measures its speed, `fastdl config` tells what this
installation can do.

Exit codes: 0 success, 1 a run that failed, 2 wrong arguments or files, 130 stopped by Ctrl-C (after saving).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn


class CliError(Exception):
    """Something the user can put right: shown as one line, without a traceback."""

    def __init__(self, text: str, code: int = 2) -> None:
        super().__init__(text)
        self.code = code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _integer(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not between {least} and {most}")
        return value

    return parse


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _parser(bench: bool) -> argparse.ArgumentParser:
    parser = _Parser(prog="fastdl", description="A tensor engine with hand-written CPU and CUDA kernels.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    train = commands.add_parser(
        "train",
        help="train a network on images and save weights, metrics and plots",
        description="Train a network on images. Without arguments: a small convolutional network on 5,000 Fashion-MNIST "
        "images that come with the package.",
    )
    train.add_argument("preset", nargs="?", choices=("cnn", "mlp"), default="cnn", help="the network (default: cnn)")
    train.add_argument(
        "--data",
        default="fashion",
        metavar="DATA",
        help="fashion (default; 5,000 + 1,000 images in the package), fashion-full (70,000 images found on this machine), "
        "digits, a folder with the four idx files of the MNIST family, or an .npz file with x_train, y_train, x_test, y_test",
    )
    train.add_argument("--epochs", type=_integer(1, 100_000), default=None, help="passes over the data (default: 12)")
    train.add_argument("--batch", type=_integer(1, 1_000_000), default=64, help="examples per step (default: 64)")
    train.add_argument("--lr", type=_rate, default=None, help="highest learning rate (default: the preset's)")
    train.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    train.add_argument("--seed", type=_integer(0, 2**63 - 1), default=0, help="seed of weights, order and dropout (default: 0)")
    train.add_argument("--out", default="fastdl-run", metavar="FOLDER", help="where results go (default: fastdl-run)")

    if bench:
        from fastdl.bench.command import add_arguments

        add_arguments(commands)
    else:
        commands.add_parser("bench", help="measure the speed of this installation against NumPy, PyTorch and JAX", add_help=False)
    commands.add_parser("config", help="show version, instruction set, threads and devices")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Examples
    --------
    >>> from fastdl.cli import main
    >>> main(["--version"])  # doctest: +ELLIPSIS
    fastdl ...
    0
    """
    try:
        given = list(sys.argv[1:] if argv is None else argv)
        args = _parser("bench" in given[:1]).parse_args(given)
    except SystemExit as stop:
        return int(stop.code or 0)
    import fastdl as fd

    try:
        if args.version:
            print(f"fastdl {fd.__version__}")
            return 0
        if args.command == "config":
            fd.show_config()
            return 0
        if args.command == "train":
            from fastdl._train import train

            return train(args)
        if args.command == "bench":
            from fastdl.bench.command import bench

            return bench(args)
    except CliError as error:
        print(f"fastdl {args.command}: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:  # the reader of our output has gone, e.g. `fastdl config | head -1`
        sys.stderr.close()
        return 141
    _parser(False).print_help(sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
