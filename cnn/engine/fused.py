"""Fused layers, which `cnn.engine.passes` puts in place of others: same mathematics, fewer steps.

They follow the contract of all layers, and can also skip dL/dx.
"""

from abc import abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Float

from cnn.layers import Conv2D, Layer, MaxPool2D
from cnn.layers.layer import Rng, Shape
from cnn.ops.pooling import first_maximum
from cnn.ops.reductions import repeat_for_pixels, sum_over_rows
from cnn.ops.windows import Pair, col2im, crop, im2col, pad
from cnn.ops.winograd import best_tile, winograd_backward, winograd_forward


class FusedConvolution(Layer):
    """A convolution with the parameters of a `Conv2D`, but computed in another way."""

    def __init__(self, conv: Conv2D) -> None:
        self.conv = conv

    def __getattr__(self, name: str) -> Any:  # so that a composite may ask it what it may ask the convolution
        if name.startswith("_") or "conv" not in vars(self):
            raise AttributeError(name)
        return getattr(self.conv, name)

    def backward(self, grad_y: Float[np.ndarray, "n out_h out_w o"]) -> Float[np.ndarray, "n h w c"]:
        """Gradients of kernel, bias and x."""
        grad_x = self._backward(grad_y, need_grad_x=True)
        assert grad_x is not None
        return grad_x

    def backward_parameters(self, grad_y: Float[np.ndarray, "n out_h out_w o"]) -> None:
        """Gradients of kernel and bias."""
        self._backward(grad_y, need_grad_x=False)

    def output_shape(self, input_shape: Shape) -> Shape:
        """The output shape of the convolution."""
        return self.conv.output_shape(input_shape)

    @abstractmethod
    def _backward(
        self, grad_y: Float[np.ndarray, "n out_h out_w o"], need_grad_x: bool
    ) -> Float[np.ndarray, "n h w c"] | None:
        """Assign the gradients of the parameters; return that of x, or None if it is not needed."""

    def _product(
        self, x: Float[np.ndarray, "n h w c"], block: Pair = (1, 1)
    ) -> tuple[Float[np.ndarray, "groups rows o"], tuple[Any, ...]]:
        """(y without bias as matrices, what `_product_adjoint` needs); `block` as for `im2col`."""
        padded = pad(x, self.conv.window.pads(*x.shape[1:3]))
        columns = im2col(padded, self.conv.window, self.conv.groups, block)
        return columns @ self.conv.kernel_matrix(), (columns, x.shape, padded.shape, block)

    def _product_adjoint(
        self, grad_rows: Float[np.ndarray, "groups rows o"], saved: tuple[Any, ...], need_grad_x: bool
    ) -> Float[np.ndarray, "n h w c"] | None:
        """dL/dkernel and, if needed, dL/dx from dL/d(y as matrices), as in `Conv2D.backward`."""
        columns, x_shape, padded_shape, block = saved
        kernel = self.conv.kernel
        grad_kernels = columns.swapaxes(1, 2) @ grad_rows
        kernel.grad = grad_kernels.swapaxes(0, 1).reshape(kernel.value.shape)
        if not need_grad_x:
            return None
        grad_columns = grad_rows @ self.conv.kernel_matrix().swapaxes(1, 2)
        grad_padded = col2im(grad_columns, padded_shape, self.conv.window, block)
        return crop(grad_padded, self.conv.window.pads(*x_shape[1:3]))

    def _add_bias(self, y: Float[np.ndarray, "n out_h out_w o"]) -> None:
        if self.conv.bias is not None:
            y += repeat_for_pixels(self.conv.bias.value, y.shape[1:])

    def _bias_adjoint(self, grad_y: Float[np.ndarray, "*n o"]) -> None:
        if self.conv.bias is not None:
            self.conv.bias.grad = sum_over_rows(grad_y)


class FirstConv2D(FusedConvolution):
    """`Conv2D`, except that it can skip dL/dx."""

    def forward(
        self, x: Float[np.ndarray, "n h w c"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n out_h out_w o"]:
        """The same sum as in `Conv2D`."""
        shape = self.output_shape(x.shape[1:])
        rows, saved = self._product(x)
        y = rows.swapaxes(0, 1).reshape(len(x), *shape)
        self._add_bias(y)
        if training:
            self._save(y, saved)
        return y

    def _backward(
        self, grad_y: Float[np.ndarray, "n out_h out_w o"], need_grad_x: bool
    ) -> Float[np.ndarray, "n h w c"] | None:
        (saved,) = self._take(grad_y)
        self._bias_adjoint(grad_y)
        groups = self.conv.groups
        grad_rows = grad_y.reshape(-1, groups, self.conv.out_channels // groups).swapaxes(0, 1)
        return self._product_adjoint(grad_rows, saved, need_grad_x)


class WinogradConv2D(FusedConvolution):
    """A 3x3 convolution by minimal filtering if that is faster, else as a product of matrices.

    Source: Lavin & Gray, "Fast algorithms for convolutional neural networks" (2016).
    """

    def forward(
        self, x: Float[np.ndarray, "n h w c"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n out_h out_w o"]:
        """The same sum as in `Conv2D`; the tile depends on the shapes alone."""
        out_h, out_w, out_channels = shape = self.output_shape(x.shape[1:])
        tile = best_tile(out_h, out_w, self.conv.in_channels, out_channels, len(x))
        saved: Any
        if tile:
            padded = pad(x, self.conv.window.pads(*x.shape[1:3]))
            y, saved = winograd_forward(padded, self.conv.kernel.value, tile)
        else:
            rows, saved = self._product(x)
            y = rows.swapaxes(0, 1).reshape(len(x), *shape)
        self._add_bias(y)
        if training:
            self._save(y, tile, saved, x.shape)
        return y

    def _backward(
        self, grad_y: Float[np.ndarray, "n out_h out_w o"], need_grad_x: bool
    ) -> Float[np.ndarray, "n h w c"] | None:
        """Apply the adjoints of the forward steps, in reverse order."""
        tile, saved, x_shape = self._take(grad_y)
        self._bias_adjoint(grad_y)
        if not tile:
            return self._product_adjoint(grad_y.reshape(1, -1, grad_y.shape[-1]), saved, need_grad_x)
        self.conv.kernel.grad, grad_padded = winograd_backward(grad_y, saved, tile, need_grad_x)
        return None if grad_padded is None else crop(grad_padded, self.conv.window.pads(*x_shape[1:3]))


class ConvMaxPool(FusedConvolution):
    """A convolution and the max pooling after it: y = max over blocks of (columns · kernels) + bias.

    Rows of the matrix of patches are grouped by their position in the pooling window, so that the maximum
    runs over whole blocks, and outputs of the convolution that the pool would drop are not computed.
    """

    def __init__(self, conv: Conv2D, pool: MaxPool2D) -> None:
        super().__init__(conv)
        self.pool = pool

    def forward(
        self, x: Float[np.ndarray, "n h w c"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n out_h out_w o"]:
        """Convolve in groups of equal position in the pooling window; take the maximum over the groups."""
        shape = self.output_shape(x.shape[1:])
        block = self.pool.window.kernel_size
        rows, saved = self._product(x, block)
        blocks = rows.reshape(block[0] * block[1], -1, self.conv.out_channels)
        y, winner = first_maximum(iter(blocks)) if training else (blocks.max(axis=0), None)
        y = y.reshape(len(x), *shape)
        self._add_bias(y)
        if training:
            self._save(y, winner, saved)
        return y

    def _backward(
        self, grad_y: Float[np.ndarray, "n out_h out_w o"], need_grad_x: bool
    ) -> Float[np.ndarray, "n h w c"] | None:
        """Send dL/dy to the block that won; continue as in `Conv2D`."""
        winner, saved = self._take(grad_y)
        grad = grad_y.reshape(winner.shape)
        self._bias_adjoint(grad)
        blocks = np.prod(self.pool.window.kernel_size)
        grad_blocks = np.empty((blocks, *grad.shape), grad.dtype)
        for index, block in enumerate(grad_blocks):
            np.multiply(grad, winner == index, out=block)
        return self._product_adjoint(grad_blocks.reshape(1, -1, self.conv.out_channels), saved, need_grad_x)

    def output_shape(self, input_shape: Shape) -> Shape:
        """The output shape of the pooling."""
        return self.pool.output_shape(self.conv.output_shape(input_shape))
