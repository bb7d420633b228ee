"""Average pooling."""

import numpy as np
from jaxtyping import Float

from cnn.layers.layer import Rng
from cnn.layers.pool import Pool2D
from cnn.ops.pooling import avg_pool, avg_pool_adjoint
from cnn.ops.windows import Padding, Pair
from cnn.registry import LAYERS


@LAYERS.register
class AvgPool2D(Pool2D):
    """Replaces each window by its mean, channel by channel.

        y[n, p, q, c] = 1/count · Σ_{i, j} x[n, p·stride_h + i·dilation_h, q·stride_w + j·dilation_w, c]

    where x is padded with zeros first, and count is the number of pixels of window (p, q).
    Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998), section II-A
    (there called sub-sampling).

    Args:
        count_include_pad: whether pixels of the padding count; those that ceil_mode adds never do.

    Raises: ValueError if an argument is invalid, or if the window does not fit x.
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        *,
        stride: int | Pair | None = None,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)
        self.count_include_pad = count_include_pad

    def forward(
        self, x: Float[np.ndarray, "n h w c"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n out_h out_w c"]:
        """The mean of each window."""
        self.output_shape(x.shape[1:])
        y = avg_pool(x, self.window, self.count_include_pad)
        if training:
            self._save(y, x.shape)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n out_h out_w c"]) -> Float[np.ndarray, "n h w c"]:
        """dL/dx: every pixel of a window has the weight 1 / count in its mean."""
        (shape,) = self._take(grad_y)
        return avg_pool_adjoint(grad_y, shape, self.window, self.count_include_pad)
