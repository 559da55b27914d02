"""ResNet-18 on Fashion-MNIST, or on CIFAR-10 from its binary files (`--cifar FOLDER`), with the usual crops and flips."""

import argparse
import time

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--cifar", help="folder with data_batch_1.bin ... and test_batch.bin")
parser.add_argument("--width", type=int, default=16, help="channels of the first stage; 64 in the paper")
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

fd.manual_seed(args.seed)
if args.cifar:
    (x_train, y_train), (x_test, y_test) = (data.load_cifar10(s, path=args.cifar) for s in ("train", "test"))
else:
    (x_train, y_train), (x_test, y_test) = (data.load_fashion_mnist(s, full=False if args.tiny else None) for s in ("train", "test"))
if args.tiny:
    x_train, y_train, x_test, y_test, args.epochs, args.width = x_train[:96], y_train[:96], x_test[:50], y_test[:50], 1, 8

channels = x_train.shape[1]
mean, std = x_train.mean((0, 2, 3)), x_train.std((0, 2, 3))
scale = data.Normalize(mean, std)
augment = data.Compose([data.RandomCrop(x_train.shape[-1], padding=2), data.RandomHorizontalFlip(), scale])
loader = data.DataLoader((x_train, y_train), 32, shuffle=True, drop_last=True, transform=augment, rng=args.seed)
model = models.resnet18(num_classes=10, in_channels=channels, width=args.width, small_images=True)
print(f"ResNet-18 of width {args.width}: {sum(p.size for p in model.parameters())} parameters, {len(x_train)} images")
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=args.epochs * len(loader) + 1)


@fd.compile
def step(x: fd.Tensor, y: fd.Tensor) -> fd.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)
    loss.backward()
    optimizer.step()
    return loss


start = time.perf_counter()
for epoch in range(1, args.epochs + 1):
    model.train()
    total = 0.0
    for x, y in loader:
        total += step(x, y).item()
        schedule.step()
    model.eval()
    with fd.no_grad():
        guesses = [model(fd.asarray(scale(x_test[k : k + 250]))).numpy().argmax(1) for k in range(0, len(x_test), 250)]
    accuracy = np.mean(np.concatenate(guesses) == y_test)
    print(f"epoch {epoch}  loss {total / len(loader):.4f}  test accuracy {accuracy:.4f}  {time.perf_counter() - start:.1f} s", flush=True)
