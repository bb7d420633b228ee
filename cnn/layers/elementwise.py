"""The base of activations, which act on each number separately."""

from abc import abstractmethod

import numpy as np
from jaxtyping import Bool, Float

from cnn.layers.layer import Layer, Rng, Shape


class Elementwise(Layer):
    """y = f(x), number by number, so that dL/dx = dL/dy · f'(x). A subclass defines f and f'."""

    @abstractmethod
    def function(self, x: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """f(x)."""

    @abstractmethod
    def derivative(
        self, x: Float[np.ndarray, "n *shape"], y: Float[np.ndarray, "n *shape"]
    ) -> Float[np.ndarray, "n *shape"] | Bool[np.ndarray, "n *shape"]:
        """f'(x), from x or from y = f(x), whichever is simpler."""

    def forward(
        self, x: Float[np.ndarray, "n *shape"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *shape"]:
        """f(x)."""
        y = self.function(x)
        if training:
            self._save(y, self.derivative(x, y))
        return y

    def backward(self, grad_y: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """dL/dx = dL/dy · f'(x): the chain rule, since each output depends on one input only."""
        (derivative,) = self._take(grad_y)
        # Cast once: NumPy converts mixed dtypes in chunks, which is slower.
        return grad_y * derivative.astype(grad_y.dtype, copy=False)

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input shape."""
        return input_shape
