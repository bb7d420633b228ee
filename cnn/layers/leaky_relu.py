"""The leaky rectifier."""

import numpy as np
from jaxtyping import Float

from cnn.checks import Fraction
from cnn.layers.elementwise import Elementwise
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

    def function(self, x: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """max(x, slope·x), since slope <= 1."""
        return np.maximum(x, self.slope * x)

    def derivative(
        self, x: Float[np.ndarray, "n *shape"], y: Float[np.ndarray, "n *shape"]
    ) -> Float[np.ndarray, "n *shape"]:
        """1 if x > 0, else slope; also slope at x = 0, where there is no derivative."""
        return np.where(x > 0, x.dtype.type(1), x.dtype.type(self.slope))
