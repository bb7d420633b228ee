"""params.yaml: which keys there are, what each means, and which values it takes."""

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pipeline.datasets import DATASETS
from pipeline.errors import UserError, unknown
from pipeline.paths import ARCHITECTURES, PARAMS
from pipeline.yaml_files import read_mapping

OPTIMIZERS = ("sgd",)
SCHEDULES = ("constant",)


class Section(BaseModel):
    """A part of params.yaml: complete, without extra keys, and with the types as they stand."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def one_of(kind: str, names: Collection[str]) -> AfterValidator:
    """The value is one of `names`."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(unknown(kind, name, names))
        return name

    return AfterValidator(check)


def _fraction_or_count(value: float) -> float:
    if not (0 < value < 1 or (isinstance(value, int) and value >= 1)):
        raise ValueError("out of range")
    return value


Count = Annotated[int, Field(ge=1)]


class Data(Section):
    """What to train on, and how it is prepared."""

    dataset: Annotated[str, one_of("dataset", DATASETS)] = Field(description="the name of a dataset")
    train_size: Count | None = Field(description="how many images to train on: a whole number >= 1, or null")
    validation_size: Annotated[int | float, AfterValidator(_fraction_or_count)] = Field(
        description="the part of the training set kept for validation: a fraction between 0 and 1, "
        "or a whole number of images >= 1"
    )
    standardize: bool = Field(description="whether to standardise the pixels: true or false")


class Model(Section):
    """Which network."""

    architecture: str = Field(description="the name of a network in architectures.yaml")


class Optimizer(Section):
    """How gradients become steps; see `cnn.optimizers`."""

    name: Annotated[str, one_of("optimizer", OPTIMIZERS)] = Field(description="the name of an optimiser")
    learning_rate: float = Field(gt=0, description="the step size: a number > 0")
    momentum: float = Field(ge=0, lt=1, description="the fraction of the last step that is kept: in [0, 1)")
    nesterov: bool = Field(description="whether to use Nesterov's momentum: true or false")
    weight_decay: float = Field(ge=0, description="the strength of the pull to zero: a number >= 0")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "Optimizer":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: true needs momentum > 0; received 0.0.")
        return self


class Schedule(Section):
    """How the learning rate changes from step to step; see `cnn.schedules`."""

    name: Annotated[str, one_of("schedule", SCHEDULES)] = Field(description="the name of a schedule")


class Train(Section):
    """How to train."""

    epochs: Count = Field(description="how many passes over the training set: a whole number >= 1")
    batch_size: Count = Field(description="how many images to a step: a whole number >= 1")
    shard_size: Count = Field(
        description="how many images of a batch are computed together: a whole number >= 1"
    )
    optimizer: Optimizer = Field(description="the keys of the optimiser")
    schedule: Schedule = Field(description="the keys of the schedule")


class Evaluate(Section):
    """How to evaluate."""

    batch_size: Count = Field(description="how many images to a forward pass: a whole number >= 1")
    confidence_level: float = Field(
        gt=0, lt=1, description="the level of the intervals around accuracies: a fraction between 0 and 1"
    )


class Params(Section):
    """All of params.yaml."""

    seed: int = Field(ge=0, lt=2**32, description="the seed: a whole number from 0 to 4294967295")
    data: Data = Field(description="the keys of the data")
    model: Model = Field(description="the keys of the model")
    train: Train = Field(description="the keys of training")
    evaluate: Evaluate = Field(description="the keys of evaluation")


def load_params(path: Path = PARAMS) -> Params:
    """The checked params in the file at `path`; UserError with one line for each thing that is wrong."""
    content = read_mapping(path)
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        problems = list(dict.fromkeys(_describe(details) for details in error.errors()))
        raise UserError("\n".join([f"{path} cannot be used:", *problems])) from None


def load_layers(architecture: str, path: Path = ARCHITECTURES) -> list[Any]:
    """The list of layers, not yet checked, that has the name `architecture` in the file at `path`."""
    architectures = read_mapping(path)
    if architecture not in architectures:
        raise UserError(
            f"{unknown('architecture', architecture, map(str, architectures))} They stand in {path}."
        )
    if "." in architecture:  # DVC takes it for a key within a key
        raise UserError(
            f"In {path}: the name of an architecture must not contain a dot; received {architecture!r}."
        )
    layers = architectures[architecture]
    if not isinstance(layers, list) or not layers:
        raise UserError(
            f"In {path}: {architecture} must be a list of at least one layer; received {layers!r}."
        )
    return layers


def _describe(details: ErrorDetails) -> str:
    """One sentence for one of pydantic's findings."""
    # A union adds the name of the alternative it tried to the end of `loc`; only field names are a key.
    section: type[BaseModel] = Params
    keys: list[str] = []
    description = "keys with values"
    for part in details["loc"]:
        if not isinstance(part, str) or (
            part not in section.model_fields and details["type"] != "extra_forbidden"
        ):
            break
        keys.append(part)
        if part in section.model_fields:
            field = section.model_fields[part]
            description = field.description or ""
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                section = field.annotation
    key = ".".join(keys)
    match details["type"]:
        case "invalid_key":
            return f"- {details['loc'][-1]} is no known key: keys are words."
        case "missing":
            return f"- {key} is missing: {description}."
        case "extra_forbidden":
            nearest = get_close_matches(keys[-1], section.model_fields, n=1)
            hint = f"Did you mean '{'.'.join([*keys[:-1], nearest[0]])}'?" if nearest else "Remove it."
            return f"- {key} is no known key. {hint}"
        case "value_error" if (text := str(details["ctx"]["error"])) != "out of range":
            return f"- {key}: {text}"
        case _:
            return f"- {key} must be {description}; received {details['input']!r}."
