"""The sigmoid-weighted linear unit."""

import numpy as np
from jaxtyping import Float

from cnn.layers.elementwise import Elementwise
from cnn.ops.sigmoid import sigmoid
from cnn.registry import LAYERS


@LAYERS.register
class SiLU(Elementwise):
    """A smooth rectifier, also called swish: y = x·σ(x), σ(x) = 1 / (1 + exp(−x)).

    Source: Elfwing, Uchibe & Doya, "Sigmoid-weighted linear units for neural network function approximation
    in reinforcement learning" (2018), equation 5.
    """

    def function(self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> None:
        """x·σ(x)."""
        np.multiply(x, sigmoid(x), out=y)

    def function_and_derivative(
        self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """σ(x) + x·σ(x)·(1 − σ(x)) = σ(x) + y·(1 − σ(x)), since σ' = σ·(1 − σ)."""
        s = sigmoid(x)
        np.multiply(x, s, out=y)
        slope = 1 - s
        slope *= y
        slope += s
        return slope
