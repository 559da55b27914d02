"""One epoch of the tutorials' convolutional net by `fit`: fastdl.keras beside Keras 3 on PyTorch and on JAX.

    python bench/keras_epoch.py [--threads 1] [--images 60000] [--engines fastdl,torch,jax,fastdl] [--json FILE]

conv 32 3x3, max-pool 2, dense 128, dense 10; batch 64, Adam, images of 28x28 made up. Every engine runs in a process of its own, pinned to as many
processors as it has threads, in the order given; each first fits five batches (full and partial ones) twice, so that compiling is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any


def worker(engine: str, images: int) -> None:
    """Prints the seconds of one epoch and its last loss."""
    import numpy as np

    keras: Any
    if engine == "fastdl":
        from fastdl import keras
    else:
        import keras
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, images)
    x = rng.random((images, 28, 28, 1), dtype=np.float32)
    x[np.arange(images), y, y] += 2  # something to learn
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((28, 28, 1)), layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(2), layers.Flatten(),
        layers.Dense(128, activation="relu"), layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    few = 256 + (images % 64 or 64)
    model.fit(x[:few], y[:few], batch_size=64, epochs=2, verbose=0)
    start = time.perf_counter()
    history = model.fit(x, y, batch_size=64, epochs=1, verbose=0)
    seconds = time.perf_counter() - start
    print(json.dumps({"engine": engine, "seconds": round(seconds, 3), "loss": float(history.history["loss"][-1])}))


def run(engine: str, threads: int, images: int) -> dict[str, Any]:
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    count = str(threads)
    names = ("FASTDL_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    env = {**os.environ, **dict.fromkeys(names, count), "KERAS_BACKEND": "" if engine == "fastdl" else engine, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__, "--worker", engine, "--images", str(images)]
    out = subprocess.run(command, env=env, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    if out.returncode:
        raise SystemExit(f"{engine} failed:\n{out.stderr}")
    return {**json.loads(out.stdout.splitlines()[-1]), "threads": threads, "images": images}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--engines", default="fastdl,torch,jax,fastdl")
    parser.add_argument("--json", help="file to add the results to")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker, args.images)
    rows = []
    for engine in args.engines.split(","):
        rows.append(run(engine, args.threads, args.images))
        print(rows[-1], flush=True)
    best = {engine: min(row["seconds"] for row in rows if row["engine"] == engine) for engine in args.engines.split(",")}
    peers = {engine: seconds for engine, seconds in best.items() if engine != "fastdl"}
    if peers and "fastdl" in best:
        peer = min(peers, key=peers.__getitem__)
        print(f"{args.threads} threads: fastdl.keras {best['fastdl']:.2f} s, {peers[peer] / best['fastdl']:.2f}x Keras on {peer}, the best of the others")
    if args.json:
        old = json.loads(open(args.json).read()) if os.path.exists(args.json) else []
        with open(args.json, "w") as file:
            json.dump(old + rows, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
