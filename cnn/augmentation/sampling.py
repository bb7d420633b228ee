"""Values of images between their pixels."""

import numpy as np
from jaxtyping import Float

from cnn.augmentation.images import Colour, Images
from cnn.ops.arrays import arange, full


def sample(
    images: Images, rows: Float[np.ndarray, "n p q"], columns: Float[np.ndarray, "n p q"], fill: Colour
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
    framed = full((n, height, width, c), fill, like=images)
    framed[:, 1:-2, 1:-2] = images
    np.clip(rows, -1, h, out=rows)
    np.clip(columns, -1, w, out=columns)
    top, left = np.floor(rows), np.floor(columns)
    origins = arange(width + 1, n * height * width, height * width, like=images)  # pixel (0, 0) of each image
    corner = top.astype(np.intp) * width + left.astype(np.intp)  # index of the upper left neighbour
    corner += origins[:, None, None]
    rows -= top
    columns -= left
    from_top, from_left = rows[..., None], columns[..., None]  # (n, p, q, 1), in [0, 1)
    pixels = framed.reshape(-1, c)
    upper = blend(pixels.take(corner, axis=0), pixels[1:].take(corner, axis=0), from_left)
    lower = blend(pixels[width:].take(corner, axis=0), pixels[width + 1 :].take(corner, axis=0), from_left)
    return blend(upper, lower, from_top)


def blend(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """a + share · (b − a), written to b. It is exactly a if b = a: a plain background stays plain."""
    b -= a
    b *= share
    b += a
    return b
