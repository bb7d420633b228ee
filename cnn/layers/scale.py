"""Multiplication by a constant."""

import numpy as np
from jaxtyping import Float

from cnn.checks import Positive
from cnn.layers.layer import Layer, Rng, Shape
from cnn.registry import LAYERS


@LAYERS.register
class Scale(Layer):
    """Multiplies each number by a constant: y = factor · x.

    As the last layer it makes logits smaller, and softmax softer. A small factor is a small rate for all
    layers before it at first, while the probabilities are still nearly equal.
    Source: Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network" (2015), section 2, where
    1 / factor is the temperature.

    Args:
        factor: the constant.

    Raises: ValueError unless factor is finite and > 0.
    """

    def __init__(self, factor: Positive) -> None:
        self.factor = factor

    def forward(
        self, x: Float[np.ndarray, "n *shape"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *shape"]:
        """factor · x."""
        y = self.factor * x
        if training:
            self._save(y)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """dL/dx = factor · dL/dy."""
        self._take(grad_y)
        return self.factor * grad_y

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input shape."""
        return input_shape
