"""The arguments that augmentations share."""

from typing import Annotated

import numpy as np
from jaxtyping import Float

from cnn.checks import Given, Range

Images = Float[np.ndarray, "n h w c"]
GivenImages = Annotated[Images, Given]
Rng = Annotated[np.random.Generator, Given]
Colour = Annotated[float | Float[np.ndarray, "c"], Given]  # one number, or one for each channel
Pixels = Annotated[float, Range("[0, 1000]")]


def check_images(images: np.ndarray, **colours: float | np.ndarray) -> None:
    """ValueError if `images` are no batch of images, or one of `colours`, by name, does not fit them."""
    if images.dtype not in (np.float32, np.float64) or images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(
            "Images to augment must be float32 or float64 and have shape (images, height, width, channels), "
            f"with at least one pixel; received {images.dtype} of shape {images.shape}."
        )
    channels = images.shape[3]
    for name, colour in colours.items():
        given = np.asarray(colour)
        if (
            given.dtype.kind not in "fiu"
            or given.shape not in ((), (channels,))
            or not np.isfinite(given).all()
        ):
            raise ValueError(
                f"{name} must be a finite number, or an array of {channels}, one for each channel; "
                f"received {colour!r}."
            )
