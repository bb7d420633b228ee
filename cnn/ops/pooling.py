"""Maximum and mean over sliding windows, each with its adjoint.

The loops run over the positions (i, j) inside a window, never over images, pixels or channels.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import DTypeLike, NDArray

from cnn.ops.windows import Window, crop, pad


def max_pool(
    x: Float[np.ndarray, "n h w c"], window: Window
) -> tuple[Float[np.ndarray, "n out_h out_w c"], Int[np.ndarray, "n out_h out_w c"]]:
    """(y, winner): y is the maximum of each window, and winner the number of the pixel that holds it.

    `winner` counts the window's pixels in row-major order; in a tie, the first wins. Padding is −∞, so it
    never wins. A NaN in the window gives a NaN.
    """
    height, width = x.shape[1:3]
    x = pad(x, window.cover(height, width), -np.inf)
    return first_maximum(x[position] for position in window.positions(*window.output_size(height, width)))


def first_maximum(
    candidates: Iterable[Float[np.ndarray, "*shape"]],
) -> tuple[Float[np.ndarray, "*shape"], Int[np.ndarray, "*shape"]]:
    """(y, winner): the elementwise maximum of several arrays, and the number of the first that holds it."""
    first, *others = candidates
    y = first.copy()
    winner = np.zeros(y.shape, np.min_scalar_type(-len(others) - 1))
    for index, candidate in enumerate(others, start=1):
        greater = candidate > y  # not >=: in a tie, the earlier one stays
        np.maximum(winner, greater * winner.dtype.type(index), out=winner)  # numbers only grow
        np.maximum(y, candidate, out=y)
    return y, winner


def max_pool_adjoint(
    grad_y: Float[np.ndarray, "n out_h out_w c"],
    winner: Int[np.ndarray, "n out_h out_w c"],
    shape: tuple[int, ...],
    window: Window,
) -> Float[np.ndarray, "n h w c"]:
    """Send each output's gradient to the pixel that won; if a pixel won several times, they add up."""
    grad_x, sides = _zeros_to_cover(shape, window, grad_y)
    disjoint = all(stride >= extent for stride, extent in zip(window.stride, window.extent, strict=True))
    for index, position in enumerate(window.positions(*grad_y.shape[1:3])):
        won = winner == index
        if disjoint:
            np.multiply(grad_y, won, out=grad_x[position])
        else:
            grad_x[position] += grad_y * won
    return crop(grad_x, sides)


def avg_pool(
    x: Float[np.ndarray, "n h w c"], window: Window, count_include_pad: bool = True
) -> Float[np.ndarray, "n out_h out_w c"]:
    """The mean of each window: the sum of its pixels over `_divisor`."""
    height, width = x.shape[1:3]
    divisor = _divisor(x.shape, x.dtype, window, count_include_pad)
    x = pad(x, window.cover(height, width))
    first, *others = window.positions(*window.output_size(height, width))
    y: NDArray[Any] = x[first].copy()
    for position in others:
        y += x[position]
    y /= divisor
    return y


def avg_pool_adjoint(
    grad_y: Float[np.ndarray, "n out_h out_w c"],
    shape: tuple[int, ...],
    window: Window,
    count_include_pad: bool = True,
) -> Float[np.ndarray, "n h w c"]:
    """Spread each output's gradient evenly over the pixels of its window."""
    grad_x, sides = _zeros_to_cover(shape, window, grad_y)
    share = grad_y / _divisor(shape, grad_y.dtype, window, count_include_pad)
    for position in window.positions(*grad_y.shape[1:3]):
        grad_x[position] += share
    return crop(grad_x, sides)


def _divisor(
    shape: tuple[int, ...], dtype: DTypeLike, window: Window, count_include_pad: bool
) -> Float[np.ndarray, "out_h out_w 1"]:
    """The number of pixels in each window's mean: those in the image, and those in the padding if they count.

    Pixels that only ceil_mode adds, beyond the padding, never count. `shape` is that of the images.
    """
    height, width = shape[1:3]
    counted = window.pads(height, width) if count_include_pad else ((0, 0), (0, 0))
    return window.coverage(height, width, counted).astype(dtype)


def _zeros_to_cover(
    shape: tuple[int, ...], window: Window, like: NDArray[Any]
) -> tuple[NDArray[Any], tuple[tuple[int, int], tuple[int, int]]]:
    """Zeros for images of `shape`, padded to everything that the windows cover, and this padding."""
    sides = window.cover(*shape[1:3])
    n, height, width, channels = shape
    return np.zeros((n, height + sum(sides[0]), width + sum(sides[1]), channels), like.dtype), sides
