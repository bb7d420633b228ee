"""The leaky rectifier."""

import numpy as np
from jaxtyping import Float

from cnn.checks import Fraction
from cnn.layers.elementwise import Elementwise
from cnn.registry import LAYERS


@LAYERS.register
class LeakyReLU(Elementwise):
    """Keeps what is positive, and a little of the rest: y = x where x > 0, else slope·x.

    Source: Maas, Hannun & Ng, "Rectifier nonlinearities improve neural network acoustic models" (2013).

    Args:
        slope: of the negative side.

    Raises: ValueError for another slope.
    """

    def __init__(self, slope: Fraction = 0.01) -> None:
        self.slope = slope

    def function(self, x: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """max(x, slope·x), since slope <= 1."""
        return np.maximum(x, self.slope * x)

    def derivative(
        self, x: Float[np.ndarray, "n *shape"], y: Float[np.ndarray, "n *shape"]
    ) -> Float[np.ndarray, "n *shape"]:
        """1 where x > 0, else slope; at x = 0, where there is no derivative, slope is taken."""
        return np.where(x > 0, x.dtype.type(1), x.dtype.type(self.slope))
