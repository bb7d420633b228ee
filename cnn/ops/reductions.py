"""Sums over all axes but the last (for images, one number per channel), and repetition, their adjoint."""

from math import prod

import numpy as np
from jaxtyping import Float

from cnn.ops.arrays import full, is_on_host


def sum_over_rows(x: Float[np.ndarray, "*n c"]) -> Float[np.ndarray, " c"]:
    """Σ over all axes but the last, as a product with ones: BLAS is faster and rounds less."""
    rows = x.reshape(-1, x.shape[-1])
    return full(len(rows), 1, like=x) @ rows


def dot_over_rows(x: Float[np.ndarray, "*n c"], y: Float[np.ndarray, "*n c"]) -> Float[np.ndarray, " c"]:
    """Σ x·y over all axes but the last, without storing the products."""
    return np.einsum("rc,rc->c", x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]))


def repeat_for_pixels(
    vector: Float[np.ndarray, " c"], shape: tuple[int, ...]
) -> Float[np.ndarray, "*shape c"]:
    """One number for each channel, repeated for every pixel of an image of `shape`, whose last axis is c.

    NumPy would also broadcast the vector, but one long inner loop beats many short ones. On a device it is
    broadcast, since that makes no difference there.
    """
    if not is_on_host(vector):
        return np.broadcast_to(vector, shape)
    return np.tile(vector, prod(shape[:-1])).reshape(shape)
