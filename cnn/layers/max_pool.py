"""Maximum pooling."""

import numpy as np
from jaxtyping import Float

from cnn.layers.layer import Rng
from cnn.layers.pool import Pool2D
from cnn.ops.pooling import max_pool, max_pool_adjoint, max_pool_with_winner
from cnn.registry import LAYERS


@LAYERS.register
class MaxPool2D(Pool2D):
    """Keeps the largest value of each window, channel by channel: "is the feature anywhere near here?"

        y[n, p, q, c] = max_{i, j} x[n, p·stride_h + i·dilation_h, q·stride_w + j·dilation_w, c]

    where x is padded with −∞ first, so that padding never wins.
    Source: Goodfellow, Bengio & Courville, "Deep Learning" (2016), section 9.3.

    Raises: ValueError if an argument is invalid, or if the window does not fit x.
    """

    def forward(
        self, x: Float[np.ndarray, "n h w c"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n out_h out_w c"]:
        """The maximum of each window."""
        self.output_shape(x.shape[1:])
        if not training:
            return max_pool(x, self.window)
        y, winner = max_pool_with_winner(x, self.window)
        self._save(y, winner, x.shape)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n out_h out_w c"]) -> Float[np.ndarray, "n h w c"]:
        """dL/dx: y is a copy of the pixel that won, so its gradient goes to this pixel alone.

        In a tie the whole gradient goes to the first maximum in row-major order.
        """
        winner, shape = self._take(grad_y)
        return max_pool_adjoint(grad_y, winner, shape, self.window)
