"""Blocks of an array that stay in a processor's cache from one operation to the next.

Each NumPy operation passes over its whole arguments. If they are larger than the cache, main memory sets the
speed. So a chain of operations handles one block after the other. A device has no such cache, and each of its
operations takes a moment to start, so there an array is a single block.
"""

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from cnn.ops.arrays import is_on_host

BLOCK = 2**20  # bytes: a few such arrays fit a processor's cache, and Python's share of the time is small


def blocks(x: NDArray[Any]) -> Iterator[slice]:
    """Slices of the first axis, in order, of about BLOCK bytes of x each; only shape and dtype decide."""
    step = max(BLOCK * len(x) // max(x.nbytes, 1) if is_on_host(x) else len(x), 1)
    for start in range(0, len(x), step):
        yield slice(start, start + step)
