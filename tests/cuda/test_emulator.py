"""The CUDA emulator itself: every function of the device vocabulary against NumPy, and kernels with one seeded fault each, which must be
reported, beside their right twins, which must pass. Built by the C++ compiler from csrc/cuda/emu and tests/cuda/mutants, with and
without the check of every access."""

import concurrent.futures
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
EMULATOR = ROOT / "csrc" / "cuda" / "emu"
MUTANTS = Path(__file__).parent / "mutants"
COMPILER = os.environ.get("CXX") or shutil.which("g++")
SCHEDULES = ("index", "reverse", "random:1", "random:2", "random:3")

pytestmark = [
    pytest.mark.skipif(not COMPILER, reason="no C++ compiler"),
    pytest.mark.skipif(not EMULATOR.is_dir(), reason="no sources of the emulator beside the tests"),
]


def compile_all(folder: Path, check: bool, sanitize: tuple = ()) -> Path:
    """The emulator and all mutants as one shared library."""
    common = "-std=c++17 -O1 -g1 -fPIC -fvisibility=hidden -ffp-contract=fast -DFASTDL_EMULATE -Wall -Wextra -Wno-unknown-pragmas"
    flags = [*common.split(), f"-I{ROOT / 'csrc'}", *(sanitize or ["-Werror"])]
    if os.uname().machine == "x86_64":
        flags.append("-march=x86-64-v3")
    if check:
        flags.append("-DFASTDL_EMU_CHECK")
    sources = [s for s in EMULATOR.glob("*.cpp") if check or not s.name.startswith("checker")]
    sources += [*MUTANTS.glob("*.cpp"), *MUTANTS.glob("*.cu")]
    launcher = [shutil.which("ccache")] if shutil.which("ccache") else []

    def compile_one(source: Path) -> str:
        out = folder / f"{source.name}.o"
        own = ["-fsanitize=thread"] if check and source.suffix == ".cu" else []
        subprocess.run([*launcher, COMPILER, *flags, *own, "-x", "c++", "-c", source, "-o", out], check=True)
        return str(out)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    library = folder / f"libmutants{int(check)}.so"
    subprocess.run([COMPILER, "-shared", *sanitize, "-pthread", "-Wl,-z,now", "-o", library, *objects, "-ldl"], check=True)
    return library


class Emulator:
    """Launches by name on NumPy arrays: each is copied to the device and back."""

    def __init__(self, library: Path) -> None:
        self.lib = ctypes.CDLL(str(library))
        self.lib.device_malloc.restype = ctypes.c_void_p
        self.lib.device_malloc.argtypes = [ctypes.c_size_t]
        self.lib.device_free.argtypes = [ctypes.c_void_p]
        self.lib.copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self.lib.take_error.restype = self.lib.error_name.restype = ctypes.c_char_p

    def launch(self, name: str, *arguments, written: bool = True) -> str:
        """Returns the error's text, or "". written=False: the last array starts as fresh device memory."""
        pointers, arrays = [], [a for a in arguments if isinstance(a, np.ndarray)]
        call = []
        for a in arguments:
            if isinstance(a, np.ndarray):
                pointers.append(self.lib.device_malloc(a.nbytes))
                if written or a is not arrays[-1]:
                    assert self.lib.copy(pointers[-1], a.ctypes.data, a.nbytes, 1) == 0
                call.append(ctypes.c_void_p(pointers[-1]))
            else:
                call.append(ctypes.c_int(a))
        getattr(self.lib, name)(*call)
        error = (self.lib.take_error() or b"").decode()
        for a, p in zip(arrays, pointers):
            assert self.lib.copy(a.ctypes.data, p, a.nbytes, 2) == 0
            if self.lib.device_free(p):
                error += "\n" + self.lib.take_error().decode()
        return error.strip()

    def counts(self) -> list:
        size = self.lib.fastdl_emu_report(None, ctypes.c_size_t(0))
        text = ctypes.create_string_buffer(size + 1)
        self.lib.fastdl_emu_report(text, ctypes.c_size_t(size + 1))
        return json.loads(text.value)


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> Emulator:
    if built := os.environ.get("FASTDL_TEST_EMULATOR"):
        return Emulator(Path(built))
    return Emulator(compile_all(tmp_path_factory.mktemp("plain"), check=False))


@pytest.fixture(scope="session")
def checked(tmp_path_factory) -> Emulator:
    return Emulator(compile_all(tmp_path_factory.mktemp("checked"), check=True))


@pytest.fixture(params=["plain", "checked"])
def emulator(request) -> Emulator:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=[f"{s}, {a}" for s in SCHEDULES for a in ("immediate", "deferred")])
def mode(request, monkeypatch):
    """One order of threads and one time of asynchronous copies."""
    schedule, copies = request.param.split(", ")
    monkeypatch.setenv("FASTDL_EMU_SCHEDULE", schedule)
    monkeypatch.setenv("FASTDL_EMU_ASYNC", copies)
    return request.param


# ---- faults ----------------------------------------------------------------------------------------------------------------


def reverse(x):
    return x[::-1]


def reversed_rows(width):
    return lambda x: x.reshape(-1, width)[:, ::-1].sum(0)


# name: (elements, what out should be or None, what the report must say[, what the plain build must say])
FAULTS = {
    "missing_barrier": (64, reverse, "race: .*barriers.cu:"),
    "missing_second_barrier": (256, reversed_rows(64), "race: .* which thread .* read without a barrier between"),
    "returned_threads": (64, lambda x: np.append(x[31::-1], np.zeros(32, x.dtype)), "race: .*barriers.cu:"),
    "divergent_barrier": (64, lambda x: x, "reaches sync_block at .*barriers.cu:", "reaches sync_block at .*barriers.cu:"),
    "barrier_in_branch": (
        64,
        lambda x: x,
        "deadlock",
        r"deadlock in block .*\n.*sync_block, 32 of 64 .*\n.*sync_named\(3\), 32 of 64",
    ),
    "named_barrier": (
        64,
        reverse,
        "deadlock",
        r"deadlock in block .*\n  threads 0-63 wait in sync_named\(1\), 64 of 96 threads there, at ",
    ),
    "wrong_named_barrier": (128, lambda x: x.reshape(2, 64)[:, ::-1].ravel(), "race: "),
    "missing_warp_barrier": (64, lambda x: x.reshape(32, 2)[:, ::-1].ravel(), "race: "),
    "shuffle_is_no_barrier": (64, lambda x: x.reshape(32, 2)[:, ::-1].ravel(), "race: "),
    "missing_lane": (
        64,
        None,
        "deadlock",
        r"deadlock .*\n  threads 0-30, 32-62 wait in shuffle_down of lanes 0xffffffff, at .*barriers.cu:\d+",
    ),
    "mask_without_caller": (
        64,
        None,
        "which the mask 0xffff of its shuffle",
        "is lane 1[67], which the mask 0xffff of its shuffle|is lane ",
    ),
    "beyond_global": (
        100,
        lambda x: 2 * x,
        "out of bounds: .* writes 4 bytes at byte 400 of 400 .*memory.cu",
        "beside an allocation of 400 bytes",
    ),
    "before_global": (64, lambda x: np.roll(x, 1), "out of bounds: .* reads 4 bytes"),
    "beyond_shared": (
        64,
        lambda x: x,
        r"out of bounds: .* writes 4 bytes at shared memory \+ 256",
        "wrote 0 bytes behind its 256 bytes of shared",
    ),
    "misaligned_load": (60, lambda x: x, "16-byte load at .* not a multiple of 16", "16-byte load at .* not a multiple of 16"),
    "misaligned_store": (64, lambda x: x, "16-byte store at .* not a multiple of 16", "16-byte store at .* not a multiple of 16"),
    "uninitialised_shared": (64, None, "uninitialised: .* reads 4 bytes at shared memory"),
    "uninitialised_global": (64, lambda x: x, "uninitialised: .* of 256 of device memory"),
    "other_stack": (64, None, "local memory: .* belongs to another thread"),
    "global_variable": (64, lambda x: x, "cannot write global variables"),
    "block_writes": (256, lambda x: x, "race between blocks: .* writes 4 bytes"),
    "block_reads": (256, lambda x: x, "race between blocks: "),
    "atomic_sum": (64, None, "race: .* which thread .* (wrote|read) without a barrier"),
    "missing_wait": (128, reverse, "race: .* asynchronous copy is under way"),
    "missing_commit": (128, reverse, "race: .* asynchronous copy is under way"),
    "missing_barrier_after_wait": (128, reverse, "race: "),
    "wrong_wait_count": (512, reversed_rows(128), "race: .* asynchronous copy is under way"),
    "early_refill": (512, reversed_rows(128), "race: .* asynchronous copy is under way"),
    "misaligned_copy": (
        128,
        reverse,
        "copy_async from .*: the address is not a multiple of 16",
        "copy_async from .* is not a multiple of 16",
    ),
}


def run(emulator: Emulator, name: str, fault: bool):
    elements, expected, *_ = FAULTS[name]
    x = np.random.default_rng(1).standard_normal(elements).astype(np.float32)
    want = None if expected is None else expected(x)
    out = np.zeros_like(x if want is None else want)
    if name in ("misaligned_store", "missing_lane", "mask_without_caller"):
        out = np.zeros(64, np.float32)
    error = emulator.launch(name, int(fault), x, out, elements, written=name not in ("uninitialised_global", "block_reads"))
    return error, out, want


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_reported(checked: Emulator, name: str, mode) -> None:
    error, _, _ = run(checked, name, fault=True)
    assert error, "not noticed"
    assert re.search(FAULTS[name][2], error), error
    assert run(checked, name, fault=False)[0] == ""


@pytest.mark.parametrize("name", [n for n in FAULTS if len(FAULTS[n]) > 3])
def test_fault_is_reported_without_checker(plain: Emulator, name: str, mode) -> None:
    error, _, _ = run(plain, name, fault=True)
    assert re.search(FAULTS[name][3], error), error or "not noticed"


@pytest.mark.parametrize("name", FAULTS)
def test_right_twin(emulator: Emulator, name: str, mode) -> None:
    error, out, want = run(emulator, name, fault=False)
    assert error == ""
    if want is not None:
        np.testing.assert_allclose(out, want, rtol=1e-6)


@pytest.mark.parametrize("name", ["missing_wait", "missing_commit", "wrong_wait_count"])
def test_deferred_copies_show_a_missing_wait(plain: Emulator, name: str, monkeypatch) -> None:
    """Without the checker, by a wrong result: NaNs, or what was in the buffer before."""
    monkeypatch.setenv("FASTDL_EMU_ASYNC", "deferred")
    error, out, want = run(plain, name, fault=True)
    assert error == "" and not np.isclose(out, want).any()


def test_some_order_shows_a_missing_barrier(plain: Emulator, monkeypatch) -> None:
    wrong = []
    for schedule in SCHEDULES:
        monkeypatch.setenv("FASTDL_EMU_SCHEDULE", schedule)
        _, out, want = run(plain, "missing_second_barrier", fault=True)
        wrong.append(not np.allclose(out, want, rtol=1e-6))
    assert any(wrong)


def test_returned_lane_is_undefined(emulator: Emulator, mode) -> None:
    x, out = np.ones(64, np.float32), np.zeros(64, np.float32)
    assert emulator.launch("returned_lane", 1, x, out, 64) == ""
    assert np.isnan(out.reshape(2, 32)[:, :31]).all()
    assert emulator.launch("returned_lane", 0, x, out, 64) == "" and (out == 2).all()


def test_last_block(checked: Emulator, mode) -> None:
    """Fence and counter order what other blocks wrote; without the fence it is a race."""
    for fault in (0, 1):
        x, out = np.arange(256, dtype=np.float32), np.zeros(257, np.float32)
        error = checked.launch("last_block", fault, x, out, 256)
        assert bool(error) == bool(fault), error
        assert out[0] == x.sum()
    assert "race between blocks" in error


def test_host_pointer(checked: Emulator) -> None:
    x, out = np.ones(64, np.float32), np.zeros(64, np.float32)
    assert checked.launch("host_pointer", 0, x, out, 64) == ""
    checked.lib.host_pointer(0, ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(out.ctypes.data), 64)
    assert "host memory" in checked.lib.take_error().decode()
    checked.lib.host_pointer(0, None, None, 64)
    assert "not a device pointer" in checked.lib.take_error().decode()


def test_use_after_free(checked: Emulator) -> None:
    p = checked.lib.device_malloc(256)
    checked.lib.device_free(p)
    checked.lib.host_pointer(0, ctypes.c_void_p(p), ctypes.c_void_p(p), 64)
    assert "out of bounds" in checked.lib.take_error().decode()


def test_many_faults_leave_the_emulator_usable(checked: Emulator, plain: Emulator) -> None:
    for emulator in (checked, plain):
        for _ in range(5):
            for name in ("missing_lane", "named_barrier", "misaligned_load"):
                assert run(emulator, name, fault=True)[0]
                assert run(emulator, name, fault=False)[0] == ""


@pytest.mark.slow
def test_address_sanitizer_knows_the_fibers(tmp_path: Path) -> None:
    """The right twins and the vocabulary pass under AddressSanitizer and UBSan; a store beyond an allocation is caught in the act."""
    library = compile_all(tmp_path, check=False, sanitize=("-fsanitize=address,undefined", "-fno-omit-frame-pointer"))
    runtimes = [subprocess.check_output([COMPILER, f"-print-file-name=lib{n}.so"], text=True).strip() for n in ("asan", "ubsan")]
    if not all(map(os.path.isabs, runtimes)):
        pytest.skip("the compiler has no sanitizers")
    env = {
        **os.environ,
        "LD_PRELOAD": ":".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1",
        "FASTDL_TEST_EMULATOR": str(library),
    }
    command = [sys.executable, "-m", "pytest", __file__, "-x", "-p", "no:cacheprovider", "-k"]
    done = subprocess.run([*command, "plain"], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    done = subprocess.run([*command, "without_checker and beyond_global", "-s"], env=env, cwd=ROOT, capture_output=True, text=True)
    assert "use-after-poison" in done.stdout + done.stderr and "beyond_global_kernel" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("grid", "block", "shared", "ok"),
    [
        ((1, 1, 1), (1024, 1, 1), 232448, True),
        ((70000, 1, 1), (1, 1, 1), 0, True),
        ((0, 1, 1), (32, 1, 1), 0, False),
        ((1, 65536, 1), (1, 1, 1), 0, False),
        ((1, 1, 65536), (1, 1, 1), 0, False),
        ((1, 1, 1), (1025, 1, 1), 0, False),
        ((1, 1, 1), (32, 33, 1), 0, False),
        ((1, 1, 1), (1, 1, 65), 0, False),
        ((1, 1, 1), (0, 1, 1), 0, False),
        ((1, 1, 1), (32, 1, 1), 232449, False),
    ],
)
def test_launch_limits(plain: Emulator, grid, block, shared, ok) -> None:
    three = ctypes.c_uint * 3
    plain.lib.launch(three(*grid), three(*block), ctypes.c_size_t(shared))
    assert plain.lib.error_name() == (b"cudaSuccess" if ok else b"cudaErrorInvalidConfiguration")
    error = plain.lib.take_error()
    assert ok or b"invalid launch configuration" in error
    assert plain.lib.take_error() is None


# ---- traffic ---------------------------------------------------------------------------------------------------------------


def counted(emulator: Emulator, name: str, fault: bool, elements: int) -> list:
    emulator.lib.fastdl_emu_count(1)
    assert emulator.launch(name, int(fault), np.zeros(elements, np.float32), np.zeros(elements, np.float32), elements) == ""
    rows = emulator.counts()
    emulator.lib.fastdl_emu_count(0)
    assert rows and all("traffic.cu:" in r["place"] and r["kernel"] == f"{name}_kernel<{str(fault).lower()}>" for r in rows)
    return rows


@pytest.mark.parametrize(
    ("name", "elements", "space", "access", "worst"),
    [
        ("bank_conflict", 1024, "shared", "load", 32),
        ("wide_bank_conflict", 1024, "shared", "load", 8),
        ("uncoalesced", 1024, "global", "load", 8),
    ],
)
def test_traffic(checked: Emulator, name: str, elements: int, space: str, access: str, worst: int) -> None:
    """`worst`: how many times the least sectors or wavefronts."""
    for fault in (False, True):
        for r in counted(checked, name, fault, elements):
            cost = (r["sectors"] if r["space"] == "global" else r["wavefronts"]) / r["ideal"]
            bad = fault and (r["space"], r["access"]) == (space, access)
            assert cost == (worst if bad else 1), r


# ---- the vocabulary against NumPy ---------------------------------------------------------------------------------------------


def bf16_bits(x: np.ndarray) -> np.ndarray:
    """float64 to bfloat16, to nearest, ties to even, by comparing the distances to both neighbours."""
    with np.errstate(over="ignore", invalid="ignore"):
        near = x.astype(np.float32)
        too_far = np.abs(near.astype(np.float64)) > np.abs(x)
        near = np.where(too_far, np.nextafter(near, np.float32(0)), near)  # towards zero
    low = near.view(np.uint32) >> 16
    high = low + 1
    values = [np.left_shift(b.astype(np.uint32), 16).view(np.float32).astype(np.float64) for b in (low, high)]
    values[1] = np.where(np.isinf(values[1]), np.sign(values[0]) * 2.0**128, values[1])
    below, above = np.abs(x - values[0]), np.abs(values[1] - x)
    bits = np.where((below < above) | ((below == above) & (low % 2 == 0)), low, high)
    bits = np.where(np.isinf(x), np.where(x > 0, 0x7F80, 0xFF80), bits)
    return np.where(np.isnan(x), 0x7FFF, bits).astype(np.uint16)


def f16_bits(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.where(np.isnan(x), 0x7FFF, x.astype(np.float16).view(np.uint16)).astype(np.uint16)


def test_widen_all_patterns(emulator: Emulator) -> None:
    out = [np.zeros(65536, np.float32) for _ in range(2)]
    assert emulator.launch("widen_all", *out) == ""
    bits = np.arange(65536).astype(np.uint16)
    np.testing.assert_array_equal(out[0], bits.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(out[1], (bits.astype(np.uint32) << 16).view(np.float32))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_narrow(emulator: Emulator, dtype) -> None:
    """All 16-bit values, the middles between neighbours, what lies just beside them, and random bit patterns."""
    bits = np.arange(65536).astype(np.uint16)
    with np.errstate(invalid="ignore", over="ignore"):
        values = [v.astype(dtype) for v in (bits.view(np.float16), (bits.astype(np.uint32) << 16).view(np.float32))]
        x = []
        for v in values:
            middle = ((v[:-1].astype(np.float64) + v[1:]) / 2).astype(dtype)
            x += [v, middle, np.nextafter(middle, dtype(np.inf)), np.nextafter(middle, dtype(-np.inf))]
    integers = np.random.default_rng(2).integers(0, 2**64, 20000, dtype=np.uint64)
    random = integers.view(np.float64) if dtype is np.float64 else integers.astype(np.uint32).view(np.float32)
    x = np.concatenate([*x, random, np.array([0.0, -0.0, np.inf, -np.inf, 65519.99, 65520, 1e39, 5e-324, -1e-300, 1e-45], dtype)])
    half, brain = np.zeros(x.size, np.uint16), np.zeros(x.size, np.uint16)
    assert emulator.launch("narrow_float" if dtype is np.float32 else "narrow_double", x, half, brain, x.size) == ""
    np.testing.assert_array_equal(half, f16_bits(x))
    np.testing.assert_array_equal(brain, bf16_bits(x.astype(np.float64)))


def rounded_tf32(x: np.ndarray) -> np.ndarray:
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def test_round_tf32(emulator: Emulator) -> None:
    x = np.random.default_rng(3).standard_normal(5000).astype(np.float32)
    x[:3] = 1 + 2.0**-11, -1 - 2.0**-11, 1 + 2.0**-11 - 2.0**-23  # ties go away from zero
    out = np.zeros(x.size, np.uint32)
    assert emulator.launch("tf32", x, out, x.size) == ""
    np.testing.assert_array_equal(out.view(np.float32), rounded_tf32(x))
    assert tuple(out.view(np.float32)[:3]) == (1 + 2.0**-10, -1 - 2.0**-10, 1.0)


@pytest.mark.parametrize("operand", [0, 1, 5, 16, 31])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shuffle(emulator: Emulator, dtype, operand: int, mode) -> None:
    x = np.random.default_rng(4).standard_normal(64).astype(dtype)
    out = np.zeros(256, dtype)
    assert emulator.launch("shuffle_4" if dtype is np.float32 else "shuffle_8", x, out, operand) == ""
    lane, warp = np.arange(64) % 32, np.arange(64) // 32 * 32
    down = np.where(lane + operand < 32, lane + operand, lane)
    up = np.where(lane >= operand, lane - operand, lane)
    want = [x[warp + (lane ^ operand)], x[warp + down], x[warp + up], x[warp + operand]]
    np.testing.assert_array_equal(out, np.concatenate(want))


def test_lanes_under_masks(emulator: Emulator, mode) -> None:
    x = np.random.default_rng(5).integers(-99, 99, 64).astype(np.int32)
    out = np.zeros(40, np.int32)
    assert emulator.launch("masked", x[:40].copy(), out) == ""
    want = [x[:16].sum()] * 16 + [x[16:32].sum()] * 16 + [x[32:40].sum()] * 8
    np.testing.assert_array_equal(out, want)

    out = np.zeros(128, np.uint32)
    assert emulator.launch("bits", x, out) == ""
    for w in range(2):
        votes = sum(1 << i for i in range(32) if x[w * 32 + i] > 0)
        first = next(i for i in range(32) if x[w * 32 + i] > 0) + 1
        assert (out[w * 32 : w * 32 + 32] == votes).all()
        assert (out[64 + w * 32 : 96 + w * 32] == bin(votes).count("1") + 100 * first).all()


def test_indices(emulator: Emulator, mode) -> None:
    out = np.zeros((30, 24), np.int32)
    assert emulator.launch("indices", out) == ""
    np.testing.assert_array_equal(out, np.arange(30)[:, None] * 1000 + np.arange(24))


def test_atomics(emulator: Emulator, mode) -> None:
    struct = np.dtype(
        [("i", "i4"), ("u", "u4"), ("q", "u8"), ("f", "f4"), ("d", "f8"), ("most", "i4"), ("claimed", "i4")], align=True
    )
    a, order = np.zeros(1, struct), np.zeros(97, np.int32)
    assert emulator.launch("atomics", a, order) == ""
    total = 96 * 95 // 2
    assert a[0].item() == (-total, total, total << 32, 48.0, 24.0, 95, 96)
    assert sorted(order[:96]) == list(range(96)) and 0 <= order[96] < 96


def test_named_barriers(emulator: Emulator, mode) -> None:
    out = np.zeros(128, np.int32)
    assert emulator.launch("named", out, 5) == ""
    np.testing.assert_array_equal(out, (np.arange(128) ^ 32) + 5)


def test_copies(emulator: Emulator, mode) -> None:
    x = np.random.default_rng(6).integers(1, 255, 17 * 16).astype(np.uint8)
    out = np.zeros(17 * 16 + 128, np.uint8)
    assert emulator.launch("copies", x, out) == ""
    rows = x.reshape(17, 16) * (np.arange(16) < np.arange(17)[:, None])
    words = x[:128].reshape(32, 4) * (np.arange(32) % 2 == 0)[:, None]
    np.testing.assert_array_equal(out, np.concatenate([rows.ravel(), words.ravel()]))


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_mma_16_bit(emulator: Emulator, kind: str, mode) -> None:
    rng = np.random.default_rng(7)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 16), (8, 16)))
    if kind == "f16":
        bits = [x.astype(np.float16).view(np.uint16) for x in (a, b)]
        a, b = (x.view(np.float16).astype(np.float64) for x in bits)
    else:
        bits = [bf16_bits(x.astype(np.float64)) for x in (a, b)]
        a, b = ((x.astype(np.uint32) << 16).view(np.float32).astype(np.float64) for x in bits)
    c = rng.standard_normal((3, 16, 8)).astype(np.float32)
    want = c[0] + a @ b.T
    assert emulator.launch(f"mma_{kind}", bits[0], bits[1], c) == ""
    np.testing.assert_allclose(c[1], want, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(c[2], c[1])


def test_mma_tf32(emulator: Emulator, mode) -> None:
    rng = np.random.default_rng(8)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 8), (8, 8)))
    c = np.zeros((2, 16, 8), np.float32)
    assert emulator.launch("mma_tf32", a, b, c) == ""
    cut = [(x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64) for x in (a, b)]
    np.testing.assert_allclose(c[0], cut[0] @ cut[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(c[1], rounded_tf32(a).astype(np.float64) @ rounded_tf32(b), rtol=1e-5, atol=1e-6)
