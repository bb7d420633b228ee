"""The leaky rectifier."""

import numpy as np
from jaxtyping import Float

from cnn.checks import Fraction
from cnn.layers.elementwise import Elementwise
from cnn.ops.arrays import full
from cnn.registry import LAYERS


@LAYERS.register
class LeakyReLU(Elementwise):
    """Keeps positive numbers and scales down the others: y = x if x > 0, else slope·x.

    Source: Maas, Hannun & Ng, "Rectifier nonlinearities improve neural network acoustic models" (2013).

    Args:
        slope: the slope of the negative side.

    Raises: ValueError if slope is out of its range.
    """

    def __init__(self, slope: Fraction = 0.01) -> None:
        self.slope = slope

    def function(self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> None:
        """max(x, slope·x), since slope <= 1."""
        np.maximum(x, self.slope * x, out=y)

    def function_and_derivative(
        self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """1 if x > 0, else slope; also slope at x = 0, where there is no derivative."""
        self.function(x, y)
        slopes = (x > 0).astype(x.dtype)
        return np.maximum(slopes, full(x.shape, self.slope, like=x), out=slopes)
