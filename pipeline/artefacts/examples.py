"""The arrays that the preprocess stage writes, as the later stages read them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import Examples
from pipeline.artefacts.preprocess import Description, Floats, Part
from pipeline.errors import damage_reported
from pipeline.paths import PROCESSED


class StoredImages:
    """Images on disk as bytes; those that are indexed are read and normalised: float32 (…, h, w, channels).

    An epoch reads a quarter of the bytes that it would read of float32 images on disk.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, pixels: NDArray[np.uint8], description: Description) -> None:
        self.pixels, self._normalise = pixels, description.normalise
        self.shape, self.ndim = pixels.shape, pixels.ndim

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: Any) -> Floats:
        return self._normalise(self.pixels[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)


def load_examples(part: Part, description: Description) -> Examples:
    """The images and one-hot targets of `part`; the images stay on disk."""
    count, classes = description.examples[part], len(description.class_names)
    images = _map(PROCESSED / f"{part}_images.npy", (count, *description.image_shape))
    targets = _map(PROCESSED / f"{part}_targets.npy", (count, classes))
    return Examples(StoredImages(images, description), targets.astype(np.float32))


def _map(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    with damage_reported(path, Description.stage):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.shape != shape or array.dtype != np.uint8:
            raise ValueError(
                f"{Description.path} says uint8 {shape}, but it holds {array.dtype} {array.shape}"
            )
        return array
