"""A deep belief network on 500 labelled images of clothes: what 5,000 images without labels, learnt layer by layer, add."""

import argparse

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=15, help="of pre-training, for each layer")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--k", type=int, default=1, help="rounds of sampling per step (CD-k)")
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

(x, y), (x_test, y_test) = (data.load_fashion_mnist(s, full=False) for s in ("train", "test"))
x, x_test = x.reshape(len(x), -1), x_test.reshape(len(x_test), -1)
sizes, labelled, rounds = [784, 256, 256, 256], 500, 60
if args.tiny:
    x, y, x_test, y_test, sizes, labelled, rounds, args.epochs = x[:512], y[:512], x_test[:100], y_test[:100], [784, 32, 32], 100, 2, 1


def fine_tune(net: nn.Module) -> float:
    """Train on the labelled images only; the accuracy on the test images."""
    optimizer = optim.Adam(net.parameters(), lr=1e-3)

    @fd.compile
    def step(x: fd.Tensor, y: fd.Tensor) -> fd.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    loader = data.DataLoader((x[:labelled], y[:labelled]), 50, shuffle=True, rng=args.seed)
    for _ in range(rounds):
        for batch, labels in loader:
            step(batch, labels)
    with fd.no_grad():
        return float(np.mean(net(fd.asarray(x_test)).numpy().argmax(1) == y_test))


fd.manual_seed(args.seed)
fresh = models.DBN(sizes)
net = fresh.classifier(10)
for layer in net:  # the same network with the usual initial values: those of an RBM are much too small for it
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
print(f"without pre-training: test accuracy {fine_tune(net):.3f}", flush=True)

dbn = models.DBN(sizes)
for k, errors in enumerate(dbn.pretrain(x, args.epochs, batch_size=50, lr=0.05, momentum=0.8, k=args.k, rng=args.seed)):
    print(f"layer {k + 1}: reconstruction error {errors[0]:.4f} -> {errors[-1]:.4f}", flush=True)
print(f"with pre-training:    test accuracy {fine_tune(dbn.classifier(10)):.3f}")
