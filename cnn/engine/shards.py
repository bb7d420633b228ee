"""Loss and gradients of a batch, computed in shards.

The shards of a batch are divided into a fixed number of lanes, each a task of one worker. A lane adds up the
gradients of its shards in place, in order; then the lanes are added, in order. So few whole gradients travel
between workers, and the bits depend on the shard size alone, never on the number of workers. If the ranks of
MPI have more workers than lanes, each shard is a task; the same sums are then made from the gradients of
single shards.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnn.augmentation.composition import Augmentation, keywords_of
from cnn.engine.executors import Executor
from cnn.engine.passes import PASSES, Pass
from cnn.engine.ranks import Ranks
from cnn.engine.replicas import Replica, Replicas, Rows, shared_copies
from cnn.layers import Layer
from cnn.random import Stream, derive_rng

LANES = 4  # at most as many workers are busy; the order of sums depends on it, so it is the same everywhere

Loss = Callable[[NDArray[Any], NDArray[Any]], tuple[float, NDArray[Any]]]


class Examples(NamedTuple):
    """Inputs and their one-hot targets, one row for each example; either may be memory-mapped."""

    images: Rows
    targets: NDArray[Any]


class ShardedGradients:
    """Computes gradients of `loss` over batches of `examples`, in shards of `shard_size` examples.

    The shards of a batch are weighted by their share of its examples and summed, lane by lane:

        L = Σ_s (N_s / N) · L_s,    so    dL/dθ = Σ_s (N_s / N) · dL_s/dθ

    In exact arithmetic this is the gradient of the whole batch, unless the model normalises over a shard
    (BatchNorm). Running statistics are averaged in the same way. In floating point the order of a sum
    matters, so the bits depend on the shard size, but not on the number of workers.

    `predict` runs on the same workers. Use this in a `with` block. `batch_size` is the size of the largest
    batch, which limits the memory of many ranks; None is all examples.
    """

    def __init__(
        self,
        model: Layer,
        loss: Loss,
        examples: Examples,
        shard_size: int,
        *,
        seed: int = 0,
        augment: Augmentation | None = None,
        executor: Executor | None = None,
        passes: Sequence[Pass] = PASSES,
        batch_size: int | None = None,
    ) -> None:
        strange = [name for name, buffer in model.buffers().items() if buffer.dtype.kind != "f"]
        if strange:
            raise ValueError(
                f"Buffers are averaged over the shards of a batch, so they must hold floating-point numbers; "
                f"{strange[0]} holds {model.buffers()[strange[0]].dtype}. Convert it to float64."
            )
        self.shard_size = shard_size
        keywords = () if augment is None else keywords_of(augment)
        values = [parameter.value for parameter in model.parameters().values()]
        rows = [_join(values), _join(list(model.buffers().values()))]
        self._shards_alone = isinstance(executor, Ranks) and executor.workers > LANES
        tasks = -(-(batch_size or len(examples.images)) // shard_size) if self._shards_alone else LANES
        self._sums = [_Sums(*shared_copies(rows)) for _ in range(tasks)]
        job = _Job(loss, examples, seed, augment, keywords, self._sums)
        self._replicas = Replicas(model, executor, shared=job, passes=passes)
        self.predict = self._replicas.predict

    def __enter__(self) -> "ShardedGradients":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._replicas.__exit__(kind, error, traceback)

    def __call__(self, batch: NDArray[np.integer[Any]], at: tuple[int, int] = (0, 0)) -> tuple[float, int]:
        """Assign every `grad` for the mean loss over a batch; return this loss and the number correct.

        The arrays are views of memory that the next call overwrites.
        `batch` holds indices into `examples`. Random numbers are derived from `seed`, the epoch and step in
        `at`, and the shard's number.
        """
        shards = [
            (number, batch[start : start + self.shard_size])
            for number, start in enumerate(range(0, len(batch), self.shard_size))
        ]
        count = min(LANES, len(shards))
        bounds = [len(shards) * lane // count for lane in range(count + 1)]
        lanes = [shards[start:end] for start, end in pairwise(bounds)]
        parts = [[[shard] for shard in lane] if self._shards_alone else [lane] for lane in lanes]
        tasks = (
            partial(_compute_part, number, part, len(batch), at)
            for number, part in enumerate(chain.from_iterable(parts))
        )
        results = _nested(list(self._replicas.map(tasks)), parts)
        sums = _nested(self._sums, parts)
        gradients = self._replicas.add_up([[part.gradients for part in lane] for lane in sums])
        buffers = self._replicas.add_up([[part.buffers for part in lane] for lane in sums])
        parameters = self._replicas.parameters
        values = [parameter.value for parameter in parameters]
        for parameter, gradient in zip(parameters, _split(gradients, values), strict=True):
            parameter.grad = gradient.astype(parameter.value.dtype, copy=False)
        own = self._replicas.buffers
        for buffer, average in zip(own, _split(buffers, own), strict=True):
            buffer[...] = average
        loss_sum = sum(sum(loss for loss, _ in lane) for lane in results)
        return loss_sum, sum(correct for lane in results for _, correct in lane)


class _Sums(NamedTuple):
    """Sums over a task's shards, weighted by their shares of the batch, in memory that all workers share."""

    gradients: NDArray[Any]  # of all parameters, concatenated
    buffers: NDArray[Any]


class _Job(NamedTuple):
    """The data that all shards share."""

    loss: Loss
    examples: Examples
    seed: int
    augment: Augmentation | None
    keywords: tuple[str, ...]  # that augment takes
    sums: list[_Sums]


def _compute_part(
    part: int,
    shards: list[tuple[int, NDArray[np.integer[Any]]]],
    batch_size: int,
    at: tuple[int, int],
    replica: Replica,
) -> tuple[float, int]:
    """Compute shards, (number, indices of examples); return the sums of loss and of correct."""
    loss_sum, correct_sum = 0.0, 0
    for index, (number, indices) in enumerate(shards):
        replica.restore()
        loss, correct = _compute_shard(indices, batch_size, (*at, number), replica)
        loss_sum, correct_sum = loss_sum + loss, correct_sum + correct
        gradients = [assigned(parameter.grad) for parameter in replica.parameters]
        buffers = [buffer * (len(indices) / batch_size) for buffer in replica.buffers]
        for row, arrays in zip(replica.shared.sums[part], (gradients, buffers), strict=True):
            for total, array in zip(_split(row, arrays), arrays, strict=True):
                if index:
                    total += array
                else:
                    total[...] = array
    return loss_sum, correct_sum


def _compute_shard(
    indices: NDArray[np.integer[Any]], batch_size: int, at: tuple[int, int, int], replica: Replica
) -> tuple[float, int]:
    """Assign the gradients of the shard of `indices`, weighted by its share; return its loss and correct.

    `at` is (epoch, step, number of the shard).
    """
    model, job = replica.model, replica.shared
    images, targets = (replica.place(rows[indices]) for rows in job.examples)
    fraction = len(indices) / batch_size
    if job.augment is not None:
        place = {"examples": indices, "epoch": at[0], "seed": job.seed}
        keywords = {name: place[name] for name in job.keywords}
        images = job.augment(images, derive_rng(job.seed, Stream.AUGMENTATION, *at), **keywords)
    outputs = model.forward(images, training=True, rng=derive_rng(job.seed, Stream.DROPOUT, *at))
    loss, grad_outputs = job.loss(outputs, targets)
    model.backward_parameters(grad_outputs * fraction)
    return loss * fraction, count_correct(outputs, targets)


def _join(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate the numbers of all arrays in one row."""
    return np.concatenate([array.ravel() for array in arrays] or [np.empty(0)])


def _split(row: NDArray[Any], like: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """The inverse of `_join`: yield views of the shapes of `like`."""
    end = 0
    for array in like:
        start, end = end, end + array.size
        yield row[start:end].reshape(array.shape)


def _nested(flat: Iterable[Any], like: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The first items of `flat`, in groups of the sizes of those of `like`."""
    remaining = iter(flat)
    return [[next(remaining) for _ in group] for group in like]


def count_correct(outputs: NDArray[Any], targets: NDArray[Any]) -> int:
    """The number of rows whose largest output is where the target is largest."""
    return int((outputs.argmax(axis=1) == targets.argmax(axis=1)).sum())


def assigned(gradient: NDArray[Any] | None) -> NDArray[Any]:
    """The gradient that a backward pass has assigned; RuntimeError if there is none."""
    if gradient is None:
        raise RuntimeError(
            "A layer's backward must assign a gradient to each of its parameters; one has none."
        )
    return gradient
