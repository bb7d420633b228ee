"""Windows that slide over an image: their geometry, and the pair im2col / col2im.

Window (p, q) covers the rows p·stride + i·dilation, i = 0 … kernel_size − 1, of the padded image, and the
columns likewise. There are

    out = floor((in + padding_before + padding_after − extent) / stride) + 1
    extent = (kernel_size − 1)·dilation + 1

of them along each axis; pixels beyond the last whole window are not covered. With ceil_mode the division
is rounded up, so that a last window may reach beyond the padding, as long as it starts in the image or the
padding before it.
Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning" (2016), relationship 15.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from cnn.ops.arrays import full, zeros

LARGEST = 2**16  # pixels
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
    return int(pair[0]), int(pair[1])


@dataclass(frozen=True)
class Window:
    """The geometry of a sliding window, in pixels. Create it with `Window.of`, which checks arguments."""

    kernel_size: Pair
    stride: Pair
    padding: FourSides | Literal["same"]
    dilation: Pair
    ceil_mode: bool = False

    @classmethod
    def of(
        cls,
        kernel_size: int | Pair,
        stride: int | Pair,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        ceil_mode: bool = False,
    ) -> "Window":
        """Check and complete the arguments; `Conv2D` and `MaxPool2D` describe what each may be."""
        return cls(
            as_pair("kernel_size", kernel_size),
            as_pair("stride", stride),
            _four_sides(padding),
            as_pair("dilation", dilation),
            ceil_mode,
        )

    @property
    def extent(self) -> Pair:
        """The height and width that a window spans, dilation included."""
        (kernel_h, kernel_w), (dilation_h, dilation_w) = self.kernel_size, self.dilation
        return (kernel_h - 1) * dilation_h + 1, (kernel_w - 1) * dilation_w + 1

    @property
    def offsets(self) -> list[Pair]:
        """The offsets of a window's pixels from its first one, in row-major order."""
        (kernel_h, kernel_w), (dilation_h, dilation_w) = self.kernel_size, self.dilation
        return [(i * dilation_h, j * dilation_w) for i in range(kernel_h) for j in range(kernel_w)]

    def pads(self, height: int, width: int) -> FourSides:
        """((top, bottom), (left, right)) for an image of height x width pixels.

        "same" makes out = ceil(in / stride); an odd pixel goes to the bottom and to the right.
        """
        if self.padding != "same":
            return self.padding
        (top, bottom), (left, right) = (
            _same(size, k, s) for size, k, s in zip((height, width), self.extent, self.stride, strict=True)
        )
        return (top, bottom), (left, right)

    def cover(self, height: int, width: int) -> FourSides:
        """`pads`, extended at the bottom and the right if windows reach further (ceil_mode)."""
        sides = []
        for (before, after), size, out, extent, stride in zip(
            self.pads(height, width),
            (height, width),
            self.output_size(height, width),
            self.extent,
            self.stride,
            strict=True,
        ):
            sides.append((before, max(after, (out - 1) * stride + extent - size - before)))
        return sides[0], sides[1]

    def output_size(self, height: int, width: int) -> Pair:
        """The number of windows that fit, vertically and horizontally; ValueError if none does."""
        out = []
        for size, (before, after), extent, stride in zip(
            (height, width), self.pads(height, width), self.extent, self.stride, strict=True
        ):
            if before + size + after > LARGEST:
                raise ValueError(
                    f"Padded images may have up to {LARGEST:,} pixels per side; padding "
                    f"{self.describe_padding()} makes {before + size + after:,} pixels of {size}. "
                    "Use less padding."
                )
            free = before + size + after - extent
            if free < 0:
                dilated = "" if self.dilation == (1, 1) else f", dilation {self.dilation}"
                raise ValueError(
                    f"A {self.kernel_size[0]}x{self.kernel_size[1]} kernel with padding "
                    f"{self.describe_padding()}{dilated} does not fit an input of {height}x{width} pixels. "
                    "Use a smaller kernel, more padding or one pooling layer fewer."
                )
            steps = -(-free // stride) if self.ceil_mode else free // stride
            if self.ceil_mode and steps * stride >= before + size:
                steps -= 1  # that window would lie entirely beyond the image
            out.append(steps + 1)
        return out[0], out[1]

    def positions(self, out_h: int, out_w: int) -> list[tuple[slice, slice, slice]]:
        """For each pixel (i, j) of a window, the slices (image, row, column) that pick it from all windows.

        They are in row-major order of (i, j), and apply to padded images.
        """
        stride_h, stride_w = self.stride
        return [
            (
                slice(None),
                slice(i, i + stride_h * (out_h - 1) + 1, stride_h),
                slice(j, j + stride_w * (out_w - 1) + 1, stride_w),
            )
            for i, j in self.offsets
        ]

    def coverage(
        self, height: int, width: int, pads: FourSides = ((0, 0), (0, 0))
    ) -> Int[np.ndarray, "out_h out_w 1"]:
        """The number of pixels of each window in the image, or in the image with `pads` around it."""
        inside = []
        for size, out, kernel, stride, dilation, (start, _), (before, after) in zip(
            (height, width),
            self.output_size(height, width),
            self.kernel_size,
            self.stride,
            self.dilation,
            self.pads(height, width),
            pads,
            strict=True,
        ):
            pixel = np.arange(out)[:, None] * stride + np.arange(kernel) * dilation - start  # (out, kernel)
            inside.append(((pixel >= -before) & (pixel < size + after)).sum(axis=1))
        return np.multiply.outer(inside[0], inside[1])[:, :, None]

    def describe_padding(self) -> str:
        """The padding as a person would write it: one number if all four sides are equal."""
        if self.padding == "same":
            return "same"
        sides = {side for pair in self.padding for side in pair}
        return str(sides.pop() if len(sides) == 1 else self.padding)


def im2col(
    x: Float[np.ndarray, "n h w c"], window: Window, groups: int = 1, block: Pair = (1, 1)
) -> Float[np.ndarray, "groups rows patch"]:
    """The windows of padded images as the rows of a matrix, one matrix for each group of channels.

    columns[g, (a, b, n, p, q), (i, j, c)] = x[n, row·stride_h + i·dilation_h, …, (g, c)]

    with row = p·block_h + a, and likewise for the column. With a block of pixels, such as a pooling window,
    rows are grouped by their position (a, b) in it, and windows beyond the last whole block are left out.
    """
    (stride_h, stride_w), (dilation_h, dilation_w), (block_h, block_w) = window.stride, window.dilation, block
    views = sliding_window_view(x, window.extent, axis=(1, 2))  # (n, rows, columns, c, extent_h, extent_w)
    views = views[:, ::stride_h, ::stride_w, :, ::dilation_h, ::dilation_w]
    n, out_h, out_w, channels, kernel_h, kernel_w = views.shape
    p, q, c = out_h // block_h, out_w // block_w, channels // groups
    views = views[:, : p * block_h, : q * block_w]
    views = views.reshape(n, p, block_h, q, block_w, groups, c, kernel_h, kernel_w)
    if channels == 1:  # copy one pixel of all windows at a time: longer runs than one window's pixels
        columns = views.transpose(7, 8, 6, 5, 2, 4, 0, 1, 3).reshape(kernel_h * kernel_w, 1, -1)
        return columns.transpose(1, 2, 0)
    views = views.transpose(
        5, 2, 4, 0, 1, 3, 7, 8, 6
    )  # (groups, block_h, block_w, n, p, q, kernel_h, kernel_w, c)
    return views.reshape(groups, block_h * block_w * n * p * q, kernel_h * kernel_w * c)


def col2im(
    columns: Float[np.ndarray, "groups rows patch"],
    shape: tuple[int, ...],
    window: Window,
    block: Pair = (1, 1),
) -> Float[np.ndarray, "n h w c"]:
    """The adjoint of im2col: each entry returns to its pixel; entries of overlapping windows add up.

    `shape` is that of the padded images.
    """
    n, h, w, channels = shape
    (extent_h, extent_w), (stride_h, stride_w), (block_h, block_w) = window.extent, window.stride, block
    p, q = ((h - extent_h) // stride_h + 1) // block_h, ((w - extent_w) // stride_w + 1) // block_w
    groups = len(columns)
    patches = columns.reshape(groups, block_h, block_w, n, p, q, -1, channels // groups)
    patches = patches.transpose(1, 2, 6, 3, 4, 5, 0, 7)  # (block_h, block_w, kernel, n, p, q, groups, c)
    x = zeros((n, h, w, groups, channels // groups), like=columns)
    step_h, step_w = block_h * stride_h, block_w * stride_w
    for a, b in np.ndindex(block):
        for (i, j), patch in zip(window.offsets, patches[a, b], strict=True):
            top, left = a * stride_h + i, b * stride_w + j
            x[:, top : top + p * step_h : step_h, left : left + q * step_w : step_w] += patch
    return x.reshape(shape)


def pad(
    x: Float[np.ndarray, "n h w c"], pads: FourSides, value: float | Float[np.ndarray, " c"] = 0.0
) -> Float[np.ndarray, "n padded_h padded_w c"]:
    """x with zeros, or another `value` for all channels or for each, around each image."""
    (top, bottom), (left, right) = pads
    if not (top or bottom or left or right):
        return x
    n, h, w, c = x.shape
    padded = full((n, top + h + bottom, left + w + right, c), value, like=x)
    padded[:, top : top + h, left : left + w] = x
    return padded


def crop(x: Float[np.ndarray, "n padded_h padded_w c"], pads: FourSides) -> Float[np.ndarray, "n h w c"]:
    """The adjoint of pad: what is inside the padding."""
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
    (top, bottom), (left, right) = ((int(before), int(after)) for before, after in sides)
    return (top, bottom), (left, right)
