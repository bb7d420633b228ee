"""Brightness and contrast: a factor for each image. Values may leave the range of the given ones."""

import numpy as np
from jaxtyping import Float

from cnn.augmentation.images import Colour, GivenImages, Images, Rng, check_images
from cnn.checks import Fraction
from cnn.registry import AUGMENTATIONS


@AUGMENTATIONS.register
def random_brightness(images: GivenImages, rng: Rng, fraction: Fraction, *, black: Colour = 0.0) -> Images:
    """Multiply the light of each image by a factor f, uniform on [1 − fraction, 1 + fraction].

        y[p] = black + f · (x[p] − black)

    For raw pixels, whose black is 0, this is f · x. Standardised pixels are (x − mean) / deviation, and their
    black is −mean / deviation: y is then what standardising f · x gives.

    Args:
        fraction: the largest change of the factor.
        black: the value of a black pixel.
    """
    check_images(images, black=black)
    channels = images.shape[3:]
    return _scale(images, rng, fraction, np.broadcast_to(black, channels).astype(images.dtype)[None])


@AUGMENTATIONS.register
def random_contrast(images: GivenImages, rng: Rng, fraction: Fraction) -> Images:
    """Multiply the contrast of each image by a factor f, uniform on [1 − fraction, 1 + fraction].

        y[p] = μ + f · (x[p] − μ),    μ = the mean of x over the pixels of the image, for each channel

    The means stay. Standardising moves and scales x and μ alike, so it makes no difference whether it comes
    before or after.

    Args:
        fraction: the largest change of the factor.
    """
    check_images(images)
    in_order = np.ascontiguousarray(images)  # the order of a sum affects its last bits
    return _scale(images, rng, fraction, in_order.mean(axis=1).mean(axis=1))


def _scale(images: Images, rng: Rng, fraction: float, fixed: Float[np.ndarray, "#n c"]) -> Images:
    """fixed + f · (x − fixed), with a factor f for each image."""
    if fraction == 0:
        return images.copy()
    n, h, w, c = images.shape
    factor = rng.uniform(1 - fraction, 1 + fraction, (n, 1, 1)).astype(images.dtype)
    fixed = np.tile(fixed, w)[:, None]  # for a whole row of pixels: one long inner loop beats many short ones
    y = images.reshape(n, h, w * c) - fixed
    y *= factor
    y += fixed
    return y.reshape(images.shape)
