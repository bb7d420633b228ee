"""The training loop: mini-batch gradient descent."""

from collections.abc import Callable, Iterable, Iterator, Sequence
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
        workers: processes that compute shards; the result is the same for any number of them. See
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
        gradients = Gradients(pool, loss, train, shard_size, seed, augment)
        for epoch in range(1, epochs + 1):
            order = derive_rng(seed, Stream.SHUFFLE, epoch).permutation(len(train.images))
            examples, loss_sum, correct = 0, 0.0, 0
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                optimizer.learning_rate = rate = _learning_rate(schedule, step / steps_per_epoch)
                batch_loss, batch_correct = gradients(batch, at=(epoch, step))
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


@dataclass(frozen=True, eq=False)
class Gradients:
    """Computes gradients of `loss` over batches of `examples`, in shards of `shard_size` of them.

    A batch's shards are weighted by their part of it and summed in order:

        L = Σ_s (N_s / N) · L_s,    so    dL/dθ = Σ_s (N_s / N) · dL_s/dθ

    In exact arithmetic this is the gradient of the whole batch, unless the model normalises over a shard
    (BatchNorm), whose running statistics are then averaged likewise. In floating point the order of a sum
    counts, and so the bits depend on the shard size, but not on the number of workers.
    """

    workers: Workers
    loss: Loss
    examples: Examples
    shard_size: int
    seed: int = 0
    augment: Augmentation | None = None

    def __call__(self, batch: NDArray[np.integer[Any]], at: tuple[int, int] = (0, 0)) -> tuple[float, int]:
        """Assign every `grad` for the mean loss over a batch; return that loss and how many are right.

        `batch` holds indices into `examples`. Random numbers are derived from `seed`, the epoch and step in
        `at`, and the shard's number.
        """
        starts = range(0, len(batch), self.shard_size)
        tasks = (
            _Task(batch[start : start + self.shard_size], len(batch), (*at, shard))
            for shard, start in enumerate(starts)
        )
        shards = self.workers.map(self._compute_shard, tasks)
        loss, correct, gradients, buffers = next(shards)
        for shard in shards:
            loss += shard.loss
            correct += shard.correct
            gradients += shard.gradients
            buffers += shard.buffers
        original = self.workers.original
        values = [parameter.value for parameter in original.parameters]
        for parameter, gradient in zip(original.parameters, _split(gradients, values), strict=True):
            parameter.grad = gradient
        for buffer, average in zip(original.buffers, _split(buffers, original.buffers), strict=True):
            buffer[...] = average
        return loss, correct

    def _compute_shard(self, replica: Replica, task: "_Task") -> "_Shard":
        model = replica.model
        images, targets = self.examples.images[task.indices], self.examples.targets[task.indices]
        fraction = len(task.indices) / task.batch_size
        if self.augment is not None:
            images = self.augment(images, derive_rng(self.seed, Stream.AUGMENTATION, *task.at))
        rng = derive_rng(self.seed, Stream.DROPOUT, *task.at) if model.takes_rng else None
        outputs = model.forward(images, training=True, rng=rng)
        loss, grad_outputs = self.loss(outputs, targets)
        model.backward(grad_outputs * fraction)
        return _Shard(
            loss * fraction,
            count_correct(outputs, targets),
            _join([_gradient(parameter.grad) for parameter in replica.parameters]),
            _join(replica.buffers) * fraction,
        )


class _Task(NamedTuple):
    """A shard to compute: which examples, of a batch of how many, and (epoch, step, number of the shard)."""

    indices: NDArray[np.integer[Any]]
    batch_size: int
    at: tuple[int, int, int]


class _Shard(NamedTuple):
    """What a shard adds to its batch, weighted by its part of it."""

    loss: float
    correct: int
    gradients: NDArray[Any]  # of all parameters, in one row
    buffers: NDArray[Any]


def _join(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The numbers of all arrays in one row."""
    return np.concatenate([array.ravel() for array in arrays] or [np.empty(0)])


def _split(row: NDArray[Any], like: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """`_join` undone: arrays of the shapes of `like`."""
    end = 0
    for array in like:
        start, end = end, end + array.size
        yield row[start:end].reshape(array.shape)


def count_correct(outputs: NDArray[Any], targets: NDArray[Any]) -> int:
    """How many rows have their largest output where the target is largest."""
    return int((outputs.argmax(axis=1) == targets.argmax(axis=1)).sum())


def _gradient(gradient: NDArray[Any] | None) -> NDArray[Any]:
    if gradient is None:
        raise RuntimeError("A layer's backward left a parameter without a gradient.")
    return gradient
