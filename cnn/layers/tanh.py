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

    def function(self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> None:
        """tanh x."""
        np.tanh(x, out=y)

    def function_and_derivative(
        self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """1 − y²."""
        self.function(x, y)
        square = y * y
        return np.subtract(1, square, out=square)
