"""What several seeds of one configuration gave: their record, mean and interval; paired comparison of two."""

import json
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple, Self

from pydantic import Field, ValidationError
from scipy import stats

from cnn.atomic import write_text
from pipeline.artefacts.record import Record
from pipeline.errors import UserError, reason
from pipeline.paths import REPETITIONS

CONFIDENCE_LEVEL = 0.95
FEWEST = 3  # seeds: of fewer, a paired test says next to nothing
DIGITS = 6  # as in metrics.json


class Summary(Record):
    """Mean and standard deviation over seeds, and the confidence interval of the mean."""

    mean: float
    standard_deviation: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of n >= 2 values x: s² = Σ (x − x̄)² / (n − 1), and the interval x̄ ± t s / √n.

        t is the quantile (1 + CONFIDENCE_LEVEL) / 2 of Student's distribution with n − 1 degrees of freedom
        (Student 1908, "The probable error of a mean"). It assumes that seeds scatter normally.
        """
        mean, deviation = fmean(values), stdev(values)
        quantile = float(stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, len(values) - 1))
        half = quantile * deviation / sqrt(len(values))
        found = {"mean": mean, "standard_deviation": deviation, "low": mean - half, "high": mean + half}
        return cls(**{name: round(value, DIGITS) for name, value in found.items()})


class Seed(Record):
    """One run: accuracies of the network that it kept, from the run's metrics.json.

    `training_seconds` is None if the network came from DVC's cache and nobody noted how long it had taken.
    """

    seed: int
    epoch: int
    validation_accuracy: float
    test_accuracy: float
    test_loss: float
    training_seconds: float | None


class Repetition(Record):
    """The content of reports/repeat/NAME.json."""

    name: str
    settings: list[str]  # on top of params.yaml, as `-S` takes them
    inputs: str  # identifies params, networks, code and settings
    dataset: str
    architecture: str
    parameters: int
    test_images: int
    confidence_level: float
    validation_accuracy: Summary
    test_accuracy: Summary
    seeds: list[Seed] = Field(min_length=2)

    @staticmethod
    def path(name: str, suffix: str = ".json") -> Path:
        """The file of a repetition with this suffix."""
        return REPETITIONS / f"{name}{suffix}"

    @classmethod
    def load(cls, name: str) -> Self:
        """The record of a name; UserError if there is none."""
        path = cls.path(name)
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            known = ", ".join(sorted(other.stem for other in REPETITIONS.glob("*.json"))) or "none"
            raise UserError(
                f"There is no repetition named {name!r}, for {path} is missing. There are: {known}. Make one "
                f"with: python -m pipeline repeat --name {name}"
            ) from None
        except (ValidationError, OSError) as error:
            raise UserError(
                f"{path} is damaged: {reason(error)}. Remove it, and make it again with the `repeat` that "
                "wrote it; no seed is trained again."
            ) from None

    def save(self) -> None:
        """Write the JSON file, atomically."""
        write_text(self.path(self.name), json.dumps(self.model_dump(mode="json"), indent=2) + "\n")


class Paired(NamedTuple):
    """The paired t test of whether two configurations differ; `p` is None if all differences are equal."""

    differences: Summary
    t: float | None
    p: float | None


def compare_paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """With d = second − first of n >= 2 seeds each: t = d̄ √n / s, and p = P(|T| >= |t|).

    T has Student's distribution with n − 1 degrees of freedom, if the mean difference is 0 and differences
    scatter normally. Seeds are paired since equal seeds share validation images and the order of images.
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    mean, deviation = fmean(differences), stdev(differences)
    if deviation < 1e-12:  # rounding of equal differences
        return Paired(Summary.of(differences), None, None)
    t = mean * sqrt(len(differences)) / deviation
    p = 2 * float(stats.t.sf(abs(t), len(differences) - 1))
    return Paired(Summary.of(differences), t, p)
