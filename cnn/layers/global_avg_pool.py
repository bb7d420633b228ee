"""The mean of each channel."""

import numpy as np
from jaxtyping import Float

from cnn.layers.checks import check_image_shape
from cnn.layers.layer import Layer, Rng, Shape
from cnn.registry import LAYERS


@LAYERS.register
class GlobalAvgPool2D(Layer):
    """Replaces each channel by its mean, which turns an image into a vector.

        y[n, c] = 1/(h·w) · Σ_{p, q} x[n, p, q, c]

    Source: Lin, Chen & Yan, "Network in network" (2014), section 3.2.
    """

    def forward(
        self, x: Float[np.ndarray, "n h w c"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n c"]:
        """The mean over rows and columns."""
        self.output_shape(x.shape[1:])
        y = x.mean(axis=(1, 2))
        if training:
            self._save(y, x.shape)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n h w c"]:
        """dL/dx: every pixel has the weight 1/(h·w) in its channel's mean."""
        (shape,) = self._take(grad_y)
        share = grad_y / (shape[1] * shape[2])
        return np.broadcast_to(share[:, None, None, :], shape).copy()

    def output_shape(self, input_shape: Shape) -> Shape:
        """(channels,)."""
        return (check_image_shape(self, input_shape)[2],)
