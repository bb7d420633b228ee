"""Shift and scale to mean 0 and variance 1 over some axes, and how gradients go back through it."""

import numpy as np
from jaxtyping import Float


def normalize(
    x: Float[np.ndarray, "*shape"], axes: tuple[int, ...], epsilon: float
) -> tuple[
    Float[np.ndarray, "*shape"],
    Float[np.ndarray, "*reduced"],
    Float[np.ndarray, "*reduced"],
    Float[np.ndarray, "*reduced"],
]:
    """(x̂, 1/d, μ, σ²), with x̂ = (x − μ) / d and d = sqrt(σ² + epsilon).

    μ and σ² are mean and biased variance over `axes`, which stay as axes of length 1.
    """
    mean = x.mean(axis=axes, keepdims=True)
    centered = x - mean
    variance = np.square(centered).mean(axis=axes, keepdims=True)
    inverse_deviation = 1 / np.sqrt(variance + epsilon)
    centered *= inverse_deviation
    return centered, inverse_deviation, mean, variance


def normalize_adjoint(
    grad: Float[np.ndarray, "*shape"],
    normalized: Float[np.ndarray, "*shape"],
    inverse_deviation: Float[np.ndarray, "*reduced"],
    axes: tuple[int, ...],
) -> Float[np.ndarray, "*shape"]:
    """dL/dx = (g − mean(g) − x̂ · mean(g·x̂)) / d, from g = dL/dx̂; means over `axes`.

    x_i moves x̂_i directly, by 1/d, and all the x̂_j through μ and d: with m numbers to a mean,
    ∂μ/∂x_i = 1/m and ∂d/∂x_i = x̂_i/m, so ∂x̂_j/∂x_i = (δ_ij − 1/m − x̂_j·x̂_i/m) / d. Summed up with g_j,
    that is the equation above.
    """
    mean = grad.mean(axis=axes, keepdims=True)
    projection = (grad * normalized).mean(axis=axes, keepdims=True)
    return inverse_deviation * (grad - mean - normalized * projection)
