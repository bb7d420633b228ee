"""What the preprocess stage writes besides arrays: a description of them."""

from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.artefacts.record import JsonFile
from pipeline.data.dataset import Framing
from pipeline.paths import PROCESSED

Part = Literal["train", "validation", "test"]
Floats = NDArray[np.float32]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Description(JsonFile):
    """dataset.json: describes the arrays beside it, and how the network receives their bytes.

    x = (byte / 255 − mean) / deviation        with one mean and deviation for each channel
    """

    path = PROCESSED / "dataset.json"
    stage = "preprocess"

    dataset: str  # its name in params.yaml
    title: str
    class_names: Annotated[list[str], Field(min_length=2)]
    image_shape: tuple[int, int, int]  # height, width, channels
    framing: Framing  # how a picture is brought to this shape
    background: list[Fraction]  # of each channel: the median of the training images' border pixels / 255
    mean: list[float]
    deviation: list[Annotated[float, Field(gt=0)]]
    examples: dict[Part, Annotated[int, Field(ge=1)]] = Field(min_length=3)  # for all parts

    @model_validator(mode="after")
    def _has_numbers_for_each_channel(self) -> Self:
        lengths = {len(numbers) for numbers in (self.background, self.mean, self.deviation)}
        if lengths != {self.image_shape[2]}:
            raise ValueError(
                f"background, mean and deviation need {self.image_shape[2]} numbers, one for each channel"
            )
        return self

    def normalise(self, pixels: NDArray[np.uint8] | NDArray[np.floating[Any]]) -> Floats:
        """What the network receives for bytes, or for numbers in [0, 1]; the last axis is the channels."""
        x = pixels.astype(np.float32)
        if pixels.dtype == np.uint8:
            x /= np.float32(255)
        if any(self.mean) or any(deviation != 1 for deviation in self.deviation):
            x -= np.array(self.mean, np.float32)
            x /= np.array(self.deviation, np.float32)
        return x

    def brightness(self, x: NDArray[np.floating[Any]]) -> Floats:
        """The inverse of `normalise`, in [0, 1]: what a person sees of an image that the network receives."""
        pixels = x * np.array(self.deviation, np.float32) + np.array(self.mean, np.float32)
        return np.clip(pixels, 0, 1)

    @property
    def normalised_background(self) -> Floats:
        """The value of each channel that the network receives for the background."""
        return self.normalise(np.array(self.background))

    @property
    def normalised_black(self) -> Floats:
        """The value of each channel that the network receives for a black pixel."""
        return self.normalise(np.zeros(self.image_shape[2]))

    @property
    def normalised_white(self) -> Floats:
        """The value of each channel that the network receives for a white pixel."""
        return self.normalise(np.ones(self.image_shape[2]))
