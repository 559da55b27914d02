"""U-Net: which pixels belong to a disc, which to a square? The shapes lie half transparent over photographs of clothes."""

import argparse

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()
steps, size = (6, 32) if args.tiny else (args.steps, 64)

rng = np.random.default_rng(args.seed)
clothes = data.load_fashion_mnist("train", full=False)[0][:, 0]


def scenes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 1, size, size) of one disc and one square over clothes, and the class of every pixel (n, size, size)."""
    tiles = size // 28 + 1
    images = rng.choice(clothes, (n, tiles * tiles)).reshape(n, tiles, tiles, 28, 28)
    images = images.transpose(0, 1, 3, 2, 4).reshape(n, tiles * 28, tiles * 28)[:, :size, :size].copy()
    masks = np.zeros((n, size, size), np.int64)
    row, column = np.mgrid[:size, :size]
    for image, mask in zip(images, masks, strict=True):
        for kind in rng.permutation([1, 2]):  # the later shape covers the earlier
            (y, x), radius = rng.integers(8, size - 8, 2), rng.integers(size // 9, size // 4)
            dy, dx = abs(row - y), abs(column - x)
            shape = dy**2 + dx**2 <= radius**2 if kind == 1 else np.maximum(dy, dx) <= 0.9 * radius
            image[shape] = 0.4 * image[shape] + 0.6 * rng.uniform(0.3, 1)
            mask[shape] = kind
    return images[:, None].astype(np.float32), masks


fd.manual_seed(args.seed)
model = models.UNet(1, 3, width=8 if args.tiny else 12, depth=3)
optimizer = optim.AdamW(model.parameters(), lr=3e-3)
schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


@fd.compile
def step(x: fd.Tensor, mask: fd.Tensor) -> fd.Tensor:
    optimizer.zero_grad()
    scores = fd.permute_dims(model(x), (0, 2, 3, 1)).reshape(-1, 3)
    loss = nn.functional.cross_entropy(scores, mask.reshape(-1))
    loss.backward()
    optimizer.step()
    return loss


for k in range(1, steps + 1):
    loss = step(*scenes(16))
    schedule.step()
    if k % max(1, steps // 6) == 0:
        print(f"step {k:4}  loss {loss.item():.4f}", flush=True)

model.eval()
x, truth = scenes(20 if args.tiny else 100)
with fd.no_grad():
    found = np.concatenate([model(fd.asarray(x[k : k + 20])).numpy().argmax(1) for k in range(0, len(x), 20)])
for kind, name in enumerate(("background", "disc", "square")):
    a, b = found == kind, truth == kind
    print(f"{name}: intersection over union {(a & b).sum() / max(1, (a | b).sum()):.3f}")
