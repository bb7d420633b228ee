"""The exponential linear unit."""

import numpy as np
from jaxtyping import Float

from cnn.checks import NotNegative
from cnn.layers.elementwise import Elementwise
from cnn.registry import LAYERS


@LAYERS.register
class ELU(Elementwise):
    """A rectifier that saturates smoothly: y = x if x > 0, else alpha·(exp(x) − 1).

    Source: Clevert, Unterthiner & Hochreiter, "Fast and accurate deep network learning by exponential
    linear units" (2016), equation 15.

    Args:
        alpha: the negative side saturates at −alpha.

    Raises: ValueError if alpha is out of its range.
    """

    def __init__(self, alpha: NotNegative = 1.0) -> None:
        self.alpha = alpha

    def function(self, x: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """x if x > 0, else alpha·(exp(x) − 1)."""
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))

    def derivative(
        self, x: Float[np.ndarray, "n *shape"], y: Float[np.ndarray, "n *shape"]
    ) -> Float[np.ndarray, "n *shape"]:
        """1 if x > 0, else alpha·exp(x) = y + alpha."""
        return np.where(x > 0, x.dtype.type(1), y + self.alpha)
