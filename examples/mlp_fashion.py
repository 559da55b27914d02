"""A multilayer perceptron on Fashion-MNIST: 784-128-10. The whole data set is used where it is found, else the part that ships."""

import argparse
import time

import numpy as np

import fastdl as fd
from fastdl import data, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

fd.manual_seed(args.seed)
(x_train, y_train), (x_test, y_test) = (data.load_fashion_mnist(s, full=False if args.tiny else None) for s in ("train", "test"))
if args.tiny:
    x_train, y_train, x_test, y_test, args.epochs = x_train[:1000], y_train[:1000], x_test[:500], y_test[:500], 1
print(f"{len(x_train)} images to learn from, {len(x_test)} to test with")

loader = data.DataLoader((x_train, y_train), 64, shuffle=True, drop_last=True, rng=args.seed)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = optim.Adam(model.parameters(), lr=1e-3)
schedule = optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=args.epochs * len(loader))


@fd.compile
def step(x: fd.Tensor, y: fd.Tensor) -> fd.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


start = time.perf_counter()
for epoch in range(1, args.epochs + 1):
    total = 0.0
    for x, y in loader:
        total += step(x, y).item()
        schedule.step()
    with fd.no_grad():
        guesses = model(fd.asarray(x_test)).numpy().argmax(1)
    seconds = time.perf_counter() - start
    print(f"epoch {epoch}  loss {total / len(loader):.4f}  test accuracy {np.mean(guesses == y_test):.4f}  {seconds:.1f} s", flush=True)
