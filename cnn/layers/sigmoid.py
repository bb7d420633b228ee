"""The logistic sigmoid."""

import numpy as np
from jaxtyping import Float

from cnn.layers.elementwise import Elementwise
from cnn.ops.sigmoid import sigmoid
from cnn.registry import LAYERS


@LAYERS.register
class Sigmoid(Elementwise):
    """Squeezes numbers into (0, 1): y = 1 / (1 + exp(−x)).

    Source: Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors" (1986),
    equation 2.
    """

    def function(self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> None:
        """1 / (1 + exp(−x)), safe for x of any size."""
        sigmoid(x, out=y)

    def function_and_derivative(
        self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """y·(1 − y)."""
        self.function(x, y)
        derivative = 1 - y
        derivative *= y
        return derivative
