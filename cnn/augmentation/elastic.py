"""Elastic distortion: a displacement for each pixel."""

from typing import Annotated

import numpy as np
from jaxtyping import Float

from cnn.augmentation.images import Colour, GivenImages, Images, Pixels, Rng, check_images
from cnn.augmentation.sampling import sample
from cnn.checks import Range
from cnn.ops.arrays import place
from cnn.registry import AUGMENTATIONS


@AUGMENTATIONS.register
def elastic_distortion(
    images: GivenImages,
    rng: Rng,
    strength: Pixels,
    *,
    smoothness: Annotated[float, Range("(0, 1000]")] = 4.0,
    fill: Colour = 0.0,
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
    check_images(images, fill=fill)
    if strength == 0:
        return images.copy()
    n, h, w, _ = images.shape
    d = _displacements(rng, (n, h, w), strength, smoothness, images.dtype)
    rows = np.arange(h, dtype=images.dtype)[:, None] + d[:, 0]
    columns = np.arange(w, dtype=images.dtype) + d[:, 1]
    return sample(images, place(rows, like=images), place(columns, like=images), fill)


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
