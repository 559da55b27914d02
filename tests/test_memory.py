"""Blocks of the CPU allocator: large enough to the last byte, not much larger than asked for."""

import numpy as np
import pytest

import fastdl as fd

KB, MB = 1 << 10, 1 << 20
SIZES = [n + d for n in (64, 4 * KB, MB, 5 * 256 * KB, 2 * MB, 4 * MB, 9 * MB, 16 * MB, 33 * MB) for d in (-1, 0, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_blocks_fit(size):
    before = fd.memory.stats()["in_use"]
    t = fd.zeros(size, dtype="uint8")
    taken = fd.memory.stats()["in_use"] - before
    assert size <= taken <= (max(64, 1.25 * size) + 64 if size <= MB else 1.0625 * size + 256 * KB)
    t[-1] = 7
    assert t.numpy()[-1] == 7 and not t.numpy()[:-1].any()


def test_blocks_are_used_again():
    """The same block for a size that rounds to the same class, another one while it is held."""
    first = fd.zeros(3 * MB + 5, dtype="uint8")
    place = first.numpy().ctypes.data
    del first
    second = fd.zeros(3 * MB + 900, dtype="uint8")
    assert second.numpy().ctypes.data == place
    third = fd.ones(3 * MB + 900, dtype="uint8")
    assert not np.shares_memory(second.numpy(), third.numpy()) and not second.numpy().any()
