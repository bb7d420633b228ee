"""The training loop: mini-batch gradient descent."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnn.checks import check_count
from cnn.clipping import clip_by_norm, clip_by_value
from cnn.layers import Sequential
from cnn.moving_average import MovingAverage
from cnn.optimizers import Optimizer
from cnn.parallel import Replica, Workers
from cnn.random import Stream, derive_rng
from cnn.schedules import Schedule

Augmentation = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]
Loss = Callable[[NDArray[Any], NDArray[Any]], tuple[float, NDArray[Any]]]


class Examples(NamedTuple):
    """Inputs and their one-hot targets, row by row; either may be memory-mapped."""

    images: NDArray[Any]
    targets: NDArray[Any]


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


@dataclass(frozen=True)
class BatchReport:
    """Where training stands after a batch: sums and counts since the epoch began."""

    epoch: int
    examples: int
    loss_sum: float
    correct: int


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number, so the weights are of no use any more."""


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
    on_batch: Callable[[BatchReport], None] = lambda report: None,
) -> Iterator[EpochReport]:
    """Train `model` in place, and yield a report after each of `epochs` passes over the training set.

    Each epoch goes through the examples in an order of its own, derived from `seed` and the epoch; the
    last batch of an epoch may be smaller. Each batch is one step of `optimizer`, at the rate that
    `schedule` gives for the time in epochs.

    Args:
        augment: changes the training images of each shard at random, (images, rng) -> images.
        clip_value, clip_norm: limits of the gradients, see `cnn.clipping`, in this order; None sets none.
        moving_average: of the weights; where there is one, its averages are validated, and they are the
            model's weights while a report is out.
        patience: stop after so many epochs without a higher validation accuracy; None never does.
        workers: threads that compute shards; the result is the same for any number of them. See
            `cnn.parallel`, which also changes how this process keeps memory.
        on_batch: called after every step.

    Raises NonFiniteLossError as soon as the loss of a batch, or of the validation examples, is not finite;
    ValueError, at the first report, for a count that is no whole number >= 1 or examples without targets.
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
    steps_per_epoch = -(-len(train.images) // batch_size)
    step, best, best_epoch = 0, -1.0, 0
    with Workers(model, workers) as pool:
        for epoch in range(1, epochs + 1):
            order = derive_rng(seed, Stream.SHUFFLE, epoch).permutation(len(train.images))
            examples, loss_sum, correct = 0, 0.0, 0
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                optimizer.learning_rate = rate = _learning_rate(schedule, step / steps_per_epoch)
                batch_loss, batch_correct = compute_gradients(
                    pool, loss, train, batch, shard_size, seed=seed, at=(epoch, step), augment=augment
                )
                _check_finite("loss", batch_loss, f"in epoch {epoch}, at step {step} of the run", rate)
                if clip_value is not None:
                    clip_by_value(optimizer.parameters, clip_value)
                if clip_norm is not None:
                    clip_by_norm(optimizer.parameters, clip_norm)
                optimizer.step()
                if moving_average is not None:
                    moving_average.update()
                step += 1
                examples += len(batch)
                loss_sum += batch_loss * len(batch)
                correct += batch_correct
                on_batch(BatchReport(epoch, examples, loss_sum, correct))
            with nullcontext() if moving_average is None else moving_average.applied():
                outputs = pool.predict(validation.images)
                validation_loss, _ = loss(outputs, validation.targets)
                _check_finite("validation loss", validation_loss, f"after epoch {epoch}", rate)
                accuracy = count_correct(outputs, validation.targets) / len(validation.images)
                yield EpochReport(
                    epoch=epoch,
                    learning_rate=rate,
                    train_loss=loss_sum / examples,
                    train_accuracy=correct / examples,
                    validation_loss=validation_loss,
                    validation_accuracy=accuracy,
                )
            if accuracy > best:
                best, best_epoch = accuracy, epoch
            elif patience is not None and epoch - best_epoch >= patience:
                return


def _learning_rate(schedule: Schedule, t: float) -> float:
    try:
        rate = schedule(t)
    except OverflowError:
        rate = inf
    if not isfinite(rate):
        raise NonFiniteLossError(
            f"The schedule's learning rate became infinite {t:.3g} epochs after the start. "
            "A smaller factor, or a longer time between steps, helps."
        )
    return rate


def _check_finite(name: str, loss: float, when: str, learning_rate: float) -> None:
    if not isfinite(loss):
        raise NonFiniteLossError(
            f"The {name} became {loss} {when}, with learning rate {learning_rate:g}. "
            "A smaller one usually helps."
        )


def compute_gradients(
    workers: Workers,
    loss: Loss,
    examples: Examples,
    batch: NDArray[np.integer[Any]],
    shard_size: int,
    *,
    seed: int = 0,
    at: tuple[int, int] = (0, 0),
    augment: Augmentation | None = None,
) -> tuple[float, int]:
    """Assign every `grad` for the mean loss over `batch`; return that loss and how many are right.

    `batch` holds indices into `examples`. It is cut into shards of `shard_size` examples, whose results are
    weighted and summed in order:

        L = Σ_s (N_s / N) · L_s,    so    dL/dθ = Σ_s (N_s / N) · dL_s/dθ

    In exact arithmetic this is the gradient of the whole batch, unless the model normalises over a shard
    (BatchNorm), whose running statistics are then averaged likewise. In floating point the order of a sum
    counts, and so the bits depend on the shard size, but not on the number of workers. Random numbers are
    derived from `seed`, the epoch and step in `at`, and the shard's number.
    """

    def run(replica: Replica, shard: int) -> _Shard:
        model = replica.model
        indices = batch[shard * shard_size : (shard + 1) * shard_size]
        images, targets = examples.images[indices], examples.targets[indices]
        fraction = len(indices) / len(batch)
        if augment is not None:
            images = augment(images, derive_rng(seed, Stream.AUGMENTATION, *at, shard))
        rng = derive_rng(seed, Stream.DROPOUT, *at, shard) if model.takes_rng else None
        outputs = model.forward(images, training=True, rng=rng)
        shard_loss, grad_outputs = loss(outputs, targets)
        model.backward(grad_outputs * fraction)
        return _Shard(
            shard_loss * fraction,
            count_correct(outputs, targets),
            [_gradient(parameter.grad) for parameter in replica.parameters],
            [buffer * fraction for buffer in replica.buffers],
        )

    shards = workers.map(run, range(-(-len(batch) // shard_size)))
    first = next(shards)
    total_loss, correct = first.loss, first.correct
    for shard in shards:
        total_loss += shard.loss
        correct += shard.correct
        for total, array in zip(
            first.gradients + first.buffers, shard.gradients + shard.buffers, strict=True
        ):
            total += array
    for parameter, gradient in zip(workers.original.parameters, first.gradients, strict=True):
        parameter.grad = gradient
    for buffer, average in zip(workers.original.buffers, first.buffers, strict=True):
        buffer[...] = average
    return total_loss, correct


class _Shard(NamedTuple):
    """What a shard adds to its batch, weighted by its part of it."""

    loss: float
    correct: int
    gradients: list[NDArray[Any]]
    buffers: list[NDArray[Any]]


def count_correct(outputs: NDArray[Any], targets: NDArray[Any]) -> int:
    """How many rows have their largest output where the target is largest."""
    return int((outputs.argmax(axis=1) == targets.argmax(axis=1)).sum())


def _gradient(gradient: NDArray[Any] | None) -> NDArray[Any]:
    if gradient is None:
        raise RuntimeError("A layer's backward left a parameter without a gradient.")
    return gradient
