"""Average pooling."""

import numpy as np
from jaxtyping import Float

from cnn.layers.checks import check_image_shape
from cnn.layers.layer import Layer, Shape
from cnn.ops.pooling import avg_pool, avg_pool_adjoint
from cnn.ops.windows import Pair, Window


class AvgPool2D(Layer):
    """Replaces each window by its mean, channel by channel.

        y[n, p, q, c] = 1 / (kernel_h·kernel_w) · Σ_{i, j} x[n, p·stride_h + i, q·stride_w + j, c]

    Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998), section II-A
    (there called sub-sampling).

    Args: `kernel_size` and `stride` as for MaxPool2D.
    Raises: ValueError where an argument has no meaning, or where the window does not fit x.
    """

    def __init__(self, kernel_size: int | Pair, *, stride: int | Pair | None = None) -> None:
        self.window = Window.of(kernel_size, kernel_size if stride is None else stride)

    def forward(
        self, x: Float[np.ndarray, "n h w c"], training: bool = True
    ) -> Float[np.ndarray, "n out_h out_w c"]:
        """The mean of each window."""
        self.output_shape(x.shape[1:])
        y = avg_pool(x, self.window)
        if training:
            self._save(y, x.shape)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n out_h out_w c"]) -> Float[np.ndarray, "n h w c"]:
        """dL/dx: every pixel of a window has the weight 1 / (kernel_h·kernel_w) in its mean."""
        (shape,) = self._take(grad_y)
        return avg_pool_adjoint(grad_y, shape, self.window)

    def output_shape(self, input_shape: Shape) -> Shape:
        """(out_h, out_w, channels)."""
        height, width, channels = check_image_shape(self, input_shape)
        return (*self.window.output_size(height, width), channels)

    def __repr__(self) -> str:
        return f"AvgPool2D({self.window.kernel_size}, stride={self.window.stride})"
