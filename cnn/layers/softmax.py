"""Softmax as a layer."""

import numpy as np
from jaxtyping import Float

from cnn.layers.layer import Layer, Rng, Shape
from cnn.ops.softmax import softmax, softmax_adjoint
from cnn.registry import LAYERS


@LAYERS.register
class Softmax(Layer):
    """Turns numbers into probabilities along the last axis: y_i = exp(x_i) / Σ_j exp(x_j).

    Not needed before `softmax_cross_entropy`, which contains it.
    Source: Bridle, "Probabilistic interpretation of feedforward classification network outputs" (1990).
    """

    def forward(
        self, x: Float[np.ndarray, "n *shape k"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *shape k"]:
        """exp(x_i) / Σ_j exp(x_j)."""
        y = softmax(x)
        if training:
            self._save(y, y)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n *shape k"]) -> Float[np.ndarray, "n *shape k"]:
        """dL/dx_i = y_i · (dL/dy_i − Σ_j dL/dy_j · y_j), since ∂y_j/∂x_i = y_j·(δ_ij − y_i)."""
        (y,) = self._take(grad_y)
        return softmax_adjoint(grad_y, y)

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input shape."""
        return input_shape
