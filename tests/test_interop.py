"""Memory shared with NumPy and others: the buffer protocol, DLPack, NumPy's functions on tensors that carry gradients."""

import ctypes
import gc
import hashlib
import weakref

import numpy as np
import pytest

import fastdl as fd

DTYPES = [
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
]


def sample(dtype, shape=(3, 4)):
    return (np.arange(np.prod(shape)).reshape(shape) % 7).astype(dtype)


# ---- NumPy, zero copy --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_shares_memory_both_ways(dtype):
    a = sample(dtype)
    t = fd.asarray(a)
    assert t.dtype == dtype and t.shape == a.shape and t.data_ptr() == a.ctypes.data and t.strides == a.strides
    b = t.numpy()
    assert b.dtype == a.dtype and np.shares_memory(a, b) and b.flags.writeable
    t[0, 1] = 1
    assert a[0, 1] == 1
    a[2, 3] = 0
    assert t[2, 3].item() == 0
    for view in (a.T, a[::-1], a[:, ::2], a[1:1], a[1, 2:3], np.broadcast_to(a[0], (5, 4))):
        u = fd.asarray(view)
        np.testing.assert_array_equal(u.numpy(), view)
        assert np.shares_memory(u.numpy(), a) == bool(view.size and view.flags.writeable)


def test_zero_dimensions_and_empty():
    for a in (np.array(3.0), np.zeros((0, 3)), np.zeros((2, 0, 4), "int8")):
        t = fd.asarray(a)
        assert t.shape == a.shape and t.numpy().shape == a.shape and t.numpy().dtype == a.dtype


def test_lifetimes():
    a = np.arange(1000.0)
    ref = weakref.ref(a)
    t = fd.asarray(a)[10:]
    del a
    gc.collect()
    assert ref() is not None and t[0].item() == 10
    del t
    assert ref() is None
    t = fd.arange(1000.0)
    b = t.numpy()[5:]
    del t
    junk = [fd.zeros(1000) for _ in range(20)]
    assert b[0] == 5 and len(junk) == 20


def test_an_export_survives_new_memory_in_the_tensor():
    layer = fd.nn.BatchNorm1d(1000)
    view = layer.running_mean.numpy()
    buffer = memoryview(layer.running_var)
    layer.load_state_dict({k: fd.ones(v.shape) * 3 if v.dtype == "float32" else v for k, v in layer.state_dict().items()})
    t = fd.zeros(1000)
    a, m = t.numpy(), memoryview(t)
    fd._C.set_data(t, fd.ones(1000))
    junk = [fd.ones(1000) * 7 for _ in range(50)]
    assert (a == 0).all() and m[0] == 0 and len(junk) == 50
    assert view.shape == (1000,) and len(buffer) == 1000


def test_read_only_arrays_are_copied():
    a = np.arange(4.0)
    a.flags.writeable = False
    t = fd.asarray(a)
    t[0] = 9
    assert a[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        fd.asarray(a, copy=False)
    t = fd.from_numpy(np.broadcast_to(np.float32(2), (3,)))
    t += 1
    assert t.tolist() == [3, 3, 3]


def test_foreign_byte_order_and_alignment():
    a = np.arange(5, dtype=">f4")
    assert fd.asarray(a).tolist() == [0, 1, 2, 3, 4] and fd.array(a.astype(">i8")).dtype == "int64"
    raw = np.zeros(64, "u1")
    odd = raw[1:33].view("f8")
    odd[:] = [1, 2, 3, 4]
    t = fd.asarray(odd)
    assert t.tolist() == [1, 2, 3, 4] and t.data_ptr() % 8 == 0
    packed = np.zeros(3, dtype=[("a", "u1"), ("b", "f4")])
    packed["b"] = [1, 2, 3]
    assert fd.asarray(packed["b"]).tolist() == [1, 2, 3]
    scalar = raw[3:7].view("f4")[0:1].reshape(())
    assert fd.asarray(scalar).shape == ()
    half = np.zeros(40, "u1")[8:24].view("c16") if raw.ctypes.data % 16 == 0 else raw[:16].view("c16")
    assert fd.asarray(half).dtype == "complex128"


@pytest.mark.parametrize(
    "a",
    [
        np.zeros(2, dtype=[("x", "f4")]),
        np.array([object()]),
        np.array(["a"]),
        np.array([b"a"]),
        np.zeros(2, "M8[s]"),
        np.zeros(2, "m8[s]"),
        np.zeros(2, "longdouble"),
        np.zeros(2, "V4"),
    ],
    ids=lambda a: str(a.dtype),
)
def test_other_dtypes_are_refused(a):
    for make in (fd.asarray, fd.array, fd.from_numpy):
        with pytest.raises(TypeError, match=r"dtype|numbers"):
            make(a)
    with pytest.raises(TypeError):
        fd.ones(2) + a


def test_too_many_dimensions_are_refused():
    with pytest.raises(fd.ShapeError, match="8"):
        fd.asarray(np.zeros((1,) * 9))
    with pytest.raises(fd.ShapeError, match="8"):
        fd.from_numpy(np.zeros((1,) * 12))


def test_numpy_refuses_gradients():
    t = fd.ones(3, requires_grad=True)
    for lose in (
        t.numpy,
        lambda: np.asarray(t),
        lambda: np.array(t),
        lambda: np.asarray(t * 2),
        lambda: memoryview(t),
        lambda: np.from_dlpack(t),
    ):
        with pytest.raises((fd.GradError, BufferError)):
            lose()
    assert np.asarray(t.detach()).tolist() == [1, 1, 1]


def test_array_arguments():
    t = fd.arange(3.0)
    assert np.asarray(t, dtype="float64").dtype == "float64" and not np.shares_memory(np.array(t), t.numpy())
    assert np.shares_memory(np.asarray(t), t.numpy())
    with pytest.raises(ValueError):
        t.__array__("float64", copy=False)
    assert np.asarray(fd.array([1.5], dtype="bfloat16"), dtype="float32").tolist() == [1.5]


# ---- the buffer protocol -------------------------------------------------------------------------------------------------
class PyBuffer(ctypes.Structure):
    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


SIMPLE, WRITABLE, FORMAT, ND, STRIDES = 0, 1, 4, 8, 0x18
C, F, ANY = 0x20 | STRIDES, 0x40 | STRIDES, 0x80 | STRIDES


def get_buffer(o, flags):
    b = PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer.argtypes = [ctypes.py_object, ctypes.POINTER(PyBuffer), ctypes.c_int]
    ctypes.pythonapi.PyObject_GetBuffer(o, ctypes.byref(b), flags)
    got = (bool(b.shape), bool(b.strides), b.format, b.len, b.itemsize, b.ndim)
    ctypes.pythonapi.PyBuffer_Release.argtypes = [ctypes.POINTER(PyBuffer)]
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(b))
    return got


def test_buffer_flags():
    t = fd.arange(12.0).reshape(3, 4)
    assert get_buffer(t, SIMPLE) == (False, False, None, 48, 4, 2)
    assert get_buffer(t, ND) == (True, False, None, 48, 4, 2)
    assert get_buffer(t, STRIDES | FORMAT | WRITABLE) == (True, True, b"f", 48, 4, 2)
    for flags in (C, ANY):
        get_buffer(t, flags)
        if flags == C:
            with pytest.raises(BufferError):
                get_buffer(t.T, flags)
    get_buffer(t.T, F)
    get_buffer(t.T, ANY)
    with pytest.raises(BufferError):
        get_buffer(t, F)
    for view in (t[:, ::2], t[::-1], fd.broadcast_to(fd.zeros(1), (1000000,))):
        get_buffer(view, STRIDES)
        for flags in (SIMPLE, ND, C, F, ANY, WRITABLE):
            with pytest.raises(BufferError):
                get_buffer(view, flags)


def test_buffer_consumers():
    t = fd.arange(6.0).reshape(2, 3)
    assert bytes(t) == t.numpy().tobytes() and bytes(t.T) == t.numpy().T.tobytes()
    assert hashlib.sha1(t.reshape(-1)).digest() == hashlib.sha1(t.numpy()).digest()
    with pytest.raises((BufferError, ValueError)):
        hashlib.sha1(fd.broadcast_to(fd.zeros(1), (1 << 24,)))
    m = memoryview(t)
    assert m.format == "f" and m.shape == (2, 3) and m.strides == (12, 4) and not m.readonly
    m[1, 2] = 9
    assert t[1, 2].item() == 9
    with pytest.raises(BufferError, match="bfloat16"):
        memoryview(fd.zeros(2, dtype="bfloat16"))
    import array

    a = array.array("d", [1, 2, 3])
    u = fd.asarray(memoryview(a))
    u[0] = 7
    assert a[0] == 7 and u.dtype == "float64"
    with pytest.raises(BufferError):
        a.append(1)  # exported
    del u
    gc.collect()
    a.append(1)
    assert fd.asarray(bytearray(b"ab")).tolist() == [97, 98] and fd.asarray(memoryview(b"ab")).tolist() == [97, 98]


# ---- DLPack --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES)
def test_dlpack_with_numpy(dtype):
    a = sample(dtype)
    t = fd.from_dlpack(a)
    assert t.dtype == dtype and t.data_ptr() == a.ctypes.data
    b = np.from_dlpack(t.T)
    assert np.shares_memory(a, b) and b.shape == (4, 3)
    np.testing.assert_array_equal(b, a.T)


def test_dlpack_lifetime_and_capsules():
    t = fd.arange(1000.0)
    c = t.__dlpack__()
    before = fd.memory.stats()["in_use"]
    del t
    gc.collect()
    assert fd.memory.stats()["in_use"] == before
    u = fd._C.from_dlpack(c)
    assert u[7].item() == 7
    for _ in range(2):
        with pytest.raises(ValueError, match="unconsumed"):
            fd._C.from_dlpack(c)
    del c
    assert u[8].item() == 8
    del u
    gc.collect()
    small = fd.memory.stats()["in_use"]
    assert small < before
    for versioned in (False, True):  # never consumed
        for _ in range(100):
            fd._C.to_dlpack(fd.zeros(1000), versioned)
    assert fd.memory.stats()["in_use"] <= small
    for version in ((1, 0), (1, 3), (0, 8), None):
        assert ("versioned" in repr(fd.zeros(2).__dlpack__(max_version=version))) == (version is not None and version[0] == 1)
    with pytest.raises(fd.DeviceError):
        fd.zeros(1).__dlpack__(dl_device=(2, 0))
    with pytest.raises(fd.DeviceError):
        fd.zeros(1).__dlpack__(stream=1)
    with pytest.raises((TypeError, ValueError)):
        fd._C.from_dlpack(object())
    with pytest.raises(TypeError, match="__dlpack__"):
        fd.from_dlpack([1, 2])


def test_dlpack_read_only_is_copied():
    a = np.arange(4.0)
    a.flags.writeable = False
    t = fd.from_dlpack(a)
    t[0] = 5
    assert a[0] == 0


def test_dlpack_with_torch():
    torch = pytest.importorskip("torch")
    for dtype in ("float32", "float16", "bfloat16", "int64", "uint8", "bool", "complex64"):
        p = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
        t = fd.from_dlpack(p)
        assert t.dtype == dtype and t.data_ptr() == p.data_ptr()
        q = torch.from_dlpack(t.T)
        assert q.data_ptr() == p.data_ptr() and torch.equal(q, p.T)
        del p, t
        gc.collect()
        assert q.shape == (3, 2)
    assert fd.asarray(torch.arange(3.0)).tolist() == [0, 1, 2]
    assert torch.as_tensor(fd.arange(3.0).numpy()).tolist() == [0, 1, 2]


# ---- NumPy's functions on tensors ------------------------------------------------------------------------------------------
A = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
FUNCTIONS = {
    "exp": np.exp,
    "array * t": lambda t: np.ones(3) * t,
    "array - t": lambda t: A - t,
    "scalar / t": lambda t: np.float64(2) / t,
    "t ** array": lambda t: t ** np.full(3, 2.0),
    "array @ t": lambda t: np.ones((4, 2)) @ t,
    "mean": lambda t: np.mean(t, axis=0),
    "sum": np.sum,
    "sum keepdims": lambda t: np.sum(t, axis=1, keepdims=True),
    "var": lambda t: np.var(t, axis=0, ddof=1),
    "std": np.std,
    "concatenate": lambda t: np.concatenate([t, t * 2], axis=1),
    "concatenate with an array": lambda t: np.concatenate([A, t]),
    "stack": lambda t: np.stack([t, t]),
    "where": lambda t: np.where(A > 2, t, 0.0),
    "add.reduce": np.add.reduce,
    "maximum.reduce": lambda t: np.maximum.reduce(t, axis=1),
    "add.accumulate": np.add.accumulate,
    "cumsum": np.cumsum,
    "cumsum axis": lambda t: np.cumsum(t, axis=1),
    "cumprod": lambda t: np.cumprod(t, 0),
    "take": lambda t: np.take(t, [0, 4, 1]),
    "take axis": lambda t: np.take(t, [1, 1], axis=0),
    "diagonal": lambda t: np.diagonal(np.reshape(np.concatenate([t, t]), (2, 2, 3))),
    "trace": lambda t: np.trace(np.reshape(np.concatenate([t, t]), (2, 2, 3))),
    "pad": lambda t: np.pad(t, ((1, 0), (0, 2))),
    "pad one": lambda t: np.pad(t, 1),
    "transpose": np.transpose,
    "reshape": lambda t: np.reshape(t, (3, 2)),
    "clip": lambda t: np.clip(t, 2, 5),
    "dot": lambda t: np.dot(t, A.T),
    "tensordot": lambda t: np.tensordot(t, A, 2),
    "einsum": lambda t: np.einsum("ij,kj->ik", t, A),
    "squeeze": lambda t: np.squeeze(np.expand_dims(t, 0)),
    "roll": lambda t: np.roll(t, 1, axis=1),
    "flip": lambda t: np.flip(t, 0),
    "repeat": lambda t: np.repeat(t, 2, axis=0),
    "tile": lambda t: np.tile(t, (2, 1)),
    "outer": lambda t: np.outer(t, A),
    "max": lambda t: np.max(t, axis=1),
    "prod": np.prod,
    "swapaxes": lambda t: np.swapaxes(t, 0, 1),
    "moveaxis": lambda t: np.moveaxis(t, 0, 1),
    "hypot or not": lambda t: np.maximum(t, A),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpy_functions_keep_gradients(name):
    f = FUNCTIONS[name]
    want = f(A)
    t = fd.array(A, requires_grad=True)
    y = f(t)
    assert isinstance(y, fd.Tensor) and y.requires_grad
    assert y.shape == want.shape
    np.testing.assert_allclose(y.detach().numpy(), want, rtol=1e-12)
    weights = np.random.default_rng(0).standard_normal(want.shape)
    y.backward(fd.array(weights))
    numeric = np.zeros_like(A)
    for k in np.ndindex(A.shape):
        d = np.zeros_like(A)
        d[k] = 1e-6
        numeric[k] = ((f(A + d) - f(A - d)) * weights).sum() / 2e-6
    if name not in ("clip", "hypot or not"):  # kinks at the sample points
        np.testing.assert_allclose(t.grad.numpy(), numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda t: np.fft.fft(t), "fft"),
        (lambda t: np.divmod(t, 2), "divmod"),
        (lambda t: np.add.at(t, [0], 1), "add.at"),
        (lambda t: np.add(t, 1, where=np.array([True])), "where"),
        (lambda t: np.add.reduce(t, initial=5.0), "initial"),
        (lambda t: np.subtract.outer(t, t), "subtract.outer"),
        (lambda t: np.exp(t, dtype="float32"), "dtype"),
        (lambda t: np.apply_along_axis(np.sum, 0, t), "apply_along_axis"),
        (lambda t: np.interp(t, [0, 1], [0, 1]), "interp"),
        (lambda t: np.pad(t, 1, mode="edge"), "pad"),
        (lambda t: np.frexp(t), "frexp"),
        (lambda t: np.piecewise(t, [t > 0], [1]), "piecewise"),
        (lambda t: np.sum(t, initial=3.0), "initial|argument"),
        (lambda t: np.mean(t, where=np.array([True])), "where|argument"),
    ],
)
def test_numpy_functions_without_a_counterpart_are_errors(call, name):
    with pytest.raises((TypeError, fd.GradError), match=name):
        call(fd.array(A, requires_grad=True))


def test_out_arguments():
    t = fd.array(A)
    out = np.zeros_like(A)
    assert np.add(t, 1, out=out) is out and (out == A + 1).all()
    a = A.copy()
    a += t
    assert (a == 2 * A).all()
    target = fd.zeros((2, 3), dtype="float64")
    assert np.multiply(t, 2, out=target) is target and target.tolist() == (2 * A).tolist()
    x = fd.array(A, requires_grad=True)
    with pytest.raises(fd.GradError):
        np.add(x, 1, out=out)
    with pytest.raises(fd.GradError):
        np.add(t, 1, out=x)
    with pytest.raises(fd.GradError):
        a += x
    with pytest.raises(fd.GradError):
        np.add(x, 1, out=target)


def test_numpy_scalars_and_reflected_operands():
    t = fd.array([1.0, 2.0])
    assert (
        (np.float32(2) * t).dtype == "float32" and (np.float64(2) * t).dtype == "float64" and (t * np.float64(2)).dtype == "float64"
    )
    assert isinstance(np.array([1.0, 2.0]) == t, fd.Tensor) and bool((np.array([1.0, 2.0]) == t).all())
    assert isinstance(np.float64(1) < t, fd.Tensor)
