"""The rectifier."""

import numpy as np
from jaxtyping import Float

from cnn.layers.layer import Layer, Shape


class ReLU(Layer):
    """Keeps what is positive: y = max(x, 0), element by element.

    Source: Nair & Hinton, "Rectified linear units improve restricted Boltzmann machines" (2010).
    """

    def forward(
        self, x: Float[np.ndarray, "n *shape"], training: bool = True
    ) -> Float[np.ndarray, "n *shape"]:
        """max(x, 0)."""
        y = np.maximum(x, 0)
        if training:
            self._save(y, y > 0)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """dL/dx = dL/dy where x > 0, else 0. At x = 0, where there is no derivative, 0 is taken."""
        (positive,) = self._take(grad_y)
        return grad_y * positive

    def output_shape(self, input_shape: Shape) -> Shape:
        """The same as the input's."""
        return input_shape
