"""A large network that has seen 5,000 images teaches small ones that see 500: soft answers say more than labels (Hinton et al., 2015)."""

import argparse

import numpy as np

import fastdl as fd
from fastdl import data, nn, optim
from fastdl.nn import functional as F

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--seeds", type=int, default=3, help="students of each kind")
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

(x, y), (x_test, y_test) = (data.load_fashion_mnist(s, full=False) for s in ("train", "test"))
if args.tiny:
    x, y, x_test, y_test, args.epochs, args.seeds = x[:640], y[:640], x_test[:100], y_test[:100], 1, 1


def conv_net(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(98 * width, 10),
    )  # fmt: skip


def train(model: nn.Module, seed: int, images: int, epochs: int, teacher: nn.Module | None = None) -> float:
    """Accuracy on the test images after training on the labels, and on the teacher's answers if there is one."""
    optimizer = optim.Adam(model.parameters(), lr=2e-3)
    loader = data.DataLoader((x[:images], y[:images]), 50, shuffle=True, drop_last=True, transform=data.RandomHorizontalFlip(), rng=seed)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))

    @fd.compile
    def step(pixels: fd.Tensor, labels: fd.Tensor) -> fd.Tensor:
        optimizer.zero_grad()
        if teacher is None:
            loss = F.cross_entropy(model(pixels), labels)
        else:
            with fd.no_grad():
                answers = teacher(pixels)
            loss = F.distillation_loss(model(pixels), answers, labels, temperature=4.0, alpha=0.9)
        loss.backward()
        optimizer.step()
        return loss

    model.train()
    for _ in range(epochs):
        for pixels, labels in loader:
            step(pixels, labels)
            schedule.step()
    model.eval()
    with fd.no_grad():
        return float(np.mean(model(fd.asarray(x_test)).numpy().argmax(1) == y_test))


fd.manual_seed(0)
teacher = conv_net(32)
print(f"teacher, {sum(p.size for p in teacher.parameters())} parameters: test accuracy {train(teacher, 0, len(x), args.epochs):.4f}", flush=True)
for name, master in (("alone", None), ("taught", teacher)):
    scores = []
    for seed in range(args.seeds):
        fd.manual_seed(seed)
        student = conv_net(8)
        scores.append(train(student, seed, len(x) // 10, 4 * args.epochs, master))
    size = sum(p.size for p in student.parameters())
    print(f"student {name}, {size} parameters: test accuracy {np.mean(scores):.4f} (of {', '.join(f'{s:.3f}' for s in scores)})", flush=True)
