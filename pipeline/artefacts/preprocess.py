"""What the preprocess stage writes besides arrays: a description of them."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.artefacts.record import JsonFile
from pipeline.paths import PROCESSED

Part = Literal["train", "validation", "test"]


class Description(JsonFile):
    """dataset.json: describes the arrays beside it. Their pixels are (byte / 255 − mean) / deviation."""

    path = PROCESSED / "dataset.json"
    stage = "preprocess"

    dataset: str
    class_names: list[str]
    image_shape: tuple[int, int, int]
    mean: float
    deviation: float = Field(gt=0)
    examples: dict[Part, Annotated[int, Field(ge=1)]] = Field(min_length=3)  # for all parts

    @property
    def black(self) -> float:
        """The value of a black pixel."""
        return -self.mean / self.deviation
