"""Small changes that mislead a classifier (FGSM, PGD), and a defence: training on them (Madry et al., 2018)."""

import argparse

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--epsilon", type=float, default=0.1, help="how far a pixel in [0, 1] may move")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

(x, y), (x_test, y_test) = (data.load_fashion_mnist(s, full=False) for s in ("train", "test"))
if args.tiny:
    x, y, x_test, y_test, args.epochs = x[:256], y[:256], x_test[:100], y_test[:100], 1
x_test, y_test = fd.asarray(x_test), fd.asarray(y_test)


def train(attack_steps: int) -> nn.Module:
    """A small network, trained on what `attack_steps` steps of PGD make of the images (0: on the images)."""
    fd.manual_seed(args.seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = optim.Adam(model.parameters(), lr=2e-3)

    @fd.compile
    def step(images: fd.Tensor, labels: fd.Tensor) -> fd.Tensor:
        if attack_steps:
            images = models.pgd(model, images, labels, args.epsilon, attack_steps)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(args.epochs):
        for images, labels in data.DataLoader((x, y), 64, shuffle=True, drop_last=True, rng=args.seed):
            step(images, labels)
    return model.eval()


def accuracy(model: nn.Module, images: fd.Tensor) -> float:
    with fd.no_grad():
        return float(np.mean(model(images).numpy().argmax(1) == y_test.numpy()))


for name, attack_steps in (("trained on images", 0), ("trained on attacks", 5)):
    model = train(attack_steps)
    fast = models.fgsm(model, x_test, y_test, args.epsilon)
    strong = models.pgd(model, x_test, y_test, args.epsilon, 20, rng=args.seed)
    noise = fd.clip(x_test + args.epsilon * fd.sign(fd.random.normal(x_test.shape, rng=args.seed)), 0, 1)
    print(
        f"{name}: test accuracy {accuracy(model, x_test):.3f}, noise of that size {accuracy(model, noise):.3f}, "
        f"FGSM {accuracy(model, fast):.3f}, PGD {accuracy(model, strong):.3f}",
        flush=True,
    )
