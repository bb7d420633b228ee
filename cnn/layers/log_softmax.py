"""The logarithm of softmax as a layer."""

import numpy as np
from jaxtyping import Float

from cnn.layers.layer import Layer, Rng, Shape
from cnn.ops.softmax import log_softmax
from cnn.registry import LAYERS


@LAYERS.register
class LogSoftmax(Layer):
    """Turns numbers into logarithms of probabilities along the last axis: y_i = x_i − log Σ_j exp(x_j).

    Source: Goodfellow, Bengio & Courville, "Deep Learning" (2016), equation 6.30.
    """

    def forward(
        self, x: Float[np.ndarray, "n *shape k"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *shape k"]:
        """x_i − log Σ_j exp(x_j), safe for x of any size."""
        y = log_softmax(x)
        if training:
            self._save(y, np.exp(y))
        return y

    def backward(self, grad_y: Float[np.ndarray, "n *shape k"]) -> Float[np.ndarray, "n *shape k"]:
        """dL/dx_i = dL/dy_i − p_i · Σ_j dL/dy_j, with p = exp(y), since ∂y_j/∂x_i = δ_ij − p_i."""
        (p,) = self._take(grad_y)
        return grad_y - p * grad_y.sum(axis=-1, keepdims=True)

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input shape."""
        return input_shape
