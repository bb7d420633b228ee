"""The training loop: mini-batch gradient descent."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import update_wrapper
from inspect import signature
from math import isfinite
from typing import Annotated, Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from cnn.augmentation.composition import Augmentation, keywords_of
from cnn.checks import Count, Positive, Whole, checked
from cnn.clipping import clip_by_norm, clip_by_value, gradient_squares
from cnn.engine.executors import Executor
from cnn.engine.replicas import Rows
from cnn.engine.shards import Examples, Loss, ShardedGradients, count_correct
from cnn.inspection import EpochStatistics
from cnn.layers import Sequential
from cnn.layers.trace import trace_forward
from cnn.losses import softmax_cross_entropy
from cnn.moving_average import Lookahead, MovingAverage
from cnn.ops.arrays import to_host
from cnn.optimizers import SGD, Optimizer
from cnn.parameter import Parameter
from cnn.parameter_groups import Group, NonFiniteError, ParameterGroups
from cnn.random import Stream, derive_rng
from cnn.schedules import Schedule, constant
from cnn.state import Stateful

P = ParamSpec("P")


@dataclass(frozen=True)
class EpochReport:
    """The results of one pass over the training set.

    The learning rate is that of the last step. Training figures are means over the epoch's batches, taken
    while the weights change. Validation figures use the weights at the end of the epoch, and are None
    without validation examples. Accuracies are fractions.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None


class Progress(Stateful):
    """The position of a run of `fit` after a step. With model, optimiser and average, it suffices to resume.

    Every attribute is an array without axes. epoch counts from 1; step counts the steps of the whole run;
    examples, correct and loss_sum (over examples) belong to the current epoch; best_epoch is the first with
    the highest validation accuracy, best_accuracy.
    """

    def __init__(self) -> None:
        self.epoch, self.step = np.array(1), np.array(0)
        self.examples, self.correct, self.loss_sum = np.array(0), np.array(0), np.array(0.0)
        self.best_epoch, self.best_accuracy = np.array(0), np.array(-1.0)

    def add(self, examples: int, correct: int, loss: float) -> None:
        """Count a step over `examples`, of which `correct` were classified correctly, with mean `loss`."""
        self.step += 1
        self.examples += examples
        self.correct += correct
        self.loss_sum += loss * examples

    def finish_epoch(self, validation_accuracy: float | None) -> None:
        """Record the epoch if it is the best so far, and move on to the start of the next one."""
        if validation_accuracy is not None and validation_accuracy > self.best_accuracy:
            self.best_accuracy[...], self.best_epoch[...] = validation_accuracy, self.epoch
        self.epoch += 1
        for sum_of_epoch in (self.examples, self.correct, self.loss_sum):
            sum_of_epoch[...] = 0

    def _state(self) -> dict[str, NDArray[Any]]:
        return dict(vars(self))


@checked
def fit_by_epoch(
    model: Sequential,
    train: Examples | tuple[NDArray[Any], NDArray[Any]],
    validation: Examples | tuple[NDArray[Any], NDArray[Any]] | None = None,
    *,
    loss: Loss = softmax_cross_entropy,
    optimizer: Optimizer | ParameterGroups | None = None,
    schedule: Schedule | None = None,
    epochs: Count = 10,
    batch_size: Count = 64,
    shard_size: Count = 32,
    seed: Annotated[int, Whole(0)] = 0,
    augment: Augmentation | None = None,
    clip_norm: Positive | None = None,
    clip_value: Positive | None = None,
    moving_average: MovingAverage | None = None,
    patience: Count | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    statistics: EpochStatistics | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[EpochReport]:
    """Train `model` in place, epoch by epoch: a generator that trains one epoch for each report.

        for report in fit_by_epoch(model, train, validation, epochs=5):
            print(report.epoch, report.validation_accuracy)

    Each epoch goes through the examples in an order of its own, derived from `seed` and the epoch; the
    last batch of an epoch may be smaller. Each batch is one step of `optimizer`, at the rate that
    `schedule` returns for the time in epochs.

    A run can be interrupted after any step and resumed later, with the same bits, because all random
    numbers are derived from `seed` and the position in the run. Keep the `state_dict` of `model`,
    `optimizer`, `moving_average` and `progress`, all taken after the same step, or use `cnn.save`. To
    resume, load them into equal objects, and call this function again with those. `on_step` is the place
    for it: Ctrl-C can come in the middle of a step, when they do not belong together.

    Args:
        model: the network to train.
        train: images and one-hot targets.
        validation: images and targets on which each epoch is validated; None skips validation.
        loss: see `cnn.losses`.
        optimizer: an optimiser of the model's parameters, or several as `ParameterGroups`; None is SGD with
            its defaults.
        schedule: the learning rate by the time in epochs; None keeps the optimiser's. Each of several groups
            brings its own instead.
        epochs: passes over the training set, counted from the start of the run.
        batch_size: images per step.
        shard_size: images of a batch that are computed together.
        seed: the seed of all random numbers.
        augment: a random transform of the training images of each shard, (images, rng) -> images, see
            `cnn.augmentation.compose`. If it has keyword-only arguments named `examples`, `epoch` or `seed`,
            it also receives the indices of the images in `train`, the epoch counted from 1, or `seed`.
        clip_norm, clip_value: limits of the gradients, see `cnn.clipping`; clip_value is applied first.
            None sets no limit. Parameters that are not trained at the time do not count.
        moving_average: an average of the weights, `MovingAverage` or `Lookahead`, which is used for
            validation. To put it into the model, see `MovingAverage.applied`.
        patience: stop after this many epochs without a higher validation accuracy; None never stops early.
        executor: what computes the shards, see `cnn.engine.executors`; None is this process alone. With
            several workers, keep BLAS on one thread (OPENBLAS_NUM_THREADS=1, or threadpoolctl). Then the
            result does not depend on it, unless `loss` or `augment` use values that change: workers see
            closed-over values as of the start.
        progress: where to start, updated after each step; None starts at the beginning.
        statistics: receives the gradients of each step, before clipping.
        on_step: called after every step.

    Raises ValueError at the call if an argument is invalid; NonFiniteError as soon as the loss of a batch or
    of the validation examples, or a gradient, is not finite, before the weights are changed.
    """
    train = _check_examples("train", train, model)
    validation = None if validation is None else _check_examples("validation", validation, model)
    if patience is not None and validation is None:
        raise ValueError("patience waits for a better validation accuracy, so it needs validation examples.")
    if augment is not None:
        keywords_of(augment)
    groups = _as_groups(SGD(model.parameters()) if optimizer is None else optimizer, schedule)
    for name, owner in {
        "optimizer": groups,
        "moving_average": moving_average,
        "statistics": statistics,
    }.items():
        if owner is not None:
            _check_parameters(name, owner.parameters, model)
    at = Progress() if progress is None else progress
    count = len(train.images)
    names = {id(parameter): name for name, parameter in groups.parameters.items()}
    parameters = {  # in the model's order, whatever the groups are
        names[id(parameter)]: parameter for parameter in model.parameters().values() if id(parameter) in names
    }
    if not parameters:
        raise ValueError(
            "A network without parameters cannot learn; the optimizer has none. Add a layer that has some, "
            "such as Dense."
        )
    if at.examples > count:
        raise ValueError(
            f"progress is {at.examples} images into an epoch, and train has only {count}: it is of another "
            "training set."
        )
    steps_per_epoch = -(-count // batch_size)
    if isinstance(moving_average, Lookahead) and moving_average.steps != epochs * steps_per_epoch:
        raise ValueError(
            f"Lookahead must be made for all steps of the run, here {epochs} x {steps_per_epoch} = "
            f"{epochs * steps_per_epoch}; received one for {moving_average.steps}."
        )
    _try_smallest_shard(model, train, batch_size, shard_size, seed)

    def reports() -> Iterator[EpochReport]:
        with ShardedGradients(
            model,
            loss,
            train,
            shard_size,
            seed=seed,
            augment=augment,
            executor=executor,
            batch_size=batch_size,
        ) as gradients:
            while at.epoch <= epochs and (patience is None or at.epoch - 1 - at.best_epoch < patience):
                epoch = int(at.epoch)
                order = derive_rng(seed, Stream.SHUFFLE, epoch).permutation(count)
                while at.examples < count:
                    batch = order[at.examples : at.examples + batch_size]
                    groups.set_time(int(at.step) / steps_per_epoch)
                    batch_loss, correct = gradients(batch, at=(epoch, int(at.step)))
                    squares = gradient_squares(parameters)
                    if not (isfinite(batch_loss) and all(map(isfinite, squares.values()))):
                        rate = groups.main.optimizer.learning_rate
                        raise _non_finite(batch_loss, squares, model, rate, train.images[batch], at)
                    if statistics is not None:
                        statistics.add_step(squares)
                    chosen = groups.trained
                    trained = {name: p for name, p in parameters.items() if name in chosen}
                    if clip_value is not None:
                        clip_by_value(trained, clip_value)
                        squares = gradient_squares(trained)
                    if clip_norm is not None:
                        clip_by_norm(trained, clip_norm, {name: squares[name] for name in trained})
                    groups.step()
                    if moving_average is not None:
                        moving_average.update()
                    at.add(len(batch), correct, batch_loss)
                    on_step(at)
                rate = groups.main.learning_rate((int(at.step) - 1) / steps_per_epoch)
                validation_loss = accuracy = None
                if validation is not None:
                    with nullcontext() if moving_average is None else moving_average.applied():
                        outputs = gradients.predict(validation.images)
                    validation_loss, _ = loss(outputs, validation.targets)
                    accuracy = count_correct(outputs, validation.targets) / len(outputs)
                    if not isfinite(validation_loss):
                        raise NonFiniteError(
                            f"The validation loss became {validation_loss} after epoch {epoch}, "
                            f"with learning rate {rate:g}. A smaller learning rate usually helps."
                        )
                report = EpochReport(
                    epoch=epoch,
                    learning_rate=rate,
                    train_loss=float(at.loss_sum / at.examples),
                    train_accuracy=float(at.correct / at.examples),
                    validation_loss=validation_loss,
                    validation_accuracy=accuracy,
                )
                at.finish_epoch(accuracy)
                yield report

    return reports()


def _to_its_end(by_epoch: Callable[P, Iterator[EpochReport]]) -> Callable[P, list[EpochReport]]:
    def fit(*arguments: P.args, **options: P.kwargs) -> list[EpochReport]:
        return list(by_epoch(*arguments, **options))

    update_wrapper(fit, by_epoch, ("__module__", "__annotations__"))
    fit.__qualname__ = "fit"  # where pickle finds it
    fit.__signature__ = signature(by_epoch).replace(return_annotation=list[EpochReport])  # type: ignore[attr-defined]
    fit.__doc__ = (by_epoch.__doc__ or "").replace(
        """, epoch by epoch: a generator that trains one epoch for each report.

        for report in fit_by_epoch(model, train, validation, epochs=5):
            print(report.epoch, report.validation_accuracy)
""",
        "; return a report for each epoch. `fit_by_epoch` yields them one by one.\n",
    )
    return fit


fit = _to_its_end(fit_by_epoch)


def _check_examples(part: str, examples: tuple[Rows, NDArray[Any]], model: Sequential) -> Examples:
    """Return `examples`; ValueError if there is none, or if `model` does not take them."""
    arrays = isinstance(examples, tuple) and all(
        hasattr(array, "shape") and hasattr(array, "dtype") for array in examples
    )
    if not arrays or len(examples) != 2 or any(len(array.shape) < 2 for array in examples):
        raise ValueError(
            f"{part} must be Examples(images, targets), two arrays whose first axis counts the examples; "
            f"received {type(examples).__name__}."
        )
    images, targets = examples
    if not len(images) == len(targets) >= 1:
        raise ValueError(
            f"{part} must have as many images as targets, and at least one; received {len(images)} and "
            f"{len(targets)}."
        )
    if images.dtype not in (np.float32, np.float64) or targets.dtype.kind not in "fiub":
        raise ValueError(
            f"The images of {part} must be float32 or float64, and its targets numbers; received "
            f"{images.dtype} and {targets.dtype}. Convert images with images.astype(np.float32)."
        )
    outputs = model.output_shape(images.shape[1:])
    if outputs != targets.shape[1:]:
        raise ValueError(
            f"The targets of {part} must have the shape of the network's outputs, {outputs} for each image; "
            f"received {targets.shape[1:]}."
        )
    return Examples(images, targets)


def _as_groups(optimizer: Optimizer | ParameterGroups, schedule: Schedule | None) -> ParameterGroups:
    """`optimizer` as one group with this `schedule`, unless it is several groups already."""
    if not isinstance(optimizer, ParameterGroups):
        group = Group(optimizer, schedule)
        if schedule is None:
            group.schedule = constant(optimizer.learning_rate)
        return ParameterGroups([group])
    if schedule is not None:
        raise ValueError(
            "schedule is for a single optimizer; each group brings its own. Leave it out, and give it to the "
            "groups: Group(optimizer, schedule)."
        )
    return optimizer


def _check_parameters(owner: str, parameters: Mapping[str, Parameter], model: Sequential) -> None:
    """ValueError if some of them are not the model's."""
    known = {id(parameter) for parameter in model.parameters().values()}
    strange = [name for name, parameter in parameters.items() if id(parameter) not in known]
    if strange:
        raise ValueError(
            f"The parameters of {owner} must be this model's; {', '.join(strange[:3])} "
            f"{'is' if len(strange) == 1 else 'are'} not. Create it with model.parameters()."
        )


def _try_smallest_shard(
    model: Sequential, train: Examples, batch_size: int, shard_size: int, seed: int
) -> None:
    """Run the smallest shard once, so that a layer for which it is too small fails now, not later."""
    count = len(train.images)
    batches = {min(batch_size, count), count % batch_size or batch_size}
    smallest = min(min(batch, shard_size, batch % shard_size or shard_size) for batch in batches)
    copied = copy.deepcopy(model)
    try:
        copied.forward(
            copied.place(train.images[:smallest]),
            training=True,
            rng=derive_rng(seed, Stream.DROPOUT, 0, 0, 0),
        )
    except ValueError as error:
        raise ValueError(
            f"{error} {count} images in batches of {batch_size} and shards of {shard_size} give a shard of "
            f"{smallest}."
        ) from None


def _non_finite(
    loss: float,
    squares: dict[str, float],
    model: Sequential,
    learning_rate: float,
    images: NDArray[Any],
    at: Progress,
) -> NonFiniteError:
    """The error for a loss or gradient that is not finite; it names the first place where this occurs."""
    if not isfinite(loss):
        what, first = f"The loss became {loss}", ""
        outputs = (
            (f"the output of layer {name}, {layer!r}", y)
            for name, layer, y in trace_forward(model, model.place(images))
        )
        for name, values in [("in the images", images), *outputs]:
            if not np.isfinite(to_host(values)).all():
                first = f" (the first numbers that are not finite are {name})"
                break
    else:  # the last parameter's gradient, since the last layer's is computed first
        what = "A gradient became infinite or not a number"
        name = [name for name, square in squares.items() if not isfinite(square)][-1]
        layer, _, part = name.rpartition(".")
        first = f" (first dL/d{part} of layer {layer})"
    return NonFiniteError(
        f"{what} in epoch {at.epoch}, at step {at.step} of the run, with learning rate "
        f"{learning_rate:g}{first}. A smaller learning rate usually helps."
    )
