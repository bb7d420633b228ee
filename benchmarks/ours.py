"""Our side: steps of the library on batches in memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import Step
from cnn import SGD, Examples, Layer, Processes, Sequential, softmax_cross_entropy
from cnn.engine.passes import PASSES, Pass
from cnn.engine.replicas import Replica, Replicas
from cnn.engine.shards import ShardedGradients

PREDICTION_SHARD_SIZE = 64  # images that a worker takes at a time in inference
LAYER_SHARD_SIZE = 32  # images that a worker takes at a time where a single layer is measured
LEARNING_RATE = 0.01  # on both sides


@contextmanager
def training_step(
    model: Sequential,
    examples: Examples,
    shard_size: int,
    workers: int,
    *,
    passes: Sequence[Pass] = PASSES,
) -> Iterator[Step]:
    """Forward, loss, backward and SGD's step on all of `examples`; it changes a copy of the model."""
    model = deepcopy(model)
    optimizer = SGD(model.parameters(), LEARNING_RATE)
    batch = np.arange(len(examples.images))
    with ShardedGradients(
        model, softmax_cross_entropy, examples, shard_size, executor=Processes(workers), passes=passes
    ) as gradients:

        def step() -> None:
            gradients(batch)
            optimizer.step()

        yield step


@contextmanager
def prediction(model: Sequential, images: NDArray[np.float32], workers: int) -> Iterator[Step]:
    """The logits of `images`."""
    with Replicas(model, Processes(workers)) as replicas:
        yield lambda: replicas.predict(images, PREDICTION_SHARD_SIZE)


@contextmanager
def layer_step(
    layer: Layer, x: NDArray[np.float32], grad_y: NDArray[np.float32], workers: int
) -> Iterator[Step]:
    """Forward and backward of one layer on shards of x; it returns each dL/dθ, dL/dx stays in its worker."""
    starts = range(0, len(x), LAYER_SHARD_SIZE)
    shards = [slice(start, start + LAYER_SHARD_SIZE) for start in starts]
    with Replicas(Sequential([layer]), Processes(workers), shared=(x, grad_y)) as replicas:

        def step() -> list[NDArray[Any]]:
            totals: list[NDArray[Any]]
            totals, *others = replicas.map(partial(_forward_and_backward, shard) for shard in shards)
            for gradients in others:
                for total, gradient in zip(totals, gradients, strict=True):
                    total += gradient
            return totals

        yield step


def _forward_and_backward(shard: slice, replica: Replica) -> list[NDArray[Any]]:
    x, grad_y = replica.shared
    replica.model.forward(x[shard], training=True)
    replica.model.backward(grad_y[shard])
    return [parameter.grad for parameter in replica.parameters]  # type: ignore[misc]


def layer_gradient(layer: Layer, x: NDArray[np.float32], grad_y: NDArray[np.float32]) -> NDArray[np.float32]:
    """dL/dx of one layer, computed as in `layer_step`."""

    def run(replica: Replica) -> NDArray[Any]:
        replica.model.forward(x, training=True)
        return replica.model.backward(grad_y)

    with Replicas(Sequential([layer])) as replicas:
        (grad_x,) = replicas.map([run])
    return grad_x
