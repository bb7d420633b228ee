"""What the train stage writes: the network, where it was trained, and how training went."""

from typing import Annotated, Any

from pydantic import PlainSerializer

from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.record import CsvRow, File, JsonFile, Record
from pipeline.paths import MODELS, REPORTS

SixDigits = Annotated[float, PlainSerializer(lambda value: float(f"{value:.6g}"))]


class Blas(Record):
    """A library for matrix products, and the kind of processor whose code it runs."""

    internal_api: str
    version: str | None
    architecture: str | None


class Environment(JsonFile):
    """environment.json: what affects the last bits of a result, besides params, data and code."""

    path = MODELS / "environment.json"
    stage = "train"

    machine: str
    numpy: str
    numpy_simd: list[str]
    blas: list[Blas]


class Network(File):
    """The metadata stored with the weights in model.npz."""

    path = MODELS / "model.npz"
    stage = "train"

    architecture: str
    layers: list[Any]  # as in architectures.yaml
    data: Description
    epoch: int
    environment: Environment


class Epoch(CsvRow):
    """A line of history.csv: see `cnn.EpochReport`."""

    path = REPORTS / "history.csv"
    stage = "train"

    epoch: int
    learning_rate: SixDigits
    train_loss: SixDigits
    train_accuracy: SixDigits
    validation_loss: SixDigits
    validation_accuracy: SixDigits


class ParameterStatistics(CsvRow):
    """A line of statistics.csv: see `cnn.inspection.EpochStatistics`."""

    path = REPORTS / "statistics.csv"
    stage = "train"

    epoch: int
    parameter: str
    gradient_norm: SixDigits
    q5: SixDigits
    q25: SixDigits
    q50: SixDigits
    q75: SixDigits
    q95: SixDigits
