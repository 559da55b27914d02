"""In-place writes and the tape: what backward needs cannot be overwritten unnoticed, whichever way the write takes."""

import numpy as np
import pytest

import fastdl as fd

close = np.testing.assert_allclose


def leaf(*values, dtype="float64"):
    return fd.array(np.array(values, dtype=dtype), requires_grad=True)



def write_add(t):
    t += 1.0


def write_item(t):
    t[0] = 9.0


def write_list(t):
    t[[0]] = 9.0


def write_copy(t):
    t.copy_(fd.zeros(2))


def write_fill(t):
    t.fill_(3.0)


def write_out(t):
    fd.add(t.detach(), 1.0, out=t)


def write_detached(t):
    t.detach().add_(1.0)


def write_view(t):
    v = t[:1]
    v.mul_(2.0)


def write_transposed(t):
    t.reshape(2, 1).T[0].zero_()


def write_data(t):
    t.data.zero_()


WRITES = [
    write_add,
    write_item,
    write_list,
    write_copy,
    write_fill,
    write_out,
    write_detached,
    write_view,
    write_transposed,
    write_data,
]
NEEDS = {
    "input of multiply": lambda h: h * h,
    "output of exp": lambda h: fd.exp(h),
    "view": lambda h: h[:] * h[:],
    "indexed": lambda h: (h[[0, 1]]) * h,
    "list of inputs": lambda h: fd.concat([h * h, h]),
    "matmul": lambda h: h[None] @ h[:, None],
    "where": lambda h: fd.where(h > 0, h * h, h),
    "max": lambda h: h.max(),
    "softmax": lambda h: fd.softmax(h, -1) * h,
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("need", NEEDS)
def test_writes_to_what_backward_needs(write, need):
    """Either an error, or the gradient that PyTorch's rule gives: never a wrong one."""

    def correct():
        x = leaf(1.0, 2.0)
        NEEDS[need](x * 1.0).sum().backward()
        return x.grad.numpy()

    x = leaf(1.0, 2.0)
    h = x * 1.0
    y = NEEDS[need](h)
    target = y if need == "output of exp" else h
    with fd.no_grad():
        write(target)
    try:
        y.sum().backward()
    except fd.GradError as error:
        assert "in place" in str(error)
    else:
        close(x.grad.numpy(), correct())
        assert need == "max", "the write was not noticed"


def test_recorded_writes_have_gradients():
    x = leaf(1.0, 2.0)
    y = x * 1.0
    y *= 3.0
    y += x
    y[0] = 5.0
    y -= 1.0
    (y * y).sum().backward()
    assert x.grad.tolist() == [0, 2 * 7 * 4]


def test_refused_writes():
    x = leaf(1.0, 2.0)
    with pytest.raises(fd.GradError, match="leaf"):
        x += 1
    with pytest.raises(fd.GradError, match="leaf"):
        x[0] = 1
    with pytest.raises(fd.GradError):
        x.fill_(0)
    with pytest.raises(fd.GradError):
        fd.exp(x, out=fd.zeros(2, dtype="float64"))
    y = x * 1.0
    v = y[:1]
    with pytest.raises(fd.GradError, match="view"):
        v += 1
    with pytest.raises(fd.GradError, match="view"):
        v[0] = 1
    z = fd.zeros(2, dtype="float64")
    with pytest.raises(fd.GradError, match="detach"):
        z.copy_(x)
    assert x.tolist() == [1, 2] and z.tolist() == [0, 0] and y.tolist() == [1, 2]


def test_views_made_before_a_recorded_write():
    x = leaf(1.0, 2.0)
    z = fd.zeros(2, dtype="float64")
    early, apart = z[:1], z.detach()
    z[...] = x
    for use in (lambda: early * 2.0, lambda: early * fd.ones(1, dtype="float64"), lambda: fd.exp(early)):
        with pytest.raises(fd.GradError, match="view"):
            use()
    assert apart.tolist() == [1, 2] and not (apart * 2).requires_grad
    z[:1].sum().backward()
    assert x.grad.tolist() == [1, 0]


def test_stale_views_cannot_be_used():
    x = leaf(1.0, 2.0)
    y = x * 1.0
    v = y[:1]
    y *= 3.0
    for use in (lambda: v * 2, lambda: v[0], lambda: v[[0]], lambda: v.reshape(1, 1), lambda: fd.concat([v, v]), lambda: v.sum()):
        with pytest.raises(fd.GradError, match="in place"):
            use()
    w = fd.zeros(1, dtype="float64")
    with pytest.raises(fd.GradError, match="in place"):
        w[...] = v


def test_optimiser_step_before_backward():
    w = leaf(1.0, 2.0, dtype="float32")
    opt = fd.optim.SGD([w], lr=0.1)
    loss, other = (w * w).sum(), (w * w * w).sum()
    loss.backward()
    opt.step()
    with pytest.raises(fd.GradError, match="changed in place"):
        other.backward()
