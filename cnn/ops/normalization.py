"""Normalisation to mean 0 and variance 1 over some axes, and its adjoint.

`normalize` returns x − μ and 1/d separately, so that callers can fold 1/d into another factor, which saves
an array.
"""

from math import prod

import numpy as np
from jaxtyping import Float

from cnn.ops.reductions import dot_over_rows, repeat_for_pixels, sum_over_rows

Array = Float[np.ndarray, "*shape"]
Reduced = Float[np.ndarray, "*reduced"]


def normalize(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Reduced, Reduced, Reduced]:
    """(x − μ, 1/d, μ, σ²), with d = sqrt(σ² + epsilon), so that x̂ = (x − μ) / d.

    μ and σ² are the mean and biased variance over `axes`, which are kept as axes of length 1.
    """
    count = prod(x.shape[axis] for axis in axes)
    mean = _sum(x, axes) / count
    centred = x - _spread(mean, x, axes)
    variance = _sum_product(centred, centred, axes) / count
    return centred, 1 / np.sqrt(variance + epsilon), mean, variance


def normalize_adjoint(
    grad: Array, centred: Array, inverse_deviation: Reduced, axes: tuple[int, ...], scale: Reduced
) -> tuple[Array, Reduced, Reduced]:
    """(dL/dx, Σ g, Σ g·x̂), sums over `axes`, with g = dL/dx̂, scale = 1/d and m numbers per mean, where

        dL/dx = scale · (g − Σ g / m − x̂ · Σ g·x̂ / m)

    x_i affects x̂_i directly, by 1/d, and all x̂_j through μ and d: ∂μ/∂x_i = 1/m and ∂d/∂x_i = x̂_i/m, so
    ∂x̂_j/∂x_i = (δ_ij − 1/m − x̂_j·x̂_i/m) / d. Summed over j with g_j, this gives the equation above. A factor
    of g that is constant along `axes` may be moved into `scale`. Overwrites `centred`.
    """
    count = prod(grad.shape[axis] for axis in axes)
    total = _sum(grad, axes)
    projection = _sum_product(grad, centred, axes) * inverse_deviation
    grad_x = grad - _spread(total / count, grad, axes)
    centred *= _spread(projection * inverse_deviation / count, grad, axes)
    grad_x -= centred
    grad_x *= _spread(scale, grad, axes)
    return grad_x, total, projection


def _sum(x: Array, axes: tuple[int, ...]) -> Reduced:
    if _are_all_but_last(axes, x):
        return sum_over_rows(x).reshape((1,) * len(axes) + x.shape[-1:])
    return x.sum(axis=axes, keepdims=True)


def _sum_product(x: Array, y: Array, axes: tuple[int, ...]) -> Reduced:
    if _are_all_but_last(axes, x):
        return dot_over_rows(x, y).reshape((1,) * len(axes) + x.shape[-1:])
    return (x * y).sum(axis=axes, keepdims=True)


def _spread(values: Reduced, x: Array, axes: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """`values` in a form that broadcasts fast with x."""
    return repeat_for_pixels(values.reshape(-1), x.shape[1:]) if _are_all_but_last(axes, x) else values


def _are_all_but_last(axes: tuple[int, ...], x: Array) -> bool:
    return axes == tuple(range(x.ndim - 1))
