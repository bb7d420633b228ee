"""The residual connection."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from cnn.layers.layer import Layer, Rng, Shape
from cnn.layers.sequential import Sequential
from cnn.registry import LAYERS


@LAYERS.register
class Residual(Layer):
    """Layers that learn what to add to their input: y = layers(x) + shortcut(x).

    The gradient reaches x through the sum undiminished, however deep the network is.
    Source: He, Zhang, Ren & Sun, "Deep residual learning for image recognition" (2016), equations 1 and 2.

    Args:
        layers: the residual branch, first to last; must keep the shape, or change it as the shortcut does.
        shortcut: the layers of the other branch, such as a 1x1 convolution; None is the identity.

    Raises: ValueError if the branches' shapes differ.
    """

    def __init__(self, layers: Sequence[Layer], shortcut: Sequence[Layer] | None = None) -> None:
        self.layers = Sequential(layers)
        self.shortcut = None if shortcut is None else Sequential(shortcut)

    def forward(
        self, x: Float[np.ndarray, "n *shape"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *out"]:
        """layers(x) + shortcut(x)."""
        self.output_shape(x.shape[1:])
        y = self.layers.forward(x, training=training, rng=rng)
        return y + (x if self.shortcut is None else self.shortcut.forward(x, training=training, rng=rng))

    def backward(self, grad_y: Float[np.ndarray, "n *out"]) -> Float[np.ndarray, "n *shape"]:
        """dL/dx: y is a sum, so each branch receives dL/dy, and x the sum of what the branches return."""
        grad_x = self.layers.backward(grad_y)
        return grad_x + (grad_y if self.shortcut is None else self.shortcut.backward(grad_y))

    def output_shape(self, input_shape: Shape) -> Shape:
        """The output shape of both branches."""
        shape = self.layers.output_shape(input_shape)
        other = input_shape if self.shortcut is None else self.shortcut.output_shape(input_shape)
        if shape != other:
            raise ValueError(
                f"The two branches of a Residual are added, so they must have the same shape; for an input "
                f"of {input_shape}, layers give {shape} and the shortcut {other}. "
                "A shortcut with a 1x1 Conv2D can change channels and, by its stride, the size."
            )
        return shape
