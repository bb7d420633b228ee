"""Our side: steps of the library on batches in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import Step
from cnn import SGD, Examples, Layer, Sequential, softmax_cross_entropy
from cnn.gradients import Gradients
from cnn.layers.layer import Shape
from cnn.parallel import Replica, Workers

SHARD_SIZE = 32  # images, of a training batch; the default of params.yaml
PREDICTION_SHARD_SIZE = 32  # images that a worker takes at a time in inference
LEARNING_RATE = 0.01  # of both sides


@contextmanager
def training_step(
    model: Sequential, examples: Examples, workers: int, *, planned: bool = True
) -> Iterator[Step]:
    """Forward, loss, backward and SGD's step on all of `examples`; changes a copy of the model."""
    model = deepcopy(model)
    optimizer = SGD(model.parameters(), LEARNING_RATE)
    batch = np.arange(len(examples.images))
    with Workers(model, workers, planned=planned) as pool:
        gradients = Gradients(pool, softmax_cross_entropy, examples, SHARD_SIZE)

        def step() -> None:
            gradients(batch)
            optimizer.step()

        yield step


@contextmanager
def prediction(model: Sequential, images: NDArray[np.float32], workers: int) -> Iterator[Step]:
    """The logits of `images`."""
    with Workers(model, workers) as pool:
        yield lambda: pool.predict(images, PREDICTION_SHARD_SIZE)


class Identity(Layer):
    """y = x. In front of a layer, it makes that layer compute dL/dx, which a first layer leaves out."""

    def forward(self, x: NDArray[Any], training: bool = True) -> NDArray[Any]:
        """x."""
        return x

    def backward(self, grad_y: NDArray[Any]) -> NDArray[Any]:
        """dL/dy."""
        return grad_y

    def output_shape(self, input_shape: Shape) -> Shape:
        """The same as the input's."""
        return input_shape


@contextmanager
def layer_step(
    layer: Layer, x: NDArray[np.float32], grad_y: NDArray[np.float32], workers: int
) -> Iterator[Step]:
    """Forward and backward of one layer on shards of x: gives each dL/dθ; dL/dx stays where it is."""
    shards = [slice(start, start + SHARD_SIZE) for start in range(0, len(x), SHARD_SIZE)]

    def run(replica: Replica, shard: slice) -> list[NDArray[Any]]:
        replica.model.forward(x[shard], training=True)
        replica.model.backward(grad_y[shard])
        return [parameter.grad for parameter in replica.parameters]  # type: ignore[misc]

    with Workers(Sequential([Identity(), layer]), workers) as pool:

        def step() -> list[NDArray[Any]]:
            totals, *others = pool.map(run, shards)
            for gradients in others:
                for total, gradient in zip(totals, gradients, strict=True):
                    total += gradient
            return totals

        yield step


def layer_gradient(layer: Layer, x: NDArray[np.float32], grad_y: NDArray[np.float32]) -> NDArray[np.float32]:
    """dL/dx of one layer, computed as in `layer_step`."""

    def run(replica: Replica, task: None) -> NDArray[Any]:
        replica.model.forward(x, training=True)
        return replica.model.backward(grad_y)

    with Workers(Sequential([Identity(), layer])) as pool:
        (grad_x,) = pool.map(run, [None])
    return grad_x
