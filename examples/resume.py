"""Stop a training run anywhere and go on exactly: weights, optimiser, schedule, shuffling, augmentation and dropout all resume."""

import argparse
import tempfile
from pathlib import Path

import fastdl as fd
from fastdl import data, nn, optim
from fastdl.nn import functional as F


class Run:
    def __init__(self, seed: int) -> None:
        fd.manual_seed(seed)
        images, labels = data.load_digits("train")
        self.loader = data.DataLoader((images, labels), 64, shuffle=True, transform=data.RandomShift(1), rng=seed)
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.01)
        self.scheduler = optim.lr_scheduler.ExponentialLR(self.optimizer, 0.99)
        self.parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler, "loader": self.loader}
        self.batches = self.stream()

    def stream(self):
        while True:
            yield from self.loader

    def train(self, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            x, y = next(self.batches)
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            losses.append(loss.item())
        return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="no difference: the run takes a second")
    parser.parse_args()
    whole = Run(seed=1).train(60)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        first = Run(seed=1)
        start = first.train(35)
        fd.save_checkpoint(path, **first.parts, extra={"steps": 35})
        second = Run(seed=999)  # another seed: everything comes from the file
        print("resuming after", fd.load_checkpoint(path, **second.parts))
        rest = second.train(25)
    print(f"loss after 60 steps: {whole[-1]:.6f} in one go, {rest[-1]:.6f} in two parts")
    print("all 60 losses equal, bit for bit:", start + rest == whole)
    assert start + rest == whole


if __name__ == "__main__":
    main()
