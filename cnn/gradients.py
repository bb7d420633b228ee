"""Loss and gradients of a batch, in shards."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnn.parallel import Replica, Workers
from cnn.random import Stream, derive_rng

Augmentation = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]
Loss = Callable[[NDArray[Any], NDArray[Any]], tuple[float, NDArray[Any]]]


class Examples(NamedTuple):
    """Inputs and their one-hot targets, row by row; either may be memory-mapped."""

    images: NDArray[Any]
    targets: NDArray[Any]


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
            _join([assigned(parameter.grad) for parameter in replica.parameters]),
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
    """`_join` undone: arrays of the shapes and dtypes of `like`."""
    end = 0
    for array in like:
        start, end = end, end + array.size
        yield row[start:end].reshape(array.shape).astype(array.dtype, copy=False)


def count_correct(outputs: NDArray[Any], targets: NDArray[Any]) -> int:
    """How many rows have their largest output where the target is largest."""
    return int((outputs.argmax(axis=1) == targets.argmax(axis=1)).sum())


def assigned(gradient: NDArray[Any] | None) -> NDArray[Any]:
    """The gradient that a backward pass has left."""
    if gradient is None:
        raise RuntimeError("A layer's backward left a parameter without a gradient.")
    return gradient
