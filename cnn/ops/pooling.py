"""Maximum and mean over sliding windows, each with its adjoint.

The loops run over the positions (i, j) inside a window, never over images, pixels or channels.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cnn.ops.windows import Window


def max_pool(
    x: Float[np.ndarray, "n h w c"], window: Window
) -> tuple[Float[np.ndarray, "n out_h out_w c"], Int[np.ndarray, "n out_h out_w c"]]:
    """(y, winner): y[n, p, q, c] = max over (i, j) of x[n, p·stride_h + i, q·stride_w + j, c].

    `winner` is where in its window the maximum stood, i·kernel_w + j: the first one in row-major order.
    A NaN in the window makes a NaN.
    """
    kernel_h, kernel_w = window.kernel_size
    out_h, out_w = window.output_size(*x.shape[1:3])
    y = x[window.position(0, 0, out_h, out_w)].copy()
    winner = np.zeros(y.shape, np.min_scalar_type(-kernel_h * kernel_w))
    for index in range(1, kernel_h * kernel_w):
        candidate = x[window.position(*divmod(index, kernel_w), out_h, out_w)]
        np.copyto(
            winner, index, where=candidate > y
        )  # strictly greater: a tie stays with the earlier position
        np.maximum(y, candidate, out=y)
    return y, winner


def max_pool_adjoint(
    grad_y: Float[np.ndarray, "n out_h out_w c"],
    winner: Int[np.ndarray, "n out_h out_w c"],
    shape: tuple[int, ...],
    window: Window,
) -> Float[np.ndarray, "n h w c"]:
    """Each output's gradient to the one pixel that won; pixels that won several windows add theirs up."""
    kernel_h, kernel_w = window.kernel_size
    out_h, out_w = grad_y.shape[1:3]
    grad_x = np.zeros(shape, grad_y.dtype)
    for index in range(kernel_h * kernel_w):
        position = window.position(*divmod(index, kernel_w), out_h, out_w)
        grad_x[position] += grad_y * (winner == index)
    return grad_x


def avg_pool(x: Float[np.ndarray, "n h w c"], window: Window) -> Float[np.ndarray, "n out_h out_w c"]:
    """y[n, p, q, c] = mean over (i, j) of x[n, p·stride_h + i, q·stride_w + j, c]."""
    kernel_h, kernel_w = window.kernel_size
    out_h, out_w = window.output_size(*x.shape[1:3])
    y: NDArray[Any] = x[window.position(0, 0, out_h, out_w)].copy()
    for index in range(1, kernel_h * kernel_w):
        y += x[window.position(*divmod(index, kernel_w), out_h, out_w)]
    y /= kernel_h * kernel_w
    return y


def avg_pool_adjoint(
    grad_y: Float[np.ndarray, "n out_h out_w c"], shape: tuple[int, ...], window: Window
) -> Float[np.ndarray, "n h w c"]:
    """Each output's gradient in equal parts to every pixel of its window."""
    kernel_h, kernel_w = window.kernel_size
    out_h, out_w = grad_y.shape[1:3]
    grad_x = np.zeros(shape, grad_y.dtype)
    share = grad_y / (kernel_h * kernel_w)
    for index in range(kernel_h * kernel_w):
        grad_x[window.position(*divmod(index, kernel_w), out_h, out_w)] += share
    return grad_x
