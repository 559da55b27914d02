"""LeNet-5 and a modern small network of about as many parameters, on Fashion-MNIST: what 20 years of tricks are worth."""

import argparse
import time

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", choices=["lenet", "modern"], default="lenet")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

fd.manual_seed(args.seed)
(x_train, y_train), (x_test, y_test) = (data.load_fashion_mnist(s, full=False if args.tiny else None) for s in ("train", "test"))
if args.tiny:
    x_train, y_train, x_test, y_test, args.epochs = x_train[:512], y_train[:512], x_test[:200], y_test[:200], 1

if args.model == "lenet":
    model: nn.Module = models.LeNet5(activation="relu")
else:
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 32), (32, 48), (48, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 9, 10))
print(f"{args.model}: {sum(p.size for p in model.parameters())} parameters, {len(x_train)} images")
loader = data.DataLoader((x_train, y_train), 64, shuffle=True, drop_last=True, transform=data.RandomHorizontalFlip(), rng=args.seed)
optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
schedule = optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=args.epochs * len(loader) + 1)


@fd.compile
def step(x: fd.Tensor, y: fd.Tensor) -> fd.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def accuracy() -> float:
    model.eval()
    with fd.no_grad():
        guesses = [model(fd.asarray(x_test[k : k + 500])).numpy().argmax(1) for k in range(0, len(x_test), 500)]
    model.train()
    return float(np.mean(np.concatenate(guesses) == y_test))


start = time.perf_counter()
for epoch in range(1, args.epochs + 1):
    total = 0.0
    for x, y in loader:
        total += step(x, y).item()
        schedule.step()
    seconds = time.perf_counter() - start
    print(f"epoch {epoch:2}  loss {total / len(loader):.4f}  test accuracy {accuracy():.4f}  {seconds:.1f} s", flush=True)
