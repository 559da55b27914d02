"""XOR, the smallest problem that needs a hidden layer: four sigmoid units, full batches, momentum; any seed will do.

Most recipes get stuck now and then: one of the four corners is given up for good. This one does not (100 of 100 seeds, see
tests/test_learning.py), for two reasons: the inputs are -1 and 1, not 0 and 1, and the hidden weights start orthogonal, so that the
four hidden units look in different directions.
"""

import argparse

import fastdl as fd
from fastdl import data, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

fd.manual_seed(args.seed)
points, labels = data.make_xor()
x, y = fd.array(2 * points - 1), fd.array(labels).astype("float32").reshape(-1, 1)

model = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 1))
nn.init.orthogonal_(model[0].weight, gain=2.0)
nn.init.xavier_normal_(model[2].weight)
nn.init.zeros_(model[0].bias)
nn.init.zeros_(model[2].bias)
optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
for step in range(200 if args.tiny else 1000):
    loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step:4}  loss {loss.item():.4f}")

with fd.no_grad():
    for point, value in zip(points, fd.sigmoid(model(x)).tolist()):
        print(f"{point.tolist()} -> {value[0]:.3f}")
