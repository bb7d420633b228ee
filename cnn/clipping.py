"""Gradient clipping, between `backward` and the optimiser's step.

A clipped gradient is a new array, assigned to the parameter's `grad`; existing arrays are not changed.
"""

from collections.abc import Mapping
from math import isfinite, sqrt

import numpy as np

from cnn.checks import Positive, checked
from cnn.optimizers import collect_gradients
from cnn.parameter import Parameter


def gradient_squares(parameters: Mapping[str, Parameter]) -> dict[str, float]:
    """Σ_i (dL/dθ_i)² of each parameter θ; RuntimeError if a parameter has no gradient.

    Computed in the gradient's own precision, or in float64 if that overflows.
    """
    squares = {}
    for name, gradient in collect_gradients(parameters, before="gradient_squares").items():
        flat = gradient.ravel()
        with np.errstate(over="ignore", invalid="ignore"):
            square = float(flat @ flat)
            if not isfinite(square):
                square = float(np.square(flat, dtype=np.float64).sum())
        squares[name] = square
    return squares


@checked
def clip_by_norm(
    parameters: Mapping[str, Parameter], max_norm: Positive, squares: Mapping[str, float] | None = None
) -> float:
    """Scale the gradients of all parameters, taken as one vector, down to length `max_norm`.

        norm = sqrt(Σ_θ Σ_i (dL/dθ_i)²)
        dL/dθ = dL/dθ · max_norm / norm       for every θ, if norm > max_norm

    If the norm is not finite, nothing is changed: no factor could repair the gradient.

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks" (2013),
    algorithm 1.

    Args:
        parameters: as returned by `Sequential.parameters()`.
        max_norm: the maximum length.
        squares: the result of `gradient_squares`, if it is known already.

    Returns: the norm before clipping.
    Raises: ValueError if `max_norm` is out of its range; RuntimeError if a parameter has no gradient.
    """
    gradients = collect_gradients(parameters, before="clip_by_norm")
    norm = sqrt(sum((gradient_squares(parameters) if squares is None else squares).values()))
    if isfinite(norm) and norm > max_norm:
        for name, gradient in gradients.items():
            parameters[name].grad = gradient * (max_norm / norm)
    return norm


@checked
def clip_by_value(parameters: Mapping[str, Parameter], limit: Positive) -> None:
    """Clip each entry of each gradient to [−limit, limit]; this may change the gradient's direction.

        dL/dθ_i = min(max(dL/dθ_i, −limit), limit)

    NaN stays NaN.

    Args:
        parameters: as returned by `Sequential.parameters()`.
        limit: the maximum magnitude.

    Raises: ValueError if `limit` is out of its range; RuntimeError if a parameter has no gradient.
    """
    for name, gradient in collect_gradients(parameters, before="clip_by_value").items():
        parameters[name].grad = np.clip(gradient, -limit, limit)
