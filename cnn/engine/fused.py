"""Fused layers, which `cnn.engine.passes` puts in place of others: same mathematics, fewer steps.

They follow the contract of all layers, and can also skip dL/dx.
"""

from math import prod
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from cnn.layers import Conv2D, Layer, MaxPool2D
from cnn.layers.layer import Rng, Shape
from cnn.ops.arrays import empty
from cnn.ops.pooling import first_maximum
from cnn.ops.reductions import repeat_for_pixels, sum_over_rows
from cnn.ops.windows import col2im, crop, im2col, pad
from cnn.ops.winograd import best_tile, transform_kernel, winograd_backward, winograd_forward


class FusedConv2D(Layer):
    """A `Conv2D` and, if there is a `pool`, the max pooling in adjacent windows after it.

        y = max over windows of (the convolution without bias) + bias

    since max(a + b, c + b) = max(a, c) + b. Outputs of the convolution that the pool drops are not computed.
    With `minimal`, a 3x3 convolution is computed by minimal filtering (`cnn.ops.winograd`) if its shapes gain
    by it. Otherwise it is a product of matrices, whose rows are grouped by their position in the pooling
    window, so that the maximum runs over whole blocks.
    """

    def __init__(self, conv: Conv2D, pool: MaxPool2D | None = None, *, minimal: bool = False) -> None:
        self.conv = conv
        self.pool = pool
        self.minimal = minimal
        self._block = (1, 1) if pool is None else pool.window.kernel_size
        self._transformed: dict[int, NDArray[Any]] | None = None

    def __getattr__(self, name: str) -> Any:  # so that a composite may ask it what it may ask the convolution
        if name.startswith("_") or "conv" not in vars(self):
            raise AttributeError(name)
        return getattr(self.conv, name)

    def forward(
        self, x: Float[np.ndarray, "n h w c"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n out_h out_w o"]:
        """The same sum as in `Conv2D`; how it is computed depends on the shapes alone."""
        shape = self.output_shape(x.shape[1:])
        m = self.tile(shape, len(x))
        saved: Any
        if m:
            pads, u = self.conv.window.pads(*x.shape[1:3]), self._transformed_kernel(m)
            y, saved = winograd_forward(x, u, pads, self._block, training)
            saved = saved, u, pads
        else:
            y, saved = self._product(x, shape, training)
        if self.conv.bias is not None:
            y += repeat_for_pixels(self.conv.bias.value, shape)
        if training:
            self._save(y, m, saved)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n out_h out_w o"]) -> Float[np.ndarray, "n h w c"]:
        """Gradients of kernel, bias and x: the adjoints of the forward steps, in reverse order."""
        grad_x = self._backward(grad_y, need_grad_x=True)
        assert grad_x is not None
        return grad_x

    def backward_parameters(self, grad_y: Float[np.ndarray, "n out_h out_w o"]) -> None:
        """Gradients of kernel and bias."""
        self._backward(grad_y, need_grad_x=False)

    def output_shape(self, input_shape: Shape) -> Shape:
        """The output shape of the convolution or, if there is one, of the pool."""
        shape = self.conv.output_shape(input_shape)
        return shape if self.pool is None else self.pool.output_shape(shape)

    def multiply_adds(self, input_shape: Shape) -> int:
        """Those of the convolution, by definition."""
        return self.conv.multiply_adds(input_shape)

    def tile(self, output_shape: Shape, n: int) -> int:
        """The m of `best_tile` for n images; 0 if the convolution is a product of matrices."""
        (height, width, channels), (pool_h, pool_w) = output_shape, self._block
        if not self.minimal:
            return 0
        return best_tile(height * pool_h, width * pool_w, self.conv.in_channels, channels, n)

    def prepare(self) -> None:
        """The kernel may have changed: from now on, transform it only once until the next `prepare`."""
        self._transformed = {}

    def _transformed_kernel(self, m: int) -> Float[np.ndarray, "positions c o"]:
        if self._transformed is None:
            return transform_kernel(self.conv.kernel.value, m)
        if m not in self._transformed:
            self._transformed[m] = transform_kernel(self.conv.kernel.value, m)
        return self._transformed[m]

    def _backward(
        self, grad_y: Float[np.ndarray, "n out_h out_w o"], need_grad_x: bool
    ) -> Float[np.ndarray, "n h w c"] | None:
        """Assign the gradients of the parameters; return that of x, or None if it is not needed."""
        m, saved = self._take(grad_y)
        if self.conv.bias is not None:
            self.conv.bias.grad = sum_over_rows(grad_y)
        if not m:
            return self._product_adjoint(grad_y, saved, need_grad_x)
        transformed, u, pads = saved
        self.conv.kernel.grad, grad_x = winograd_backward(
            grad_y, transformed, u, pads, self._block, need_grad_x
        )
        return grad_x

    def _product(
        self, x: Float[np.ndarray, "n h w c"], shape: Shape, training: bool
    ) -> tuple[Float[np.ndarray, "n out_h out_w o"], tuple[Any, ...]]:
        """(y without bias, what `_product_adjoint` needs), as in `Conv2D.forward`."""
        padded = pad(x, self.conv.window.pads(*x.shape[1:3]))
        columns = im2col(padded, self.conv.window, self.conv.groups, self._block)
        y = (columns @ self.conv.kernel_matrix()).swapaxes(0, 1)
        winner: Int[np.ndarray, "rows o"] | None = None
        if self.pool is not None:
            blocks = y.reshape(prod(self._block), -1, self.conv.out_channels)
            y, winner = first_maximum(iter(blocks)) if training else (blocks.max(axis=0), None)
        return y.reshape(len(x), *shape), (columns, x.shape, padded.shape, winner)

    def _product_adjoint(
        self, grad_y: Float[np.ndarray, "n out_h out_w o"], saved: tuple[Any, ...], need_grad_x: bool
    ) -> Float[np.ndarray, "n h w c"] | None:
        """As in `Conv2D.backward`, after dL/dy was sent to the blocks that won."""
        columns, x_shape, padded_shape, winner = saved
        conv = self.conv
        if winner is not None:
            grad_pooled = grad_y.reshape(winner.shape)
            grad_y = empty((prod(self._block), *winner.shape), like=grad_y)
            for index, block in enumerate(grad_y):
                np.multiply(grad_pooled, winner == index, out=block)
        grad_rows = grad_y.reshape(-1, conv.groups, conv.out_channels // conv.groups).swapaxes(0, 1)
        grad_kernels = columns.swapaxes(1, 2) @ grad_rows
        conv.kernel.grad = grad_kernels.swapaxes(0, 1).reshape(conv.kernel.value.shape)
        if not need_grad_x:
            return None
        grad_columns = grad_rows @ conv.kernel_matrix().swapaxes(1, 2)
        grad_padded = col2im(grad_columns, padded_shape, conv.window, self._block)
        return crop(grad_padded, conv.window.pads(*x_shape[1:3]))
