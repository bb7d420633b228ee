"""Random crops: whole pixels, so nothing is interpolated."""

from typing import Annotated, Literal

import numpy as np
from jaxtyping import Int

from cnn.augmentation.images import Colour, GivenImages, Images, Rng, check_images
from cnn.checks import Whole
from cnn.ops.arrays import full, place
from cnn.registry import AUGMENTATIONS


@AUGMENTATIONS.register
def random_crop(
    images: GivenImages,
    rng: Rng,
    padding: Annotated[int, Whole(0, 1000)],
    *,
    mode: Literal["reflect", "constant"] = "reflect",
    fill: Colour = 0.0,
) -> Images:
    """Pad each image on all sides, and cut a window of its old size out at a random place.

        y[p] = x(p + t),    t uniform over the whole pixels from −padding to padding, for each axis

    Beyond the border, x(·) is either `fill` or the mirror image about the border pixel, as x(−i) = x(i) at
    the top; if the padding is larger than the image, it is mirrored again and again.
    Source: He, Zhang, Ren & Sun, "Deep residual learning for image recognition" (2016), section 4.2, with
    zeros; reflection leaves no edge by which the network could tell where the image ended.

    Args:
        padding: how many pixels to add on each side.
        mode: what the padding holds; reflect is the image's mirror image, constant is `fill`.
        fill: the value beyond the border, if `mode` is constant.
    """
    check_images(images, fill=fill)
    if padding == 0:
        return images.copy()
    n, h, w, c = images.shape
    t = rng.integers(-padding, padding, (n, 2), endpoint=True)
    rows, columns = np.arange(h) + t[:, :1], np.arange(w) + t[:, 1:]  # (n, h) and (n, w)
    if mode == "reflect":
        source, rows, columns = images, reflect(rows, h), reflect(columns, w)
    else:  # one pixel of fill on each side is enough: positions further out are clipped to it
        source = full((n, h + 2, w + 2, c), fill, like=images)
        source[:, 1:-1, 1:-1] = images
        rows, columns = np.clip(rows, -1, h) + 1, np.clip(columns, -1, w) + 1
    _, height, width, _ = source.shape
    index = (np.arange(n)[:, None] * height + rows)[:, :, None] * width + columns[:, None, :]
    return source.reshape(-1, c).take(place(index, like=images), axis=0)


def reflect(i: Int[np.ndarray, "*shape"], size: int) -> Int[np.ndarray, "*shape"]:
    """The pixel, of `size`, that stands at position i of an endless row of mirror images.

    A triangle wave of period 2 (size − 1): … 2 1 0 1 2 … for i = −2 … 2.
    """
    last = size - 1
    return np.abs((i + last) % max(2 * last, 1) - last)
