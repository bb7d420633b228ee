"""The training loop: mini-batch gradient descent."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

from numpy.typing import NDArray

from cnn.layers.checks import check_count
from cnn.model import Sequential
from cnn.optimizers import SGD
from cnn.random import Stream, derive_rng
from cnn.schedules import Schedule

Loss = Callable[[NDArray[Any], NDArray[Any]], tuple[float, NDArray[Any]]]


class Examples(NamedTuple):
    """Inputs and their one-hot targets, row by row; either may be memory-mapped."""

    images: NDArray[Any]
    targets: NDArray[Any]


@dataclass(frozen=True)
class EpochReport:
    """How one pass over the training set went.

    The training figures are means over the epoch's batches, taken while the weights were changing; the
    validation figures are those of the weights at the epoch's end. Accuracies are fractions.
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
    optimizer: SGD,
    schedule: Schedule,
    train: Examples,
    validation: Examples,
    *,
    epochs: int,
    batch_size: int,
    shard_size: int,
    seed: int,
    on_batch: Callable[[BatchReport], None] = lambda report: None,
) -> Iterator[EpochReport]:
    """Train `model` in place, and yield a report after each of `epochs` passes over the training set.

    Each epoch goes through the examples in an order of its own, derived from `seed` and the epoch; the
    last batch of an epoch may be smaller. Each batch is one step of `optimizer`, at the rate that
    `schedule` gives for it. `on_batch` is called after every step.
    Raises NonFiniteLossError as soon as the loss of a batch, or of the validation examples, is not finite;
    ValueError for a count that is no whole number >= 1.
    """
    for name, count in {"epochs": epochs, "batch_size": batch_size, "shard_size": shard_size}.items():
        check_count(name, count)
    step = 0
    for epoch in range(1, epochs + 1):
        order = derive_rng(seed, Stream.SHUFFLE, epoch).permutation(len(train.images))
        examples, loss_sum, correct = 0, 0.0, 0
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            optimizer.learning_rate = schedule(step)
            batch_loss, batch_correct = compute_gradients(
                model, loss, Examples(train.images[batch], train.targets[batch]), shard_size
            )
            if not isfinite(batch_loss):
                raise NonFiniteLossError(
                    f"The loss became {batch_loss} in epoch {epoch}, at step {step} of the run, "
                    f"with learning rate {optimizer.learning_rate:g}. A smaller one usually helps."
                )
            optimizer.step()
            step += 1
            examples += len(batch)
            loss_sum += batch_loss * len(batch)
            correct += batch_correct
            on_batch(BatchReport(epoch, examples, loss_sum, correct))
        outputs = model.predict(validation.images)
        validation_loss, _ = loss(outputs, validation.targets)
        if not isfinite(validation_loss):
            raise NonFiniteLossError(
                f"The validation loss became {validation_loss} after epoch {epoch}, with learning rate "
                f"{optimizer.learning_rate:g}. A smaller one usually helps."
            )
        yield EpochReport(
            epoch=epoch,
            learning_rate=optimizer.learning_rate,
            train_loss=loss_sum / examples,
            train_accuracy=correct / examples,
            validation_loss=validation_loss,
            validation_accuracy=count_correct(outputs, validation.targets) / len(validation.images),
        )


def compute_gradients(model: Sequential, loss: Loss, batch: Examples, shard_size: int) -> tuple[float, int]:
    """Assign every `grad` for the mean loss over `batch`; return that loss and how many are right.

    The batch is cut into shards of `shard_size` examples, whose results are weighted and summed in order:

        L = Σ_s (N_s / N) · L_s,    so    dL/dθ = Σ_s (N_s / N) · dL_s/dθ

    In exact arithmetic this is the gradient of the whole batch. In floating point the order of a sum
    counts, and so the bits depend on the shard size; besides, on NumPy, its BLAS and how many threads
    that uses: hold it to one (threadpoolctl) for bits that are the same on any number of cores.
    """
    parameters = model.parameters().values()
    total_loss, correct = 0.0, 0
    sums: list[NDArray[Any]] = []
    for start in range(0, len(batch.images), shard_size):
        images, targets = (array[start : start + shard_size] for array in batch)
        fraction = len(images) / len(batch.images)
        outputs = model.forward(images, training=True)
        shard_loss, grad_outputs = loss(outputs, targets)
        model.backward(grad_outputs * fraction)
        total_loss += shard_loss * fraction
        correct += count_correct(outputs, targets)
        gradients = [_gradient(parameter.grad) for parameter in parameters]
        if not sums:
            sums = gradients
        else:
            for total, gradient in zip(sums, gradients, strict=True):
                total += gradient
    for parameter, total in zip(parameters, sums, strict=True):
        parameter.grad = total
    return total_loss, correct


def count_correct(outputs: NDArray[Any], targets: NDArray[Any]) -> int:
    """How many rows have their largest output where the target is largest."""
    return int((outputs.argmax(axis=1) == targets.argmax(axis=1)).sum())


def _gradient(gradient: NDArray[Any] | None) -> NDArray[Any]:
    if gradient is None:
        raise RuntimeError("A layer's backward left a parameter without a gradient.")
    return gradient
