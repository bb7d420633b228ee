"""What the train stage writes: the network, where it was trained, and how training went."""

from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer

from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.record import CsvRow, File, JsonFile
from pipeline.paths import MODELS, REPORTS, scratch

DIVERGED_VARIABLE = "TRAINING_DIVERGED_NOTE"  # a path: train writes there if numbers became infinite
SixDigits = Annotated[float, PlainSerializer(lambda value: float(f"{value:.6g}"))]


class Environment(JsonFile):
    """environment.json: what affects the last bits of a result, besides params, data and code.

    It is in Git, so that everybody can compare. On all x86-64 processors with AVX2 it is the same.
    """

    path = REPORTS / "environment.json"
    stage = "train"

    machine: str
    numpy: str
    numpy_simd: str  # the extensions whose code NumPy runs
    pillow: str  # which decodes pictures, and libjpeg
    blas: str  # the library for matrix products, and the kind of processor whose code it runs

    @property
    def is_portable(self) -> bool:
        """Whether other x86-64 processors give the same bits."""
        return self.blas.endswith(" Haswell") and self.numpy_simd.split()[-1:] == ["X86_V3"]


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


def seconds_note(history: bytes) -> Path:
    """The file that says how long the training took that wrote this history.csv, if it ran in this checkout.

    No output of DVC may hold a time; two trainings with the same history are the same one.
    """
    return scratch() / "seconds" / sha256(history.strip()).hexdigest()[:16]


def noted_seconds(history: bytes) -> float | None:
    """How long the training took that wrote this history.csv; None if nobody noted it here."""
    try:
        return float(seconds_note(history).read_text())
    except (OSError, ValueError):
        return None


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
