"""One place that turns whatever users pass as `rng=` into a NumPy generator or a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastdl as fd

#: What `rng=` accepts: None (fastdl's global generator), a seed, or a generator of NumPy's or fastdl's.
RngLike = Any


def seed_from(rng: RngLike = None) -> int:
    """A 63-bit seed: the number itself, or a fresh draw from the generator given (None: fastdl's own)."""
    if isinstance(rng, bool):
        raise TypeError("rng: got a bool; need None, an int, a numpy.random.Generator or SeedSequence, or a fastdl.Generator")
    if isinstance(rng, (int, np.integer)):
        if rng < 0:
            raise ValueError(f"rng: got seed {rng}; a seed must be >= 0")
        return int(rng)
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(0, 2**63 - 1))
    if isinstance(rng, np.random.SeedSequence):
        return int(rng.generate_state(1, np.uint64)[0] >> np.uint64(1))
    if rng is None or isinstance(rng, fd.Generator):
        return int(fd.random.integers(2**63 - 1, rng=rng).item())
    raise TypeError(
        f"rng: got {type(rng).__name__}; need None, an int, a numpy.random.Generator or SeedSequence, or a fastdl.Generator"
    )


def numpy_rng(rng: RngLike = None) -> np.random.Generator:
    """A NumPy generator: the one given, or a new one seeded by :func:`seed_from`."""
    if isinstance(rng, np.random.Generator):
        return rng
    return np.random.Generator(np.random.PCG64(seed_from(rng)))
