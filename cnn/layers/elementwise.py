"""The base of activations, which act on each number separately."""

from abc import abstractmethod

import numpy as np
from jaxtyping import Float

from cnn.layers.layer import Layer, Rng, Shape
from cnn.ops.arrays import empty
from cnn.ops.blocks import blocks


class Elementwise(Layer):
    """y = f(x), number by number, so that dL/dx = dL/dy · f'(x). A subclass defines f, and f with f'.

    They receive x in blocks that stay in the cache, and write into the same block of y.
    """

    @abstractmethod
    def function(self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> None:
        """Write f(x) into y, in evaluation."""

    @abstractmethod
    def function_and_derivative(
        self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Write f(x) into y, the same bits as `function`, and return f'(x), in training."""

    def forward(
        self, x: Float[np.ndarray, "n *shape"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *shape"]:
        """f(x)."""
        y = empty(x.shape, like=x)
        flat_x, flat_y = x.reshape(-1), y.reshape(-1)
        compute = self.function_and_derivative if training else self.function
        derivatives = [compute(flat_x[block], flat_y[block]) for block in blocks(flat_x)]
        if training:
            self._save(y, derivatives)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """dL/dx = dL/dy · f'(x): the chain rule, since each output depends on one input only."""
        (derivatives,) = self._take(grad_y)
        grad_x = empty(grad_y.shape, like=grad_y)
        flat_y, flat_x = grad_y.reshape(-1), grad_x.reshape(-1)
        for block, derivative in zip(blocks(flat_x), derivatives, strict=True):
            np.multiply(flat_y[block], derivative, out=flat_x[block])
        return grad_x

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input shape."""
        return input_shape
