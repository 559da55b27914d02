"""Transposed convolution, interpolation, pixel shuffle and the Transformer's decoder against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from torch_bridge import close, compare, copy_weights, needs_torch, pair, torch

import fastdl as fd
from fastdl import nn
from fastdl.nn import functional as F

rng = np.random.default_rng(11)


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


TRANSPOSED = [
    ("ConvTranspose2d", (3, 5, 3), {}, (2, 3, 6, 7)),
    ("ConvTranspose2d", (4, 6, 4), {"stride": 2, "padding": 1}, (2, 4, 5, 4)),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "bias": False}, (2, 4, 5, 4)),
    ("ConvTranspose2d", (4, 6, (3, 2)), {"stride": (1, 3), "padding": (1, 0), "output_padding": (0, 2), "groups": 2}, (2, 4, 5, 4)),
    ("ConvTranspose2d", (6, 6, 3), {"groups": 6, "dilation": 2}, (1, 6, 5, 4)),
    ("ConvTranspose2d", (2, 3, 3), {"dilation": 3, "output_padding": 2}, (2, 2, 4, 5)),  # as large as the stride, and larger
    ("ConvTranspose2d", (2, 3, 3), {"dilation": 3, "output_padding": (2, 1), "padding": 1}, (2, 2, 4, 5)),
    ("ConvTranspose2d", (2, 3, 2), {"stride": 2}, (2, 1, 1)),
    ("ConvTranspose1d", (4, 6, 4), {"stride": 2, "padding": 1, "output_padding": 1}, (2, 4, 9)),
    ("ConvTranspose1d", (4, 6, 3), {"dilation": 2, "groups": 2}, (4, 9)),
    ("PixelShuffle", (2,), {}, (2, 8, 3, 4)),
    ("PixelUnshuffle", (3,), {}, (2, 2, 6, 9)),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, (2, 3, 4, 5)),
    ("UpsamplingBilinear2d", (), {"size": (7, 9)}, (2, 3, 4, 5)),
    ("Upsample", (), {"scale_factor": (2, 3), "mode": "bicubic"}, (2, 3, 4, 5)),
]


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", TRANSPOSED, ids=lambda r: f"{r[0]}{r[1]}{r[2]}")
def test_layer(row: tuple, dtype: str) -> None:
    name, args, kwargs, shape = row
    ours, theirs = getattr(nn, name)(*args, **kwargs), getattr(torch.nn, name)(*args, **kwargs)
    if dtype == "float64":
        ours, theirs = ours.to(fd.float64), theirs.to(torch.float64)
    copy_weights(ours, theirs)
    compare(ours, theirs, [normal(*shape, dtype=dtype)], work=float(np.prod(shape)))
    assert repr(ours).startswith(name)


@needs_torch
def test_output_size() -> None:
    ours, theirs = nn.ConvTranspose2d(2, 3, 3, stride=3), torch.nn.ConvTranspose2d(2, 3, 3, stride=3)
    copy_weights(ours, theirs)
    x = normal(1, 2, 4, 4)
    for size in [(12, 13), (1, 3, 14, 12)]:
        close(ours(fd.array(x), size), theirs(torch.tensor(x), size[-2:]), str(size), work=20)
    with pytest.raises(ValueError, match="output_size"):
        ours(fd.array(x), (12, 15))


def test_second_order() -> None:
    """The gradient of the gradient, by differences."""
    x, w = fd.array(normal(1, 2, 3, 3, dtype="float64")), fd.array(normal(2, 2, 3, 3, dtype="float64"))
    v = fd.array(normal(1, 2, 3, 3, dtype="float64"))

    def slope(x: fd.Tensor) -> fd.Tensor:
        return fd.grad(lambda x: fd.tanh(F.conv_transpose2d(x, w, None, 2, 1, 1)).sum())(x)

    step = 1e-6
    expected = (slope(x + step * v) - slope(x - step * v)) / (2 * step)
    found = fd.grad(lambda x: (slope(x) * v).sum())(x)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5, atol=1e-8)


def test_gradient_of_a_convolution() -> None:
    """<conv(x), y> = <x, conv_transpose(y)>."""
    x, w, y = (fd.array(normal(*s, dtype="float64")) for s in [(2, 3, 9, 8), (4, 3, 3, 3), (2, 4, 4, 4)])
    y = y[:, :, :, : (8 - 3) // 2 + 1]
    a = (fd.conv2d(x, w, None, 2) * y).sum().item()
    b = (x * F.conv_transpose2d(y, w, None, 2, 0, (0, 1))).sum().item()
    assert abs(a - b) < 1e-10 * max(1, abs(a))


RESIZED = [
    ((2, 3, 5), {"size": 8, "mode": "nearest"}),
    ((2, 3, 5), {"scale_factor": 1.7, "mode": "linear"}),
    ((2, 3, 5), {"size": 3, "mode": "linear", "align_corners": True}),
    ((2, 3, 5), {"size": 3, "mode": "area"}),
    ((2, 3, 5, 7), {"scale_factor": 2, "mode": "nearest"}),
    ((2, 3, 5, 7), {"scale_factor": (0.6, 1.3), "mode": "nearest"}),
    ((2, 3, 5, 7), {"size": (11, 3), "mode": "nearest-exact"}),
    ((2, 3, 5, 7), {"scale_factor": 2.3, "mode": "nearest-exact"}),
    ((2, 3, 5, 7), {"scale_factor": 2, "mode": "bilinear"}),
    ((2, 3, 5, 7), {"size": (9, 4), "mode": "bilinear"}),
    ((2, 3, 5, 7), {"size": (9, 1), "mode": "bilinear", "align_corners": True}),
    ((2, 3, 5, 7), {"scale_factor": 1.5, "mode": "bilinear", "recompute_scale_factor": True}),
    ((2, 3, 5, 7), {"size": (9, 4), "mode": "bicubic"}),
    ((2, 3, 5, 7), {"scale_factor": 2.5, "mode": "bicubic", "align_corners": True}),
    ((2, 3, 5, 7), {"size": (2, 3), "mode": "area"}),
    ((1, 2, 3, 4, 5), {"scale_factor": 2, "mode": "trilinear"}),
    ((1, 2, 3, 4, 5), {"size": (6, 2, 7), "mode": "nearest"}),
]


@needs_torch
@pytest.mark.parametrize("row", RESIZED, ids=lambda r: f"{len(r[0])}d-{r[1]}")
def test_interpolate(row: tuple) -> None:
    shape, settings = row
    compare(lambda x: F.interpolate(x, **settings), lambda x: torch.nn.functional.interpolate(x, **settings), [normal(*shape)], work=40, modules=False)


@needs_torch
@pytest.mark.parametrize("exact", [False, True])
def test_nearest_for_many_sizes(exact: bool) -> None:
    mode = "nearest-exact" if exact else "nearest"
    for old in range(1, 30):
        x = np.arange(old, dtype="float32")[None, None]
        for new in (*range(1, 40), 97):
            ours = F.interpolate(fd.array(x), size=new, mode=mode).numpy()
            np.testing.assert_array_equal(ours, torch.nn.functional.interpolate(torch.tensor(x), size=new, mode=mode).numpy(), err_msg=f"{old} {new}")


WRONG = [
    (lambda: F.conv_transpose2d(fd.ones((1, 3, 4, 4)), fd.ones((2, 3, 3, 3))), fd.ShapeError),
    (lambda: F.conv_transpose2d(fd.ones((1, 2, 1, 1)), fd.ones((2, 3, 2, 2)), padding=1), fd.ShapeError),
    (lambda: F.conv_transpose2d(fd.ones((1, 2, 4, 4)), fd.ones((2, 3, 3, 3)), stride=2, output_padding=2), ValueError),
    (lambda: F.conv_transpose2d(fd.ones((1, 2, 4, 4)), fd.ones((2, 3, 3, 3)), groups=3), ValueError),
    (lambda: F.conv_transpose1d(fd.ones((1, 2, 4, 4)), fd.ones((2, 3, 3))), fd.ShapeError),
    (lambda: nn.ConvTranspose2d(3, 4, 3, groups=2), ValueError),
    (lambda: nn.ConvTranspose2d(3, 4, 0), ValueError),
    (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"), ValueError),
    (lambda: F.interpolate(fd.ones((1, 2, 4)), scale_factor=2, mode="bilinear"), fd.ShapeError),
    (lambda: F.interpolate(fd.ones((1, 2, 4)), scale_factor=2, mode="square"), ValueError),
    (lambda: F.interpolate(fd.ones((1, 2, 4)), 3, 2.0), ValueError),
    (lambda: F.interpolate(fd.ones((1, 2, 4)), 0), ValueError),
    (lambda: F.interpolate(fd.ones((1, 2, 4)), 3, align_corners=True), ValueError),
    (lambda: F.pixel_shuffle(fd.ones((1, 3, 4, 4)), 2), fd.ShapeError),
    (lambda: F.pixel_unshuffle(fd.ones((1, 3, 5, 4)), 2), fd.ShapeError),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_arguments(number: int) -> None:
    call, error = WRONG[number]
    with pytest.raises(error):
        call()


@needs_torch
@pytest.mark.parametrize("settings", [{}, {"norm_first": True, "activation": "gelu", "batch_first": True, "bias": False}])
def test_transformer_decoder(settings: dict) -> None:
    def build(n):
        return n.TransformerDecoder(n.TransformerDecoderLayer(8, 2, 16, dropout=0.0, **settings), 2, n.LayerNorm(8))

    ours, theirs = build(nn), build(torch.nn)
    copy_weights(ours, theirs)
    target, memory = normal(4, 4, 8), normal(4, 4, 8)
    compare(ours, theirs, [target, memory], work=100)
    mask = np.triu(np.ones((4, 4), bool), 1)
    causal = ours(fd.array(target), fd.array(memory), tgt_is_causal=True)
    close(causal, theirs(torch.tensor(target), torch.tensor(memory), tgt_mask=torch.tensor(mask)), "causal", work=100)
    padding = np.array([[False] * k + [True] * (4 - k) for k in (4, 1, 2, 3)])
    a, b = pair(memory, grad=False)
    close(ours(fd.array(target), a, memory_key_padding_mask=fd.array(padding)), theirs(torch.tensor(target), b, memory_key_padding_mask=torch.tensor(padding)), "padding", work=100)


def test_captured_steps_are_the_same() -> None:
    """A generator with transposed convolution and upsampling, captured and not."""

    def losses(wrap) -> list[float]:
        fd.manual_seed(0)
        net = nn.Sequential(nn.ConvTranspose2d(3, 4, 4, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 1, 3, padding=1))
        optimizer = fd.optim.Adam(net.parameters(), lr=1e-2)

        def step(x):
            optimizer.zero_grad()
            loss = (net(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        step = wrap(step)
        x = fd.array(np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype("float32"))
        result = [step(x).item() for _ in range(6)]
        assert wrap is not fd.compile or step.programs == 1
        return result

    assert losses(fd.compile) == losses(lambda f: f)


def test_summary_counts_transposed_convolutions() -> None:
    """Each input element meets every weight of its channel."""
    assert fd.summary(nn.ConvTranspose2d(3, 5, 4, bias=False), (3, 6, 6)).flops == 2 * 3 * 36 * 5 * 16
