"""What the evaluate stage writes: metrics, and the network's answer for each test image."""

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer

from pipeline.artefacts.record import CsvRow, JsonFile, Record
from pipeline.errors import damage_reported
from pipeline.paths import REPORTS

LARGEST_MATRIX = 30  # classes: of more, the largest confusions are listed instead of all counts

MANY_CLASSES = 10  # of more, the accuracy among the five likeliest classes is measured, too

if TYPE_CHECKING:  # what only reads a result should not depend on all of cnn
    from cnn import Sequential
    from pipeline.artefacts.train import Network


class Model(Record):
    """The network that was measured."""

    architecture: str
    parameters: int
    epoch: int

    @classmethod
    def of(cls, model: "Sequential", network: "Network") -> Self:
        """The record of a trained network."""
        return cls(
            architecture=network.architecture, parameters=model.count_parameters(), epoch=network.epoch
        )


class Views(Record):
    """The views of each image that outputs were averaged over; see `cnn.views`."""

    mirror: bool
    shift: int

    def __str__(self) -> str:
        if not self.shift:
            return "the mean over each image and its mirror image"
        pixels = f"{self.shift} pixel{'s' if self.shift > 1 else ''}"
        both = f"each image, with half of the weight, and two copies of it, shifted by {pixels}"
        return f"the mean over {both}{', all three also mirrored' if self.mirror else ''}"


class Measures(Record):
    """Measures over all classes; the macro figures are plain means over the classes."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    loss: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    examples: int
    # Of many classes: how often the class is among the five likeliest. Of fewer, the file has no such key.
    top_5_accuracy: float | None = Field(None, exclude_if=lambda accuracy: accuracy is None)


class ClassMeasures(Record):
    """Measures for one class."""

    precision: float
    recall: float
    f1: float
    support: int


class Metrics(JsonFile):
    """The content of metrics.json."""

    path = REPORTS / "metrics.json"
    stage = "evaluate"

    dataset: str
    model: Model
    test: Measures
    validation: Measures
    per_class: dict[str, ClassMeasures] = Field(min_length=1)  # on test images
    # of validation and test; without it, the file has no such key
    test_time_augmentation: Views | None = Field(None, exclude_if=lambda views: views is None)


class Prediction(CsvRow):
    """A line of predictions.csv: a test image's index and class, the network's answer and its probability.

    `file` is the path of a picture below data.path, empty for images that are not files of their own.
    """

    path = REPORTS / "predictions.csv"
    stage = "evaluate"

    index: int
    actual: str
    predicted: str
    probability: Annotated[float, PlainSerializer(lambda value: f"{value:.4f}")]
    file: str = ""


class Predictions(NamedTuple):
    """predictions.csv as arrays, with class indices."""

    actual: NDArray[np.intp]
    predicted: NDArray[np.intp]
    probability: NDArray[np.float64]
    files: list[str]

    def matrix(self, classes: int) -> NDArray[np.intp]:
        """The confusion matrix: [i, j] is how many images of class i were taken for class j."""
        pairs = self.actual * classes + self.predicted
        return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


class Confusion(NamedTuple):
    """Images of class `actual` that were taken for class `predicted`."""

    actual: int
    predicted: int
    images: int


def largest_confusions(matrix: NDArray[np.integer[Any]], limit: int) -> list[Confusion]:
    """At most `limit` pairs of different classes, those that were confused most often first.

    matrix[i, j] is how many images of class i were taken for class j. Equal counts are in class order.
    """
    errors = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-errors, axis=None, kind="stable")[:limit]
    pairs = [(int(k) // len(matrix), int(k) % len(matrix)) for k in order]
    return [Confusion(i, j, count) for i, j in pairs if (count := int(errors[i, j]))]


def load_predictions(class_names: list[str]) -> Predictions:
    """Read predictions.csv; its classes must be among `class_names`."""
    rows = Prediction.load()
    number = {name: k for k, name in enumerate(class_names)}
    with damage_reported(Prediction.path, Prediction.stage):
        if unknown := {row.actual for row in rows}.union(row.predicted for row in rows) - number.keys():
            raise ValueError(f"{min(unknown)!r} is not a class")
        return Predictions(
            np.array([number[row.actual] for row in rows]),
            np.array([number[row.predicted] for row in rows]),
            np.array([row.probability for row in rows]),
            [row.file for row in rows],
        )
