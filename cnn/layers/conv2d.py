"""Two-dimensional convolution."""

from typing import Annotated

import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike

from cnn.checks import Count, Given, InitialRng
from cnn.initializers import Initializer, fan_in_uniform, zeros
from cnn.layers.checks import check_image_shape
from cnn.layers.layer import Layer, Rng, Shape
from cnn.ops.reductions import repeat_for_pixels, sum_over_rows
from cnn.ops.windows import Padding, Pair, Window, col2im, crop, im2col, pad
from cnn.parameter import Parameter
from cnn.registry import LAYERS


@LAYERS.register
class Conv2D(Layer):
    """Slides small kernels over the image; each output channel is the match of one kernel at every position.

        y[n, p, q, o] = bias[o] + Σ_{i, j, c} x[n, row, column, c] · kernel[i, j, c, o]
        row = p·stride_h + i·dilation_h,    column = q·stride_w + j·dilation_w

    where x is padded with zeros first. This is cross-correlation: the kernel is not flipped. With groups,
    the channels of x and of y are split into as many equal parts, and each part of y sees only its own part
    of x: c then counts within the part that o belongs to. groups = in_channels is a depthwise convolution.
    Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998), section II-A;
    for dilation, Yu & Koltun, "Multi-scale context aggregation by dilated convolutions" (2016).

    Args:
        in_channels: channels of x.
        out_channels: channels of y.
        kernel_size: size in pixels; an int or (height, width).
        stride: step between windows in pixels; an int or (height, width).
        padding: zeros around x, in pixels: an int, (height, width) or ((top, bottom), (left, right));
            "valid" is 0; "same" gives y ceil(in / stride) rows and columns, and puts an odd pixel of
            padding at the bottom and the right.
        dilation: distance between the pixels that a kernel sees; an int or (height, width).
        groups: number of groups; must divide in_channels and out_channels.
        bias: whether to add a bias.
        initializer: initial values of the kernel, see `cnn.initializers`; the bias starts at zero.
        rng: the source of the initial kernel.
        dtype: the dtype of the parameters.

    Parameters: kernel (kernel_h, kernel_w, in / groups, out) and bias (out,).
    Raises: ValueError if an argument is invalid, or if x does not fit.
    """

    def __init__(
        self,
        in_channels: Annotated[Count, Given],
        out_channels: Count,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        groups: Count = 1,
        bias: bool = True,
        initializer: Initializer = fan_in_uniform,
        rng: InitialRng,
        dtype: Annotated[DTypeLike, Given] = np.float32,
    ) -> None:
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide in_channels and out_channels; received groups {groups}, "
                f"in_channels {in_channels} and out_channels {out_channels}."
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.window = Window.of(kernel_size, stride, padding, dilation)
        self.initializer = initializer
        shape = (*self.window.kernel_size, in_channels // groups, out_channels)
        self.kernel = Parameter(initializer(shape, rng, dtype), "kernel")
        self.bias = Parameter(zeros((out_channels,), rng, dtype), "bias") if bias else None

    def forward(
        self, x: Float[np.ndarray, "n h w c"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n out_h out_w o"]:
        """The sum above, for all positions at once: a matrix of patches times a matrix of kernels."""
        shape = self.output_shape(x.shape[1:])
        padded = pad(x, self.window.pads(*x.shape[1:3]))
        columns = im2col(padded, self.window, self.groups)  # (groups, rows, kernel_h·kernel_w·c)
        y = (columns @ self.kernel_matrix()).swapaxes(0, 1).reshape(len(x), *shape)
        if self.bias is not None:
            y += repeat_for_pixels(self.bias.value, shape)
        if training:
            self._save(y, columns, x.shape, padded.shape)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n out_h out_w o"]) -> Float[np.ndarray, "n h w c"]:
        """As matrices, one for each group, y = columns · kernels + bias. So the gradients are

            dL/dbias = Σ dL/dy                     over images and pixels
            dL/dkernels = columnsᵀ · dL/dy         each weight meets every patch once
            dL/dcolumns = dL/dy · kernelsᵀ

        columns contains a copy of each pixel of x for every window that the pixel lies in, so dL/dx is the
        sum over these copies: col2im, the adjoint of im2col, and then crop, the adjoint of pad.
        """
        columns, x_shape, padded_shape = self._take(grad_y)
        if self.bias is not None:
            self.bias.grad = sum_over_rows(grad_y)
        grad_rows = grad_y.reshape(-1, self.groups, self.out_channels // self.groups).swapaxes(0, 1)
        grad_kernels = columns.swapaxes(1, 2) @ grad_rows  # (groups, kernel_h·kernel_w·c, o / groups)
        self.kernel.grad = grad_kernels.swapaxes(0, 1).reshape(self.kernel.value.shape)
        grad_columns = grad_rows @ self.kernel_matrix().swapaxes(1, 2)
        grad_padded = col2im(grad_columns, padded_shape, self.window)
        return crop(grad_padded, self.window.pads(*x_shape[1:3]))

    def output_shape(self, input_shape: Shape) -> Shape:
        """(out_h, out_w, out_channels)."""
        height, width, _ = check_image_shape(self, input_shape, self.in_channels)
        return (*self.window.output_size(height, width), self.out_channels)

    def multiply_adds(self, input_shape: Shape) -> int:
        """Each weight meets one number of x at every position: out_h · out_w · the size of the kernel."""
        height, width, _ = self.output_shape(input_shape)
        return height * width * self.kernel.value.size

    def kernel_matrix(self) -> Float[np.ndarray, "groups patch o"]:
        """The kernels as the columns of one matrix for each group."""
        patch = self.kernel.value.size // self.out_channels  # kernel_h·kernel_w·c
        return self.kernel.value.reshape(patch, self.groups, -1).swapaxes(0, 1)
