"""What all tests share."""

import os
import sys
from pathlib import Path

import pytest

import fastdl

sys.path.insert(0, str(Path(__file__).resolve().parent))  # samples, common


def pytest_configure(config):
    # In CI the tests must see the installed wheel, with exactly the files that it ships.
    inside = Path(__file__).parents[1] in Path(fastdl.__file__).parents
    if os.environ.get("CI") and inside and ".venv" not in fastdl.__file__:
        raise pytest.UsageError(f"CI tests the installed package, but fastdl comes from {fastdl.__file__}")
    # Programs that tests start import the same package, whatever folder they start in.
    os.environ["PYTHONSAFEPATH"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(fastdl.__file__).parents[1]), os.environ.get("PYTHONPATH")]))


def pytest_report_header(config):
    from fastdl import _C

    return f"fastdl {fastdl.__version__} ({_C.isa()}, {_C.num_threads()} threads) from {Path(fastdl.__file__).parent}"
