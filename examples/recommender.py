"""Which stars would a user give? Matrix factorisation and a neural recommender on made-up ratings, of which a tenth is held back."""

import argparse

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()
users, items, count = (60, 40, 800) if args.tiny else (600, 400, 40_000)
epochs = 2 if args.tiny else args.epochs

# Users like some of five genres, items belong to some, some are kinder and some are better than others, and there is chance in it.
rng = np.random.default_rng(args.seed)
taste, genre = rng.standard_normal((users, 5)), rng.standard_normal((items, 5)) / 3
user, item = np.divmod(rng.choice(users * items, count, replace=False), items)
wish = 3.5 + rng.normal(0, 0.4, users)[user] + rng.normal(0, 0.4, items)[item] + (taste[user] * genre[item]).sum(1)
noise = rng.normal(0, 0.5, count)
stars = np.clip(np.round(wish + noise), 1, 5).astype(np.float32)
test, train = slice(0, count // 10), slice(count // 10, None)


def error(guess: np.ndarray) -> float:
    """Root of the mean squared error of the ratings held back."""
    return float(np.sqrt(np.mean((guess - stars[test]) ** 2)))


def fit(model: nn.Module, decay: float) -> float:
    optimizer = optim.AdamW(model.parameters(), lr=5e-3, weight_decay=decay)
    loader = data.DataLoader((user[train], item[train], stars[train]), 512, shuffle=True, drop_last=True, rng=args.seed)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * max(1, len(loader)))

    @fd.compile
    def step(user: fd.Tensor, item: fd.Tensor, stars: fd.Tensor) -> fd.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(user, item), stars)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(epochs):
        for batch in loader:
            step(*batch)
            schedule.step()
    model.eval()
    with fd.no_grad():
        return error(np.clip(model(fd.asarray(user[test]), fd.asarray(item[test])).numpy(), 1, 5))


mean = float(stars[train].mean())
print(f"the mean of all ratings:        error {error(np.full(count // 10, mean)):.3f}")
print(f"what is possible (known tastes): error {error(np.clip(wish[test], 1, 5)):.3f}")
fd.manual_seed(args.seed)
print(f"matrix factorisation:           error {fit(models.MatrixFactorization(users, items, 8, mean), 0.5):.3f}", flush=True)
print(f"neural recommender:             error {fit(models.NeuralRecommender(users, items, 8, (32, 16), mean, 0.1), 0.1):.3f}")
