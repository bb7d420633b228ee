"""What the evaluate stage writes: metrics, and the network's answer for each test image."""

from typing import TYPE_CHECKING, Annotated, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer

from pipeline.artefacts.record import CsvRow, JsonFile, Record
from pipeline.errors import damage_reported
from pipeline.paths import REPORTS

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


class Prediction(CsvRow):
    """A line of predictions.csv: a test image's index and class, the network's answer and its probability."""

    path = REPORTS / "predictions.csv"
    stage = "evaluate"

    index: int
    actual: str
    predicted: str
    probability: Annotated[float, PlainSerializer(lambda value: f"{value:.4f}")]


class Predictions(NamedTuple):
    """predictions.csv as arrays, with class indices."""

    actual: NDArray[np.intp]
    predicted: NDArray[np.intp]
    probability: NDArray[np.float64]


def load_predictions(class_names: list[str]) -> Predictions:
    """Read predictions.csv; its classes must be among `class_names`."""
    rows = Prediction.load()
    with damage_reported(Prediction.path, Prediction.stage):
        return Predictions(
            np.array([class_names.index(row.actual) for row in rows]),
            np.array([class_names.index(row.predicted) for row in rows]),
            np.array([row.probability for row in rows]),
        )
