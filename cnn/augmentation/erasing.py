"""Hidden parts, so that the network cannot rely on a single part of the image."""

from typing import Annotated

import numpy as np
from jaxtyping import Bool, Int

from cnn.augmentation.images import Colour, GivenImages, Images, Rng, check_images
from cnn.checks import Fraction, Range, Whole
from cnn.ops.arrays import place
from cnn.registry import AUGMENTATIONS

Area = Annotated[float, Range("(0, 1]")]


@AUGMENTATIONS.register
def cutout(
    images: GivenImages, rng: Rng, size: Annotated[int, Whole(0, 1000)], *, fill: Colour = 0.0
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
    check_images(images, fill=fill)
    n, h, w, _ = images.shape
    corners = rng.integers(0, (h, w), (n, 2)) - size // 2
    inside = place(_rectangles(images, corners, np.full((n, 2), size)), like=images)
    return np.where(inside[..., None], place(np.asarray(fill, images.dtype), like=images), images)


@AUGMENTATIONS.register
def random_erasing(
    images: GivenImages,
    rng: Rng,
    probability: Fraction,
    *,
    smallest_area: Area = 0.02,
    largest_area: Area = 0.4,
    largest_ratio: Annotated[float, Range("[1, 100]")] = 3.3,
) -> Images:
    """Overwrite a rectangle of an image with noise, with the given probability.

        height = √(s · h · w · r),    width = √(s · h · w / r),    rounded, at least 1 and at most h and w
        y[i, j] = low + u · (high − low)    inside, u uniform on [0, 1) for each pixel and channel

    s is uniform from smallest_area to largest_area, log r uniform on ±log largest_ratio, so that tall and
    wide rectangles are equally likely, and the place uniform among those inside the image. low and high are
    the smallest and the largest value of the image, for each channel: so the noise is the same whether or
    not pixels are standardised.
    Source: Zhong, Zheng, Kang, Li & Yang, "Random erasing data augmentation" (2020), algorithm 1; it draws
    again if a rectangle does not fit. Of the fillings that the paper compares, noise and the mean pixel
    reach about the same accuracy, black and white a lower one; the paper then uses noise, as this does.

    Args:
        probability: the probability that an image gets a rectangle.
        smallest_area: the smallest area of the rectangle, as a fraction of the image's.
        largest_area: the largest area of the rectangle, as a fraction of the image's.
        largest_ratio: the largest ratio of height to width, and of width to height.
    """
    check_images(images)
    if smallest_area > largest_area:
        raise ValueError(
            f"smallest_area must be at most largest_area; received {smallest_area:g} and {largest_area:g}."
        )
    n, h, w, c = images.shape
    erased = rng.random((n, 1, 1)) < probability
    area = rng.uniform(smallest_area, largest_area, n) * (h * w)
    ratio = np.exp(rng.uniform(-1, 1, n) * np.log(largest_ratio))
    sizes = np.rint(np.sqrt(np.stack([area * ratio, area / ratio], axis=1)))
    sizes = np.clip(sizes, 1, (h, w)).astype(np.intp)
    inside = erased & _rectangles(images, rng.integers(0, (h, w) - sizes, endpoint=True), sizes)
    y = images.copy()
    pixels = place(np.flatnonzero(inside), like=images)
    image = pixels // (h * w)  # to which each of them belongs
    low, high = images.min(axis=1).min(axis=1)[image], images.max(axis=1).max(axis=1)[image]
    noise = place(rng.random((len(pixels), c), images.dtype), like=images)
    y.reshape(-1, c)[pixels] = low + noise * (high - low)
    return y


def _rectangles(
    images: Images, corners: Int[np.ndarray, "n 2"], sizes: Int[np.ndarray, "n 2"]
) -> Bool[np.ndarray, "n h w"]:
    """Which pixels are in the rectangle of their image, given by its upper left corner and its sides."""
    _, h, w, _ = images.shape
    (top, left), (bottom, right) = (ends.T[:, :, None] for ends in (corners, corners + sizes))  # (n, 1) each
    in_rows = (top <= np.arange(h)) & (np.arange(h) < bottom)
    in_columns = (left <= np.arange(w)) & (np.arange(w) < right)
    return in_rows[:, :, None] & in_columns[:, None, :]
