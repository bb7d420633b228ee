"""The maximum of each channel."""

import numpy as np
from jaxtyping import Float

from cnn.layers.checks import check_image_shape
from cnn.layers.layer import Layer, Rng, Shape
from cnn.ops.arrays import zeros
from cnn.registry import LAYERS


@LAYERS.register
class GlobalMaxPool2D(Layer):
    """Replaces each channel by its largest value, which turns an image into a vector.

        y[n, c] = max_{p, q} x[n, p, q, c]

    Source: Oquab, Bottou, Laptev & Sivic, "Is object localization for free?" (2015), section 3.
    """

    def forward(
        self, x: Float[np.ndarray, "n h w c"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n c"]:
        """The maximum over rows and columns."""
        self.output_shape(x.shape[1:])
        height, width, channels = x.shape[1:]
        pixels = x.reshape(len(x), height * width, channels)
        winner = pixels.argmax(axis=1)[:, None, :]  # the first one, in row-major order
        y = np.take_along_axis(pixels, winner, axis=1)[:, 0]
        if training:
            self._save(y, winner, x.shape)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n h w c"]:
        """dL/dx: the whole gradient goes to the pixel that won; in a tie, to the first in row-major order."""
        winner, (n, height, width, channels) = self._take(grad_y)
        grad_x = zeros((n, height * width, channels), like=grad_y)
        np.put_along_axis(grad_x, winner, grad_y[:, None, :], axis=1)
        return grad_x.reshape(n, height, width, channels)

    def output_shape(self, input_shape: Shape) -> Shape:
        """(channels,)."""
        return (check_image_shape(self, input_shape)[2],)
