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

    def function(self, x: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """1 / (1 + exp(−x)), safe for x of any size."""
        return sigmoid(x)

    def derivative(
        self, x: Float[np.ndarray, "n *shape"], y: Float[np.ndarray, "n *shape"]
    ) -> Float[np.ndarray, "n *shape"]:
        """y·(1 − y)."""
        return y * (1 - y)
