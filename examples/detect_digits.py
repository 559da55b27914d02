"""A single-shot detector: which handwritten digits are where in a noisy image? Digits come in several sizes, one to three at a time."""

import argparse

import numpy as np

import fastdl as fd
from fastdl import data, models, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=1500)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()
steps = 10 if args.tiny else args.steps
rng = np.random.default_rng(args.seed)
digits = {split: data.load_digits(split) for split in ("train", "test")}


def scenes(n: int, split: str) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Images (n, 1, 64, 64) with boxes (left, top, right, bottom) and labels of the digits in them; none overlap."""
    images = rng.uniform(0, 0.3, (n, 1, 64, 64)).astype(np.float32)
    boxes, labels = [], []
    x, y = digits[split]
    for image in images[:, 0]:
        placed: list[list[int]] = []
        chosen: list[int] = []
        for _ in range(rng.integers(1, 4)):
            size = 8 * int(rng.integers(2, 5))
            left, top = rng.integers(0, 64 - size + 1, 2)
            box = [int(left), int(top), int(left) + size, int(top) + size]
            if placed and models.box_iou([box], placed).max() > 0:
                continue
            k = rng.integers(len(x))
            patch = image[box[1] : box[3], box[0] : box[2]]
            np.maximum(patch, np.kron(x[k, 0], np.ones((size // 8, size // 8), np.float32)), out=patch)
            placed.append(box)
            chosen.append(int(y[k]))
        boxes.append(np.array(placed))
        labels.append(np.array(chosen))
    return images, boxes, labels


fd.manual_seed(args.seed)
model = models.SSD(10, image_size=64, width=16)
optimizer = optim.AdamW(model.parameters(), lr=1e-3)
schedule = optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps + 1)


@fd.compile
def step(x: fd.Tensor, classes: fd.Tensor, offsets: fd.Tensor) -> fd.Tensor:
    optimizer.zero_grad()
    loss = model.loss(x, classes, offsets)
    loss.backward()
    optimizer.step()
    return loss


for k in range(1, steps + 1):
    x, boxes, labels = scenes(16, "train")
    loss = step(x, *model.targets(boxes, labels))
    schedule.step()
    if k % (steps // 5) == 0:
        print(f"step {k:5}  loss {loss.item():.3f}", flush=True)

model.eval()
x, boxes, labels = scenes(20 if args.tiny else 200, "test")
found = model.detect(fd.asarray(x), score_threshold=0.05)
score = models.mean_average_precision(found, list(zip(boxes, labels, strict=True)), 10)
print(f"mean average precision at an overlap of a half: {score:.3f}")
sure = [f"{label} at {box.round().astype(int).tolist()} ({s:.2f})" for box, label, s in zip(*found[0], strict=True) if s > 0.3]
print(f"the first image has {labels[0].tolist()} at {boxes[0].tolist()}; found: {'; '.join(sure) or 'nothing sure'}")
