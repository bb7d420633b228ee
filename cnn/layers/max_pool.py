"""Maximum pooling."""

import numpy as np
from jaxtyping import Float

from cnn.layers.checks import check_image_shape
from cnn.layers.layer import Layer, Shape
from cnn.ops.pooling import max_pool, max_pool_adjoint
from cnn.ops.windows import Pair, Window


class MaxPool2D(Layer):
    """Keeps the largest value of each window, channel by channel: "is the feature anywhere near here?"

        y[n, p, q, c] = max_{i, j} x[n, p·stride_h + i, q·stride_w + j, c]

    Source: Goodfellow, Bengio & Courville, "Deep Learning" (2016), section 9.3.

    Args:
        kernel_size: of the window in pixels; an int or (height, width).
        stride: step between windows in pixels; None is the kernel size, so that windows tile the image.
            Rows and columns beyond the last whole window are left out.

    Raises: ValueError where an argument has no meaning, or where the window does not fit x.
    """

    def __init__(self, kernel_size: int | Pair, *, stride: int | Pair | None = None) -> None:
        self.window = Window.of(kernel_size, kernel_size if stride is None else stride)

    def forward(
        self, x: Float[np.ndarray, "n h w c"], training: bool = True
    ) -> Float[np.ndarray, "n out_h out_w c"]:
        """The maximum of each window."""
        self.output_shape(x.shape[1:])
        y, winner = max_pool(x, self.window)
        if training:
            self._save(y, winner, x.shape)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n out_h out_w c"]) -> Float[np.ndarray, "n h w c"]:
        """dL/dx: y is a copy of the pixel that won, so its gradient goes there, and nowhere else.

        In a tie the whole gradient goes to the first maximum in row-major order.
        """
        winner, shape = self._take(grad_y)
        return max_pool_adjoint(grad_y, winner, shape, self.window)

    def output_shape(self, input_shape: Shape) -> Shape:
        """(out_h, out_w, channels)."""
        height, width, channels = check_image_shape(self, input_shape)
        return (*self.window.output_size(height, width), channels)

    def __repr__(self) -> str:
        return f"MaxPool2D({self.window.kernel_size}, stride={self.window.stride})"
