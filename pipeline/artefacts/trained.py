"""What the train and evaluate stages have left, read and checked."""

import csv
import json
from collections.abc import Sequence
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnn import EpochReport, Sequential, checkpoint
from cnn.ops.softmax import softmax
from pipeline.artefacts.dataset import load_description
from pipeline.config.architectures import build_model, gives_probabilities
from pipeline.errors import UserError
from pipeline.paths import HISTORY, METRICS, MODEL, PREDICTIONS, STATISTICS


class Predictions(NamedTuple):
    """predictions.csv: class indices, and the probability of what was predicted."""

    actual: NDArray[np.intp]
    predicted: NDArray[np.intp]
    probability: NDArray[np.float64]


def load_model() -> tuple[Sequential, dict[str, Any]]:
    """The trained network and what train wrote about it; only models/ is asked, never architectures.yaml."""
    if not MODEL.exists():
        raise UserError(f"{MODEL} is missing. Make it with: dvc repro train")
    try:
        state, metadata = checkpoint.load(MODEL)
    except checkpoint.CheckpointError as error:
        raise UserError(f"{error} Bring it back with: dvc checkout --force models") from None
    try:
        model = build_model(
            metadata["layers"],
            str(MODEL),
            tuple(metadata["data"]["image_shape"]),
            len(metadata["data"]["class_names"]),
            np.random.default_rng(0),  # the initial values are replaced at once
        )
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{MODEL} was not written by this train stage ({error}). Make it with: dvc repro --force train"
        ) from None
    return model, metadata


def load_trained() -> tuple[Sequential, dict[str, Any], dict[str, Any]]:
    """`load_model`, and the description of data/processed, on which it must have been trained."""
    model, metadata = load_model()
    description = load_description()
    if metadata["data"] != description:
        raise UserError(
            f"{MODEL} was not trained on what data/processed holds now ({description['dataset']}): another "
            "dataset, or the same prepared otherwise. Bring them together with: dvc repro"
        )
    return model, metadata, description


def probabilities_of(model: Sequential, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The outputs themselves if the network ends in softmax, else their softmax."""
    return outputs if gives_probabilities(model) else softmax(outputs)


def load_history() -> dict[str, list[float]]:
    """The columns of history.csv."""
    names = [field.name for field in fields(EpochReport)]
    rows = _read_csv(HISTORY, "train", numbers=names)
    return {name: [row[name] for row in rows] for name in names}


def load_statistics() -> list[dict[str, Any]]:
    """The rows of statistics.csv."""
    numbers = ["epoch", "gradient_norm", "q5", "q25", "q50", "q75", "q95"]
    return _read_csv(STATISTICS, "train", numbers=numbers, texts=["parameter"])


def load_predictions(class_names: list[str]) -> Predictions:
    """predictions.csv, whose classes must be `class_names`."""
    rows = _read_csv(PREDICTIONS, "evaluate", numbers=["probability"], texts=["actual", "predicted"])
    index = {name: number for number, name in enumerate(class_names)}
    try:
        actual, predicted = ([index[row[key]] for row in rows] for key in ("actual", "predicted"))
    except KeyError:
        raise _damaged(PREDICTIONS, "evaluate") from None
    return Predictions(np.array(actual), np.array(predicted), np.array([row["probability"] for row in rows]))


def load_metrics() -> dict[str, Any]:
    """metrics.json."""
    try:
        metrics: dict[str, Any] = json.loads(METRICS.read_text(encoding="utf-8"))
        for part in ("test", "validation"):
            for key in ("accuracy", "accuracy_low", "accuracy_high", "loss", "macro_f1", "examples"):
                float(metrics[part][key])
        for key in ("architecture", "parameters", "epoch"):
            metrics["model"][key]
        metrics["dataset"], metrics["per_class"].items()
        return metrics
    except FileNotFoundError:
        raise _missing(METRICS, "evaluate") from None
    except (AttributeError, KeyError, TypeError, ValueError, OSError):
        raise _damaged(METRICS, "evaluate") from None


def _read_csv(
    path: Path, stage: str, *, numbers: Sequence[str], texts: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The rows of a file that `stage` wrote, with at least these columns."""
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        parsed: list[dict[str, Any]] = [
            {name: row[name] for name in texts} | {name: float(row[name]) for name in numbers} for row in rows
        ]
        if not parsed or not all(isfinite(row[name]) for row in parsed for name in numbers):
            raise ValueError
        return parsed
    except FileNotFoundError:
        raise _missing(path, stage) from None
    except (KeyError, ValueError, TypeError, OSError):
        raise _damaged(path, stage) from None


def _missing(path: Path, stage: str) -> UserError:
    return UserError(f"{path} is missing. Make it with: dvc repro {stage}")


def _damaged(path: Path, stage: str) -> UserError:
    return UserError(f"{path} is damaged. Make it again with: dvc repro --force {stage}")
