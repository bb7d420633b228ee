"""Compares analytic gradients with numeric ones: the test of every backward pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.layers.layer import Layer
from cnn.ops.arrays import place, to_host


def gradient_check(
    layer: Layer, x: NDArray[np.float64], *, rng: np.random.Generator, step: float = 1e-5
) -> dict[str, float]:
    """Return the relative error of each gradient that `layer.backward` computes, by name ("x": the input's).

    A random v reduces the output to a scalar, L = Σ v·y, so that dL/dy = v. Then, for x and each parameter θ,

        error = max |analytic − numeric| / max |numeric|        numeric: `numeric_gradient` of L

    In float64, a correct gradient has an error below 1e-7, and a wrong one an error of the order of 1. If a
    layer has kinks (ReLU, max pooling), its inputs must be several steps away from them. Random layers draw
    the same numbers each time.

    Args:
        layer: any layer or model with float64 parameters; its state is restored at the end.
        x: one float64 batch for the layer.
        rng: the source of v.
        step: the ε of the difference quotient.

    Raises: ValueError if x or a parameter is not float64.
    """
    parameters = layer.parameters()
    for name, array in {"x": x, **{n: p.value for n, p in parameters.items()}}.items():
        if array.dtype != np.float64:
            raise ValueError(f"A gradient check needs float64 throughout; {name} is {array.dtype}.")
    before, seed = layer.state_dict(), int(rng.integers(2**32))

    def forward() -> NDArray[np.float64]:
        return layer.forward(x, training=True, rng=np.random.default_rng(seed))

    v = place(rng.standard_normal(forward().shape), like=x)
    analytic: dict[str, NDArray[Any] | None] = {"x": layer.backward(v)}
    analytic |= {name: parameter.grad for name, parameter in parameters.items()}
    x = x.copy()  # numeric_gradient changes each element in place and restores it

    def loss() -> float:
        return float((forward() * v).sum())

    numeric = {"x": numeric_gradient(loss, x, step)}
    numeric |= {name: numeric_gradient(loss, p.value, step) for name, p in parameters.items()}
    forward()
    layer.backward(v)  # frees what the forward passes saved
    layer.load_state_dict(before)
    return {name: relative_error(analytic[name], numeric[name]) for name in numeric}


def numeric_gradient(
    f: Callable[[], float], array: NDArray[np.float64], step: float = 1e-5
) -> NDArray[np.float64]:
    """df/d(array) by central differences, (f(a + ε) − f(a − ε)) / 2ε, for each element a of `array`.

    `f` takes no argument: it reads `array`, which is changed in place and restored. The error is O(ε²).
    """
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        original = float(array[index])
        array[index] = original + step
        above = f()
        array[index] = original - step
        below = f()
        array[index] = original
        gradient[index] = (above - below) / (2 * step)
    return gradient


def relative_error(actual: NDArray[Any] | None, expected: NDArray[Any]) -> float:
    """max |actual − expected| / max |expected|; infinite if `actual` is None or has another shape."""
    if actual is None or actual.shape != expected.shape:
        return float("inf")
    actual, expected = to_host(actual), to_host(expected)
    difference = np.abs(actual - expected).max(initial=0.0)
    scale = np.abs(expected).max(initial=0.0)
    return float(difference / scale) if scale else float(difference)
