"""What the preprocess stage writes, beside arrays: what they are."""

from pathlib import Path
from typing import ClassVar, Literal

from pipeline.artefacts.record import JsonFile
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
