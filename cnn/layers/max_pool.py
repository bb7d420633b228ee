"""Maximum pooling."""

import numpy as np
from jaxtyping import Float

from cnn.layers.pool import Pool2D
from cnn.ops.pooling import max_pool, max_pool_adjoint
from cnn.ops.windows import Padding, Pair


class MaxPool2D(Pool2D):
    """Keeps the largest value of each window, channel by channel: "is the feature anywhere near here?"

        y[n, p, q, c] = max_{i, j} x[n, p·stride_h + i·dilation_h, q·stride_w + j·dilation_w, c]

    where x is padded with −∞ first, so that padding never wins.
    Source: Goodfellow, Bengio & Courville, "Deep Learning" (2016), section 9.3.

    Args:
        kernel_size: of the window in pixels; an int or (height, width).
        stride: step between windows in pixels; None is the kernel size, so that windows tile the image.
        padding: around x, in pixels; written as for Conv2D.
        dilation: distance between a window's pixels; an int or (height, width).
        ceil_mode: False leaves out rows and columns beyond the last whole window; True gives them a window
            of their own, which reaches beyond the image.

    Raises: ValueError where an argument has no meaning, or where the window does not fit x.
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        *,
        stride: int | Pair | None = None,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)

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
