"""The residual connection."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from cnn.layers.layer import Layer, Shape
from cnn.layers.sequential import Sequential


class Residual(Layer):
    """Layers that learn what to add to their input: y = layers(x) + shortcut(x).

    The gradient reaches x through the sum undiminished, however deep the network is.
    Source: He, Zhang, Ren & Sun, "Deep residual learning for image recognition" (2016), equations 1 and 2.

    Args:
        layers: the residual branch, first to last; must keep the shape, or change it as the shortcut does.
        shortcut: the layers of the other branch, say a 1x1 convolution; None is the identity.

    Raises: ValueError where the branches' shapes differ.
    """

    def __init__(self, layers: Sequence[Layer], shortcut: Sequence[Layer] | None = None) -> None:
        self._branches = {"layers": Sequential(layers), "shortcut": Sequential(shortcut or [])}

    @property
    def layers(self) -> list[Layer]:
        """The layers of the residual branch."""
        return self._branches["layers"].layers

    @property
    def shortcut(self) -> list[Layer] | None:
        """The layers of the shortcut; None for the identity."""
        return self._branches["shortcut"].layers or None

    def forward(
        self,
        x: Float[np.ndarray, "n *shape"],
        training: bool = True,
        rng: np.random.Generator | None = None,
    ) -> Float[np.ndarray, "n *out"]:
        """layers(x) + shortcut(x)."""
        self.output_shape(x.shape[1:])
        layers, shortcut = self._branches.values()
        return layers.forward(x, training, rng) + shortcut.forward(x, training, rng)

    def backward(self, grad_y: Float[np.ndarray, "n *out"]) -> Float[np.ndarray, "n *shape"]:
        """dL/dx: y is a sum, so each branch receives dL/dy, and x the sum of what they give back."""
        layers, shortcut = self._branches.values()
        return layers.backward(grad_y) + shortcut.backward(grad_y)

    def output_shape(self, input_shape: Shape) -> Shape:
        """That of both branches."""
        shape, other = (branch.output_shape(input_shape) for branch in self._branches.values())
        if shape != other:
            raise ValueError(
                f"The two branches of a Residual are added, so they must give one shape; for an input of "
                f"{input_shape}, layers give {shape} and the shortcut {other}. "
                "A shortcut with a 1x1 Conv2D can change channels and, by its stride, the size."
            )
        return shape

    def children(self) -> dict[str, Layer]:
        """layers and shortcut."""
        return dict(self._branches)

    def walk(self, input_shape: Shape) -> Iterator[tuple[str, Layer, Shape]]:
        """The layers of the residual branch, then those of the shortcut."""
        for branch, layers in self._branches.items():
            for name, layer, shape in layers.walk(input_shape):
                yield f"{branch}.{name}", layer, shape
