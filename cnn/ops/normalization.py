"""Shift and scale to mean 0 and variance 1 over some axes, and how gradients go back through it.

Kept as centred numbers and the factor beside them, x̂ = centred / d, so that the factor can be joined with
another one, and there is one array less to make.
"""

from math import prod

import numpy as np
from jaxtyping import Float

from cnn.ops.reductions import dot_over_rows, sum_over_rows

Array = Float[np.ndarray, "*shape"]
Reduced = Float[np.ndarray, "*reduced"]


def normalize(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Reduced, Reduced, Reduced]:
    """(x − μ, 1/d, μ, σ²), with d = sqrt(σ² + epsilon), such that x̂ = (x − μ) / d.

    μ and σ² are mean and biased variance over `axes`, which stay as axes of length 1.
    """
    mean = _mean(x, axes)
    centred = x - mean
    variance = _mean_product(centred, centred, axes)
    return centred, 1 / np.sqrt(variance + epsilon), mean, variance


def normalize_adjoint(
    grad: Array, centred: Array, inverse_deviation: Reduced, axes: tuple[int, ...], scale: Reduced
) -> Array:
    """dL/dx = scale · (g − mean(g) − x̂ · mean(g·x̂)), with g = dL/dx̂ and scale = 1/d; means over `axes`.

    x_i moves x̂_i directly, by 1/d, and all the x̂_j through μ and d: with m numbers to a mean,
    ∂μ/∂x_i = 1/m and ∂d/∂x_i = x̂_i/m, so ∂x̂_j/∂x_i = (δ_ij − 1/m − x̂_j·x̂_i/m) / d. Summed up with g_j,
    that is the equation above. A factor of g that is the same along `axes` may stand in scale instead.
    Uses up `centred`.
    """
    projection = _mean_product(grad, centred, axes) * np.square(inverse_deviation)
    grad_x = grad - _mean(grad, axes)
    centred *= projection
    grad_x -= centred
    grad_x *= scale
    return grad_x


def _mean(x: Array, axes: tuple[int, ...]) -> Reduced:
    if axes == tuple(range(x.ndim - 1)):
        return (sum_over_rows(x) / prod(x.shape[:-1])).reshape((1,) * len(axes) + x.shape[-1:])
    return x.mean(axis=axes, keepdims=True)


def _mean_product(x: Array, y: Array, axes: tuple[int, ...]) -> Reduced:
    if axes == tuple(range(x.ndim - 1)):
        return (dot_over_rows(x, y) / prod(x.shape[:-1])).reshape((1,) * len(axes) + x.shape[-1:])
    return (x * y).mean(axis=axes, keepdims=True)
