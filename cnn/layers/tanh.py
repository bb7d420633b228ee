"""The hyperbolic tangent."""

import numpy as np
from jaxtyping import Float

from cnn.layers.elementwise import Elementwise
from cnn.registry import LAYERS


@LAYERS.register
class Tanh(Elementwise):
    """Squeezes numbers into (−1, 1): y = (exp(x) − exp(−x)) / (exp(x) + exp(−x)).

    Source: LeCun et al., "Efficient BackProp" (1998), section 4.4.
    """

    def function(self, x: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """tanh x."""
        return np.tanh(x)

    def derivative(
        self, x: Float[np.ndarray, "n *shape"], y: Float[np.ndarray, "n *shape"]
    ) -> Float[np.ndarray, "n *shape"]:
        """1 − y²."""
        return 1 - y * y
