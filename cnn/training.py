"""The training loop: mini-batch gradient descent."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.checks import check_count
from cnn.clipping import clip_by_norm, clip_by_value
from cnn.gradients import Augmentation, Examples, Gradients, Loss, assigned, count_correct
from cnn.layers import Sequential
from cnn.moving_average import MovingAverage
from cnn.optimizers import Optimizer
from cnn.parallel import Workers
from cnn.random import Stream, derive_rng
from cnn.schedules import Schedule
from cnn.state import Stateful


@dataclass(frozen=True)
class EpochReport:
    """How one pass over the training set went.

    The learning rate is that of the last step. The training figures are means over the epoch's batches,
    taken while the weights were changing; the validation figures are those of the weights at its end.
    Accuracies are fractions.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


class Progress(Stateful):
    """Where a run of `fit` stands after a step: with model, optimiser and average, all it needs to go on.

    Every number is an array without axes. epoch counts from 1; step counts the steps of the whole run;
    examples, correct and loss_sum (of examples) are of the epoch so far; best_epoch is the first with the
    highest validation accuracy, best_accuracy.
    """

    def __init__(self) -> None:
        self.epoch, self.step = np.array(1), np.array(0)
        self.examples, self.correct, self.loss_sum = np.array(0), np.array(0), np.array(0.0)
        self.best_epoch, self.best_accuracy = np.array(0), np.array(-1.0)

    def add(self, examples: int, correct: int, loss: float) -> None:
        """Count a step over `examples`, of which so many were right; `loss` is their mean."""
        self.step += 1
        self.examples += examples
        self.correct += correct
        self.loss_sum += loss * examples

    def finish_epoch(self, validation_accuracy: float) -> None:
        """Move on to the start of the next epoch."""
        if validation_accuracy > self.best_accuracy:
            self.best_accuracy[...], self.best_epoch[...] = validation_accuracy, self.epoch
        self.epoch += 1
        for sum_of_epoch in (self.examples, self.correct, self.loss_sum):
            sum_of_epoch[...] = 0

    def _state(self) -> dict[str, NDArray[Any]]:
        return dict(vars(self))


class NonFiniteError(ArithmeticError):
    """A loss or gradient became infinite or not a number: the weights are, or would become, of no use."""


def fit(
    model: Sequential,
    loss: Loss,
    optimizer: Optimizer,
    schedule: Schedule,
    train: Examples,
    validation: Examples,
    *,
    epochs: int,
    batch_size: int,
    shard_size: int,
    seed: int,
    augment: Augmentation | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    moving_average: MovingAverage | None = None,
    patience: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[EpochReport]:
    """Train `model` in place, and yield a report after each of `epochs` passes over the training set.

    Each epoch goes through the examples in an order of its own, derived from `seed` and the epoch; the
    last batch of an epoch may be smaller. Each batch is one step of `optimizer`, at the rate that
    `schedule` gives for the time in epochs.

    A run can be cut off after any step and go on later, to the same bits: all random numbers are derived
    from `seed` and the place in the run. Keep the `state_dict` of `model`, `optimizer`, `moving_average` and
    `progress`, all of the same moment; load them into equal objects, and call `fit` with those.

    Args:
        augment: changes the training images of each shard at random, (images, rng) -> images.
        clip_value, clip_norm: limits of the gradients, see `cnn.clipping`, in this order; None sets none.
        moving_average: of the weights; where there is one, its averages are validated. To give them to the
            model, see `MovingAverage.applied`.
        patience: stop after so many epochs without a higher validation accuracy; None never does.
        workers: processes that compute shards; the result is the same for any number of them, unless `loss`
            or `augment` change by themselves: workers have them as they were at the start. See
            `cnn.parallel`, which also changes how this process keeps memory.
        progress: where to begin, kept up to date; None begins at the beginning.
        on_step: called after every step.

    Raises NonFiniteError as soon as the loss of a batch or of the validation examples, or a gradient, is not
    finite, before the weights are changed; ValueError, at the first report, for a count that is no whole
    number >= 1 or examples without targets.
    """
    counts = {"epochs": epochs, "batch_size": batch_size, "shard_size": shard_size}
    for name, count in (counts if patience is None else counts | {"patience": patience}).items():
        check_count(name, count)
    for part, (images, targets) in {"training": train, "validation": validation}.items():
        if not len(images) == len(targets) >= 1:
            raise ValueError(
                f"There must be as many {part} images as targets, and at least one; received {len(images)} "
                f"and {len(targets)}."
            )
    count = len(train.images)
    steps_per_epoch = -(-count // batch_size)
    at = Progress() if progress is None else progress
    with Workers(model, workers) as pool:
        gradients = Gradients(pool, loss, train, shard_size, seed, augment)
        while at.epoch <= epochs and (patience is None or at.epoch - 1 - at.best_epoch < patience):
            epoch = int(at.epoch)
            order = derive_rng(seed, Stream.SHUFFLE, epoch).permutation(count)
            while at.examples < count:
                step = int(at.step)
                batch = order[at.examples : at.examples + batch_size]
                optimizer.learning_rate = rate = _learning_rate(schedule, step / steps_per_epoch)
                batch_loss, correct = gradients(batch, at=(epoch, step))
                _check_finite(batch_loss, model, optimizer, train, batch, epoch, step)
                if clip_value is not None:
                    clip_by_value(optimizer.parameters, clip_value)
                if clip_norm is not None:
                    clip_by_norm(optimizer.parameters, clip_norm)
                optimizer.step()
                if moving_average is not None:
                    moving_average.update()
                at.add(len(batch), correct, batch_loss)
                on_step(at)
            rate = _learning_rate(schedule, (int(at.step) - 1) / steps_per_epoch)
            with nullcontext() if moving_average is None else moving_average.applied():
                outputs = pool.predict(validation.images)
            validation_loss, _ = loss(outputs, validation.targets)
            if not isfinite(validation_loss):
                raise NonFiniteError(
                    f"The validation loss became {validation_loss} after epoch {epoch}, "
                    f"with learning rate {rate:g}. A smaller one usually helps."
                )
            accuracy = count_correct(outputs, validation.targets) / len(validation.images)
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


def _learning_rate(schedule: Schedule, t: float) -> float:
    try:
        rate = schedule(t)
    except OverflowError:
        rate = inf
    if not isfinite(rate):
        raise NonFiniteError(
            f"The schedule's learning rate became infinite {t:.3g} epochs after the start. "
            "A smaller factor, or a longer time between steps, helps."
        )
    return rate


def _check_finite(
    loss: float,
    model: Sequential,
    optimizer: Optimizer,
    examples: Examples,
    batch: NDArray[np.integer[Any]],
    epoch: int,
    step: int,
) -> None:
    """NonFiniteError unless the loss and all gradients of a batch are finite."""
    if not isfinite(loss):
        what, where = f"The loss became {loss}", ""
        for name, values in _values(model, examples.images[batch]):
            if not np.isfinite(values).all():
                where = f" (the first numbers that are not finite are {name})"
                break
    else:
        # Backwards, as gradients go. Squares may overflow where no gradient does: then look at each.
        for name, parameter in reversed(optimizer.parameters.items()):
            flat = assigned(parameter.grad).ravel()
            with np.errstate(over="ignore", invalid="ignore"):
                square = flat @ flat
            if not isfinite(square) and not np.isfinite(flat).all():
                layer, _, part = name.partition(".")
                what, where = (
                    "A gradient became infinite or not a number",
                    f" (first dL/d{part} of layer {layer})",
                )
                break
        else:
            return
    raise NonFiniteError(
        f"{what} in epoch {epoch}, at step {step} of the run, with learning rate "
        f"{optimizer.learning_rate:g}{where}. A smaller learning rate usually helps."
    )


def _values(model: Sequential, x: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """The images, and the output of each layer, with their names."""
    yield "in the images", x
    for number, layer in enumerate(model.layers):
        x = layer.forward(x, training=False)
        yield f"the output of layer {number}, {layer!r}", x
