"""Gamma: an exponent for each image. Brightness, contrast: a factor; values may leave the given range."""

from typing import Annotated

import numpy as np
from jaxtyping import Float

from cnn.augmentation.images import Colour, GivenImages, Images, Rng, check_images
from cnn.checks import Fraction, Range
from cnn.ops.arrays import place
from cnn.registry import AUGMENTATIONS


@AUGMENTATIONS.register
def random_gamma(
    images: GivenImages,
    rng: Rng,
    log_gamma: Annotated[float, Range("[0, 10]")],
    *,
    black: Colour = 0.0,
    white: Colour = 1.0,
) -> Images:
    """Raise the light of each image to a power γ = eᵘ, u uniform on ±log_gamma.

        y[p] = black + (white − black) · r^γ,    r = (x[p] − black) / (white − black), clipped to [0, 1]

    γ and 1/γ are equally likely. Black and white stay; γ < 1 makes the greys between them lighter, γ > 1
    darker. If black and white are what standardising gives these, r is the same as for raw pixels, and y is
    what standardising their y gives.
    Source: Poynton, "Digital video and HD" (2012), for such powers in cameras and displays.

    Args:
        log_gamma: the largest |log γ|.
        black: the value of a black pixel.
        white: the value of a white pixel, greater than black.
    """
    check_images(images, black=black, white=white)
    if not np.all(np.greater(white, black)):
        raise ValueError(f"white must be greater than black; received {white!r} and {black!r}.")
    if log_gamma == 0:
        return images.copy()
    n, h, w, c = images.shape
    gamma = place(np.exp(rng.uniform(-log_gamma, log_gamma, (n, 1, 1))).astype(images.dtype), like=images)
    ends = (np.tile(np.broadcast_to(colour, c).astype(images.dtype), w) for colour in (black, white))
    low, high = (place(end, like=images) for end in ends)
    y = images.reshape(n, h, w * c) - low
    y /= high - low
    np.clip(y, 0, 1, out=y)
    with np.errstate(divide="ignore"):  # log 0 = −∞, and exp −∞ = 0
        np.log(y, out=y)
    y *= gamma
    np.exp(y, out=y)  # not np.power, whose bits are those of the C library
    y *= high - low
    y += low
    return y.reshape(images.shape)


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
    fixed = np.broadcast_to(black, channels).astype(images.dtype)[None]
    return _scale(images, rng, fraction, place(fixed, like=images))


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
    in_order = np.ascontiguousarray(images, like=images)  # the order of a sum affects its last bits
    return _scale(images, rng, fraction, in_order.mean(axis=1).mean(axis=1))


def _scale(images: Images, rng: Rng, fraction: float, fixed: Float[np.ndarray, "#n c"]) -> Images:
    """fixed + f · (x − fixed), with a factor f for each image."""
    if fraction == 0:
        return images.copy()
    n, h, w, c = images.shape
    factor = place(rng.uniform(1 - fraction, 1 + fraction, (n, 1, 1)).astype(images.dtype), like=images)
    fixed = np.tile(fixed, w)[:, None]  # for a whole row of pixels: one long inner loop beats many short ones
    y = images.reshape(n, h, w * c) - fixed
    y *= factor
    y += fixed
    return y.reshape(images.shape)
