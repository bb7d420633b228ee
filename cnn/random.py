"""Random numbers that are derived from a seed and counters; no generator state is kept.

Each use of randomness has a stream of its own, addressed by a few integers:

    generator = PCG64(SeedSequence(seed, spawn_key=(stream, *counters)))

So the shuffle of epoch 7 can be computed without epochs 1 to 6, and an extra draw in one place changes no
draw elsewhere.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What the numbers are used for. Values affect every recorded result: add new ones, but change none."""

    INITIALIZATION = 0  # counters: none
    SHUFFLE = 1  # counters: epoch
    DROPOUT = 2  # counters: epoch, step, shard
    AUGMENTATION = 3  # counters: epoch, step, shard


def derive_rng(seed: int, stream: Stream, *counters: int) -> np.random.Generator:
    """The generator of `stream` at `counters` (such as the epoch), for the run with this `seed` (>= 0)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream, *counters))))
