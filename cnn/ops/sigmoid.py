"""The logistic sigmoid, safe for numbers of any size."""

import numpy as np
from jaxtyping import Float


def sigmoid(x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """σ(x) = 1 / (1 + exp(−x)), or, if x < 0, exp(x) / (1 + exp(x)), so that exp never overflows."""
    e = np.exp(-np.abs(x))  # in (0, 1]
    return np.where(x >= 0, x.dtype.type(1), e) / (1 + e)
