"""Softmax over the last axis, its logarithm, and its adjoint, safe for logits of any size."""

import numpy as np
from jaxtyping import Float


def log_softmax(z: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n k"]:
    """log p_i = z_i − m − log Σ_j exp(z_j − m), with m = max z.

    Subtracting m changes nothing in exact arithmetic, and leaves no exponential larger than 1.
    """
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(z: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n k"]:
    """p_i = exp(z_i) / Σ_j exp(z_j)."""
    return np.exp(log_softmax(z))


def softmax_adjoint(
    grad_p: Float[np.ndarray, "*n k"], p: Float[np.ndarray, "*n k"]
) -> Float[np.ndarray, "*n k"]:
    """dL/dz_i = p_i · (dL/dp_i − Σ_j dL/dp_j · p_j), since ∂p_j/∂z_i = p_j·(δ_ij − p_i)."""
    return p * (grad_p - (grad_p * p).sum(axis=-1, keepdims=True))
