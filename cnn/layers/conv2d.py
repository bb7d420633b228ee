"""Two-dimensional convolution."""

import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike

from cnn.initializers import glorot_uniform, zeros
from cnn.layers.checks import check_count, check_flag, check_image_shape
from cnn.layers.layer import Layer, Shape
from cnn.ops.windows import Padding, Pair, Window, col2im, crop, im2col, pad
from cnn.parameter import Parameter


class Conv2D(Layer):
    """Slides `out_channels` small kernels over the image; each output is one kernel's match at one place.

        y[n, p, q, o] = bias[o] + Σ_{i, j, c} x[n, p·stride_h + i, q·stride_w + j, c] · kernel[i, j, c, o]

    where x is padded with zeros first. This is cross-correlation: the kernel is not flipped.
    Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998), section II-A.

    Args:
        in_channels, out_channels: channels of x and of y.
        kernel_size: in pixels; an int or (height, width).
        stride: step between windows in pixels; an int or (height, width).
        padding: zeros around x, in pixels: an int, (height, width) or ((top, bottom), (left, right));
            "valid" is 0; "same" gives y ceil(in / stride) rows and columns, and puts an odd pixel of
            padding at the bottom and the right.
        bias: whether there is a bias.
        rng: the source of the initial kernel, Glorot-uniform; the bias starts at zero.
        dtype: of the parameters.

    Parameters: kernel (kernel_h, kernel_w, in, out) and bias (out,).
    Raises: ValueError where an argument has no meaning, or where x does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: Padding = 0,
        bias: bool = True,
        rng: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.in_channels = check_count("in_channels", in_channels)
        self.out_channels = check_count("out_channels", out_channels)
        self.window = Window.of(kernel_size, stride, padding)
        shape = (*self.window.kernel_size, in_channels, out_channels)
        self.kernel = Parameter(glorot_uniform(shape, rng, dtype), "kernel")
        self.bias = (
            Parameter(zeros((out_channels,), rng, dtype), "bias") if check_flag("bias", bias) else None
        )

    def forward(
        self, x: Float[np.ndarray, "n h w c"], training: bool = True
    ) -> Float[np.ndarray, "n out_h out_w o"]:
        """The sum above, for all places at once: a matrix of patches times a matrix of kernels."""
        out_h, out_w, _ = self.output_shape(x.shape[1:])
        padded = pad(x, self.window.pads(*x.shape[1:3]))
        columns = im2col(padded, self.window)  # (n·out_h·out_w, kernel_h·kernel_w·c)
        kernels = self.kernel.value.reshape(-1, self.out_channels)  # (kernel_h·kernel_w·c, o)
        y = columns @ kernels
        if self.bias is not None:
            y += self.bias.value
        y = y.reshape(len(x), out_h, out_w, self.out_channels)
        if training:
            self._save(y, columns, x.shape, padded.shape)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n out_h out_w o"]) -> Float[np.ndarray, "n h w c"]:
        """Gradients of kernel, bias and x.

        As matrices, y = columns · kernels + bias, row by row. For L that depends on y:
            dL/dkernels = columnsᵀ · dL/dy         each weight met every patch once
            dL/dbias    = Σ_rows dL/dy
            dL/dcolumns = dL/dy · kernelsᵀ
        columns is a copy of pixels of x, one for every window they lie in, so dL/dx adds those copies up:
        col2im, the adjoint of im2col, and then crop, the adjoint of pad.
        """
        columns, x_shape, padded_shape = self._take(grad_y)
        grad_rows = grad_y.reshape(-1, self.out_channels)  # (n·out_h·out_w, o)
        self.kernel.grad = (columns.T @ grad_rows).reshape(self.kernel.value.shape)
        if self.bias is not None:
            self.bias.grad = grad_rows.sum(axis=0)
        grad_columns = grad_rows @ self.kernel.value.reshape(-1, self.out_channels).T
        return crop(col2im(grad_columns, padded_shape, self.window), self.window.pads(*x_shape[1:3]))

    def output_shape(self, input_shape: Shape) -> Shape:
        """(out_h, out_w, out_channels)."""
        height, width, _ = check_image_shape(self, input_shape, self.in_channels)
        return (*self.window.output_size(height, width), self.out_channels)

    def parameters(self) -> dict[str, Parameter]:
        """kernel and, unless there is none, bias."""
        return {"kernel": self.kernel} | ({} if self.bias is None else {"bias": self.bias})

    def __repr__(self) -> str:
        return (
            f"Conv2D({self.in_channels}, {self.out_channels}, {self.window.kernel_size}, "
            f"stride={self.window.stride}, padding={self.window.describe_padding()}, "
            f"bias={self.bias is not None})"
        )
