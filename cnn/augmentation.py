"""Augmentation: label-preserving random transforms, functions (images, rng, amount) -> images.

Each image of a batch gets random numbers of its own. The argument is left unchanged, the same generator
state gives the same bytes, and amount 0 gives a copy. Displacements are defined backwards: each output pixel
is mapped to the position in the input from which it takes its value, so that every output pixel gets exactly
one value. With p = (row, column), counted from 0 downwards and to the right, and the centre of the image
c = ((h − 1)/2, (w − 1)/2),

    y[p] = x(A (p − c) + c + b)          shift, rotation, zoom, shear
    y[p] = x(p + d(p))                   elastic distortion

Between pixels, x(·) is interpolated bilinearly. Beyond the border it is `fill`, the background (0 for raw
images; for standardised images, the value that 0 was mapped to).

Raises: every function raises ValueError if the images, the amount or `fill` is not what its docstring asks
for.
"""

import math
from typing import Annotated

import numpy as np
from jaxtyping import Float

from cnn.checks import Fraction, Given, Kept, Range, Whole
from cnn.registry import AUGMENTATIONS

Images = Float[np.ndarray, "n h w c"]
GivenImages = Annotated[Images, Given]
Rng = Annotated[np.random.Generator, Given]
Fill = Annotated[float, Given]
Pixels = Annotated[float, Range("[0, 1000]")]


@AUGMENTATIONS.register
def random_shift(images: GivenImages, rng: Rng, pixels: Pixels, *, fill: Fill = 0.0) -> Images:
    """Shift each image by t, uniform on ±pixels vertically and, independently, horizontally.

        y[p] = x(p − t)

    t may be a fraction of a pixel. Positive t moves the content down and to the right.

    Args:
        pixels: the largest displacement along either axis, in pixels.
        fill: the value beyond the border.
    """
    _check_images(images, fill)
    if pixels == 0:
        return images.copy()
    t = rng.uniform(-pixels, pixels, (len(images), 2))
    return _affine(images, np.eye(2)[None], -t, fill)


@AUGMENTATIONS.register
def random_rotation(
    images: GivenImages, rng: Rng, degrees: Annotated[float, Range("[0, 180]")], *, fill: Fill = 0.0
) -> Images:
    """Rotate each image about its centre by an angle θ, uniform on ±degrees.

        y[p] = x(A (p − c) + c),    A = [[ cos θ, sin θ],
                                         [−sin θ, cos θ]]

    Positive θ turns the content counter-clockwise, as np.rot90 does.

    Args:
        degrees: the largest angle, in degrees.
        fill: the value beyond the border.
    """
    _check_images(images, fill)
    if degrees == 0:
        return images.copy()
    theta = np.radians(rng.uniform(-degrees, degrees, len(images)))
    cos, sin = np.cos(theta), np.sin(theta)
    return _affine(images, np.stack([cos, sin, -sin, cos], axis=1).reshape(-1, 2, 2), 0.0, fill)


@AUGMENTATIONS.register
def random_zoom(images: GivenImages, rng: Rng, fraction: Kept, *, fill: Fill = 0.0) -> Images:
    """Scale each image about its centre by a factor s, uniform on [1 − fraction, 1 + fraction].

        y[p] = x((p − c) / s + c)

    s > 1 enlarges the content; the image keeps its size.

    Args:
        fraction: the largest change of the zoom factor.
        fill: the value beyond the border.
    """
    _check_images(images, fill)
    if fraction == 0:
        return images.copy()
    scale = rng.uniform(1 - fraction, 1 + fraction, (len(images), 1, 1))
    return _affine(images, np.eye(2) / scale, 0.0, fill)


@AUGMENTATIONS.register
def random_shear(
    images: GivenImages, rng: Rng, degrees: Annotated[float, Range("[0, 90)")], *, fill: Fill = 0.0
) -> Images:
    """Slant each image sideways by an angle φ, uniform on ±degrees.

        y[p] = x(A (p − c) + c),    A = [[1,     0],
                                         [tan φ, 1]]

    The middle row stays in place; positive φ moves the rows above it to the right, as in italics.

    Args:
        degrees: the largest angle from the vertical, in degrees.
        fill: the value beyond the border.
    """
    _check_images(images, fill)
    if degrees == 0:
        return images.copy()
    matrix = np.tile(np.eye(2), (len(images), 1, 1))
    matrix[:, 1, 0] = np.tan(np.radians(rng.uniform(-degrees, degrees, len(images))))
    return _affine(images, matrix, 0.0, fill)


@AUGMENTATIONS.register
def elastic_distortion(
    images: GivenImages,
    rng: Rng,
    strength: Pixels,
    *,
    smoothness: Annotated[float, Range("(0, 1000]")] = 4.0,
    fill: Fill = 0.0,
) -> Images:
    """Warp each image as an unsteady hand would: nearby pixels move together, distant ones independently.

        y[p] = x(p + d(p)),    d = strength · u / √(mean over p of |u(p)|²),    u = G_h r G_wᵀ
        G[i, k] ∝ exp(−(i − k)² / (2 · smoothness²))

    r holds independent uniform displacements, one for each pixel and axis; the two products with G are the
    Gaussian filter, one axis at a time. Each row of G is scaled to unit length, so that pixels near the
    border, which have fewer neighbours to average over, move on average as far as pixels in the middle.
    Source: Simard, Steinkraus & Platt, "Best practices for convolutional neural networks applied to visual
    document analysis" (2003), section 2. Their α multiplies a field scaled to unit norm; here the unit is
    the pixel.

    Args:
        strength: the root-mean-square length of an image's displacements in pixels.
        smoothness: the standard deviation of the Gaussian in pixels; small gives noise, large a plain shift.
        fill: the value beyond the border.
    """
    _check_images(images, fill)
    if strength == 0:
        return images.copy()
    n, h, w, _ = images.shape
    d = _displacements(rng, (n, h, w), strength, smoothness, images.dtype)
    rows = np.arange(h, dtype=images.dtype)[:, None]
    columns = np.arange(w, dtype=images.dtype)
    return _sample(images, rows + d[:, 0], columns + d[:, 1], fill)


@AUGMENTATIONS.register
def horizontal_flip(images: GivenImages, rng: Rng, probability: Fraction) -> Images:
    """Mirror each image left to right, with the given probability.

        y[i, j] = x[i, w − 1 − j]

    Do not use it for digits or letters: a mirrored 2 is not a 2.

    Args:
        probability: the probability of a flip.
    """
    _check_images(images)
    flipped = rng.random(len(images)) < probability
    return np.where(flipped[:, None, None, None], images[:, :, ::-1], images)


@AUGMENTATIONS.register
def cutout(
    images: GivenImages, rng: Rng, size: Annotated[int, Whole(0, 1000)], *, fill: Fill = 0.0
) -> Images:
    """Hide a square of each image, so that the network cannot rely on a single part.

        y[i, j] = fill    if −⌊size/2⌋ <= i − i₀ < size − ⌊size/2⌋, and likewise for j

    The centre (i₀, j₀) is uniform over the pixels of the image. Squares that reach beyond the border are
    cut off there, and so are smaller.
    Source: DeVries & Taylor, "Improved regularization of convolutional neural networks with Cutout" (2017).

    Args:
        size: the side of the square in pixels.
        fill: the value inside the square.
    """
    _check_images(images, fill)
    n, h, w, _ = images.shape
    top, left = (rng.integers(0, (h, w), (n, 2)) - size // 2).T[:, :, None]  # (n, 1) each
    in_rows = (top <= np.arange(h)) & (np.arange(h) < top + size)
    in_columns = (left <= np.arange(w)) & (np.arange(w) < left + size)
    y = images.copy()
    y[in_rows[:, :, None] & in_columns[:, None, :]] = fill
    return y


def _affine(
    images: Images, matrix: Float[np.ndarray, "#n 2 2"], offset: Float[np.ndarray, "n 2"] | float, fill: float
) -> Images:
    # The index of pixel (0, 0) of each image, if all pixels of the framed images are counted in one row.
    """y[p] = x(A (p − c) + c + b), with a matrix A for each image or one for all, and b in pixels."""
    n, h, w, _ = images.shape
    centre = np.array([(h - 1) / 2, (w - 1) / 2])
    origin = np.broadcast_to(centre + offset, (n, 2))
    down = matrix[:, :, :1] * (np.arange(h) - centre[0]) + origin[:, :, None]  # (n, 2, h)
    right = matrix[:, :, 1:] * (np.arange(w) - centre[1])  # (n or 1, 2, w)
    down, right = down.astype(images.dtype), right.astype(images.dtype)
    rows, columns = (down[:, axis, :, None] + right[:, axis, None, :] for axis in (0, 1))
    return _sample(images, rows, columns, fill)


def _sample(
    images: Images, rows: Float[np.ndarray, "n p q"], columns: Float[np.ndarray, "n p q"], fill: float
) -> Float[np.ndarray, "n p q c"]:
    """Each image's values at positions between its pixels, by bilinear interpolation.

        y[p, q] = Σ_i Σ_j x[i, j] · max(0, 1 − |rows[p, q] − i|) · max(0, 1 − |columns[p, q] − j|)

    over all integers i and j; x is `fill` beyond the border. Overwrites `rows` and `columns`: with a new
    array for each step, most of the time would be spent requesting memory from the system.
    """
    n, h, w, c = images.shape
    # Add one pixel of fill at the top and left, and two at the bottom and right. Positions clipped to
    # -1 … h or w then have all four neighbours inside this frame, so none needs a bounds check.
    height, width = h + 3, w + 3
    framed = np.full((n, height, width, c), fill, images.dtype)
    framed[:, 1:-2, 1:-2] = images
    np.clip(rows, -1, h, out=rows)
    np.clip(columns, -1, w, out=columns)
    top, left = np.floor(rows), np.floor(columns)
    origins = np.arange(width + 1, n * height * width, height * width)  # pixel (0, 0) of each image
    corner = top.astype(np.intp) * width + left.astype(np.intp)  # index of the upper left neighbour
    corner += origins[:, None, None]
    rows -= top
    columns -= left
    from_top, from_left = rows[..., None], columns[..., None]  # (n, p, q, 1), in [0, 1)
    pixels = framed.reshape(-1, c)
    upper = _blend(pixels.take(corner, axis=0), pixels[1:].take(corner, axis=0), from_left)
    lower = _blend(pixels[width:].take(corner, axis=0), pixels[width + 1 :].take(corner, axis=0), from_left)
    return _blend(upper, lower, from_top)


def _blend(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """a + share · (b − a), written to b. It is exactly a if b = a: a plain background stays plain."""
    b -= a
    b *= share
    b += a
    return b


def _displacements(
    rng: np.random.Generator, shape: tuple[int, int, int], strength: float, smoothness: float, dtype: np.dtype
) -> Float[np.ndarray, "n 2 h w"]:
    """The field d of elastic_distortion, down and to the right, for `shape` = (n, h, w)."""
    n, h, w = shape
    u = rng.random((n, 2, h, w), dtype) - 0.5
    u = _gaussian(h, smoothness, dtype) @ u @ _gaussian(w, smoothness, dtype).T
    rms = np.sqrt((u * u).sum(axis=(1, 2, 3), keepdims=True) / (h * w))
    return u * (strength / np.maximum(rms, np.finfo(dtype).tiny))


def _gaussian(size: int, deviation: float, dtype: np.dtype) -> Float[np.ndarray, "size size"]:
    """G[i, k] ∝ exp(−(i − k)² / (2 · deviation²)), with rows scaled to length 1."""
    i = np.arange(size)
    g = np.exp(-0.5 * ((i[:, None] - i) / deviation) ** 2)
    return (g / np.sqrt((g * g).sum(axis=1, keepdims=True))).astype(dtype)


def _check_images(images: np.ndarray, fill: float = 0.0) -> None:
    if images.dtype not in (np.float32, np.float64) or images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(
            "Images to augment must be float32 or float64 and have shape (images, height, width, channels), "
            f"with at least one pixel; received {images.dtype} of shape {images.shape}."
        )
    if not isinstance(fill, int | float | np.integer | np.floating) or not math.isfinite(fill):
        raise ValueError(f"fill must be a finite number; received {fill!r}.")
