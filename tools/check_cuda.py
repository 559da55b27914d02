"""Static checks of the CUDA kernels, without a GPU: `python tools/check_cuda.py BUILD` (a build folder, or a libfastdl_cuda.so).

What a profiler would complain about later can be read from the machine code now. For every kernel and architecture of the library:
registers are not spilled and there is no stack (local memory is device memory: a spill costs as much as a cache miss); the instructions
that the kernel was written for are there (16-byte loads, asynchronous copies, tensor cores), which a small change of the source can
quietly undo; as many blocks fit on a multiprocessor as the design counts on; ptxas has no performance warning. Expectations are data, in
csrc/cuda/kernel_budget.toml: a kernel without a row there is an error, too.

Needs cuobjdump and nvdisasm: on the PATH, beside nvcc, or from the wheels nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm. Without them
only what ptxas said at compile time is checked (the .log beside each object of the build folder): registers, spills, warnings.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

BUDGET = Path(__file__).resolve().parent.parent / "csrc/cuda/kernel_budget.toml"


@dataclasses.dataclass
class Kernel:
    arch: str  # "80", "90a"
    symbol: str
    registers: int = 0
    stack: int = 0
    spills: int = 0
    shared: int = 0  # static
    threads: int = 0  # of the largest block, from __launch_bounds__; 0: not known
    opcodes: Counter[str] | None = None  # None: the code was not looked at
    name: str = ""  # dropout_kernel<bf16>


@dataclasses.dataclass
class Row:
    match: str
    blocks: int = 1  # per multiprocessor, at least
    shared: int = 0  # dynamic shared memory of a launch, bytes
    registers: int = 255  # at most
    expect: list[str] = dataclasses.field(default_factory=list)
    archs: list[str] = dataclasses.field(default_factory=list)  # only these; empty: all
    local: str = ""  # why local memory is fine here
    threads: int = 0  # of a launch, where __launch_bounds__ says more


# ---- what ptxas said -----------------------------------------------------------------------------------------------------------------
def read_logs(paths: Iterable[Path]) -> tuple[list[Kernel], list[str]]:
    """Kernels and warnings in the output of `ptxas -v`."""
    kernels, warnings = [], []
    for path in paths:
        kernel = None
        for line in path.read_text(errors="replace").splitlines():
            if m := re.search(r"Compiling entry function '(\w+)' for 'sm_(\w+)'", line):
                kernel = Kernel(m[2], m[1])
                kernels.append(kernel)
            elif m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
                if kernel:
                    kernel.stack, kernel.spills = int(m[1]), int(m[2]) + int(m[3])
            elif m := re.search(r"Used (\d+) registers", line):
                if kernel:
                    kernel.registers = int(m[1])
                    shared = re.search(r"(\d+) bytes smem", line)
                    kernel.shared = int(shared[1]) if shared else 0
                kernel = None  # what follows belongs to another function
            if "Potential Performance Loss" in line or re.search(r"\(C75\d\d\)", line):
                warnings.append(f"{path.name}: {line.strip()}")
    return kernels, warnings


# ---- what is in the library ------------------------------------------------------------------------------------------------------------
def find_tool(name: str) -> str | None:
    if found := shutil.which(name):
        return found
    folders = []
    if nvcc := shutil.which("nvcc"):
        folders.append(Path(nvcc).resolve().parent)
    folders.append(Path("/usr/local/cuda/bin"))
    try:
        spec = importlib.util.find_spec("nvidia.cu13")
    except ModuleNotFoundError:
        spec = None
    folders += [Path(p) / "bin" for p in (spec.submodule_search_locations or [] if spec else [])]
    return next((str(f / name) for f in folders if (f / name).exists()), None)


def output(*command: str | Path, cwd: Path | None = None) -> str:
    env = dict(os.environ)
    if disassembler := find_tool("nvdisasm"):  # cuobjdump calls it by name
        env["PATH"] = f"{Path(disassembler).parent}:{env.get('PATH', '')}"
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=cwd, env=env)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr.strip()[:500]}")
    return done.stdout


def max_threads(cubin: bytes) -> dict[str, int]:
    """Largest block of each kernel, from the attribute streams of a cubin (an ELF file): sections .nv.info.<kernel>."""
    EIATTR_MAX_THREADS, EIATTR_REQNTID, WITH_SIZE = 0x05, 0x10, 0x04
    headers = struct.unpack_from("<Q", cubin, 0x28)[0]
    size, count, names_at = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", cubin, headers + k * size) for k in range(count)]
    names = sections[names_at][4]
    found = {}
    for name, _, _, _, at, length, *_ in sections:
        title = cubin[names + name : cubin.index(b"\0", names + name)].decode()
        if not title.startswith(".nv.info."):
            continue
        end = at + length
        while at < end:
            form, attribute, value = struct.unpack_from("<BBH", cubin, at)
            at += 4
            if form != WITH_SIZE:
                continue
            if attribute in (EIATTR_MAX_THREADS, EIATTR_REQNTID):
                x, y, z = struct.unpack_from("<III", cubin, at)
                found[title.removeprefix(".nv.info.")] = x * y * z
            at += value
    return found


def read_library(library: Path, cuobjdump: str) -> Iterator[Kernel]:
    with tempfile.TemporaryDirectory() as folder:
        output(cuobjdump, "-xelf", "all", library.resolve(), cwd=Path(folder))
        for cubin in sorted(Path(folder).glob("*.cubin")):
            arch = re.search(r"\.sm_(\w+)\.cubin$", cubin.name)[1]
            kernels = {}
            usage = output(cuobjdump, "--dump-resource-usage", cubin)
            for symbol, registers, stack, shared, local in re.findall(
                r"Function (\w+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage
            ):
                kernels[symbol] = Kernel(arch, symbol, int(registers), int(stack), int(local), int(shared), opcodes=Counter())
            for symbol, threads in max_threads(cubin.read_bytes()).items():
                if symbol in kernels:
                    kernels[symbol].threads = threads
            opcodes: Counter[str] = Counter()
            for line in output(cuobjdump, "-sass", cubin).splitlines():
                if m := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", line):
                    opcodes[m[1]] += 1
                elif m := re.match(r"\s*Function : (\w+)", line):
                    opcodes = kernels[m[1]].opcodes if m[1] in kernels else Counter()
            yield from kernels.values()


def surroundings(library: Path) -> list[str]:
    """The library exports one function and needs nothing but the C and C++ libraries."""
    problems = []
    exported = {line.split()[-1] for line in output("nm", "-D", "--defined-only", library).splitlines()}
    if exported != {"fastdl_cuda_api"}:
        problems.append(f"{library.name} exports {', '.join(sorted(exported)) or 'nothing'}; it should export fastdl_cuda_api alone")
    needed = re.findall(r"NEEDED\s+(\S+)", output("objdump", "-p", library))
    foreign = [n for n in needed if not re.match(r"(libc|libm|libstdc\+\+|libgcc_s|libpthread|libdl|librt|ld-linux[\w-]*)\.so", n)]
    return problems + [f"{library.name} needs {name}, which machines without CUDA lack" for name in foreign]


def short_names(symbols: list[str]) -> dict[str, str]:
    """_ZN6fastdl..14dropout_kernelINS_4bf16EEEv.. -> dropout_kernel<bf16>"""
    text = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True).stdout
    short = {}
    for symbol, full in zip(symbols, text.splitlines()):
        full = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N_\w+::|\bfastdl::|^void ", "", full)
        depth = 0
        for k, c in enumerate(full):
            depth += (c == "<") - (c == ">")
            if c == "(" and depth == 0:
                full = full[:k]
                break
        short[symbol] = full
    return short


# ---- occupancy ---------------------------------------------------------------------------------------------------------------------------
# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability": threads, blocks and bytes of shared memory per
# multiprocessor; each has 65,536 registers in four parts, given to warps in units of 256, and takes 1 KB of shared memory per block itself.
LIMITS = {
    75: (1024, 16, 65536), 80: (2048, 32, 167936), 86: (1536, 16, 102400), 89: (1536, 24, 102400),
    90: (2048, 32, 233472), 100: (2048, 32, 233472), 120: (1536, 24, 102400),
}  # fmt: skip


def blocks_per_multiprocessor(arch: str, threads: int, registers: int, shared: int) -> int:
    max_threads, max_blocks, memory = LIMITS[int(re.match(r"\d+", arch)[0])]
    warps = -(-threads // 32)
    per_warp = -(-registers * 32 // 256) * 256
    reserved = 0 if arch == "75" else 1024
    by_registers = 4 * (16384 // per_warp) // warps if registers else max_blocks
    by_shared = memory // (-(-(shared + reserved) // 128) * 128) if shared + reserved else max_blocks
    return min(max_blocks, max_threads // (warps * 32), by_registers, by_shared)


# ---- the verdict -------------------------------------------------------------------------------------------------------------------------
def read_budget(path: Path) -> list[Row]:
    return [Row(**row) for row in tomllib.loads(path.read_text())["kernel"]]


def has(opcodes: Counter[str], wanted: str) -> bool:
    """LDG.128 is in LDG.E.128.CONSTANT; A|B: one of the two."""
    for choice in wanted.split("|"):
        first, *rest = choice.split(".")
        if any(o.split(".")[0] == first and set(rest) <= set(o.split(".")) for o in opcodes):
            return True
    return False


def judge(kernel: Kernel, rows: list[Row]) -> list[str]:
    row = next((r for r in rows if re.match(rf"(?:{r.match})(?=$|<)", kernel.name) and (not r.archs or kernel.arch in r.archs)), None)
    if row is None:
        return [f"has no row in {BUDGET.name}"]
    problems = []
    if not row.local:
        if kernel.stack or kernel.spills:
            problems.append(f"uses local memory: {kernel.stack} bytes of stack, {kernel.spills} bytes spilled")
        if kernel.opcodes is not None and (local := [o for o in kernel.opcodes if re.match(r"(LDL|STL)\b", o)]):
            problems.append(f"uses local memory: {', '.join(sorted(local))}")
    if kernel.registers > row.registers:
        problems.append(f"takes {kernel.registers} registers, its budget is {row.registers}")
    if kernel.opcodes is not None:
        problems += [f"has no {wanted} instruction" for wanted in row.expect if not has(kernel.opcodes, wanted)]
    if threads := row.threads or kernel.threads:
        blocks = blocks_per_multiprocessor(kernel.arch, threads, kernel.registers, kernel.shared + row.shared)
        if blocks < row.blocks:
            problems.append(
                f"runs {blocks} blocks per multiprocessor, the design counts on {row.blocks}: {threads} threads with "
                f"{kernel.registers} registers, {kernel.shared + row.shared} bytes of shared memory"
            )
    return problems


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("--budget", type=Path, default=BUDGET)
    parser.add_argument("--need-code", action="store_true", help="fail where cuobjdump is missing instead of checking the logs alone")
    parser.add_argument("--list", action="store_true", help="print a line per kernel")
    args = parser.parse_args(argv)
    library, logs = (args.build, []) if args.build.is_file() else (None, sorted(args.build.rglob("*.cu.o.log")))
    if library is None:
        library = next(iter(sorted(args.build.rglob("libfastdl_cuda.so"))), None)

    kernels, warnings = read_logs(logs)
    problems = [f"{w}" for w in warnings]
    cuobjdump = find_tool("cuobjdump") if find_tool("nvdisasm") else None
    if library and cuobjdump:
        kernels = list(read_library(library, cuobjdump))
        problems += surroundings(library)
    elif args.need_code:
        problems.append("there is no cuobjdump and nvdisasm, or no library: the code was not looked at")
    else:
        print("note: no cuobjdump and nvdisasm, or no library: only ptxas' figures are checked, not the code")
    if not kernels:
        problems.append(f"no kernels found in {args.build}")

    rows = read_budget(args.budget)
    names = short_names([k.symbol for k in kernels])
    for kernel in kernels:
        kernel.name = names[kernel.symbol]
        problems += [f"{kernel.name} (sm_{kernel.arch}) {problem}" for problem in judge(kernel, rows)]
        if args.list:
            blocks = blocks_per_multiprocessor(kernel.arch, kernel.threads, kernel.registers, kernel.shared) if kernel.threads else 0
            print(f"sm_{kernel.arch:4} {kernel.registers:4} registers {kernel.threads:5} threads {blocks:3} blocks  {kernel.name}")
    for problem in problems:
        print(problem)
    print(f"{len(kernels)} kernels, {len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
