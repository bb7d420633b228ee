"""The arrays that the preprocess stage writes, as the later stages read them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import Examples
from pipeline.artefacts.preprocess import Description, Part
from pipeline.errors import damage_reported
from pipeline.paths import PROCESSED


def load_examples(part: Part, description: Description) -> Examples:
    """The images and targets of `part`, memory-mapped."""
    count, classes = description.examples[part], len(description.class_names)
    return Examples(
        _map(PROCESSED / f"{part}_images.npy", (count, *description.image_shape)),
        _map(PROCESSED / f"{part}_targets.npy", (count, classes)),
    )


def _map(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    with damage_reported(path, Description.stage):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(
                f"{Description.path} says float32 {shape}, but it holds {array.dtype} {array.shape}"
            )
        return array
