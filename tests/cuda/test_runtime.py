"""Devices, streams, events, copies and the caching allocator, on a GPU or the emulator (FASTDL_CUDA_LIBRARY)."""

import itertools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastdl as fd
from fastdl import cuda

needs_device = pytest.mark.skipif(not cuda.is_available(), reason="no CUDA device, real or emulated")


@pytest.fixture
def quiet():
    """No idle blocks and no limit before and after."""
    cuda.empty_cache(0)
    yield
    cuda.set_memory_limit(0, 0)
    cuda.empty_cache(0)


def test_without_device(tmp_path):
    """Every entry says what is missing; nothing but that fails."""
    text = (
        "import fastdl as fd; assert not fd.cuda.is_available() and fd.cuda.device_count() == 0; fd.cuda.empty_cache()\n"
        "for f in (fd.cuda.synchronize, fd.cuda.Stream, fd.cuda.memory_allocated, lambda: fd.ones(2, device='cuda')):\n"
        "  try: f()\n"
        "  except fd.DeviceError as e: assert 'CUDA' in str(e), e\n"
        "  else: raise SystemExit(f'{f} worked')\n"
    )
    env = {**os.environ, "FASTDL_CUDA_LIBRARY": str(tmp_path / "none.so"), "PYTHONPATH": os.pathsep.join(sys.path)}
    env.pop("FASTDL_DEVICE", None)
    subprocess.run([sys.executable, "-c", text], env=env, check=True)


@needs_device
def test_properties():
    p = cuda.get_device_properties(0)
    assert p.name == cuda.get_device_name("cuda:0") and (p.major, p.minor) == cuda.get_device_capability()
    assert p.multi_processor_count > 0 and p.total_memory > 0
    free, total = cuda.mem_get_info()
    assert 0 < free <= total
    with pytest.raises(fd.DeviceError, match=f"cuda:{cuda.device_count()} does not exist"):
        cuda.get_device_name(cuda.device_count())
    with pytest.raises(fd.DeviceError):
        cuda.get_device_name(-1)


@needs_device
def test_allocator_reuses(quiet):
    """A freed block is handed out again; neighbours grow together, so that the cache is given back whole."""
    cuda.synchronize()
    fd.zeros(1, device="cuda")  # blocks that waited for other libraries' streams are taken back
    held = cuda.memory_allocated()
    a = [fd.zeros(n, device="cuda") for n in (1, 1000, 5000, 200_000, 3_000_000, 700_000)]
    in_use = cuda.memory_allocated() - held
    assert in_use >= sum(t.nbytes for t in a) and cuda.memory_reserved() >= in_use
    address = a[3].data_ptr()
    hits = cuda.memory_stats()["hits"]
    a[3] = None
    a[3] = fd.zeros(200_000, device="cuda")
    assert a[3].data_ptr() == address
    assert cuda.memory_stats()["hits"] > hits
    rng = np.random.default_rng(0)
    for _ in range(300):
        k = int(rng.integers(6))
        a[k] = None
        a[k] = fd.zeros(int(rng.integers(1, 600_000)), device="cuda")
    a.clear()
    assert cuda.memory_allocated() == held
    cuda.empty_cache()
    assert cuda.memory_reserved() <= held + (4 << 20)  # segments that other tensors live in


@needs_device
def test_blocks_do_not_overlap(quiet):
    rng = np.random.default_rng(1)
    live = {}
    for i in range(200):
        live[i] = fd.full(int(rng.integers(1, 300_000)), float(i), device="cuda")
        for k in [k for k in live if rng.random() < 0.2]:
            t = live.pop(k)
            assert (t.cpu().numpy() == k).all()
    spans = sorted((t.__cuda_array_interface__["data"][0], t.nbytes) for t in live.values())
    assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(spans))
    assert all(a % 512 == 0 for a, _ in spans)


@needs_device
def test_limit_and_peak(quiet):
    base = cuda.memory_reserved()
    cuda.set_memory_limit(base + (8 << 20))
    a = fd.zeros(1 << 20, device="cuda")
    with pytest.raises(fd.OutOfMemoryError, match=r"cuda:0: cannot allocate 16.00 MB: tensors hold"):
        fd.zeros(1 << 22, device="cuda")
    del a
    fd.zeros(3 << 19, device="cuda")  # fits only if the idle 4 MB go back first
    cuda.set_memory_limit(0)
    cuda.reset_peak_memory_stats()
    peak = cuda.max_memory_allocated()
    fd.zeros(1 << 20, device="cuda")
    assert cuda.max_memory_allocated() >= peak + (4 << 20)
    with pytest.raises(fd.OutOfMemoryError):
        fd.zeros(1 << 50, device="cuda")
    with pytest.raises(ValueError):
        cuda.set_memory_limit(-1)


@needs_device
@pytest.mark.parametrize("n", [0, 1, 3, 65_535, 524_288, 2_500_001])
def test_copies(n):
    """Host memory may change right after a copy from it, also when it takes many pieces of the staging ring."""
    x = np.random.default_rng(n).random(n)
    kept = x.copy()
    tensors = []
    for _ in range(3):
        tensors.append(fd.array(x, device="cuda"))
        x *= 2
    for i, t in enumerate(tensors):
        assert (t.cpu().numpy() == kept * 2**i).all()


@needs_device
def test_streams_and_events():
    s = cuda.Stream()
    before = cuda.current_stream()
    assert before == cuda.default_stream() and before != s
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    with cuda.stream(s):
        assert cuda.current_stream() == s
        start.record()
        t = fd.full(5000, 3.0, device="cuda")
        end.record()
    assert cuda.current_stream() == before
    before.wait_stream(s)
    s.record(t)
    assert (t.cpu().numpy() == 3).all()
    s.synchronize()
    assert s.query() and end.query()
    assert start.elapsed_time(end) >= 0
    with pytest.raises(ValueError, match="enable_timing"):
        start.elapsed_time(cuda.Event())
    done = s.record_event()
    done.wait()
    done.synchronize()
    handle = s.cuda_stream
    del s
    assert cuda.Stream().cuda_stream == handle  # handles are used again

    seen = []
    with cuda.stream(cuda.Stream()):
        threading.Thread(target=lambda: seen.append(cuda.current_stream())).start()
        [t.join() for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    assert seen == [before]  # each thread has its own


@needs_device
def test_memory_of_other_streams():
    """A block that another stream uses comes back later, and not to nobody."""
    held = cuda.memory_allocated()
    s = cuda.Stream()
    for _ in range(20):
        t = fd.zeros(100_000, device="cuda")
        s.record(t)
        del t
    s.synchronize()
    fd.zeros(1, device="cuda")
    assert cuda.memory_allocated() == held


@needs_device
def test_threads():
    def work(i):
        for k in range(100):
            t = fd.full(100 + 37 * k, float(i), device=f"cuda:{k % cuda.device_count()}")
            if k % 10 == 0 and not (t.cpu().numpy() == i).all():
                wrong.append((i, k))

    wrong = []
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@needs_device
@pytest.mark.skipif(cuda.device_count() < 2, reason="one device")
def test_between_devices():
    x = fd.arange(10_000, device="cuda:0")
    y = x.to("cuda:1")
    assert y.device.index == 1 and (y.cpu().numpy() == np.arange(10_000)).all()
    with pytest.raises(fd.DeviceError):
        x + y


@needs_device
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork():
    """A child made after CUDA was used gets an error, not a hang or a crash."""
    text = (
        "import os, fastdl as fd\n"
        "t = fd.ones(1000, device='cuda')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "  try: fd.ones(3, device='cuda')\n"
        "  except fd.DeviceError as e:\n"
        "    del t\n"
        "    os._exit(0 if 'fork' in str(e) and not fd.cuda.is_available() else 2)\n"
        "  os._exit(1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert t.cpu().numpy().sum() == 1000\n"
    )
    subprocess.run([sys.executable, "-c", text], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=True, timeout=60)


@needs_device
def test_exit_with_live_tensors():
    """Tensors, streams and events that live until the interpreter goes do no harm."""
    text = (
        "import fastdl as fd, builtins\n"
        "builtins.keep = [fd.ones(1000, device='cuda'), fd.cuda.Stream(), fd.cuda.current_stream().record_event()]\n"
        "builtins.keep[1].record(builtins.keep[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
