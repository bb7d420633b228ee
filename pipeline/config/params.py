"""params.yaml: which keys there are, what each means, and which values it takes."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pipeline.config.yaml_files import read_mapping
from pipeline.data.catalogue import DATASETS
from pipeline.errors import UserError, shown, unknown
from pipeline.paths import ARCHITECTURES, PARAMS

LOSSES = ("softmax_cross_entropy", "cross_entropy", "mean_squared_error")
OPTIMIZERS = ("sgd", "rmsprop", "adagrad", "adam", "adamw")
SCHEDULES = ("constant", "step", "exponential", "cosine", "one_cycle")


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


Count = Annotated[int, Field(ge=1, le=10**9)]
Kept = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
Pixels = Annotated[float, Field(ge=0, le=1000)]
Positive = Annotated[float, Field(gt=0)]


class Data(Section):
    """What to train on, and how it is prepared."""

    dataset: Annotated[str, one_of("dataset", DATASETS)] = Field(description="the name of a dataset")
    train_size: Count | None = Field(
        description="how many images to train on: a whole number from 1 to 10^9, or null"
    )
    validation_size: Annotated[int | float, AfterValidator(_fraction_or_count)] = Field(
        description="the part of the training set kept for validation: a fraction between 0 and 1, "
        "or a whole number of images >= 1"
    )
    standardize: bool = Field(description="whether to standardise the pixels: true or false")


class Model(Section):
    """Which network."""

    architecture: str = Field(description="the name of a network in architectures.yaml")


class Choice(Section):
    """One of several methods: `name` says which one; the keys of each stand in a section of its name."""

    name: str

    def options(self) -> dict[str, Any]:
        """The keys of the chosen method; empty for one without any."""
        section: Section | None = getattr(self, self.name, None)
        return {} if section is None else section.model_dump()


class SoftmaxCrossEntropy(Section):
    """See `cnn.softmax_cross_entropy`."""

    label_smoothing: float = Field(ge=0, le=1, description="the part spread over all classes: in [0, 1]")
    class_weights: list[NotNegative] | None = Field(
        description="how much each class counts: a list of numbers >= 0, or null"
    )


class Loss(Choice):
    """What is minimised; see `cnn.losses`."""

    name: Annotated[str, one_of("loss", LOSSES)] = Field(description="the name of a loss")
    softmax_cross_entropy: SoftmaxCrossEntropy = Field(description="the keys of this loss")


class Method(Section):
    """What every optimiser has."""

    learning_rate: float = Field(gt=0, description="the step size: a number > 0")
    weight_decay: NotNegative = Field(description="the strength of the pull to zero: a number >= 0")


class SGD(Method):
    """See `cnn.SGD`."""

    momentum: Kept = Field(description="the fraction of the last step that is kept: in [0, 1)")
    nesterov: bool = Field(description="whether to use Nesterov's momentum: true or false")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: true needs momentum > 0; received 0.0.")
        return self


class RMSProp(Method):
    """See `cnn.RMSProp`."""

    decay: Kept = Field(description="the fraction of the mean square that is kept: in [0, 1)")
    epsilon: Positive = Field(description="what keeps the divisor from zero: a number > 0")


class Adagrad(Method):
    """See `cnn.Adagrad`."""

    epsilon: Positive = Field(description="what keeps the divisor from zero: a number > 0")


class Adam(Method):
    """See `cnn.Adam` and `cnn.AdamW`."""

    beta1: Kept = Field(description="the fraction of the mean gradient that is kept: in [0, 1)")
    beta2: Kept = Field(description="the fraction of the mean square that is kept: in [0, 1)")
    epsilon: Positive = Field(description="what keeps the divisor from zero: a number > 0")


class Optimizer(Choice):
    """How gradients become steps; see `cnn.optimizers`."""

    name: Annotated[str, one_of("optimizer", OPTIMIZERS)] = Field(description="the name of an optimiser")
    learning_rate: Positive | None = Field(
        description="the step size: a number > 0, or null for the one of the chosen optimiser's section"
    )
    sgd: SGD = Field(description="the keys of this optimiser")
    rmsprop: RMSProp = Field(description="the keys of this optimiser")
    adagrad: Adagrad = Field(description="the keys of this optimiser")
    adam: Adam = Field(description="the keys of this optimiser")
    adamw: Adam = Field(description="the keys of this optimiser")

    def options(self) -> dict[str, Any]:
        """The keys of the chosen optimiser, with the common learning rate where there is one."""
        common = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        return super().options() | common


class Step(Section):
    """See `cnn.schedules.step`."""

    every: Positive = Field(description="the length of a stair in epochs: a number > 0")
    factor: Positive = Field(description="what each stair multiplies the learning rate by: a number > 0")


class Exponential(Section):
    """See `cnn.schedules.exponential`."""

    factor: Positive = Field(description="what an epoch multiplies the learning rate by: a number > 0")


class Cosine(Section):
    """See `cnn.schedules.cosine`."""

    final_factor: float = Field(
        ge=0, le=1, description="the last learning rate as a fraction of the first: in [0, 1]"
    )


class OneCycle(Section):
    """See `cnn.schedules.one_cycle`."""

    rise: float = Field(gt=0, lt=1, description="the fraction of all epochs before the peak: in (0, 1)")
    start_factor: float = Field(
        gt=0, le=1, description="the first learning rate as a fraction of the peak: in (0, 1]"
    )
    final_factor: float = Field(
        ge=0, le=1, description="the last learning rate as a fraction of the peak: in [0, 1]"
    )


class Schedule(Choice):
    """How the learning rate changes from step to step; see `cnn.schedules`."""

    name: Annotated[str, one_of("schedule", SCHEDULES)] = Field(description="the name of a schedule")
    warm_up: NotNegative = Field(description="how many epochs the rate is held back at first: a number >= 0")
    step: Step = Field(description="the keys of this schedule")
    exponential: Exponential = Field(description="the keys of this schedule")
    cosine: Cosine = Field(description="the keys of this schedule")
    one_cycle: OneCycle = Field(description="the keys of this schedule")


class Elastic(Section):
    """See `cnn.augmentation.elastic_distortion`."""

    strength: Pixels = Field(description="the root-mean-square displacement in pixels: in [0, 1000]")
    smoothness: Annotated[float, Field(gt=0, le=1000)] = Field(
        description="how far neighbours move together, in pixels: in (0, 1000]"
    )


class Augmentation(Section):
    """How training images are changed at random; see `cnn.augmentation`."""

    random_shift: Pixels = Field(description="the largest shift in pixels: in [0, 1000]")
    random_rotation: float = Field(ge=0, le=180, description="the largest angle in degrees: in [0, 180]")
    random_zoom: Kept = Field(description="the largest change of size, a fraction: in [0, 1)")
    random_shear: float = Field(ge=0, lt=90, description="the largest angle in degrees: in [0, 90)")
    elastic_distortion: Elastic = Field(description="the keys of this augmentation")
    horizontal_flip: float = Field(ge=0, le=1, description="the probability of a flip: in [0, 1]")
    cutout: Annotated[int, Field(ge=0, le=1000)] = Field(
        description="the side of the square that is blanked, in pixels: a whole number in [0, 1000]"
    )


class Train(Section):
    """How to train."""

    epochs: Count = Field(description="how many passes over the training set: a whole number from 1 to 10^9")
    batch_size: Count = Field(description="how many images to a step: a whole number from 1 to 10^9")
    shard_size: Count = Field(
        description="how many images of a batch are computed together: a whole number from 1 to 10^9"
    )
    patience: Count | None = Field(
        description="how many epochs without a better validation accuracy end training: a whole number "
        "from 1 to 10^9, or null"
    )
    clip_norm: Positive | None = Field(
        description="the greatest length of all gradients together: a number > 0, or null"
    )
    clip_value: Positive | None = Field(
        description="the greatest size of an entry of a gradient: a number > 0, or null"
    )
    moving_average: Kept | None = Field(
        description="the decay of the weights' moving average: in [0, 1), or null"
    )
    checkpoint_seconds: Positive = Field(
        description="how many seconds lie between checkpoints of a run: a number > 0"
    )
    loss: Loss = Field(description="the keys of the loss")
    optimizer: Optimizer = Field(description="the keys of the optimiser")
    schedule: Schedule = Field(description="the keys of the schedule")
    augmentation: Augmentation = Field(description="the keys of the augmentation")


class Evaluate(Section):
    """How to evaluate."""

    batch_size: Count = Field(description="how many images to a forward pass: a whole number from 1 to 10^9")
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
    architectures = {str(name): layers for name, layers in read_mapping(path).items()}
    if architecture not in architectures:
        raise UserError(f"{unknown('architecture', architecture, architectures)} They stand in {path}.")
    if not re.fullmatch(r"[\w-]+", architecture):  # DVC takes a dot for a key within a key
        raise UserError(
            f"In {path}: the name of an architecture consists of letters, digits, _ and -; "
            f"received {architecture!r}."
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
            return f"- {key} must be {description}; received {shown(details['input'])}."
