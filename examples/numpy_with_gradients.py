"""A fit of a damped oscillation, written in NumPy: only the parameters are fastdl tensors, and every np function keeps the gradient."""

import argparse

import numpy as np

import fastdl as fd

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

rng = np.random.default_rng(0)
t = np.linspace(0, 6, 200)
measured = 1.5 * np.exp(-0.4 * t) * np.cos(2.1 * t + 0.3) + rng.normal(0, 0.02, t.shape)


def model(p):
    """Works on NumPy arrays and on tensors alike."""
    amplitude, decay, frequency, phase = p[0], p[1], p[2], p[3]
    return amplitude * np.exp(-decay * t) * np.cos(frequency * t + phase)


def loss(p):
    return np.mean(np.square(model(p) - measured))


# Newton's method with damping (Levenberg): gradient and Hessian come from the same function.
p = fd.array([1.0, 0.2, 2.0, 0.0], dtype="float64")
gradient, hessian = fd.grad(loss), fd.hessian(loss)
damping = 1e-2
for step in range(10 if args.tiny else 50):
    g, h = gradient(p).numpy(), hessian(p).numpy()
    candidate = p - np.linalg.solve(h + (damping + max(0.0, -np.linalg.eigvalsh(h)[0])) * np.eye(4), g)
    if float(loss(candidate)) < float(loss(p)):
        p, damping = candidate, damping / 3
    else:
        damping *= 10
    if step % 5 == 0:
        print(f"step {step:2}  loss {float(loss(p)):.6f}  parameters {np.round(p.numpy(), 4)}")
print("truth: 1.5, 0.4, 2.1, 0.3; found:", np.round(p.numpy(), 3))
