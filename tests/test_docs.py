"""Documents say what is: code blocks run, links lead somewhere, examples run, the list of ops is current.
(Examples in docstrings: test_doctests.py.)"""

import doctest
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = "README.md README.zh.md CONTRIBUTING.md SECURITY.md CHANGELOG.md".split()
FILES = [*(ROOT / name for name in PAGES), *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS = {
    "sklearn": ["sklearn"],
    "seeing": ["matplotlib", "tensorboardX"],
    "sklearn_pipeline": ["sklearn"],
    **{name: ["matplotlib"] for name in ("explain_fashion", "autoencoders", "dcgan_fashion")},
}
PICTURES = {"autoencoders": {"autoencoders.png", "vae.png"}, "dcgan_fashion": {"dcgan.png"}}  # what an example writes to --out


def test_examples_of_ops():
    """doctest.testmod does not look into ops (they are not Python functions), so their stanzas are run here."""
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for op in importlib.import_module("fastdl.op").STANZAS.values():
        for test in finder.find(op.__wrapped__, op.__name__, globs={}):
            runner.run(test)
    assert runner.summarize().failed == 0


def _blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.S)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_code_blocks_run(path, tmp_path, monkeypatch):
    for package in NEEDS.get(path.stem, []):
        pytest.importorskip(package)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    for number, code in enumerate(_blocks(path, "python")):
        exec(compile(code, f"{path.name} block {number}", "exec"), {"__name__": "block"})


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_both_readmes_have_the_two_commands():
    commands = ["pip install . && fastdl train", "pip install '.[test]' && pytest"]
    for name in ("README.md", "README.zh.md"):
        assert [b.strip() for b in _blocks(ROOT / name, "sh")][:2] == commands


def test_list_of_ops_is_current():
    spec = importlib.util.spec_from_file_location("make_ops_doc", ROOT / "tools" / "make_ops_doc.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.text() == maker.PATH.read_text(), "run python tools/make_ops_doc.py"


def test_environment_table_is_complete():
    """Every FASTDL_ variable that the sources read is in docs/environment.md."""
    page = (ROOT / "docs" / "environment.md").read_text()
    sources = [p for pattern in ("fastdl/**/*.py", "csrc/**/*.cpp") for p in ROOT.glob(pattern)]
    used = {v for p in sources for v in re.findall(r"""["'](FASTDL_[A-Z_]+)["']""", p.read_text())}
    assert used and not {v for v in used if f"`{v}`" not in page}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path, tmp_path):
    assert len(path.read_text().splitlines()) < 100
    for package in NEEDS.get(path.stem, []):
        pytest.importorskip(package)
    settings = {"cnn_fashion": ["--checkpoint", str(tmp_path / "c.safetensors")]}
    settings |= {name: ["--out", str(tmp_path)] for name in ("explain_fashion", *PICTURES)}
    extra = settings.get(path.stem, [])
    run = subprocess.run([sys.executable, str(path), "--tiny", *extra], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout
    assert PICTURES.get(path.stem, set()) <= {p.name for p in tmp_path.iterdir()}


@pytest.mark.parametrize(("name", "extra"), [("transformer_text", ["--model", "masked"]), ("char_lstm", ["--cell", "gru"]), ("lenet_fashion", ["--model", "modern"])])
def test_variants_of_examples(name, extra, tmp_path):
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), "--tiny", *extra]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout


def test_resnet_example_reads_cifar(tmp_path):
    import numpy as np

    for name in ("data_batch_1.bin", "test_batch.bin"):
        records = np.random.default_rng(0).integers(0, 256, (64, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        records.tofile(tmp_path / name)
    command = [sys.executable, str(ROOT / "examples" / "resnet18.py"), "--tiny", "--cifar", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert run.returncode == 0 and "test accuracy" in run.stdout, run.stderr


@pytest.mark.parametrize("name", ["deep_belief", "detect_digits", "recommender"])
def test_captured_examples_have_the_numbers_of_eager_ones(name, tmp_path):
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), "--tiny"]
    runs = [
        subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, env={**os.environ, "FASTDL_COMPILE": flag})
        for flag in ("1", "0")
    ]
    assert runs[0].stdout == runs[1].stdout != ""
    assert not runs[0].stderr  # no word of steps that could not be captured
