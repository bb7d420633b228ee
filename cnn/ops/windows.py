"""Windows that slide over an image: their geometry, and the pair im2col / col2im.

Window (p, q) covers the rows p·stride … p·stride + kernel_size − 1 of the padded image, and the columns
likewise. There are

    out = floor((in + padding_before + padding_after − kernel_size) / stride) + 1

of them along each axis; pixels beyond the last whole window are not covered.
Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning" (2016), relationship 6.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view

Pair = tuple[int, int]
FourSides = tuple[Pair, Pair]
Padding = int | Pair | FourSides | Literal["same", "valid"]


def as_pair(name: str, value: object) -> Pair:
    """(height, width) from an int or a pair of ints, each at least 1."""
    pair = value if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2 or not all(_is_int(v) and v >= 1 for v in pair):
        raise ValueError(
            f"{name} must be a whole number >= 1 or a pair (height, width) of them; received {value!r}."
        )
    return (pair[0], pair[1])


@dataclass(frozen=True)
class Window:
    """The geometry of a sliding window, in pixels. Make one with `Window.of`, which checks its arguments."""

    kernel_size: Pair
    stride: Pair
    padding: FourSides | Literal["same"]

    @classmethod
    def of(cls, kernel_size: int | Pair, stride: int | Pair, padding: Padding = 0) -> "Window":
        """Check and complete: see `Conv2D` for what each argument may be."""
        return cls(as_pair("kernel_size", kernel_size), as_pair("stride", stride), _four_sides(padding))

    def pads(self, height: int, width: int) -> FourSides:
        """((top, bottom), (left, right)) for an image of height x width pixels.

        "same" makes out = ceil(in / stride); an odd pixel goes to the bottom and to the right.
        """
        if self.padding != "same":
            return self.padding
        (top, bottom), (left, right) = (
            _same(size, k, s)
            for size, k, s in zip((height, width), self.kernel_size, self.stride, strict=True)
        )
        return (top, bottom), (left, right)

    def output_size(self, height: int, width: int) -> Pair:
        """How many windows fit, vertically and horizontally; ValueError where none does."""
        padded = [
            size + sum(pads) for size, pads in zip((height, width), self.pads(height, width), strict=True)
        ]
        if padded[0] < self.kernel_size[0] or padded[1] < self.kernel_size[1]:
            raise ValueError(
                f"A {self.kernel_size[0]}x{self.kernel_size[1]} kernel with padding "
                f"{self.describe_padding()} does not fit an input of {height}x{width} pixels. "
                "Use a smaller kernel, more padding or one pooling layer fewer."
            )
        rows, columns = (
            (p - k) // s + 1 for p, k, s in zip(padded, self.kernel_size, self.stride, strict=True)
        )
        return rows, columns

    def position(self, i: int, j: int, out_h: int, out_w: int) -> tuple[slice, slice, slice]:
        """The slices (image, row, column) that pick pixel (i, j) of every window of a padded image."""
        stride_h, stride_w = self.stride
        return (
            slice(None),
            slice(i, i + stride_h * (out_h - 1) + 1, stride_h),
            slice(j, j + stride_w * (out_w - 1) + 1, stride_w),
        )

    def describe_padding(self) -> str:
        """The padding as a person would write it: one number where all four sides agree."""
        if self.padding == "same":
            return "same"
        sides = {side for pair in self.padding for side in pair}
        return str(sides.pop() if len(sides) == 1 else self.padding)


def im2col(x: Float[np.ndarray, "n h w c"], window: Window) -> Float[np.ndarray, "rows patch"]:
    """The windows of padded images as the rows of a matrix.

    columns[(n, p, q), (i, j, c)] = x[n, p·stride_h + i, q·stride_w + j, c]
    """
    stride_h, stride_w = window.stride
    windows = sliding_window_view(x, window.kernel_size, axis=(1, 2))[:, ::stride_h, ::stride_w]
    windows = windows.transpose(0, 1, 2, 4, 5, 3)  # (n, out_h, out_w, kernel_h, kernel_w, c)
    n, out_h, out_w, kernel_h, kernel_w, c = windows.shape
    return windows.reshape(n * out_h * out_w, kernel_h * kernel_w * c)


def col2im(
    columns: Float[np.ndarray, "rows patch"], shape: tuple[int, ...], window: Window
) -> Float[np.ndarray, "n h w c"]:
    """The adjoint of im2col: every entry goes back to its pixel; where windows overlap, entries add up.

    `shape` is that of the padded images.
    """
    n, h, w, c = shape
    kernel_h, kernel_w = window.kernel_size
    out_h, out_w = (h - kernel_h) // window.stride[0] + 1, (w - kernel_w) // window.stride[1] + 1
    patches = columns.reshape(n, out_h, out_w, kernel_h, kernel_w, c)
    x = np.zeros(shape, columns.dtype)
    for i in range(kernel_h):
        for j in range(kernel_w):
            x[window.position(i, j, out_h, out_w)] += patches[:, :, :, i, j]
    return x


def pad(x: Float[np.ndarray, "n h w c"], pads: FourSides) -> Float[np.ndarray, "n padded_h padded_w c"]:
    """x with zeros around each image."""
    (top, bottom), (left, right) = pads
    if not (top or bottom or left or right):
        return x
    n, h, w, c = x.shape
    padded = np.zeros((n, top + h + bottom, left + w + right, c), x.dtype)
    padded[:, top : top + h, left : left + w] = x
    return padded


def crop(x: Float[np.ndarray, "n padded_h padded_w c"], pads: FourSides) -> Float[np.ndarray, "n h w c"]:
    """The adjoint of pad: what lies inside the padding."""
    (top, bottom), (left, right) = pads
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _same(size: int, kernel: int, stride: int) -> Pair:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _four_sides(padding: Any) -> FourSides | Literal["same"]:
    """((top, bottom), (left, right)) or "same", from any of the ways to write a padding."""
    if isinstance(padding, str) and padding == "same":
        return "same"
    if isinstance(padding, str) and padding == "valid":
        padding = 0
    sides = padding if isinstance(padding, tuple | list) else (padding, padding)
    sides = [side if isinstance(side, tuple | list) else (side, side) for side in sides]
    if len(sides) != 2 or not all(len(s) == 2 and all(_is_int(v) and v >= 0 for v in s) for s in sides):
        raise ValueError(
            'padding must be "same", "valid", a whole number >= 0, a pair (height, width) '
            f"or four sides ((top, bottom), (left, right)); received {padding!r}."
        )
    (top, bottom), (left, right) = sides
    return (top, bottom), (left, right)
