"""Arrays as small images: bytes (h, w, 3) that figures and pages show alike."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]  # (h, w, 3)

NEGATIVE, POSITIVE = (184, 80, 12), (29, 95, 196)  # orange and blue, as in the playground
IMAGE_SIDE, MAP_SIDE = 96, 64  # pixels at most, so that a page with hundreds of images stays small

LARGEST_MARKED, CELL, MARK_FROM = 7, 9, 0.15  # numbers a side; pixels of one; share of the limit
LARGEST_HATCHED, HATCHED_CELL = 32, 3


def visible(image: Array, side: int = IMAGE_SIDE) -> Pixels:
    """An image (h, w, channels) of numbers in [0, 1], in colour if it has three channels, else grey."""
    colours = image if image.shape[2] == 3 else image.mean(axis=2, keepdims=True)
    return shrink(_to_bytes(np.broadcast_to(colours, (*image.shape[:2], 3))), side)


def grey(values: Array, limit: float, side: int = MAP_SIDE) -> Pixels:
    """Numbers (h, w) from 0, black, to `limit`, white."""
    return visible((values / (limit or 1.0))[..., None], side)


def signed(values: Array, limit: float, side: int = MAP_SIDE) -> Pixels:
    """Numbers (h, w) from −limit, orange, through 0, white, to limit, blue."""
    share = np.clip(np.nan_to_num(values / (limit or 1.0)), -1, 1)[..., None]
    colour = np.where(share < 0, NEGATIVE, POSITIVE) / 255
    return shrink(_to_bytes(1 + np.abs(share) * (colour - 1)), side)


def marked(values: Array, limit: float, side: int = MAP_SIDE) -> Pixels:
    """As `signed`, for eyes and print without colours, too.

    Of few numbers, each has its sign in the middle; of more, the negative ones are hatched.
    """
    if max(values.shape) > LARGEST_MARKED:
        return _hatched(values, limit, side)
    pixels = np.kron(signed(values, limit), np.ones((CELL, CELL, 1), np.uint8))
    middle = CELL // 2
    for (row, column), value in np.ndenumerate(values):
        if abs(value) >= MARK_FROM * limit > 0:
            cell = pixels[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
            mark = 0 if cell[0, 0].mean() > 140 else 255
            cell[middle, middle - 2 : middle + 3] = mark
            if value > 0:
                cell[middle - 2 : middle + 3, middle] = mark
    return pixels


def _hatched(values: Array, limit: float, side: int) -> Pixels:
    """As `signed`, with white diagonals in what is negative; without them if there are too many numbers."""
    if max(values.shape) > LARGEST_HATCHED:
        return signed(values, limit, side)
    pixels = np.kron(signed(values, limit), np.ones((HATCHED_CELL, HATCHED_CELL, 1), np.uint8))
    diagonal = np.kron(values <= -MARK_FROM * (limit or np.inf), np.eye(HATCHED_CELL, dtype=bool)[::-1])
    pixels[diagonal] = 255
    return pixels


def coloured(kernel: Array) -> Pixels:
    """A kernel (h, w, 3) around mid-grey, which stands for 0; its largest absolute weight reaches 0 or 1."""
    return visible(0.5 + 0.5 * kernel / (largest([kernel]) or 1.0), MAP_SIDE)


def largest(arrays: list[Array]) -> float:
    """The largest absolute value in them, 0 if there is none."""
    return max((float(np.abs(array).max(initial=0)) for array in arrays), default=0.0)


def shrink(pixels: Pixels, side: int) -> Pixels:
    """The image, reduced so that no side is longer than `side`; each pixel is the mean of what it covers."""
    height, width, _ = pixels.shape
    if max(height, width) <= side:
        return pixels
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def to_address(pixels: Pixels) -> str:
    """The image as a PNG file in a `data:` address."""
    grey_alone = (pixels == pixels[..., :1]).all()
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if grey_alone else pixels))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _to_bytes(fractions: Array) -> Pixels:
    return np.rint(np.clip(np.nan_to_num(fractions), 0, 1) * 255).astype(np.uint8)
