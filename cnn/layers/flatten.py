"""From images to vectors."""

from math import prod

import numpy as np
from jaxtyping import Float

from cnn.layers.layer import Layer, Rng, Shape
from cnn.registry import LAYERS


@LAYERS.register
class Flatten(Layer):
    """Lays each example out as one vector, in row-major order: (n, h, w, c) -> (n, h·w·c)."""

    def forward(
        self, x: Float[np.ndarray, "n *shape"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n features"]:
        """The same numbers in one row for each example."""
        y = x.reshape(len(x), prod(x.shape[1:]))
        if training:
            self._save(y, x.shape)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "n *shape"]:
        """dL/dx: each number returns to its place in x."""
        (shape,) = self._take(grad_y)
        return grad_y.reshape(shape)

    def output_shape(self, input_shape: Shape) -> Shape:
        """(features,), the product of the input's axes."""
        return (prod(input_shape),)
