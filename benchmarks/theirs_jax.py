"""JAX's side: the same networks with the same weights, in plain jax.numpy and jax.lax, compiled (jit).

The only file that imports jax. It runs in its own process, like `benchmarks.theirs`.
"""

from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from benchmarks.ours import LEARNING_RATE
from benchmarks.timing import block
from cnn import (
    GELU,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Examples,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    MaxPool2D,
    ReLU,
    Sequential,
)
from cnn.layers.layer import Shape

Arrays = list[list[Array]]  # of each layer

_steps: dict[str, Callable[[], Any]] = {}


def names() -> list[str]:
    """The one variant that there is."""
    return [*_steps]


def run(name: str, steps: int) -> float:
    """Seconds for this many steps of what was prepared last."""
    return block(_steps[name])(steps)


def prepare_training(model: Sequential, examples: Examples) -> None:
    """Prepare forward, loss, backward and SGD's step on all of `examples`."""
    step = training(model, examples)
    _steps["jit"] = lambda: step()[-1].block_until_ready()


def training(model: Sequential, examples: Examples) -> Callable[[], list[Any]]:
    """A step of training, which returns the new weights, buffers and key, and the loss before it."""
    images, targets = jnp.asarray(examples.images), jnp.asarray(examples.targets)

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def train(weights: Arrays, buffers: Arrays, key: Array, images: Array, targets: Array) -> Any:
        key, own = jax.random.split(key)

        def loss(weights: Arrays) -> tuple[Array, Arrays]:
            outputs, updated = _forward(model, weights, buffers, images, own)
            shifted = outputs - outputs.max(axis=1, keepdims=True)
            log_sum = jnp.log(jnp.exp(shifted).sum(axis=1))
            return (log_sum - (shifted * targets).sum(axis=1)).mean(), updated

        (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
        weights = jax.tree.map(lambda weight, gradient: weight - LEARNING_RATE * gradient, weights, gradients)
        return weights, updated, key, value

    state: list[Any] = [*_arrays(model), jax.random.key(0)]

    def step() -> list[Any]:
        *state[:], value = train(*state, images, targets)
        return [*state, value]

    return step


def prepare_prediction(model: Sequential, images: NDArray[np.float32]) -> None:
    """Prepare the logits of `images`."""
    predict, arrays, x = _compiled_prediction(model), _arrays(model), jnp.asarray(images)
    _steps["jit"] = lambda: predict(*arrays, x).block_until_ready()


def logits(model: Sequential, shape: Shape, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Logits for `images`, and the number of parameters."""
    weights, buffers = _arrays(model)
    y = _compiled_prediction(model)(weights, buffers, jnp.asarray(images))
    return np.asarray(y), sum(weight.size for weight in jax.tree.leaves(weights))


def _compiled_prediction(model: Sequential) -> Callable[[Arrays, Arrays, Array], Array]:
    return jax.jit(lambda weights, buffers, x: _forward(model, weights, buffers, x, None)[0])


def _arrays(model: Sequential) -> tuple[Arrays, Arrays]:
    """Copies of each layer's parameters and buffers."""
    return (
        [[jnp.array(parameter.value) for parameter in layer.parameters().values()] for layer in model.layers],
        [[jnp.array(buffer) for buffer in layer.buffers().values()] for layer in model.layers],
    )


def _forward(
    model: Sequential, weights: Arrays, buffers: Arrays, x: Array, key: Array | None
) -> tuple[Array, Arrays]:
    """The outputs and the buffers after it; in training, `key` is the source of random numbers."""
    updated = []
    for number, (layer, own_weights, own_buffers) in enumerate(
        zip(model.layers, weights, buffers, strict=True)
    ):
        own_key = None if key is None else jax.random.fold_in(key, number)
        x, own_buffers = _layer(layer, own_weights, own_buffers, x, own_key)
        updated.append(own_buffers)
    return x, updated


def _layer(
    layer: Layer, weights: list[Array], buffers: list[Array], x: Array, key: Array | None
) -> tuple[Array, list[Array]]:
    match layer:
        case Conv2D():
            y = lax.conv_general_dilated(
                x,
                weights[0],
                layer.window.stride,
                layer.window.pads(*x.shape[1:3]),
                rhs_dilation=layer.window.dilation,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=layer.groups,
            )
            return (y if layer.bias is None else y + weights[1]), []
        case Dense():
            y = x @ weights[0]
            return (y if layer.bias is None else y + weights[1]), []
        case BatchNorm():
            (gamma, beta), (mean, variance) = weights, buffers
            if key is not None:
                mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
                both, keep = zip(buffers, (mean, variance), strict=True), layer.momentum
                buffers = [keep * running + (1 - keep) * batch for running, batch in both]
            return (x - mean) * (gamma / jnp.sqrt(variance + layer.epsilon)) + beta, buffers
        case MaxPool2D():
            size, stride = ((1, *pair, 1) for pair in (layer.window.kernel_size, layer.window.stride))
            return lax.reduce_window(x, -jnp.inf, lax.max, size, stride, "VALID"), []
        case GlobalAvgPool2D():
            return x.mean(axis=(1, 2)), []
        case Flatten():
            return x.reshape(len(x), -1), []
        case ReLU():
            return jnp.maximum(x, 0), []
        case GELU(approximate=False):
            return x * (0.5 * (1 + lax.erf(x * sqrt(0.5)))), []
        case Dropout() if type(layer) is Dropout:
            if key is None:
                return x, []
            return x * jax.random.bernoulli(key, 1 - layer.rate, x.shape) / (1 - layer.rate), []
        case _:
            raise ValueError(f"There is no JAX twin of {layer!r} yet.")
