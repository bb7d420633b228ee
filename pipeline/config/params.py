"""params.yaml: its keys, their meanings, and the values that they take.

The sections of losses, optimisers, schedules and augmentations follow from their signatures in `cnn`.
"""

import os
from collections.abc import Mapping
from functools import partial
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from cnn import Lookahead as CnnLookahead
from cnn import MovingAverage, Parameter, schedules
from cnn import Optimizer as CnnOptimizer
from cnn.augmentation.composition import Augmentation as Augment
from cnn.augmentation.composition import compose
from cnn.engine.shards import Loss as LossFunction
from cnn.registry import AUGMENTATIONS, LOSSES, OPTIMIZERS, SCHEDULES, Bearer, did_you_mean, options
from pipeline.config.sections import OUT_OF_RANGE, Choice, S, Section, one_of, with_methods
from pipeline.config.yaml_files import read_mapping
from pipeline.data.catalogue import DATASETS
from pipeline.data.dataset import LARGEST_SIDE, OWN, Fit
from pipeline.device import Device
from pipeline.errors import UserError, shown
from pipeline.paths import PARAMS


def _fraction_or_count(value: float) -> float:
    if not (0 < value < 1 or (isinstance(value, int) and value >= 1)):
        raise ValueError(OUT_OF_RANGE)
    return value


def _without_tilde(path: str) -> str:
    if (expanded := os.path.expanduser(path)) != path:
        raise ValueError(f"DVC does not expand ~; received {path!r}. Write the whole path: {expanded}")
    return path


Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
Part = Annotated[int | float, AfterValidator(_fraction_or_count)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Positive = Annotated[float, Field(gt=0)]


class Data(Section):
    """What to train on, and how it is prepared."""

    dataset: Annotated[str, one_of("dataset", [*DATASETS, OWN])] = Field(
        description=f"the name of a dataset, or {OWN} for the images in data.path"
    )
    path: Annotated[str, AfterValidator(_without_tilde)] = Field(
        min_length=1,
        description=f"the folder or .npz file of your own images, which only the dataset {OWN} uses: a path "
        "that exists, since DVC watches it",
    )
    image_size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = Field(
        description=f"the side of all images in pixels, from 1 to {LARGEST_SIDE}, or [height, width], or "
        "null for the size that the images have"
    )
    channels: Literal[1, 3] | None = Field(
        description="1 for grey images, 3 for colour, or null for what the images have"
    )
    fit: Fit = Field(description="how an image of another shape is fitted: crop, pad or stretch")
    test_size: Part = Field(
        description=f"the part of {OWN} images kept for testing, if they have no test part: a fraction "
        "between 0 and 1, or a whole number of images >= 1"
    )
    allow_duplicates: bool = Field(
        description=f"whether {OWN} images may hold the same image several times, also in training and test: "
        "true or false"
    )
    train_size: Count | None = Field(
        description="how many images to train on: a whole number from 1 to 10^9, or null"
    )
    validation_size: Part = Field(
        description="the part of the training set kept for validation: a fraction between 0 and 1, "
        "or a whole number of images >= 1"
    )
    standardize: Literal["none", "global", "channel"] = Field(
        description="the pixels that share a mean and a deviation: none, global (all) or channel"
    )

    @property
    def size(self) -> tuple[int, int] | None:
        """`image_size` as (height, width)."""
        match self.image_size:
            case [height, width]:
                return height, width
            case int(side):
                return side, side
        return None


class Model(Section):
    """Which network to train."""

    architecture: str = Field(description="the name of a network in architectures.yaml")


@with_methods(LOSSES)
class Loss(Choice):
    """What is minimised; see `cnn.losses`."""

    name: Annotated[str, one_of("loss", LOSSES)] = Field(description="the name of a loss")

    def make(self, classes: int) -> LossFunction:
        """The chosen loss; UserError if its keys do not fit this number of classes."""
        loss: LossFunction = partial(LOSSES[self.name], **self.options())
        try:
            loss(np.full((1, classes), 1 / classes, np.float32), np.eye(1, classes, dtype=np.float32))
        except ValueError as error:
            raise UserError(f"{error}\nIn params.yaml: train.loss.{self.name}.") from None
        return loss


@with_methods(OPTIMIZERS, lambda make, options: make({}, **options))
class Optimizer(Choice):
    """How gradients become steps; see `cnn.optimizers`."""

    name: Annotated[str, one_of("optimizer", OPTIMIZERS)] = Field(description="the name of an optimiser")
    learning_rate: Positive | None = Field(
        description="the step size: a number > 0, or null for the one of the chosen optimiser's section"
    )

    def options(self) -> dict[str, Any]:
        """The keys of the chosen optimiser, with the common learning rate if there is one."""
        common = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        return super().options() | common

    def make(self, parameters: Mapping[str, Parameter], **changed: Any) -> CnnOptimizer:
        """The chosen optimiser of `parameters`; `changed` replaces some of its options."""
        optimizer: CnnOptimizer = OPTIMIZERS[self.name](parameters, **(self.options() | changed))
        return optimizer


def _make_schedule(
    make: Bearer, keys: dict[str, Any], learning_rate: float = 1.0, epochs: float = 1.0
) -> schedules.Schedule:
    """A schedule; it gets the number of epochs if its signature has this key."""
    last = {"epochs": epochs} if "epochs" in options(make) else {}
    schedule: schedules.Schedule = make(learning_rate, **last, **keys)
    return schedule


@with_methods(SCHEDULES, _make_schedule)
class Schedule(Choice):
    """How the learning rate changes from step to step; see `cnn.schedules`."""

    name: Annotated[str, one_of("schedule", SCHEDULES)] = Field(description="the name of a schedule")
    warm_up: Annotated[float, Field(ge=0)] = Field(
        description="how many epochs the learning rate takes to rise at first: a number >= 0"
    )

    def make(self, learning_rate: float, epochs: int) -> schedules.Schedule:
        """The chosen schedule, with its warm-up."""
        schedule = _make_schedule(SCHEDULES[self.name], self.options(), learning_rate, epochs)
        return schedules.warm_up(schedule, epochs=self.warm_up) if self.warm_up else schedule


class GroupOptimizer(Optimizer):
    """An optimiser in an item of train.groups: a key that is left out is null."""

    learning_rate: Positive | None = Field(
        default=None, description=Optimizer.model_fields["learning_rate"].description
    )


class GroupSchedule(Schedule):
    """A schedule in an item of train.groups: without `warm_up`, it has none."""

    warm_up: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description=Schedule.model_fields["warm_up"].description
    )


class Group(Section):
    """Parameters that are trained differently from the rest; a key that is left out is null."""

    parameters: str | Annotated[list[str], Field(min_length=1)] = Field(
        description="a pattern of names, such as 0.kernel, *.bias or conv2d.*, or a list of patterns"
    )
    epochs: Annotated[int, Field(ge=0, le=10**9)] | None = Field(
        default=None,
        description="the number of epochs, from the first on, in which they are trained: a whole number from "
        "0 (never) to 10^9, or null for all",
    )
    optimizer: GroupOptimizer | None = Field(
        default=None,
        description="the keys of their optimiser, as in train.optimizer, or null for the one that is there",
    )
    learning_rate: Positive | None = Field(
        default=None,
        description="their step size: a number > 0, or null for the one of their optimiser",
    )
    weight_decay: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="their weight decay: a number >= 0, or null for the one of their optimiser",
    )
    schedule: GroupSchedule | None = Field(
        default=None,
        description="the keys of their schedule, as in train.schedule, or null for the one that is there",
    )

    @property
    def changed(self) -> dict[str, Any]:
        """What replaces options of the optimiser."""
        keys = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
        return {key: value for key, value in keys.items() if value is not None}


def _try_augmentation(make: Bearer, keys: dict[str, Any]) -> None:
    """Augment no images."""
    make(np.zeros((0, 1, 1, 1), np.float32), np.random.default_rng(0), **keys)


@with_methods(AUGMENTATIONS, _try_augmentation, short=True)
class Augmentation(Section):
    """How training images are changed at random; see `cnn.augmentation`."""

    @model_validator(mode="after")
    def _flips_once(self) -> Self:
        keys = dict(self)
        if keys["horizontal_flip"] and keys["alternating_flip"]:
            raise ValueError(
                "horizontal_flip and alternating_flip are both on, and would undo each other. Turn one off."
            )
        return self

    def make(
        self, background: NDArray[np.float32], black: NDArray[np.float32], white: NDArray[np.float32]
    ) -> Augment | None:
        """The augmentations that are on, in the library's order; None if all are off.

        `background`, `black` and `white` are the values, for each channel, of what surrounds an image, of a
        black pixel and of a white one.
        """
        given = {"fill": background, "black": black, "white": white}
        chosen: list[Augment] = []
        for name, value in self:
            keys = value.model_dump() if isinstance(value, Section) else {_first_key(name): value}
            if keys[_first_key(name)]:
                known = options(AUGMENTATIONS[name])
                colours = {key: colour for key, colour in given.items() if key in known}
                chosen.append(partial(AUGMENTATIONS[name], **keys, **colours))
        return compose(*chosen) if chosen else None


def _first_key(name: str) -> str:
    return next(key for key, option in options(AUGMENTATIONS[name]).items() if not option.given)


class Lookahead(Section):
    """How the weights return to slow weights; see `cnn.Lookahead`."""

    every: Annotated[int, Field(ge=0, le=10**9)] = Field(
        description="after how many steps the weights return to their slow average: a whole number from 0 "
        "(never) to 10^9"
    )
    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="the fraction of the slow average that is kept for each step, at the end of the run: in "
        "[0, 1)"
    )


class Train(Section):
    """How to train."""

    epochs: Count = Field(description="how many passes over the training set: a whole number from 1 to 10^9")
    batch_size: Count = Field(description="how many images per step: a whole number from 1 to 10^9")
    shard_size: Count = Field(
        description="how many images of a batch are computed together: a whole number from 1 to 10^9"
    )
    patience: Count | None = Field(
        description="how many epochs without a better validation accuracy end training: a whole number "
        "from 1 to 10^9, or null"
    )
    minimum_accuracy: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        description="the validation accuracies that must be reached by the end of the first epoch, the "
        "second and so on, or training stops: a list of numbers in [0, 1]"
    )
    keep: Literal["best", "last"] = Field(
        description="the epoch whose weights are kept: best (the highest validation accuracy) or last"
    )
    clip_norm: Positive | None = Field(
        description="the maximum norm of all gradients together: a number > 0, or null"
    )
    clip_value: Positive | None = Field(
        description="the maximum absolute value of an entry of a gradient: a number > 0, or null"
    )
    moving_average: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        description="the decay of the weights' moving average: in [0, 1), or null"
    )
    lookahead: Lookahead = Field(description="the keys of lookahead")
    checkpoint_seconds: Positive = Field(
        description="how many seconds pass between checkpoints of a run: a number > 0"
    )
    loss: Loss = Field(description="the keys of the loss")
    optimizer: Optimizer = Field(description="the keys of the optimiser")
    schedule: Schedule = Field(description="the keys of the schedule")
    groups: list[Group] = Field(
        description="the parameters that are trained differently from the rest: a list, each item "
        "{parameters: PATTERN, …}"
    )
    augmentation: Augmentation = Field(description="the keys of the augmentation")

    @model_validator(mode="after")
    def _one_average(self) -> Self:
        if self.lookahead.every and self.moving_average is not None:
            raise ValueError(
                f"moving_average ({self.moving_average:g}) and lookahead.every ({self.lookahead.every}) are "
                "both on, but the weights to keep are one average. Turn one off: moving_average: null, or "
                "lookahead.every: 0."
            )
        return self

    def make_average(self, parameters: Mapping[str, Parameter], examples: int) -> MovingAverage | None:
        """The average of the weights to keep, for this number of training examples; None if it is off."""
        if self.lookahead.every:
            steps = self.epochs * ceil(examples / self.batch_size)
            try:
                return CnnLookahead(parameters, steps, **self.lookahead.model_dump())
            except ValueError as error:
                raise UserError(f"{error}\nIn params.yaml: train.lookahead.every.") from None
        return None if self.moving_average is None else MovingAverage(parameters, self.moving_average)


class Views(Section):
    """The views of each image that outputs are averaged over; see `cnn.views`."""

    mirror: bool = Field(
        description="whether outputs are averaged over the image and its mirror image: true or false"
    )
    shift: int = Field(
        ge=0,
        le=1000,
        description="the shift of two more views of the image, in pixels: a whole number from 0 to 1000",
    )


class Evaluate(Section):
    """How to evaluate."""

    batch_size: Count = Field(description="how many images per forward pass: a whole number from 1 to 10^9")
    confidence_level: float = Field(
        gt=0, lt=1, description="the level of the intervals around accuracies: a fraction between 0 and 1"
    )
    test_time_augmentation: Views = Field(
        description="the keys of the views, over which outputs are averaged"
    )


Format = Literal["onnx", "onnx_bytes", "safetensors"]


class Export(Section):
    """How the trained network is handed on."""

    formats: list[Format] = Field(
        description="the formats that `dvc repro` exports the network to: a list, of onnx, onnx_bytes and "
        "safetensors; [] for none"
    )


class Params(Section):
    """All of params.yaml."""

    seed: int = Field(ge=0, lt=2**32, description="the seed: a whole number from 0 to 4294967295")
    device: Device = Field(description="where to compute: cpu or cuda")
    data: Data = Field(description="the keys of the data")
    model: Model = Field(description="the keys of the model")
    train: Train = Field(description="the keys of training")
    evaluate: Evaluate = Field(description="the keys of evaluation")
    export: Export = Field(description="the keys of exporting")


def load_params(path: Path = PARAMS) -> Params:
    """The checked params in the file at `path`; UserError with one line for each problem."""
    return validate(Params, read_mapping(path), str(path))


def validate(kind: type[S], content: Any, source: str) -> S:
    """`content` as a section of this `kind`; UserError with `source` and one line for each problem."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = list(dict.fromkeys(_describe(details, kind) for details in error.errors()))
        raise UserError("\n".join([f"{source} cannot be used:", *problems])) from None


def _describe(details: ErrorDetails, section: type[BaseModel]) -> str:
    """One sentence for one problem that pydantic found in a `section`."""
    # For a union, `loc` ends with the alternative that pydantic tried; only field names, and the places of
    # sections in lists, are part of the key.
    keys: list[str] = []
    description = "keys with values"
    inside: list[type[BaseModel]] = [section]  # the section in a field, or in the items of a list there
    for part in details["loc"]:
        if isinstance(part, int) and keys and inside:
            keys[-1] += f"[{part}]"
            continue
        if not isinstance(part, str) or not inside:
            break
        if part not in inside[0].model_fields and details["type"] != "extra_forbidden":
            break
        keys.append(part)
        section = inside[0]
        if part in section.model_fields:
            field = section.model_fields[part]
            description = field.description or ""
            inside = _sections_in(field.annotation)
    key = ".".join(keys)
    match details["type"]:
        case "invalid_key":
            return f"- {details['loc'][-1]} is not a known key: keys are words."
        case "missing":
            return f"- {key} is missing: {description}."
        case "extra_forbidden":
            prefix = "".join(f"{parent}." for parent in keys[:-1])
            known = f" Known: {', '.join(section.model_fields)}."
            hint = did_you_mean(keys[-1], section.model_fields, prefix) or known
            return f"- {key} is not a known key.{hint}"
        case "value_error" if (text := str(details["ctx"]["error"])) != OUT_OF_RANGE:
            return f"- {key}: {text}"
        case _:
            return f"- {key} must be {description}; received {shown(details['input'])}."


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The section that a field of this type holds: as its value, beside null, or in a list; else empty."""
    return [
        part
        for part in (annotation, *get_args(annotation))
        if isinstance(part, type) and issubclass(part, BaseModel)
    ]
