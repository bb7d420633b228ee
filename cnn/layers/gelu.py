"""The Gaussian error linear unit."""

from math import pi, sqrt

import numpy as np
from jaxtyping import Float

from cnn.layers.elementwise import Elementwise
from cnn.ops.erf import erf
from cnn.registry import LAYERS


@LAYERS.register
class GELU(Elementwise):
    """A smooth rectifier that weights x by the fraction of normal numbers below it: y = x·Φ(x).

        Φ(x) = ½·(1 + erf(x / √2)), or, with approximate, ½·(1 + tanh(√(2/π)·(x + 0.044715·x³)))

    Source: Hendrycks & Gimpel, "Gaussian error linear units" (2016), section 2.

    Args:
        approximate: whether to use tanh, which is faster and differs by less than 0.001.
    """

    def __init__(self, *, approximate: bool = False) -> None:
        self.approximate = approximate

    def function(self, x: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """x·Φ(x)."""
        if self.approximate:
            return x * (0.5 * (1 + np.tanh(_cubic(x))))
        return x * (0.5 * (1 + erf(x * sqrt(0.5))))

    def derivative(
        self, x: Float[np.ndarray, "n *shape"], y: Float[np.ndarray, "n *shape"]
    ) -> Float[np.ndarray, "n *shape"]:
        """Φ(x) + x·Φ'(x), with Φ'(x) = exp(−x²/2) / √(2π), or that of the approximation."""
        if self.approximate:
            t = np.tanh(_cubic(x))
            slope = sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x)
            return 0.5 * (1 + t) + x * (0.5 * (1 - t * t) * slope)
        density = np.exp(-0.5 * x * x) * (1 / sqrt(2 * pi))
        return 0.5 * (1 + erf(x * sqrt(0.5))) + x * density


def _cubic(x: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
    return sqrt(2 / pi) * (x + 0.044715 * x * x * x)
