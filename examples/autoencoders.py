"""Four autoencoders on Fashion-MNIST: plain, denoising, stacked (layer by layer), variational. The pictures show what they make of it."""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim, visual

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()), help="folder for the pictures")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

fd.manual_seed(args.seed)
train, test = (data.load_fashion_mnist(s, full=False)[0].reshape(-1, 784) for s in ("train", "test"))
sizes, epochs, shown = [784, 256, 32], args.epochs, 8
if args.tiny:
    train, test, sizes, epochs, shown = train[:512], test[:64], [784, 32, 8], 1, 2
test = fd.asarray(test)


def noisy(x: fd.Tensor) -> fd.Tensor:
    """Half of the pixels are lost."""
    return x * fd.random.bernoulli(0.5, x.shape)


def train_model(model: nn.Module, loss_of: object) -> None:
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    @fd.compile
    def step(x: fd.Tensor) -> fd.Tensor:
        optimizer.zero_grad()
        loss = loss_of(x)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(epochs):
        for (x,) in data.DataLoader(train, 64, shuffle=True, drop_last=True):
            step(x)


def error(model: nn.Module, x: fd.Tensor) -> float:
    """Mean squared error of the test images, restored from x."""
    with fd.no_grad():
        return nn.functional.mse_loss(model(x), test).item()


mse = nn.functional.mse_loss
plain, denoiser = models.Autoencoder(sizes), models.Autoencoder(sizes)
train_model(plain, lambda x: mse(plain(x), x))
train_model(denoiser, lambda x: mse(denoiser(noisy(x)), x))
fd.manual_seed(args.seed + 1)
broken = noisy(test)
print(f"pixels lost, nothing done     error {mse(broken, test).item():.4f}")
print(f"plain       whole images      error {error(plain, test):.4f}   broken images  error {error(plain, broken):.4f}")
print(f"denoising   whole images      error {error(denoiser, test):.4f}   broken images  error {error(denoiser, broken):.4f}")

stacked = models.StackedAutoencoder(sizes)
stacked.pretrain(train, epochs=max(1, epochs // 2), batch_size=64)
print(f"stacked     after layers      error {error(stacked, test):.4f}")
train_model(stacked, lambda x: mse(stacked(x), x))
print(f"stacked     after fine-tuning error {error(stacked, test):.4f}")

vae = models.VAE([*sizes[:-1], 16])
train_model(vae, vae.loss)
with fd.no_grad():
    print(f"variational bound on -log p(x): {vae.loss(test).item():.1f} nats")
    some = test[:shown]
    rows = [some, broken[:shown], denoiser(broken[:shown]), plain(some), stacked(some)]

titles = [name for name in ("image", "broken", "denoised", "plain", "stacked") for _ in range(shown)]
pictures = np.concatenate([r.numpy() for r in rows]).reshape(-1, 28, 28)
visual.plot_images(pictures, titles, columns=shown).savefig(args.out / "autoencoders.png")
visual.plot_images(vae.sample(shown**2, rng=0).reshape(-1, 28, 28), columns=shown).savefig(args.out / "vae.png")
print(f"wrote autoencoders.png and vae.png to {args.out}")
