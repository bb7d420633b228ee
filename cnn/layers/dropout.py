"""Dropout."""

import copy

import numpy as np
from jaxtyping import Float

from cnn.checks import Kept
from cnn.layers.layer import Layer, Rng, Shape
from cnn.ops.arrays import place
from cnn.registry import LAYERS


@LAYERS.register
class Dropout(Layer):
    """Sets random numbers to zero in training, so that the network cannot rely on any one of them.

        y = x · m / (1 − rate),    m = 0 with probability rate, else 1, drawn for each number

    The division keeps the mean; in evaluation y = x.
    Source: Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, "Dropout" (2014), section 4, with the
    scale in training instead of evaluation.

    Args:
        rate: the fraction of numbers that become zero.

    Raises: ValueError if rate is out of its range, or for a training forward without `rng`.
    """

    def __init__(self, rate: Kept) -> None:
        self.rate = rate

    def forward(
        self, x: Float[np.ndarray, "n *shape"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *shape"]:
        """x in evaluation; x · m / (1 − rate), with m drawn from `rng`, in training."""
        if not training:
            return x
        if rng is None:
            raise ValueError(
                f"{self!r} needs random numbers in training: call forward(x, training=True, rng=…)."
            )
        kept = rng.random(self._mask_shape(x.shape), dtype=np.float32) >= self.rate
        scale = place(kept * x.dtype.type(1 / (1 - self.rate)), like=x)
        y = x * scale
        self._save(y, scale)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n *shape"]) -> Float[np.ndarray, "n *shape"]:
        """dL/dx = dL/dy · m / (1 − rate): for the m that was drawn, y is linear in x."""
        (scale,) = self._take(grad_y)
        return grad_y * scale

    def as_evaluated(self) -> "Dropout":
        """With rate 0, y = x."""
        copied = copy.copy(self)
        copied.rate = 0.0
        return copied

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input shape."""
        return input_shape

    def _mask_shape(self, shape: Shape) -> Shape:
        """One draw for each number."""
        return shape
