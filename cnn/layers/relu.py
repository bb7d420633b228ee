"""The rectifier."""

import numpy as np
from jaxtyping import Float

from cnn.layers.layer import Layer, Rng, Shape
from cnn.ops.arrays import zeros
from cnn.registry import LAYERS


@LAYERS.register
class ReLU(Layer):
    """Keeps positive numbers and sets the others to 0: y = max(x, 0).

    Not an `Elementwise`: so few steps gain nothing by blocks.
    Source: Nair & Hinton, "Rectified linear units improve restricted Boltzmann machines" (2010).
    """

    def forward(
        self, x: Float[np.ndarray, "n *shape"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *shape"]:
        """max(x, 0)."""
        y = np.maximum(x, zeros(x.shape[1:], like=x))  # two arrays: twice as fast as with a 0
        if training:
            self._save(y, y > 0)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """dL/dx = dL/dy if x > 0, else 0; also 0 at x = 0, where there is no derivative."""
        (positive,) = self._take(grad_y)
        # Cast once: NumPy converts mixed dtypes in chunks, which is slower.
        return grad_y * positive.astype(grad_y.dtype)

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input shape."""
        return input_shape
