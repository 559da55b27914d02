"""fd.Tensor as a Python object and as NumPy's array: operators, promotion, conversions, protocols, views, creation, dtypes."""

import copy
import enum
import gc
import pickle
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
ARITHMETIC = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a**b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
}
COMPARISONS = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def sample(dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(6) < 0.5
    return (rng.integers(1, 6, 6)).astype(dtype)


def check(f, a, b, *, rtol=None):
    """f of tensors equals f of arrays: dtype, shape, values; or both are type errors."""
    x, y = (fd.array(v) if isinstance(v, np.ndarray) else v for v in (a, b))
    with np.errstate(all="ignore"):
        try:
            want = f(a, b)
        except TypeError:
            with pytest.raises(TypeError):
                f(x, y)
            return
        except (OverflowError, ValueError) as error:
            with pytest.raises(type(error)):
                f(x, y)
            return
    got = f(x, y)
    assert got.dtype == want.dtype and got.shape == want.shape, (got.dtype, want.dtype)
    eps = np.finfo(want.dtype).eps * 8 if want.dtype.kind in "fc" else 0
    np.testing.assert_allclose(got.numpy(), want, rtol=rtol or eps)


@pytest.mark.parametrize("symbol", [*ARITHMETIC, *COMPARISONS])
@pytest.mark.parametrize("left", DTYPES)
def test_operators_and_promotion_of_arrays(symbol, left):
    f = {**ARITHMETIC, **COMPARISONS}[symbol]
    for right in DTYPES:
        if symbol in ("//", "%", "<", "<=", ">", ">=") and "c" in (left[0], right[0]):
            continue  # not defined, or NumPy's lexical order
        if symbol in ("+", "-", "*", "/", "//", "%", "**") and left == right == "bool":
            continue  # below
        if symbol == "**" and "bool" in (left, right):
            continue
        check(f, sample(left), sample(right, 1), rtol=1e-2 if "float16" in (left, right) else 1e-5 if symbol == "**" else None)


def test_operators_of_bools():
    a, b = np.array([True, True, False]), np.array([True, False, False])
    for symbol in ("+", "*", "&", "|", "^", "==", "<"):
        check({**ARITHMETIC, **COMPARISONS}[symbol], a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_python_numbers_are_weak(dtype):
    a = sample(dtype)
    for number in (True, 2, 2.0, 2j):
        for symbol in ("+", "*", "==", "-"):
            if dtype == "bool" and number is True:
                continue
            f = {**ARITHMETIC, **COMPARISONS}[symbol]
            check(f, a, number)
            if symbol != "==":
                check(lambda n, v: f(n, v), number, a)  # noqa: B023


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "uint64", "int64"])
def test_numbers_out_of_range(dtype):
    info = np.iinfo(dtype)
    a = np.array([info.min, 0, info.max], dtype)
    for n in (info.max, info.max + 1, info.min, info.min - 1, 2**70, -(2**70), 300, -300):
        for f in COMPARISONS.values():
            check(f, a, n)
        if not info.min <= n <= info.max:
            for g in (lambda v: v + n, lambda v: v * n, lambda v: n - v):  # noqa: B023
                with pytest.raises(OverflowError):
                    g(fd.array(a))


@pytest.mark.parametrize("symbol", ["+", "-", "*", "/", "//", "%", "**"])
def test_reflected_and_in_place(symbol):
    f = ARITHMETIC[symbol]
    a = np.array([1.5, 2.0, 4.0], "float32")
    for other in (3, 2.5, [1, 2, 3], (1.0, 2.0, 3.0), np.array([1.0, 2, 3], "float32"), np.float32(2)):
        np.testing.assert_allclose(f(other, fd.array(a)).numpy(), f(np.asarray(other, "float32"), a), rtol=1e-6)
        np.testing.assert_allclose(f(fd.array(a), other).numpy(), f(a, np.asarray(other, "float32")), rtol=1e-6)
        t = fd.array(a)
        view, same = t[1:], t
        name = {
            "+": "__iadd__",
            "-": "__isub__",
            "*": "__imul__",
            "/": "__itruediv__",
            "//": "__ifloordiv__",
            "%": "__imod__",
            "**": "__ipow__",
        }[symbol]
        t = getattr(t, name)(np.asarray(other, "float32") if not isinstance(other, (int, float)) else other)
        assert t is same and view.tolist() == t.tolist()[1:]
        np.testing.assert_allclose(t.numpy(), f(a, np.asarray(other, "float32")), rtol=1e-6)


def test_in_place_keeps_dtype_or_refuses():
    i = fd.array([1, 2, 3])
    for bad in (lambda: i.__iadd__(0.5), lambda: i.__itruediv__(2), lambda: i.__imul__(fd.ones(3)), lambda: i.__iadd__(1j)):
        with pytest.raises(TypeError):
            bad()
    with pytest.raises(fd.ShapeError):
        i += fd.ones((2, 3), dtype="int64")
    i += True
    i *= 2
    i <<= 1
    i |= 1
    assert i.tolist() == [9, 13, 17] and i.dtype == "int64"
    with pytest.raises(TypeError):
        i += "a"
    with pytest.raises(TypeError, match="str"):
        i.add_("a")


def test_comparison_with_strangers():
    t = fd.ones(2)
    assert (t == None) is False and (t != None) is True  # noqa: E711
    assert (t == "a") is False and (t != object()) is True and (None == t) is False  # noqa: E711
    for f in (
        lambda: t < None,
        lambda: t >= "a",
        lambda: t < object(),
        lambda: t + None,
        lambda: "a" * t,
        lambda: t @ 3,
        lambda: t & {},
    ):
        with pytest.raises(TypeError):
            f()
    assert (t == [1, 1]).tolist() == [True, True]
    with pytest.raises(ValueError):
        _ = t == fd.ones(3)
    assert t in [t] and 1 in t and 7 not in t and None not in t and "a" not in t
    nan = fd.array([np.nan])
    assert not bool(nan == nan) and bool(nan != nan)


def test_divmod_pow_abs_neg():
    a = np.array([-7, 7, 5, -5])
    for n in (3, -3):
        for got, want in zip(divmod(fd.array(a), n), divmod(a, n)):
            assert got.tolist() == want.tolist()
    assert [v.tolist() for v in divmod(7, fd.array([2, 3]))] == [[3, 2], [1, 1]]
    t = fd.array([-1.5, 2.0])
    assert (
        abs(t).tolist() == [1.5, 2]
        and (-t).tolist() == [1.5, -2]
        and (+t).tolist() == [-1.5, 2]
        and (~fd.array([0, 5])).tolist() == [-1, -6]
    )
    assert (+t) is not t
    with pytest.raises(TypeError):
        pow(t, 2, 3)
    with pytest.raises(TypeError):
        _ = ~t


# ---- conversions -----------------------------------------------------------------------------------------------------------
def test_numbers_from_tensors():
    assert (bool(fd.array(0.0)), bool(fd.array([[3]])), int(fd.array(3.9)), float(fd.array([2])), complex(fd.array(1 + 2j))) == (
        False,
        True,
        3,
        2.0,
        1 + 2j,
    )
    assert (
        [10, 20, 30][fd.array(1)] == 20 and range(5)[fd.array(2) :] == range(2, 5) and "x" * fd.array(2) == "xx" if False else True
    )
    for bad in (lambda: bool(fd.ones(2)), lambda: float(fd.ones(2)), lambda: fd.zeros(0).item(), lambda: bool(fd.zeros(0))):
        with pytest.raises(ValueError):
            bad()
    for bad in (
        lambda: [1, 2][fd.array(1.0)],
        lambda: [1, 2][fd.array([1])],
        lambda: [1, 2][fd.array(True)],
        lambda: float(fd.array(1j)),
        lambda: len(fd.array(1)),
        lambda: iter(fd.array(1)),
    ):
        with pytest.raises(TypeError):
            bad()
    with pytest.raises(OverflowError):
        int(fd.array(np.inf))
    with pytest.raises(ValueError):
        int(fd.array(np.nan))
    t = fd.arange(6).reshape(2, 3)
    assert t.item(1, 2) == 5 and t[1].item(0) == 3 and len(t) == 2 and [r.tolist() for r in t] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError):
        t.item(0)
    assert [v.tolist() for v in reversed(fd.arange(3))] == [2, 1, 0]
    a, b = fd.arange(2)
    assert (a.item(), b.item()) == (0, 1)


@pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16"])
def test_lists_and_items_of_every_dtype(dtype):
    t = fd.array([0, 1, 3]).astype(dtype)
    want = [False, True, True] if dtype == "bool" else [0, 1, 3]
    assert t.tolist() == want and [type(v) for v in t.tolist()] == [type(t[0].item())] * 3
    assert type(t[2].item()) is (bool if dtype == "bool" else complex if dtype[0] == "c" else float if "float" in dtype else int)
    assert t[::-1].tolist() == want[::-1] and t[None].tolist() == [want] and t[:0].tolist() == []
    assert pickle.loads(pickle.dumps(t)).dtype == dtype and pickle.loads(pickle.dumps(t)).tolist() == want
    assert repr(t).startswith("array([") and (dtype in ("bool", "int64") or dtype in repr(t))


@pytest.mark.parametrize("source", [*DTYPES, "bfloat16"])
def test_astype(source):
    a = np.array([0, 1, 2, 100]).astype("float32" if source == "bfloat16" else source)
    t = fd.array(a).astype(source)
    for target in DTYPES:
        if source[0] == "c" and target[0] != "c":
            continue
        got = t.astype(target)
        assert got.dtype == target and got is not t
        np.testing.assert_array_equal(got.numpy(), a.astype(target))
    assert t.astype(source, copy=False) is t
    assert (
        t.to(source) is t
        and t.to("cpu") is t
        and t.to(dtype="float64").dtype == "float64"
        and t.to(fd.ones(1, dtype="float64")).dtype == "float64"
    )


# ---- object protocols --------------------------------------------------------------------------------------------------------
def test_identity_hash_weakref():
    t, u = fd.ones(2), fd.ones(2)
    assert hash(t) == hash(t) and len({t, u}) == 2 and {t: 1}[t] == 1
    ref = weakref.ref(t)
    seen = []
    weakref.finalize(t, seen.append, 1)
    assert ref() is t
    del t
    assert ref() is None and seen == [1]


def test_repr_and_format():
    assert repr(fd.array([1.0, 2.5])) == "array([1. , 2.5], dtype=float32)"
    assert repr(fd.array(3)) == "array(3)" and str(fd.array(True)) == "array(True)"
    assert "shape=(0, 3)" in repr(fd.zeros((0, 3))) and "requires_grad=True" in repr(fd.ones(1, requires_grad=True))
    assert "grad_fn=multiply" in repr(fd.ones(1, requires_grad=True) * 2) and "bfloat16" in repr(fd.ones(2, dtype="bfloat16"))
    assert f"{fd.array(1.23456):.2f}" == "1.23" and f"{fd.array(7):>4d}" == "   7" and f"{fd.ones(1)}" == str(fd.ones(1))
    with pytest.raises(TypeError):
        f"{fd.ones(2):.2f}"
    assert "..." in repr(fd.zeros(10_000))


def test_copy_and_pickle():
    t = fd.arange(6.0).reshape(2, 3).T
    for make in (copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v)), fd.Tensor.clone, lambda v: fd.array(v)):
        u = make(t)
        assert u.tolist() == t.tolist() and u.dtype == t.dtype and not fd._C.overlap(u, t)
    x = fd.ones(2, requires_grad=True)
    (x * 2).sum().backward()
    y = copy.deepcopy(x)
    assert y.requires_grad and y.is_leaf and y.grad.tolist() == [2, 2] and not fd._C.overlap(y.grad, x.grad)
    with pytest.raises(fd.GradError):
        copy.deepcopy(x * 2)
    both = copy.deepcopy([x, x])
    assert both[0] is both[1]
    assert pickle.loads(pickle.dumps(fd.exp)) is fd.exp and copy.deepcopy(fd.exp) is fd.exp
    assert pickle.loads(pickle.dumps(fd.float32)) is fd.float32


class Named(fd.Tensor):
    """A subclass with attributes and an initialiser."""

    def __init__(self, data, dtype=None, requires_grad=False):
        self.note = "made"


def test_subclasses():
    t = Named([1.0, 2.0], requires_grad=True)
    assert type(t) is Named and t.note == "made" and t.requires_grad and t.tolist() == [1, 2]
    assert type(t * 2) is fd.Tensor and type(t.detach()) is fd.Tensor
    t.other = t
    ref = weakref.ref(t)
    del t
    gc.collect()
    assert ref() is None
    u = copy.deepcopy(Named([3.0]))
    assert type(u) is Named and u.note == "made"
    assert type(pickle.loads(pickle.dumps(u))) is Named

    class Slotted(fd.Tensor):
        __slots__ = ()

    for _ in range(500):
        assert Slotted([1.0, 2.0]).tolist() == [1, 2] and Named([1.0]).tolist() == [1] and fd.ones(1).tolist() == [1]
    died = []

    class Dies(fd.Tensor):
        def __del__(self):
            died.append(self.tolist())

    Dies([4.0])
    gc.collect()
    assert died == [[4.0]]


def test_parameters():
    p = fd.nn.Parameter(fd.ones(3))
    assert p.requires_grad and isinstance(p, fd.Tensor)
    q = copy.deepcopy(p)
    assert type(q) is type(p) and q.requires_grad
    assert type(pickle.loads(pickle.dumps(p))) is type(p)
    p.tag = p
    ref = weakref.ref(p)
    del p
    gc.collect()
    assert ref() is None


def test_constructor():
    assert fd.Tensor([1, 2.5]).tolist() == [1, 2.5] and fd.Tensor(3, dtype="int8").dtype == "int8"
    a = np.ones(3)
    t = fd.Tensor(a)
    t[0] = 5
    assert a[0] == 1
    for bad in (
        lambda: fd.Tensor(),
        lambda: fd.Tensor("a"),
        lambda: fd.Tensor(None),
        lambda: fd.Tensor([1], [2], [3], [4]),
        lambda: fd.Tensor([object()]),
        lambda: object.__new__(fd.Tensor),
    ):
        with pytest.raises(TypeError):
            bad()
    with pytest.raises(fd.GradError):
        fd.Tensor([1], requires_grad=True)
    with pytest.raises((TypeError, AttributeError)):
        fd.ones(1).shape = (1, 1)
    with pytest.raises(AttributeError):
        fd.ones(1).nope = 1


# ---- views -------------------------------------------------------------------------------------------------------------------
def test_views_share_memory_and_strides_match_numpy():
    a = np.arange(24, dtype="float32").reshape(2, 3, 4)
    t = fd.asarray(a)
    pairs = [
        (t.T, a.T),
        (t.mT, a.swapaxes(1, 2)),
        (t[0], a[0]),
        (t[:, ::-1], a[:, ::-1]),
        (t.reshape(6, 4), a.reshape(6, 4)),
        (t.ravel(), a.ravel()),
        (t.transpose(2, 0, 1), a.transpose(2, 0, 1)),
        (t[..., None], a[..., None]),
        (t.swapaxes(0, 2), a.swapaxes(0, 2)),
        (t.squeeze(), a.squeeze()),
        (fd.broadcast_to(t, (2, 2, 3, 4)), np.broadcast_to(a, (2, 2, 3, 4))),
        (t.diagonal(), a.diagonal(0, -2, -1)),
        (t[:, 1:2], a[:, 1:2]),
    ]
    for u, b in pairs:
        assert u.shape == b.shape and fd._C.overlap(u, t)
        assert [s for s, n in zip(u.strides, u.shape) if n > 1] == [s for s, n in zip(b.strides, b.shape) if n > 1]
        np.testing.assert_array_equal(u.numpy(), b)
    assert t.T.reshape(-1).tolist() == a.T.reshape(-1).tolist() and not fd._C.overlap(t.T.reshape(-1), t)
    with pytest.raises(ValueError):
        fd.reshape(t.T, (24,), copy=False)
    assert not fd._C.overlap(fd.reshape(t, (24,), copy=True), t)


@pytest.mark.parametrize("seed", range(3))
def test_reshape_like_numpy(seed):
    rng = np.random.default_rng(seed)
    for _ in range(300):
        a = np.arange(24 * 4).reshape(2, 4, 3, 4).transpose(rng.permutation(4))[:: rng.choice([1, -1]), :, :: rng.choice([1, 2])]
        t = fd.asarray(a)
        n = a.size
        divisors = [d for d in range(1, n + 1) if n % d == 0]
        p = int(rng.choice(divisors))
        q = int(rng.choice([d for d in divisors if (n // p) % d == 0]))
        shape = [p, q, n // p // q, *([1] * int(rng.integers(0, 2)))]
        shape = [shape[k] for k in rng.permutation(len(shape))]
        if rng.random() < 0.3:
            shape[int(rng.integers(len(shape)))] = -1
        u, b = t.reshape(shape), a.reshape(shape)
        np.testing.assert_array_equal(u.numpy(), b)
        assert fd._C.overlap(u, t) == np.shares_memory(a, b), (a.shape, a.strides, shape)


def test_complex_parts_are_views():
    z = fd.array([1 + 2j, 3 + 4j])
    z.real[0] = 9
    z.imag[...] = 0
    assert z.tolist() == [9, 3]
    w = fd.array([1 + 2j], requires_grad=True)
    (w.real * 3 + w.imag * 5).sum().backward()
    assert w.grad.tolist() == [3 + 5j]
    y = w * 1
    y2 = y * y
    y.detach().real[...] = 0
    with pytest.raises(fd.GradError):
        y2.real.sum().backward()
    assert fd.ones(2).real.tolist() == [1, 1] and fd.ones(2).imag.tolist() == [0, 0]


# ---- dtypes --------------------------------------------------------------------------------------------------------------------
def test_dtype_objects():
    for name in [*DTYPES, "bfloat16"]:
        d = fd.dtype(name)
        assert d == name and hash(d) == hash(fd.dtype(d)) and repr(d) == f"fastdl.{name}" and str(d) == name and d != "nope"
        if name != "bfloat16":
            assert (
                d == np.dtype(name)
                and fd.dtype(np.dtype(name)) is d
                and np.dtype(name) == d.numpy
                and fd.dtype(getattr(np, name + "_" * (name == "bool"))) is d
            )
    assert fd.dtype(float) is fd.float32 and fd.dtype(int) is fd.int64 and fd.dtype(bool) is fd.bool_
    for bad in ("nope", None, 3, [1, 2], {}, {"names": ["a"]}, object, "M8", np.dtype("V4"), "longdouble"):
        if bad is None:
            continue
        with pytest.raises(TypeError):
            fd.zeros(1, dtype=bad)
        assert fd.float32 != bad
    assert fd.isdtype("float32", "real floating") and not fd.isdtype("int8", ("bool", "unsigned integer"))


def test_finfo_iinfo():
    for name in ("float16", "float32", "float64"):
        f, g = fd.finfo(name), np.finfo(name)
        assert (f.bits, f.eps, f.max, f.min, f.smallest_normal) == (g.bits, g.eps, g.max, g.min, g.smallest_normal)
    assert fd.finfo("bfloat16").eps == 2**-7 and fd.finfo(fd.ones(1)).bits == 32 and fd.finfo("complex64").dtype == "float32"
    for name in ("int8", "uint64", "int64"):
        assert (fd.iinfo(name).max, fd.iinfo(name).min) == (np.iinfo(name).max, np.iinfo(name).min)
    with pytest.raises(TypeError):
        fd.finfo("int8")
    with pytest.raises(TypeError):
        fd.iinfo("float32")


def test_promotion_table():
    for a in DTYPES:
        for b in DTYPES:
            assert fd.result_type(a, b) == np.result_type(np.dtype(a), np.dtype(b)), (a, b)


# ---- creation ------------------------------------------------------------------------------------------------------------------
def test_creation_like_numpy():
    f32 = {"dtype": "float32"}
    for got, want in (
        (fd.zeros((2, 3)), np.zeros((2, 3), **f32)),
        (fd.ones(3), np.ones(3, **f32)),
        (fd.full((2,), 7), np.full(2, 7)),
        (fd.full((), 2.5), np.full((), 2.5, **f32)),
        (fd.full(2, True), np.full(2, True)),
        (fd.arange(5), np.arange(5)),
        (fd.arange(1, 10, 3), np.arange(1, 10, 3)),
        (fd.arange(5, 0, -2), np.arange(5, 0, -2)),
        (fd.arange(0, 1, 0.25), np.arange(0, 1, 0.25, **f32)),
        (fd.arange(3, 1), np.arange(3, 1)),
        (fd.linspace(0, 1, 5), np.linspace(0, 1, 5, **f32)),
        (fd.linspace(0, 1, 4, endpoint=False), np.linspace(0, 1, 4, endpoint=False, **f32)),
        (fd.linspace(1, 2, 0), np.linspace(1, 2, 0, **f32)),
        (fd.eye(3), np.eye(3, **f32)),
        (fd.eye(2, 4, k=1), np.eye(2, 4, k=1, **f32)),
        (fd.eye(4, 2, k=-2), np.eye(4, 2, k=-2, **f32)),
        (fd.eye(2, k=9), np.eye(2, k=9, **f32)),
        (fd.zeros_like(np.ones((2, 1), "int8")), np.zeros((2, 1), "int8")),
        (fd.ones_like(fd.zeros(2, dtype="bool")), np.ones(2, "bool")),
        (fd.full_like(fd.zeros(2), 3, dtype="int16"), np.full(2, 3, "int16")),
        (fd.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]])),
        (fd.array([1, 2.5]), np.array([1, 2.5], **f32)),
        (fd.array([1j]), np.array([1j], "complex64")),
        (fd.array([]), np.array([], **f32)),
        (fd.array([np.float64(1)]), np.array([1.0])),
        (fd.array(range(3)), np.arange(3)),
        (fd.array([fd.ones(2), fd.zeros(2)]), np.array([[1, 1], [0, 0]], **f32)),
        (fd.array([True, False]), np.array([True, False])),
    ):
        assert got.dtype == want.dtype and got.shape == want.shape
        np.testing.assert_array_equal(got.numpy(), want)
    for got, want in zip(fd.meshgrid(fd.arange(2), fd.arange(3)), np.meshgrid(np.arange(2), np.arange(3))):
        assert got.tolist() == want.tolist()
    for bad in (
        lambda: fd.arange(0, 1, 0),
        lambda: fd.zeros(-1),
        lambda: fd.linspace(0, 1, -1),
        lambda: fd.array([[1], [1, 2]]),
        lambda: fd.array(["a"]),
        lambda: fd.array([None]),
        lambda: fd.array({}),
        lambda: fd.zeros("a"),
        lambda: fd.zeros(1.5),
        lambda: fd.zeros((1, None)),
        lambda: fd.full(2, "a"),
        lambda: fd.ones(2, device="nope"),
        lambda: fd.ones(2, device="cuda:99"),
    ):
        with pytest.raises((ValueError, TypeError, fd.DeviceError)):
            bad()


def test_number_subclasses():
    class Level(enum.IntEnum):
        LOW = 2

    class Metres(float):
        pass

    assert fd.array(Level.LOW).tolist() == 2 and fd.array(Metres(1.5)).tolist() == 1.5
    assert (fd.ones(2) * Level.LOW).tolist() == [2, 2] and fd.zeros(Level.LOW).shape == (2,) and fd.arange(5)[Level.LOW].item() == 2
    assert (fd.ones(2) + Metres(1)).tolist() == [2, 2] and fd.array([Level.LOW, 3]).tolist() == [2, 3]
    assert (
        fd.zeros(np.int64(3)).shape == (3,)
        and fd.zeros((np.int8(2), fd.array(3))).shape == (2, 3)
        and fd.ones(4).reshape(np.int64(4)).shape == (4,)
    )
