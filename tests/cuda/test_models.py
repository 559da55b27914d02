"""fd.models on a CUDA device (or the emulator's, see test_device.py): the numbers of the CPU, and nothing made on the wrong device."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import fastdl as fd
from fastdl import models, nn

pytestmark = pytest.mark.skipif(fd._C.cuda_device_count() == 0, reason=f"no CUDA device: {fd._C.cuda_missing() or 'the library finds none'}")

rng = np.random.default_rng(3)
PIXELS, TOKENS = rng.random((2, 1, 8, 8), dtype=np.float32), rng.integers(0, 9, (2, 4))

MODELS = [
    (lambda: nn.ConvTranspose2d(1, 3, 3, 2, 1, 1), [PIXELS]),
    (lambda: nn.ConvTranspose2d(1, 3, 3, dilation=3, output_padding=2), [PIXELS]),
    (lambda: nn.Upsample(scale_factor=1.5, mode="bilinear"), [PIXELS]),
    (lambda: nn.Upsample(size=5), [PIXELS]),
    (lambda: nn.TransformerDecoderLayer(8, 2, 4, dropout=0.0), [PIXELS[:, 0], PIXELS[:, 0]]),
    (lambda: models.UNet(1, 2, 2, 1), [PIXELS]),
    (lambda: models.VAE([8, 4, 2]), [PIXELS[:, 0, 0]]),  # with noise: the streams are the same
    (lambda: models.DCGenerator(8, width=2, size=8), [PIXELS[:, 0, 0]]),
    (lambda: models.DCDiscriminator(width=2, size=8), [PIXELS]),
    (lambda: models.SkipGram(9, 2), [TOKENS[0], TOKENS[1], rng.integers(0, 9, (4, 3))]),
    (lambda: models.TextCNN(9, 2, width=2, channels=2, kernels=(1, 2), dropout=0.0), [TOKENS]),
    (lambda: models.GPT(9, 4, 4, 1, 2, dropout=0.0), [TOKENS]),
    (lambda: models.NeuralRecommender(9, 9, 2, (3,)), [TOKENS[0], TOKENS[1]]),
]


@pytest.mark.parametrize("number", range(len(MODELS)))
def test_numbers_of_the_cpu(number: int) -> None:
    build, inputs = MODELS[number]
    fd.manual_seed(0)
    here = build()
    there = copy.deepcopy(here).to("cuda")
    results = []
    for model, device in ((here, "cpu"), (there, "cuda")):
        fd.manual_seed(1)
        y = model(*[fd.asarray(x).to(device) for x in inputs])
        y = y[0] if isinstance(y, tuple) else y
        if y.requires_grad:
            fd.square(y).sum().backward()
        gradients = [p.grad.cpu().numpy() for p in model.parameters() if p.grad is not None]
        results.append([y.detach().cpu().numpy(), *gradients])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(a).max()))


def test_training_and_sampling_stay_on_the_device() -> None:
    fd.manual_seed(0)
    x = PIXELS.reshape(16, 8)
    for model, extra in ((models.StackedAutoencoder([8, 4, 2]), {"noise": 0.2}), (models.DBN([8, 4]), {"k": 2})):
        history = model.to("cuda").pretrain(x, 1, 8, rng=0, **extra)
        assert np.isfinite(history).all() and all(p.device.type == "cuda" for p in model.parameters())
    assert models.VAE([8, 4, 2]).to("cuda").sample(3, rng=0).device.type == "cuda"
    assert len(models.GPT(9, 4, 4, 1, 2).to("cuda").generate([1, 2], 3, rng=0)) == 5
    assert len(models.RecurrentLM(9, 2, 2).to("cuda").generate([1, 2], 3, rng=0)) == 5
    detector = models.SSD(2, 32, width=1).to("cuda").eval()
    assert len(detector.detect(fd.zeros((2, 1, 32, 32), device="cuda"), 0.0)) == 2
    attacked = models.pgd(nn.Linear(8, 3).to("cuda"), fd.asarray(x).to("cuda"), fd.zeros(16, dtype="int64", device="cuda"), 0.1, 2, rng=0)
    assert attacked.device.type == "cuda"
    assert np.isfinite(models.nt_xent_loss(fd.asarray(x).to("cuda"), fd.asarray(1 - x).to("cuda")).item())
