"""DCGAN on Fashion-MNIST: a generator learns to fool a discriminator. A classifier then names what came out, and says how varied it is."""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim, visual

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()), help="folder for the picture")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

fd.manual_seed(args.seed)
x, y = data.load_fashion_mnist("train", full=False)
width, batch, latent, judge_epochs = 32, 50, 64, 6
if args.tiny:
    x, y, width, args.epochs, judge_epochs = x[:200], y[:200], 8, 1, 1

generator = models.DCGenerator(latent, width=width)
discriminator = models.DCDiscriminator(width=width, dropout=0.3)
g_optimizer = optim.Adam(generator.parameters(), lr=4e-4, betas=(0.5, 0.999))
d_optimizer = optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
bce = nn.functional.binary_cross_entropy_with_logits
real, false = fd.full(batch, 0.9), fd.zeros(batch)  # 0.9: a discriminator that is never quite sure


@fd.compile
def step(images: fd.Tensor) -> tuple[fd.Tensor, fd.Tensor]:
    made = generator(fd.random.normal((batch, latent)))
    d_optimizer.zero_grad()
    d_loss = bce(discriminator(images), real) + bce(discriminator(made.detach()), false)
    d_loss.backward()
    d_optimizer.step()
    g_optimizer.zero_grad()
    g_loss = bce(discriminator(made), real)
    g_loss.backward()
    g_optimizer.step()
    return d_loss, g_loss


start = time.perf_counter()
loader = data.DataLoader(2 * x - 1, batch, shuffle=True, drop_last=True, rng=args.seed)
for epoch in range(1, args.epochs + 1):
    losses = np.mean([[loss.item() for loss in step(images)] for (images,) in loader], 0)
    if epoch % max(1, args.epochs // 5) == 0:
        print(f"epoch {epoch:3}  discriminator {losses[0]:.3f}  generator {losses[1]:.3f}  {time.perf_counter() - start:.0f} s", flush=True)

judge = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 49, 10),
)  # fmt: skip
optimizer = optim.Adam(judge.parameters(), lr=2e-3)
for _ in range(judge_epochs):
    for images, labels in data.DataLoader((x, y), 50, shuffle=True, rng=args.seed):
        optimizer.zero_grad()
        nn.functional.cross_entropy(judge(images), labels).backward()
        optimizer.step()

generator.eval(), judge.eval()
with fd.no_grad():
    made = (generator(fd.random.normal((500, latent), rng=args.seed)) + 1) / 2
    scores = {"real": fd.softmax(judge(fd.asarray(x[:500])), -1).numpy(), "made": fd.softmax(judge(made), -1).numpy()}
for name, chances in scores.items():  # sure about each, and varied on the whole: the two halves of the inception score
    shares = chances.mean(0)
    variety = np.exp(-(shares * np.log(shares + 1e-9)).sum())
    score = np.exp((chances * np.log((chances + 1e-9) / (shares + 1e-9))).sum(1).mean())
    sure = (chances.max(1) > 0.9).mean()
    print(f"{name}: recognised with over 90 % {sure:.2f}, effective classes {variety:.1f} of 10, inception score {score:.2f}")
visual.plot_images(made[: 4 if args.tiny else 64], columns=2 if args.tiny else 8).savefig(args.out / "dcgan.png")
print(f"wrote dcgan.png to {args.out}")
