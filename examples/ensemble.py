"""Five networks answer together: better than any of them, and better at knowing how sure to be (Lakshminarayanan et al., 2017)."""

import argparse

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim
from fastdl.nn import functional as F

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--members", type=int, default=5)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

(x, y), (x_test, y_test) = (data.load_fashion_mnist(s, full=False) for s in ("train", "test"))
if args.tiny:
    x, y, x_test, y_test, args.epochs, args.members = x[:256], y[:256], x_test[:100], y_test[:100], 1, 2
x_test = fd.asarray(x_test)


def train(seed: int) -> nn.Module:
    fd.manual_seed(seed)
    model = models.LeNet5(activation="relu")
    optimizer = optim.Adam(model.parameters(), lr=2e-3)

    @fd.compile
    def step(images: fd.Tensor, labels: fd.Tensor) -> fd.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(args.epochs):
        for images, labels in data.DataLoader((x, y), 64, shuffle=True, drop_last=True, rng=seed):
            step(images, labels)
    return model.eval()


def report(name: str, model: nn.Module) -> None:
    with fd.no_grad():
        scores = model(x_test)
        loss = F.cross_entropy(scores, fd.asarray(y_test)).item()
        chances = fd.softmax(scores, -1).numpy()
    right, sure = chances.argmax(1) == y_test, chances.max(1)
    bins = np.minimum((sure * 10).astype(int), 9)
    gap = sum(abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    print(f"{name}: test accuracy {right.mean():.4f}, loss {loss:.4f}, calibration error {gap:.4f}", flush=True)


members = [train(seed) for seed in range(args.members)]
for k, member in enumerate(members):
    report(f"member {k + 1}", member)
report("together", models.Ensemble(members))
