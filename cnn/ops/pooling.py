"""Maximum and mean over sliding windows, each with its adjoint.

The loops run over the positions (i, j) inside a window, never over images, pixels or channels.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cnn.ops.arrays import empty, place, zeros
from cnn.ops.blocks import blocks
from cnn.ops.windows import Window, crop, pad


def max_pool(x: Float[np.ndarray, "n h w c"], window: Window) -> Float[np.ndarray, "n out_h out_w c"]:
    """The maximum of each window. Padding is −∞, so it never wins. A NaN in the window gives a NaN."""
    y = empty((len(x), *window.output_size(*x.shape[1:3]), x.shape[-1]), like=x)
    for block in blocks(x):
        _maximum(_pad_to_cover(x[block], window), window, y[block])
    return y


def max_pool_with_winner(
    x: Float[np.ndarray, "n h w c"], window: Window
) -> tuple[Float[np.ndarray, "n out_h out_w c"], Int[np.ndarray, "n out_h out_w c"]]:
    """(y, winner): y is that of `max_pool`, and winner the number of the pixel that holds it.

    `winner` counts the window's pixels in row-major order; in a tie, the first wins.
    """
    y = empty((len(x), *window.output_size(*x.shape[1:3]), x.shape[-1]), like=x)
    positions = window.positions(*y.shape[1:3])
    winner = _numbers(y, len(positions))
    for block in blocks(x):
        padded = _pad_to_cover(x[block], window)
        _maximum(padded, window, y[block])
        _count_losers(y[block], [padded[position] for position in positions], winner[block])
    return y, winner


def first_maximum(
    candidates: Iterable[Float[np.ndarray, "*shape"]],
) -> tuple[Float[np.ndarray, "*shape"], Int[np.ndarray, "*shape"]]:
    """(y, winner): the elementwise maximum of several arrays, and the number of the first that holds it."""
    arrays = list(candidates)
    y = _maximum_of(arrays)
    winner = _numbers(y, len(arrays))
    _count_losers(y, arrays, winner)
    return y, winner


def max_pool_adjoint(
    grad_y: Float[np.ndarray, "n out_h out_w c"],
    winner: Int[np.ndarray, "n out_h out_w c"],
    shape: tuple[int, ...],
    window: Window,
) -> Float[np.ndarray, "n h w c"]:
    """Send each output's gradient to the pixel that won; if a pixel won several times, they add up."""
    grad_x, sides, disjoint = _before_windows(shape, window, grad_y)
    for block in blocks(grad_x):
        for index, position in enumerate(window.positions(*grad_y.shape[1:3])):
            won = (winner[block] == index).astype(grad_y.dtype)  # once: mixed dtypes are converted in chunks
            if disjoint:
                np.multiply(grad_y[block], won, out=grad_x[block][position])
            else:
                won *= grad_y[block]
                grad_x[block][position] += won
    return crop(grad_x, sides)


def _maximum(x: NDArray[Any], window: Window, out: NDArray[Any]) -> None:
    """Write the maximum of each window of padded images: first over its rows, then over its columns."""
    (kernel_h, kernel_w), (stride_h, stride_w), (dilation_h, dilation_w) = (
        window.kernel_size,
        window.stride,
        window.dilation,
    )
    end_h, end_w = (
        (size - 1) * stride + 1 for size, stride in zip(out.shape[1:3], window.stride, strict=True)
    )
    rows = [x[:, i : i + end_h : stride_h] for i in range(0, kernel_h * dilation_h, dilation_h)]
    highest = _maximum_of(rows)
    _maximum_of(
        [highest[:, :, j : j + end_w : stride_w] for j in range(0, kernel_w * dilation_w, dilation_w)], out
    )


def _maximum_of(arrays: list[NDArray[Any]], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """The elementwise maximum of one array or more."""
    out = np.maximum(arrays[0], arrays[-1], out=out)
    for array in arrays[1:-1]:
        np.maximum(out, array, out=out)
    return out


def _count_losers(y: NDArray[Any], candidates: list[NDArray[Any]], number: NDArray[Any]) -> None:
    """Add to `number` how many of several arrays come before the one that equals y; all but one for NaN."""
    lost: NDArray[Any] | None = None  # whether all so far differ from y
    for candidate in candidates[:-1]:
        differs = candidate != y
        lost = differs if lost is None else np.logical_and(lost, differs, out=lost)
        number += lost.view(np.int8)


def _numbers(y: NDArray[Any], count: int) -> NDArray[Any]:
    """Zeros of the shape of y, of the smallest dtype that holds numbers below `count`."""
    return zeros(y.shape, like=y, dtype=np.min_scalar_type(-count))


def _pad_to_cover(x: NDArray[Any], window: Window) -> NDArray[Any]:
    return pad(x, window.cover(*x.shape[1:3]), -np.inf)


def avg_pool(
    x: Float[np.ndarray, "n h w c"], window: Window, count_include_pad: bool = True
) -> Float[np.ndarray, "n out_h out_w c"]:
    """The mean of each window: the sum of its pixels over `_divisor`."""
    height, width = x.shape[1:3]
    divisor = _divisor(x.shape, x, window, count_include_pad)
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
    grad_x, sides, disjoint = _before_windows(shape, window, grad_y)
    share = grad_y / _divisor(shape, grad_y, window, count_include_pad)
    for position in window.positions(*grad_y.shape[1:3]):
        if disjoint:
            grad_x[position] = share
        else:
            grad_x[position] += share
    return crop(grad_x, sides)


def _divisor(
    shape: tuple[int, ...], like: NDArray[Any], window: Window, count_include_pad: bool
) -> Float[np.ndarray, "out_h out_w 1"]:
    """The number of pixels in each window's mean: those in the image, and those in the padding if they count.

    Pixels that only ceil_mode adds, beyond the padding, never count. `shape` is that of the images.
    """
    height, width = shape[1:3]
    counted = window.pads(height, width) if count_include_pad else ((0, 0), (0, 0))
    return place(window.coverage(height, width, counted).astype(like.dtype), like)


def _before_windows(
    shape: tuple[int, ...], window: Window, grad_y: NDArray[Any]
) -> tuple[NDArray[Any], tuple[tuple[int, int], tuple[int, int]], bool]:
    """(grad_x, sides, disjoint): an array for images of `shape`, padded by `sides` to all that windows cover.

    It is 0, except that windows which tile their part have to write all its pixels. `disjoint` is whether no
    two windows share a pixel.
    """
    sides = window.cover(*shape[1:3])
    n, height, width, channels = shape
    padded = n, height + sum(sides[0]), width + sum(sides[1]), channels
    disjoint = all(stride >= extent for stride, extent in zip(window.stride, window.extent, strict=True))
    if not window.kernel_size == window.extent == window.stride:
        return zeros(padded, like=grad_y), sides, disjoint
    grad_x = empty(padded, like=grad_y)
    out_h, out_w = grad_y.shape[1:3]
    grad_x[:, out_h * window.stride[0] :] = 0
    grad_x[:, :, out_w * window.stride[1] :] = 0
    return grad_x, sides, disjoint
