"""The logistic sigmoid, safe for numbers of any size."""

import numpy as np
from jaxtyping import Float


def sigmoid(
    x: Float[np.ndarray, "*n"], out: Float[np.ndarray, "*n"] | None = None
) -> Float[np.ndarray, "*n"]:
    """σ(x) = 1 / (1 + exp(−x)), in `out` if given. If exp overflows to ∞, it is 0, as it should be."""
    e = np.negative(x, out=out)
    with np.errstate(over="ignore"):
        np.exp(e, out=e)
    e += 1
    return np.divide(1, e, out=e)
