"""Layer normalisation."""

from typing import Annotated

import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike

from cnn.checks import Count, Given, Positive
from cnn.layers.checks import check_channels
from cnn.layers.layer import Layer, Rng, Shape
from cnn.ops.normalization import normalize, normalize_adjoint
from cnn.ops.reductions import dot_over_rows, sum_over_rows
from cnn.parameter import Parameter
from cnn.registry import LAYERS


@LAYERS.register
class LayerNorm(Layer):
    """Normalises the channels of each pixel or vector to mean 0 and variance 1, then scales and shifts them.

        y = gamma · (x − μ) / sqrt(σ² + epsilon) + beta

    μ and σ² are the mean and biased variance over the last axis, so that examples do not affect one another,
    and training and evaluation are the same.
    Source: Ba, Kiros & Hinton, "Layer normalization" (2016), equation 4.

    Args:
        channels: the length of the last axis.
        epsilon: added to the variance, which keeps the root away from 0.
        dtype: the dtype of the parameters.

    Parameters: gamma (channels,), initially 1, and beta (channels,), initially 0.
    Raises: ValueError if an argument is invalid, or if x has another number of channels.
    """

    def __init__(
        self,
        channels: Annotated[Count, Given],
        *,
        epsilon: Positive = 1e-5,
        dtype: Annotated[DTypeLike, Given] = np.float32,
    ) -> None:
        self.channels = channels
        self.epsilon = epsilon
        self.gamma = Parameter(np.ones(channels, dtype), "gamma")
        self.beta = Parameter(np.zeros(channels, dtype), "beta")

    def forward(
        self, x: Float[np.ndarray, "n *shape c"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *shape c"]:
        """The equation above."""
        self.output_shape(x.shape[1:])
        normalized, inverse_deviation = normalize(x, self.epsilon)
        y = normalized * self.gamma.value
        y += self.beta.value
        if training:
            self._save(y, normalized, inverse_deviation)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n *shape c"]) -> Float[np.ndarray, "n *shape c"]:
        """With x̂ = (x − μ) / sqrt(σ² + epsilon): dL/dgamma = Σ dL/dy·x̂ and dL/dbeta = Σ dL/dy over pixels.

        dL/dx̂ = dL/dy·gamma. From x̂ to x, gradients also pass through μ and σ²: see `normalize_adjoint`.
        """
        normalized, inverse_deviation = self._take(grad_y)
        self.gamma.grad = dot_over_rows(grad_y, normalized)
        self.beta.grad = sum_over_rows(grad_y)
        return normalize_adjoint(grad_y * self.gamma.value, normalized, inverse_deviation)

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input shape."""
        return check_channels(self, input_shape, self.channels)
