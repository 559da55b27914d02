"""A large network teaches a small one: its soft answers say more about an image than the label does (Hinton et al., 2015)."""

import argparse

import numpy as np

import fastdl as fd
from fastdl import data, nn, optim
from fastdl.nn import functional as F

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=15, help="of the teacher; students have twice as many")
parser.add_argument("--seeds", type=int, default=3, help="students of each kind")
parser.add_argument("--temperature", type=float, default=4.0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

x, y = data.load_fashion_mnist("train", full=False)
x_test, y_test = data.load_fashion_mnist("test", full=False if args.tiny else None)  # the official 10,000, where they are
if args.tiny:
    x, y, x_test, y_test, args.epochs, args.seeds = x[:320], y[:320], x_test[:100], y_test[:100], 1, 1


def conv_net(width: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(36 * width, 10))


def train(model: nn.Module, seed: int, epochs: int, teacher: nn.Module | None = None) -> float:
    """Accuracy on the test images after training on the labels, and on the teacher's answers if there is one."""
    optimizer = optim.Adam(model.parameters(), lr=2e-3)
    loader = data.DataLoader((x, y), 50, shuffle=True, drop_last=True, transform=data.RandomHorizontalFlip(), rng=seed)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))

    @fd.compile
    def step(pixels: fd.Tensor, labels: fd.Tensor) -> fd.Tensor:
        optimizer.zero_grad()
        if teacher is None:
            loss = F.cross_entropy(model(pixels), labels)
        else:
            with fd.no_grad():
                answers = teacher(pixels)
            loss = F.distillation_loss(model(pixels), answers, labels, temperature=args.temperature, alpha=0.9)
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
        guesses = [model(fd.asarray(x_test[k : k + 500])).numpy().argmax(1) for k in range(0, len(x_test), 500)]
    return float(np.mean(np.concatenate(guesses) == y_test))


fd.manual_seed(0)
teacher = conv_net(32)
accuracy = train(teacher, 0, args.epochs)
print(f"teacher, {sum(p.size for p in teacher.parameters())} parameters: test accuracy {accuracy:.4f} on {len(x_test)} images", flush=True)
for name, master in (("taught", teacher), ("alone", None)):
    scores = []
    for seed in range(args.seeds):
        fd.manual_seed(seed)
        student = conv_net(12)
        scores.append(train(student, seed, 2 * args.epochs, master))
    size, mean = sum(p.size for p in student.parameters()), float(np.mean(scores))
    print(f"student {name}, {size} parameters: {mean:.4f}, {mean - accuracy:+.4f} (of {', '.join(f'{s:.4f}' for s in scores)})", flush=True)
