"""A convolutional network on Fashion-MNIST (the images that ship with the package), with augmentation and a checkpoint that resumes."""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import fastdl as fd
from fastdl import data, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--checkpoint", type=Path, default=Path(tempfile.gettempdir()) / "cnn_fashion.safetensors")
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

fd.manual_seed(0)
(x_train, y_train), (x_test, y_test) = data.load_fashion_mnist("train"), data.load_fashion_mnist("test")
if args.tiny:
    x_train, y_train, x_test, y_test, args.epochs = x_train[:256], y_train[:256], x_test[:100], y_test[:100], 1

loader = data.DataLoader((x_train, y_train), 64, shuffle=True, transform=data.RandomHorizontalFlip(), rng=0)
model = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(64 * 7 * 7, 10),
)  # fmt: skip
optimizer = optim.Adam(model.parameters(), lr=1e-3)


def accuracy() -> float:
    """Share of the test images that the network names rightly."""
    model.eval()
    with fd.no_grad():
        batches = [model(fd.asarray(x_test[k : k + 500])).numpy().argmax(1) for k in range(0, len(x_test), 500)]
    model.train()
    return float(np.mean(np.concatenate(batches) == y_test))


for epoch in range(1, args.epochs + 1):
    total = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(y)
    print(f"epoch {epoch}  loss {total / len(x_train):.4f}  test accuracy {accuracy():.4f}", flush=True)

before = accuracy()
fd.save(model, args.checkpoint)
for p in model.parameters():
    p.detach().fill_(0)
model.load_state_dict(fd.load(args.checkpoint))
print(f"saved and loaded: {accuracy() == before}")
