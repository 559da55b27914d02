"""Kernel objects export their table and what they share, nothing else (tools/check_objects.py), and the check sees what it should see."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECK = ROOT / "tools" / "check_objects.py"
BUILDS = [p for p in ROOT.glob("build/*") if any(p.rglob("kernels_*.dir"))]
COMPILER = shutil.which("g++") or shutil.which("clang++")

BAD = {
    "weak": ("inline int f(int x) { return x + 1; } int (*keep)(int) = f;", "weak symbol"),
    "exports": ("int other = 1;", "exports"),
    "calls": ("extern void stranger(); void* keep = (void*)stranger;", "calls stranger"),
    "other set": ('extern "C" const int fastdl_tiles_f32_avx512; const int* keep = &fastdl_tiles_f32_avx512;', "calls fastdl_tiles_f32_avx512"),
    "constructor": ("struct A { A(); }; static A a;", "run code when loaded"),
}


def _check(folder):
    return subprocess.run([sys.executable, str(CHECK), str(folder)], capture_output=True, text=True)


@pytest.mark.skipif(not BUILDS, reason="no build folder here")
@pytest.mark.parametrize("build", BUILDS, ids=lambda p: p.name)
def test_objects_of_the_build(build):
    run = _check(build)
    assert run.returncode == 0, run.stdout + run.stderr


def _compile(folder, source):
    place = folder / "CMakeFiles" / "kernels_avx2.dir"
    place.mkdir(parents=True)
    (folder / "family.cpp").write_text(source)
    subprocess.run([COMPILER, "-std=c++17", "-O0", "-c", str(folder / "family.cpp"), "-o", str(place / "family.cpp.o")], check=True)


@pytest.mark.skipif(not (COMPILER and shutil.which("nm")), reason="needs a compiler and nm")
@pytest.mark.parametrize("case", BAD)
def test_check_finds(case, tmp_path):
    source, text = BAD[case]
    _compile(tmp_path, source)
    run = _check(tmp_path)
    assert run.returncode == 1 and text in run.stdout


GOOD = {
    "table": 'extern "C" const int fastdl_rows_family_avx2[2] = {1, 2}; namespace { int f() { return 1; } int (*keep)() = f; }',
    "shared": 'extern "C" const int fastdl_rows_family_avx2[] = {1}, fastdl_tiles_f32_avx2 = 1;'
    'extern "C" const int fastdl_gemm_f32_avx2; namespace { __attribute__((used)) const int* keep = &fastdl_gemm_f32_avx2; }',
}


@pytest.mark.skipif(not (COMPILER and shutil.which("nm")), reason="needs a compiler and nm")
@pytest.mark.parametrize("case", GOOD)
def test_check_passes_a_good_object(case, tmp_path):
    _compile(tmp_path, GOOD[case])
    run = _check(tmp_path)
    assert run.returncode == 0, run.stdout
