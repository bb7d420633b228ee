"""What the preprocess stage writes: arrays of images and targets, and what they are."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cnn import Examples
from pipeline.artefacts.record import JsonFile
from pipeline.errors import damage_reported
from pipeline.paths import PROCESSED

Part = Literal["train", "validation", "test"]


class Description(JsonFile):
    """dataset.json: what the arrays beside it are. Their pixels are (byte / 255 − mean) / deviation."""

    path: ClassVar[Path] = PROCESSED / "dataset.json"
    stage: ClassVar[str] = "preprocess"

    dataset: str
    class_names: list[str]
    image_shape: tuple[int, int, int]
    mean: float
    deviation: float
    examples: dict[Part, int]

    @property
    def black(self) -> float:
        """The value of a black pixel."""
        return -self.mean / self.deviation


def load_examples(part: Part, description: Description) -> Examples:
    """The images and targets of this part, memory-mapped."""
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
                f"{Description.path} says float32 {shape}, and it holds {array.dtype} {array.shape}"
            )
        return array
