"""Sizes and times that must stay small: import, memory, wheel, source files, captured steps. (Speed is measured by `fastdl bench`, not here.)"""

import importlib.metadata
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest

import fastdl

ROOT = Path(__file__).parents[1]
IMPORT_MS = 30
MEMORY_MB = 20
WHEEL_MB = 10
LINES_WARN, LINES_FAIL = 700, 800


def _python(tmp_path, *args):
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": str(tmp_path / "cache")}
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=True, cwd=tmp_path, env=env).stdout


def test_import_time(tmp_path):
    """Processor time that `import fastdl` takes after NumPy is there: other work on the machine hardly changes it.

    The importing thread's time: the process's would include the threads of NumPy's BLAS, which spin for a while after their start.
    fastdl starts no thread on import, which is tested too.
    """
    code = "import time; a = time.thread_time(); import numpy; b = time.thread_time(); import fastdl; print(1000 * (b - a), 1000 * (time.thread_time() - b))"
    _python(tmp_path, "-c", code)  # writes bytecode
    numpy_ms, fastdl_ms = (min(times) for times in zip(*(map(float, _python(tmp_path, "-c", code).split()) for _ in range(7)), strict=True))
    # A machine at half its speed takes longer for both; other work only adds, so the least counts.
    assert fastdl_ms <= max(IMPORT_MS, 0.4 * numpy_ms), f"import fastdl takes {fastdl_ms:.1f} ms, import numpy {numpy_ms:.1f} ms"


def test_import_starts_no_thread(tmp_path):
    code = "import numpy, os; n = len(os.listdir('/proc/self/task')); import fastdl; print(len(os.listdir('/proc/self/task')) - n)"
    assert _python(tmp_path, "-c", code).strip() == "0"


def test_import_is_lazy(tmp_path):
    """Importing the package loads neither heavy dependencies nor our own layers."""
    code = "import sys, fastdl; print(*sys.modules)"
    loaded = set(_python(tmp_path, "-c", code).split())
    assert loaded.isdisjoint(
        {"torch", "matplotlib", "tqdm", "safetensors", "scipy", "sklearn", "pandas", "argparse", "ml_dtypes"}
        | {f"fastdl.{name}" for name in ("nn", "optim", "data", "io", "cli", "config")}
    )


def test_memory(tmp_path):
    code = "import {}; print(next(int(r.split()[1]) for r in open('/proc/self/status') if r.startswith('VmRSS')) / 1024)"
    base, ours = ([float(_python(tmp_path, "-c", code.format(m))) for _ in range(3)] for m in ("numpy", "fastdl"))
    assert min(ours) - min(base) <= MEMORY_MB, f"import fastdl takes {min(ours) - min(base):.1f} MB over NumPy"


def test_package_size():
    """The installed package, compressed as in a wheel, is far from the limit of the wheel."""
    total = sum(p.stat().st_size for p in Path(fastdl.__file__).parent.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    assert total <= 3 * WHEEL_MB * 2**20


@pytest.mark.skipif("FASTDL_WHEEL" not in os.environ, reason="set FASTDL_WHEEL to the path of a wheel")
def test_wheel():
    path = Path(os.environ["FASTDL_WHEEL"])
    assert path.stat().st_size <= WHEEL_MB * 10**6
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        assert wheel.testzip() is None
    assert sum("_C." in n and n.endswith(".so") for n in names) == 1
    for need in ("fastdl/py.typed", "fastdl/_C.pyi", "fastdl/__init__.pyi", "fastdl/data/files/LICENSES.md", "fastdl/data/files/hamlet.txt.gz"):
        assert need in names
    assert any(n.endswith("licenses/LICENSE") for n in names)
    strange = [n for n in names if not n.startswith(("fastdl/", "fastdl_engine-"))]
    assert not strange and not any("__pycache__" in n or n.endswith((".cpp", ".h", ".o", ".a")) for n in names)


def _sources():
    for folder, patterns in (("csrc", ("*.cpp", "*.h", "*.cu", "*.cuh", "*.def")), ("fastdl", ("*.py",)), ("tests", ("*.py",))):
        for pattern in patterns:
            yield from (ROOT / folder).rglob(pattern)


def test_files_can_be_read_in_one_sitting():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in _sources()}
    assert lengths
    long = {name: n for name, n in lengths.items() if n > LINES_WARN}
    if long:
        warnings.warn(f"long files: {long}", stacklevel=1)
    assert not {name: n for name, n in long.items() if n > LINES_FAIL}


# Launches and megabytes of temporaries, scratch that kernels ask for included (what threads keep for packing is not), of the steps that `fastdl bench --suite steps` times; a few more are allowed.
STEPS = {"xor": (20, 0.1), "mlp": (22, 1), "mlp1024": (28, 9), "cnn": (32, 10), "gpt": (180, 64), "resnet18": (293, 40 if fastdl._C.isa() == "amx" else 43.5)}
LEAST = {"resnet18": (297, 30.2)}  # with passes={"recompute_convolutions": True}


@pytest.mark.parametrize("name, convolutions", [*((name, False) for name in STEPS), *((name, True) for name in LEAST)])
def test_launches_and_memory_of_captured_steps(name, convolutions):
    from fastdl.bench import steps

    made = []
    library = steps.fastdl_library(True)
    library.compile = lambda step, net: made.append(fastdl.compile(step, passes={"recompute_convolutions": convolutions})) or made[-1]
    step = steps.build(name, library, 0.0)
    step()
    step()
    stats = made[0].stats()
    print(f"{name}: {stats['launches']} launches, {stats['arena_bytes'] / 1e6:.2f} MB of temporaries")  # seen with pytest -s
    launches, megabytes = (LEAST if convolutions else STEPS)[name]
    assert stats["launches"] <= launches and stats["arena_bytes"] <= megabytes * 1e6, made[0].dump()


def test_version_has_one_home():
    try:
        assert importlib.metadata.version("fastdl-engine") == fastdl.__version__
    except importlib.metadata.PackageNotFoundError:
        assert "CI" not in os.environ  # run from the source folder, nothing installed
    cff = (ROOT / "CITATION.cff").read_text()
    assert f"version: {fastdl.__version__}\n" in cff
    assert f"[{fastdl.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
