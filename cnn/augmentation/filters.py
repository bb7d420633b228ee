"""Filters: each pixel is mixed with those around it, as another pen or another scanner would.

Both filters are separable: what they compute of a square of pixels is computed along one axis, and then of
the results along the other. They act on each channel alone. A plain image stays the same to the last bit.
"""

import numpy as np
from jaxtyping import Float

from cnn.augmentation.images import GivenImages, Images, Rng, check_images
from cnn.augmentation.sampling import blend
from cnn.checks import Fraction
from cnn.ops.arrays import place
from cnn.registry import AUGMENTATIONS

Lines = Float[np.ndarray, "lines length width"]  # of which neighbours along the middle axis are combined


@AUGMENTATIONS.register
def random_stroke(images: GivenImages, rng: Rng, fraction: Fraction) -> Images:
    """Make the strokes of each image thicker or thinner, by u, uniform on ±fraction.

        y[p] = (1 − |u|) · x[p] + |u| · max x[q]    if u > 0,    with min for max    if u < 0

    over the pixels q of the image in the 3x3 square around p: grey dilation and erosion. Beyond the border
    there are no pixels, so the square is cut off there. Positive u makes light strokes on a dark ground
    thicker, and dark strokes on a light ground thinner.
    Source: Serra, "Image analysis and mathematical morphology" (1982).

    Args:
        fraction: the largest share of the dilated or eroded image.
    """
    check_images(images)
    if fraction == 0:
        return images.copy()
    n, h, w, c = images.shape
    u = place(rng.uniform(-fraction, fraction, (n, 1)).astype(images.dtype), like=images)
    sign = np.copysign(1, u)
    x = images.reshape(n, h * w * c)
    extreme = _maximum((x * sign).reshape(n, h, w * c))  # min x = −max(−x)
    extreme = _maximum(extreme.reshape(n * h, w, c)).reshape(x.shape)
    extreme *= sign
    return blend(x, extreme, np.abs(u)).reshape(images.shape)


@AUGMENTATIONS.register
def random_blur(images: GivenImages, rng: Rng, fraction: Fraction) -> Images:
    """Mix each image with a blurred one, by a share u, uniform on [0, fraction].

        y = (1 − u) · x + u · (B ∗ x),    B = b bᵀ,    b = (1, 4, 6, 4, 1) / 16

    b holds the binomial coefficients of 4, and is close to a Gaussian whose standard deviation is 1 pixel.
    Beyond the border, x continues with the value of the nearest border pixel.
    Source: Burt & Adelson, "The Laplacian pyramid as a compact image code" (1983), the kernel with a = 3/8.

    Args:
        fraction: the largest share of the blurred image.
    """
    check_images(images)
    if fraction == 0:
        return images.copy()
    n, h, w, c = images.shape
    u = place(rng.uniform(0, fraction, (n, 1)).astype(images.dtype), like=images)
    framed = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    blurred = _binomial_sum(framed.reshape(n, h + 4, (w + 4) * c))
    blurred = _binomial_sum(blurred.reshape(n * h, w + 4, c)).reshape(n, h * w * c)
    blurred *= images.dtype.type(1 / 256)
    return blend(images.reshape(n, h * w * c), blurred, u).reshape(images.shape)


def _maximum(x: Lines) -> Lines:
    """The largest of each number and its two neighbours; at the ends, of itself and the one neighbour."""
    y = x.copy()
    np.maximum(y[:, 1:], x[:, :-1], out=y[:, 1:])
    np.maximum(y[:, :-1], x[:, 1:], out=y[:, :-1])
    return y


def _binomial_sum(x: Lines) -> Float[np.ndarray, "lines shorter width"]:
    """x[i] + 4 x[i + 1] + 6 x[i + 2] + 4 x[i + 3] + x[i + 4]: the sum of two neighbours, four times over."""
    for _ in range(4):
        x = x[:, :-1] + x[:, 1:]
    return x
