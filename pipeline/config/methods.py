"""Losses, optimisers, schedules and augmentations by their names in params.yaml."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Optimizer,
    Parameter,
    RMSProp,
    augmentation,
    cross_entropy,
    mean_squared_error,
    schedules,
    softmax_cross_entropy,
)
from cnn.gradients import Augmentation, Loss
from cnn.schedules import Schedule
from pipeline.config import params
from pipeline.errors import UserError

LOSSES: dict[str, Callable[..., tuple[float, NDArray[Any]]]] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "cross_entropy": cross_entropy,
    "mean_squared_error": mean_squared_error,
}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "rmsprop": RMSProp,
    "adagrad": Adagrad,
    "adam": Adam,
    "adamw": AdamW,
}
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": schedules.constant,
    "step": schedules.step,
    "exponential": schedules.exponential,
    "cosine": schedules.cosine,
    "one_cycle": schedules.one_cycle,
}
LASTING = ("cosine", "one_cycle")  # schedules that are told how many epochs there are


def make_loss(options: params.Loss, classes: int) -> Loss:
    """The chosen loss; UserError where its keys do not suit so many classes."""
    loss = partial(LOSSES[options.name], **options.options())
    try:
        loss(np.full((1, classes), 1 / classes, np.float32), np.eye(1, classes, dtype=np.float32))
    except ValueError as error:
        raise UserError(f"{error}\nIn params.yaml: train.loss.{options.name}.") from None
    return loss


def make_optimizer(options: params.Optimizer, parameters: Mapping[str, Parameter]) -> Optimizer:
    """The chosen optimiser of `parameters`."""
    return OPTIMIZERS[options.name](parameters, **options.options())


def make_schedule(options: params.Schedule, learning_rate: float, epochs: int) -> Schedule:
    """The chosen schedule, with its warm-up."""
    keys = options.options() | ({"epochs": epochs} if options.name in LASTING else {})
    schedule = SCHEDULES[options.name](learning_rate, **keys)
    return schedules.warm_up(schedule, epochs=options.warm_up) if options.warm_up else schedule


def make_augmentation(options: params.Augmentation, background: float) -> Augmentation | None:
    """All chosen augmentations, one after the other; None for none. `background` is the value of black."""
    fill = {"fill": background}
    elastic = options.elastic_distortion
    candidates: list[tuple[float, Callable[..., NDArray[Any]], dict[str, float]]] = [
        (options.random_shift, augmentation.random_shift, fill),
        (options.random_rotation, augmentation.random_rotation, fill),
        (options.random_zoom, augmentation.random_zoom, fill),
        (options.random_shear, augmentation.random_shear, fill),
        (elastic.strength, augmentation.elastic_distortion, fill | {"smoothness": elastic.smoothness}),
        (options.horizontal_flip, augmentation.horizontal_flip, {}),
        (options.cutout, augmentation.cutout, fill),
    ]
    chosen = [candidate for candidate in candidates if candidate[0]]
    if not chosen:
        return None

    def augment(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        for amount, function, keys in chosen:
            images = function(images, rng, amount, **keys)
        return images

    return augment
