"""Learning to see without labels (SimCLR): two random views of an image should look alike. Then a linear layer on few labels."""

import argparse
import time

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=60)
parser.add_argument("--labels", type=int, default=100)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

(x, y), (x_test, y_test) = (data.load_fashion_mnist(s, full=False) for s in ("train", "test"))
if args.tiny:
    x, y, x_test, y_test, args.epochs, args.labels = x[:256], y[:256], x_test[:100], y_test[:100], 1, 50


def build_encoder() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())


def features(encoder: nn.Module, images: np.ndarray) -> fd.Tensor:
    encoder.eval()
    with fd.no_grad():
        return fd.concat([encoder(fd.asarray(images[k : k + 500])) for k in range(0, len(images), 500)])


def probe(encoder: nn.Module) -> float:
    """Test accuracy of a linear layer on frozen features, trained on the first labels only."""
    known, unknown = features(encoder, x[: args.labels]), features(encoder, x_test)
    mean, std = known.mean(axis=0), known.std(axis=0) + 1e-3
    known, unknown = (known - mean) / std, (unknown - mean) / std
    layer, labels = nn.Linear(known.shape[1], 10), fd.asarray(y[: args.labels])
    optimizer = optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(layer(known), labels).backward()
        optimizer.step()
    return float(np.mean(layer(unknown).detach().numpy().argmax(1) == y_test))


fd.manual_seed(args.seed)
model = models.SimCLR(build_encoder(), 256, 64, temperature=0.3)
print(f"random features, {args.labels} labels:      test accuracy {probe(model.encoder):.3f}", flush=True)
optimizer = optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
view = data.Compose([data.RandomCrop(28, padding=4), data.RandomHorizontalFlip(), data.Cutout(10)], rng=args.seed)
rng = np.random.default_rng(args.seed)


@fd.compile
def step(first: fd.Tensor, second: fd.Tensor) -> fd.Tensor:
    optimizer.zero_grad()
    loss = model.loss(first, second)
    loss.backward()
    optimizer.step()
    return loss


def shaded(images: np.ndarray) -> np.ndarray:
    """Each image lighter or darker, with more or less contrast."""
    power, factor = rng.uniform(0.6, 1.6, (2, len(images), 1, 1, 1))
    return np.clip(factor * images**power, 0, 1).astype(np.float32)


start, batch = time.perf_counter(), 128
for epoch in range(1, args.epochs + 1):
    model.train()
    order = rng.permutation(len(x))
    losses = [step(shaded(view(x[k])), shaded(view(x[k]))).item() for k in np.split(order[: len(x) // batch * batch], len(x) // batch)]
    if epoch % max(1, args.epochs // 4) == 0:
        print(f"epoch {epoch:3}  loss {np.mean(losses):.3f}  {time.perf_counter() - start:.0f} s", flush=True)
print(f"contrastive features, {args.labels} labels: test accuracy {probe(model.encoder):.3f}")
