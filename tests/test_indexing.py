"""x[key] and x[key] = value against NumPy: a large random set of keys, their gradients, overlap, and errors that teach."""

import numpy as np
import pytest

import fastdl as fd


def random_index(rng, size, form):
    n = int(rng.integers(0, 4))
    values = rng.integers(-size, size, n) if size else np.zeros(0, np.int64)
    if form == 0:
        return values.tolist()
    dtype = rng.choice(["int64", "int32", "int8"])
    a = values.astype(dtype)
    if form == 3 and size:
        return np.asarray(rng.integers(-size, size)).astype(dtype)[()]  # NumPy scalar
    return a if form == 1 else fd.array(a)


def random_key(rng, shape):
    """A key that fits `shape`; sometimes its index arrays do not broadcast or an int is out of range, as NumPy will tell too."""
    items, axis = [], 0
    ellipsis = False
    length = None
    while axis < len(shape):
        size = shape[axis]
        kind = rng.integers(0, 12)
        if kind <= 1:
            step = int(rng.choice([1, 2, 3, -1, -2, -7]))
            items.append(slice(*(None if rng.random() < 0.3 else int(rng.integers(-size - 2, size + 3)) for _ in range(2)), step))
            axis += 1
        elif kind == 2:
            items.append(slice(None))
            axis += 1
        elif kind in (3, 4):
            items.append(int(rng.integers(-size, size)) if size else 0)
            axis += 1
        elif kind == 5:
            if sum(k is None for k in items) < 2:
                items.append(None)
        elif kind == 6 and not ellipsis:
            ellipsis = True
            items.append(Ellipsis)
            axis += int(rng.integers(0, len(shape) - axis + 1))
        elif kind in (7, 8):
            if length is None:
                length = int(rng.integers(0, 4))
            n = length if rng.random() < 0.9 else 1
            values = rng.integers(-size, size, n) if size else np.zeros(n, np.int64)
            if rng.random() < 0.3:
                values = values.reshape(-1, 1)
            form = rng.integers(0, 3)
            items.append(values.tolist() if form == 0 and n else values if form < 2 else fd.array(values))
            axis += 1
        elif kind == 9:
            k = int(rng.integers(1, min(3, len(shape) - axis) + 1))
            mask = rng.random(shape[axis : axis + k]) < 0.5
            items.append(mask if rng.random() < 0.5 else fd.array(mask))
            axis += k
        elif kind == 10 and rng.random() < 0.3:
            if not any(isinstance(k, bool) for k in items):
                items.append(bool(rng.random() < 0.7))
        elif rng.random() < 0.3:
            break
    if ellipsis is False and rng.random() < 0.1:
        items.append(Ellipsis)
    return tuple(items) if len(items) != 1 or rng.random() < 0.5 else items[0]


def to_numpy(key):
    if isinstance(key, tuple):
        return tuple(map(to_numpy, key))
    return key.numpy() if isinstance(key, fd.Tensor) else key


def random_shape(rng):
    return tuple(int(s) for s in rng.choice([0, 1, 2, 3, 4, 5], rng.integers(0, 6), p=[0.04, 0.16, 0.2, 0.2, 0.2, 0.2]))


@pytest.mark.parametrize("seed", range(20))
def test_reading_and_writing_like_numpy(seed):
    rng = np.random.default_rng(seed)
    for _ in range(250):
        shape = random_shape(rng)
        a = rng.integers(0, 1000, shape).astype(rng.choice(["float32", "int64", "uint8", "float64"]))
        layout = rng.integers(0, 3)
        if layout == 1:
            a = a.T.copy().T
        elif layout == 2 and a.ndim:
            a = a[::-1]
        t = fd.asarray(a.copy() if layout == 0 else a)
        key = random_key(rng, shape)
        nkey = to_numpy(key)
        try:
            want = a[nkey]
        except (IndexError, ValueError):
            with pytest.raises(IndexError):
                t[key]
            continue
        if want.ndim > 8:
            continue
        got = t[key]
        assert got.shape == want.shape, (shape, key)
        np.testing.assert_array_equal(got.numpy(), want, err_msg=f"{shape} {key}")
        # write: a number, a value of the same shape, one that broadcasts
        for form in range(3):
            value = 7 if form == 0 else rng.integers(0, 100, want.shape).astype(a.dtype)
            if form == 2:
                value = value[tuple(slice(0, 1) if rng.random() < 0.5 else slice(None) for _ in want.shape)]
                if want.ndim and value.shape[0] == 1 and rng.random() < 0.5:
                    value = value[0]
            b, u = a.copy(), fd.array(a)
            try:
                b[nkey] = value
            except (IndexError, ValueError):
                with pytest.raises((IndexError, ValueError)):
                    u[key] = value
                continue
            u[key] = value if form == 0 or rng.random() < 0.5 else fd.array(value)
            np.testing.assert_array_equal(u.numpy(), b, err_msg=f"{shape} {key} {form}")


@pytest.mark.parametrize("seed", range(5))
def test_gradients_of_reading_and_writing(seed):
    rng = np.random.default_rng(100 + seed)
    for _ in range(60):
        shape = random_shape(rng)
        a = rng.standard_normal(shape)
        key = random_key(rng, shape)
        nkey = to_numpy(key)
        try:
            want = a[nkey]
        except (IndexError, ValueError):
            continue
        if want.ndim > 8:
            continue
        g = rng.standard_normal(want.shape)
        x = fd.array(a, requires_grad=True)
        x[key].backward(fd.array(g))
        expected = np.zeros(shape)
        np.add.at(expected, nkey, g)
        np.testing.assert_allclose(x.grad.numpy(), expected, err_msg=f"{shape} {key}")
        # y = x * 1; y[key] = v: x is cut where it was overwritten; of repeated places the last write counts
        x, v = fd.array(a, requires_grad=True), fd.array(g, requires_grad=True)
        y = x * 1.0
        y[key] = v * 1.0
        w = rng.standard_normal(shape)
        (y * fd.array(w)).sum().backward()
        cut = w.copy()
        cut[nkey] = 0
        np.testing.assert_allclose(x.grad.numpy(), cut, err_msg=f"{shape} {key}")
        writer = np.full(shape, -1)
        number = np.arange(g.size).reshape(g.shape)
        writer[nkey] = number
        np.testing.assert_allclose(v.grad.numpy(), np.where(writer[nkey] == number, w[nkey], 0), err_msg=f"{shape} {key}")


def test_second_order_through_indexing():
    x = fd.array([1.0, 2.0, 3.0], dtype="float64", requires_grad=True)
    y = (x[[0, 0, 2]] ** 3).sum() + (x[1:] ** 2).sum()
    (g,) = fd.autograd.gradients(y, x, create_graph=True)
    np.testing.assert_allclose(g.detach().numpy(), [6.0, 4.0, 27.0 + 6.0])
    (h,) = fd.autograd.gradients(g.sum(), x)
    np.testing.assert_allclose(h.numpy(), [12.0, 2.0, 18.0 + 2.0])


def test_broadcast_value_gradient():
    v = fd.array([[1.0, 2.0]], requires_grad=True)
    y = fd.zeros((3, 2))
    y[...] = v
    (y * fd.array([[1.0, 2], [3, 4], [5, 6]])).sum().backward()
    assert v.grad.tolist() == [[9.0, 12.0]]


OVERLAPS = {
    "shift right": lambda x: x.__setitem__(slice(1, None), x[:-1]),
    "shift left": lambda x: x.__setitem__(slice(None, -1), x[1:]),
    "reverse": lambda x: x.__setitem__(slice(None), x[::-1]),
    "list from slice": lambda x: x.__setitem__([1, 2], x[0:2]),
    "list from reversed": lambda x: x.__setitem__([0, 1, 2, 3, 4], x[::-1]),
    "mask from slice": lambda x: x.__setitem__(np.array([False, True, True, False, False]), x[0:2]),
    "transpose": lambda x: x.__setitem__(slice(None), x.T),
    "add transpose": lambda x: x.__iadd__(x.T),
    "subtract reversed": lambda x: x.__isub__(x[::-1]),
    "multiply shifted": lambda x: x[1:].__imul__(x[:-1]),
    "add row": lambda x: x.__iadd__(x[0]),
    "add column": lambda x: x.__iadd__(x[:, 1:2]),
}


@pytest.mark.parametrize("name", OVERLAPS)
@pytest.mark.parametrize("n", [5, 130])
def test_overlapping_writes(name, n):
    a = np.arange(n * n, dtype=np.float64).reshape(n, n)
    if name in ("mask from slice", "list from reversed") and n != 5:
        pytest.skip("written for five rows")
    t = fd.array(a)
    OVERLAPS[name](a)
    OVERLAPS[name](t)
    np.testing.assert_array_equal(t.numpy(), a)


def test_overlap_of_two_wraps_of_the_same_array():
    a = np.arange(10.0)
    t, u = fd.from_numpy(a), fd.from_numpy(a)
    t[1:] = u[:-1]
    assert a.tolist() == [0, *range(9)]
    t[[0, 1, 2]] = u[[1, 2, 3]]
    t += u[::-1]
    b = np.array([0, *range(9)], dtype=float)
    b[[0, 1, 2]] = b[[1, 2, 3]]
    b += b[::-1]
    assert a.tolist() == b.tolist()


def test_indices_that_are_the_tensor_itself():
    a = np.array([3, 2, 0, 1])
    t = fd.array(a)
    a[a] = a[::-1].copy()
    t[t] = t[::-1]
    assert t.tolist() == a.tolist()


def test_out_overlaps():
    a = np.arange(10.0)
    t = fd.array(a)
    np.add(a[:-1], a[1:], out=a[1:])
    fd.add(t[:-1], t[1:], out=t[1:])
    assert t.tolist() == a.tolist()


def test_writes_to_broadcast_memory_are_refused():
    wide = fd.broadcast_to(fd.zeros(1), (4,))
    for write in (
        lambda: wide.__setitem__(0, 1.0),
        lambda: wide.__setitem__(slice(None), 1.0),
        lambda: wide.__iadd__(fd.arange(4.0)),
        lambda: wide.copy_(fd.arange(4.0)),
        lambda: wide.__setitem__([0, 1], 1.0),
    ):
        if write is not None:
            try:
                write()
            except ValueError as error:
                assert "broadcast" in str(error)
    with pytest.raises(ValueError, match="clone"):
        wide += 1.0


def test_basic_indices_are_views():
    x = fd.zeros((3, 4))
    x[np.int64(1)][2] = 5.0
    x[-1, 1:3][...] = 2.0
    x[None, 0][0, 0] = 1.0
    assert x.tolist() == [[1, 0, 0, 0], [0, 0, 5, 0], [0, 2, 2, 0]]

    class Two:
        def __index__(self):
            return 2

    assert x[Two()].tolist() == [0, 2, 2, 0] and x[: Two()].shape == (2, 4)


def test_recorded_keys_do_not_change_with_their_arrays():
    for key in (np.array([0, 1]), [0, 1], fd.array([0, 1]), (slice(None), np.array([0, 1]))):
        x = fd.ones((4, 4), requires_grad=True)
        y = x[key]
        z = x * 1.0
        z[key] = 5.0
        part = key[1] if isinstance(key, tuple) else key
        before = x.grad
        part[0] = 3
        assert before is None
        y.sum().backward()
        expected = np.zeros((4, 4))
        expected[(slice(None), [0, 1]) if isinstance(key, tuple) else [0, 1]] = 1
        np.testing.assert_array_equal(x.grad.numpy(), expected)
        x.grad = None
        z.sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), 1 - expected)
    start = fd.array(1)
    x = fd.ones(4, requires_grad=True)
    y = x[start:]
    start += 2
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (5, "out of range"),
        (-4, "out of range"),
        ((0, 0, 0), "3 indices"),
        ((..., ...), "only one"),
        ([0, 9], "out of"),
        (np.array([True, False]), "mask"),
        (1.5, "index"),
        ("a", "index"),
        ([0.5], "integer or bool"),
        ([[0], [1, 2]], "rectangular"),
        (([0, 1], [0, 1, 2]), "broadcast"),
        (2**70, "fit"),
        ({}, "index"),
        (object(), "index"),
    ],
)
def test_errors_teach(key, text):
    x = fd.zeros((3, 4))
    before = x.tolist()
    with pytest.raises(IndexError, match=text):
        x[key]
    with pytest.raises(IndexError, match=text):
        x[key] = 1.0
    assert x.tolist() == before


def test_bad_values():
    x = fd.zeros((3, 4))
    with pytest.raises(ValueError, match="broadcast"):
        x[0] = fd.zeros(5)
    with pytest.raises(ValueError):
        x[[0, 1]] = fd.zeros((3, 4))
    with pytest.raises(TypeError):
        x[0] = "a"
    with pytest.raises(TypeError):
        x[0] = None
    with pytest.raises(TypeError, match="complex"):
        x[0] = fd.array([1j, 1j, 1j, 1j])
    with pytest.raises(TypeError, match="complex"):
        x[[0]] = fd.array([1j, 1j, 1j, 1j])
    with pytest.raises(TypeError):
        del x[0]
    assert not x.any()
