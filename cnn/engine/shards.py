"""Loss and gradients of a batch, computed in shards."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnn.augmentation.composition import Augmentation, keywords_of
from cnn.engine.executors import Executor
from cnn.engine.passes import PASSES, Pass
from cnn.engine.replicas import Replica, Replicas, Rows
from cnn.layers import Layer
from cnn.random import Stream, derive_rng

Loss = Callable[[NDArray[Any], NDArray[Any]], tuple[float, NDArray[Any]]]


class Examples(NamedTuple):
    """Inputs and their one-hot targets, one row for each example; either may be memory-mapped."""

    images: Rows
    targets: NDArray[Any]


class ShardedGradients:
    """Computes gradients of `loss` over batches of `examples`, in shards of `shard_size` examples.

    The shards of a batch are weighted by their share of its examples and summed in order:

        L = Σ_s (N_s / N) · L_s,    so    dL/dθ = Σ_s (N_s / N) · dL_s/dθ

    In exact arithmetic this is the gradient of the whole batch, unless the model normalises over a shard
    (BatchNorm). Running statistics are averaged in the same way. In floating point the order of a sum
    matters, so the bits depend on the shard size, but not on the number of workers.

    `predict` runs on the same workers. Use this in a `with` block.
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
    ) -> None:
        strange = [name for name, buffer in model.buffers().items() if buffer.dtype.kind != "f"]
        if strange:
            raise ValueError(
                f"Buffers are averaged over the shards of a batch, so they must hold floating-point numbers; "
                f"{strange[0]} holds {model.buffers()[strange[0]].dtype}. Convert it to float64."
            )
        self.shard_size = shard_size
        keywords = () if augment is None else keywords_of(augment)
        job = _Job(loss, examples, seed, augment, keywords)
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

        `batch` holds indices into `examples`. Random numbers are derived from `seed`, the epoch and step in
        `at`, and the shard's number.
        """
        tasks = (
            partial(_compute_shard, batch[start : start + self.shard_size], len(batch), (*at, shard))
            for shard, start in enumerate(range(0, len(batch), self.shard_size))
        )
        shards = self._replicas.map(tasks)
        loss, correct, gradients, buffers = next(shards)
        for shard in shards:
            loss += shard.loss
            correct += shard.correct
            gradients += shard.gradients
            buffers += shard.buffers
        parameters = self._replicas.parameters
        values = [parameter.value for parameter in parameters]
        for parameter, gradient in zip(parameters, _split(gradients, values), strict=True):
            parameter.grad = gradient
        own = self._replicas.buffers
        for buffer, average in zip(own, _split(buffers, own), strict=True):
            buffer[...] = average
        return loss, correct


class _Job(NamedTuple):
    """The data that all shards share."""

    loss: Loss
    examples: Examples
    seed: int
    augment: Augmentation | None
    keywords: tuple[str, ...]  # that augment takes


class _Shard(NamedTuple):
    """The contribution of a shard to its batch, weighted by its share of the examples."""

    loss: float
    correct: int
    gradients: NDArray[Any]  # of all parameters, concatenated
    buffers: NDArray[Any]


def _compute_shard(
    indices: NDArray[np.integer[Any]], batch_size: int, at: tuple[int, int, int], replica: Replica
) -> _Shard:
    """Compute the shard of the examples `indices`; `at` is (epoch, step, number of the shard)."""
    model, job = replica.model, replica.shared
    images, targets = job.examples.images[indices], job.examples.targets[indices]
    fraction = len(indices) / batch_size
    if job.augment is not None:
        place = {"examples": indices, "epoch": at[0], "seed": job.seed}
        keywords = {name: place[name] for name in job.keywords}
        images = job.augment(images, derive_rng(job.seed, Stream.AUGMENTATION, *at), **keywords)
    outputs = model.forward(images, training=True, rng=derive_rng(job.seed, Stream.DROPOUT, *at))
    loss, grad_outputs = job.loss(outputs, targets)
    model.backward_parameters(grad_outputs * fraction)
    return _Shard(
        loss * fraction,
        count_correct(outputs, targets),
        _join([assigned(parameter.grad) for parameter in replica.parameters]),
        _join(replica.buffers) * fraction,
    )


def _join(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate the numbers of all arrays in one row."""
    return np.concatenate([array.ravel() for array in arrays] or [np.empty(0)])


def _split(row: NDArray[Any], like: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """The inverse of `_join`: yield arrays of the shapes and dtypes of `like`."""
    end = 0
    for array in like:
        start, end = end, end + array.size
        yield row[start:end].reshape(array.shape).astype(array.dtype, copy=False)


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
