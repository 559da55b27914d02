"""ResNet-18 on Fashion-MNIST, or on CIFAR-10 from its binary files (`--cifar FOLDER`), with the usual crops and flips.

With `--checkpoint FILE` every epoch is saved, and a run that was stopped goes on from there with the same numbers."""

import argparse
import time
from pathlib import Path

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--cifar", help="folder with data_batch_1.bin ... and test_batch.bin")
parser.add_argument("--width", type=int, default=16, help="channels of the first stage; 64 in the paper")
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--rate", type=float, default=0.1, help="the highest learning rate of the one-cycle schedule")
parser.add_argument("--precision", default="highest", choices=("highest", "high", "medium"), help="of products of float32 matrices, where there is AMX")
parser.add_argument("--checkpoint", type=Path, help="file to save to after each epoch, and to go on from")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

fd.manual_seed(args.seed)
fd.set_matmul_precision(args.precision)
if args.cifar:
    (x_train, y_train), (x_test, y_test) = (data.load_cifar10(s, path=args.cifar) for s in ("train", "test"))
else:
    (x_train, y_train), (x_test, y_test) = (data.load_fashion_mnist(s, full=False if args.tiny else None) for s in ("train", "test"))
if args.tiny:
    x_train, y_train, x_test, y_test, args.epochs, args.width = x_train[:96], y_train[:96], x_test[:50], y_test[:50], 2, 8

channels = x_train.shape[1]
mean, std = x_train.mean((0, 2, 3)), x_train.std((0, 2, 3))
scale = data.Normalize(mean, std)
augment = data.Compose([data.RandomCrop(x_train.shape[-1], padding=2), data.RandomHorizontalFlip(), scale])
loader = data.DataLoader((x_train, y_train), args.batch, shuffle=True, drop_last=True, transform=augment, rng=args.seed)
model = models.resnet18(num_classes=10, in_channels=channels, width=args.width, small_images=True)
print(f"ResNet-18 of width {args.width}: {sum(p.size for p in model.parameters())} parameters, {len(x_train)} images", flush=True)
optimizer = optim.SGD(model.parameters(), lr=args.rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
schedule = optim.lr_scheduler.OneCycleLR(optimizer, args.rate, total_steps=args.epochs * len(loader) + 1)
run = {"model": model, "optimizer": optimizer, "scheduler": schedule, "loader": loader}
done = {"epoch": 0, "seconds": 0.0}  # seconds: processor time of all threads
if args.checkpoint and args.checkpoint.exists():
    done = fd.load_checkpoint(args.checkpoint, **run)


@fd.compile
def step(x: fd.Tensor, y: fd.Tensor) -> fd.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


start = time.process_time() - done["seconds"]
for epoch in range(done["epoch"] + 1, args.epochs + 1):
    model.train()
    total = 0.0
    for x, y in loader:
        total += step(x, y).item()
        schedule.step()
    model.eval()
    with fd.no_grad():
        guesses = [model(fd.asarray(scale(x_test[k : k + 250]))).numpy().argmax(1) for k in range(0, len(x_test), 250)]
    accuracy = np.mean(np.concatenate(guesses) == y_test)
    seconds = time.process_time() - start
    print(f"epoch {epoch}  loss {total / len(loader):.4f}  test accuracy {accuracy:.4f}  {seconds:.1f} s of processor time", flush=True)
    if args.checkpoint:
        fd.save_checkpoint(args.checkpoint, **run, extra={"epoch": epoch, "seconds": seconds})
