"""Checks the kernel objects of a build folder: `python tools/check_objects.py BUILD`.

A kernel file is compiled once per instruction set. Would two objects define the same symbol, the linker might keep the AVX-512 version
for everybody, and an older CPU would stop at an illegal instruction. So every object must export its table, and nothing else but what
is shared with other kernels of its instruction set (FD_SHARED in csrc/cpu/isa/kernel.h), whose name ends in that; hold no
weak or unique symbols (inline functions, templates, static members outside an anonymous namespace), run nothing when loaded, and call
nothing but the C library and the few functions of the core that kernels may use.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# What kernels may call, demangled where it is C++.
CORE = {
    "fastdl::parallel_chunks",
    "fastdl::num_threads",
    "fastdl::thread_scratch",
    "fastdl::chunks_recorded",  # by the test of the partition
    "fastdl::note_piece",
    "fastdl::gemm_parts",  # settings
    "fastdl::gemm_has_tiles",
    "fastdl::vector_lanes",
}
# FD_SHARED: what kernels of an instruction set may define for each other.
SHARED = ("tiles_f32", "tiles_f64", "conv_tiles_f32", "conv_tiles_f64", "gemm_f32", "gemm_f64")
LIBC = {
    "memcpy", "memmove", "memset", "memcmp", "bcmp", "abort", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_", "__cpu_model",
    "__tls_get_addr", "_dl_relocate_static_pie",
}  # fmt: skip
LIBM = (
    "cabs carg cexp clog cpow csqrt acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 "
    "expm1 fabs floor fma fmax fmin fmod frexp hypot ilogb ldexp lgamma llrint llround log log10 log1p log2 logb lrint lround modf "
    "nearbyint nextafter pow remainder rint round roundeven scalbn sin sincos sinh sqrt tan tanh tgamma trunc "
).split()
COMPILER = re.compile(r"__(u?divti3|u?modti3|multi3|(trunc|extend)\w+2|float\w+|fix\w+|mul[sdx]c3|div[sdx]c3|muldc3|divdc3)")
MATH = {name + suffix for name in LIBM for suffix in ("", "f", "l")}
SANITIZER = re.compile(r"__(a|ub|t|l)san_|__sanitizer_|__gcov|__llvm_")


def symbols(path: Path) -> Iterator[tuple[str, str]]:
    """(kind, demangled name) of an object's symbols."""
    text = subprocess.run(["nm", "-C", "--no-recurse-limit", path], check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        match = re.match(r"(?:[0-9a-f]+)? *([A-Za-z?]) (.*)", line)
        if match:
            yield match[1], match[2]


def problems(path: Path) -> list[str]:
    """What is wrong with one kernel object."""
    isa = path.parent.parts[[p.startswith("kernels_") for p in path.parent.parts].index(True)][len("kernels_") : -len(".dir")]
    table = f"fastdl_rows_{path.name.split('.')[0]}_{isa}"
    shared = {f"fastdl_{name}_{isa}" for name in SHARED}
    found = []
    exported = set()
    for kind, name in symbols(path):
        base = name.split("(")[0].split("@")[0]
        if kind in "WVuw" and not SANITIZER.match(base):
            found.append(f"weak symbol {name}")
        elif kind == "U":
            allowed = CORE | LIBC | MATH | shared
            if not (base in allowed or COMPILER.fullmatch(base) or SANITIZER.match(base)):
                found.append(f"calls {name}")
        elif kind in "TDBRGSC":
            exported.add(name)
    if exported - shared != {table}:
        found.append(f"exports {', '.join(sorted(exported)) or 'nothing'}; need {table}, and may export what is shared")
    sections = subprocess.run(["readelf", "-SW", path], check=True, capture_output=True, text=True).stdout
    found += [f"has a section {s}: it would run code when loaded" for s in (".init_array", ".ctors", ".preinit_array") if f" {s}" in sections]
    return found


def main() -> int:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print("usage: python tools/check_objects.py BUILD_FOLDER", file=sys.stderr)
        return 2
    if not (shutil.which("nm") and shutil.which("readelf")):
        print("check_objects: needs nm and readelf (binutils)", file=sys.stderr)
        return 2
    objects = sorted(p for p in Path(sys.argv[1]).rglob("*.o") if re.search(r"kernels_\w+\.dir", str(p)))
    if not objects:
        print(f"check_objects: no kernel objects under {sys.argv[1]}", file=sys.stderr)
        return 2
    bad = 0
    for path in objects:
        where = re.search(r"kernels_(\w+)\.dir", str(path))
        for problem in problems(path):
            bad += 1
            print(f"{where[1] if where else ''} {path.stem}: {problem}")
    print(f"{len(objects)} kernel objects checked, {bad} problems")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
