"""How a network is computed fast: an equivalent network of fewer steps, with the same parameters.

`plan` rewrites lists of layers. Each rewrite rests on an identity of real numbers, so that results differ
in roundings only:

1. ReLU, then max pooling: the other way round.
       max(relu(a), relu(b)) = relu(max(a, b)), so that ReLU works on a part of the values.
2. Conv2D, then max pooling: one step, `ConvMaxPool`.
       max(a + bias, b + bias) = max(a, b) + bias. Rows of the matrix of patches are grouped by their position
       in the pooling window, so that the maximum runs over whole blocks, and convolutions that the pool would
       drop are not computed.
3. Conv2D with 3x3 kernels, stride 1 and enough channels: the same sums with fewer products, `WinogradConv2D`.
       y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for tiles of the image, see `cnn.ops.winograd`. Goes before 2.
4. A convolution in front of everything: no dL/dx, since nobody needs it.

To compare with the layers as they are: `Workers(model, planned=False)`.
"""

import copy
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from cnn.layers import Conv2D, Layer, MaxPool2D, ReLU, Residual, Sequential
from cnn.layers.layer import Shape
from cnn.ops.pooling import first_maximum
from cnn.ops.reductions import repeat_for_pixels, sum_over_rows
from cnn.ops.windows import crop, pad
from cnn.ops.winograd import best_tile, winograd_backward, winograd_forward
from cnn.parameter import Parameter


def plan(model: Sequential) -> Sequential:
    """A network that computes the same as `model`, faster, with the same parameters and buffers.

    Subclasses stay as they are: nobody knows here what they compute.
    """
    if type(model) is not Sequential:
        return model
    planned = _plan_layers(model.layers)
    if planned and isinstance(planned[0], Conv2D | ConvMaxPool | WinogradConv2D):
        planned[0] = copy.copy(planned[0])
        planned[0].needs_grad_x = False
    return Sequential(planned)


def _plan_layers(layers: Sequence[Layer]) -> list[Layer]:
    planned: list[Layer] = []
    for layer in layers:
        if type(layer) is Sequential:
            planned.append(Sequential(_plan_layers(layer.layers)))
        elif type(layer) is Residual:
            shortcut = None if layer.shortcut is None else _plan_layers(layer.shortcut)
            planned.append(Residual(_plan_layers(layer.layers), shortcut))
        elif type(layer) is Conv2D and _is_for_winograd(layer):
            planned.append(WinogradConv2D(layer))
        elif type(layer) is MaxPool2D:
            relu = [planned.pop()] if planned and type(planned[-1]) is ReLU else []
            before = planned[-1] if planned else None
            if type(before) is Conv2D and _can_merge(before, layer):
                planned[-1] = ConvMaxPool(before, layer)
            else:
                planned.append(layer)
            planned += relu
        else:
            planned.append(layer)
    return planned


def _is_for_winograd(conv: Conv2D) -> bool:
    """Whether minimal filtering can compute it, and on large images would gain."""
    window = conv.window
    plain = window.kernel_size == (3, 3) and window.stride == window.dilation == (1, 1) and conv.groups == 1
    return plain and best_tile(64, 64, conv.in_channels, conv.out_channels, 64) != 0


def _can_merge(conv: Conv2D, pool: MaxPool2D) -> bool:
    """Whether pooling windows lie side by side, without gaps or padding, so that each is a block of rows."""
    window = pool.window
    tiles = window.stride == window.kernel_size and window.dilation == (1, 1) and not window.ceil_mode
    return conv.groups == 1 and tiles and window.padding == ((0, 0), (0, 0))


class WinogradConv2D(Layer):
    """A 3x3 convolution by minimal filtering where that is faster, else as a product of matrices."""

    needs_grad_x = True

    def __init__(self, conv: Conv2D) -> None:
        self.conv = copy.copy(conv)

    def forward(
        self, x: Float[np.ndarray, "n h w c"], training: bool = True
    ) -> Float[np.ndarray, "n out_h out_w o"]:
        """The sum of `Conv2D`; the tile depends on the shapes alone."""
        out_h, out_w, out_channels = self.output_shape(x.shape[1:])
        tile = best_tile(out_h, out_w, self.conv.in_channels, out_channels, len(x))
        if not tile:
            y = self.conv.forward(x, training)
            if training:
                self._save(y, tile, None, x.shape)
            return y
        padded = pad(x, self.conv.window.pads(*x.shape[1:3]))
        y, transformed = winograd_forward(padded, self.conv.kernel.value, tile)
        if self.conv.bias is not None:
            y += repeat_for_pixels(self.conv.bias.value, y.shape[1:])
        if training:
            self._save(y, tile, transformed, x.shape)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n out_h out_w o"]) -> Float[np.ndarray, "n h w c"]:
        """Gradients of kernel, bias and x, by the adjoint of the forward steps."""
        tile, transformed, x_shape = self._take(grad_y)
        if not tile:
            self.conv.needs_grad_x = self.needs_grad_x
            return self.conv.backward(grad_y)
        if self.conv.bias is not None:
            self.conv.bias.grad = sum_over_rows(grad_y)
        grad_kernel, grad_padded = winograd_backward(grad_y, transformed, tile, self.needs_grad_x)
        self.conv.kernel.grad = grad_kernel
        if grad_padded is None:
            return np.broadcast_to(grad_y.dtype.type(np.nan), x_shape)
        return crop(grad_padded, self.conv.window.pads(*x_shape[1:3]))

    def output_shape(self, input_shape: Shape) -> Shape:
        """That of the convolution."""
        return self.conv.output_shape(input_shape)

    def parameters(self) -> dict[str, Parameter]:
        """Those of the convolution."""
        return self.conv.parameters()


class ConvMaxPool(Layer):
    """A convolution and the max pooling behind it: y = max over blocks of (columns · kernels) + bias."""

    needs_grad_x = True

    def __init__(self, conv: Conv2D, pool: MaxPool2D) -> None:
        self.conv, self.pool = copy.copy(conv), pool

    def forward(
        self, x: Float[np.ndarray, "n h w c"], training: bool = True
    ) -> Float[np.ndarray, "n out_h out_w o"]:
        """Convolutions in groups of equal position in the pooling window, and the maximum over the groups."""
        block = self.pool.window.kernel_size
        rows, saved = self.conv.forward_rows(x, block)
        blocks = rows.reshape(block[0] * block[1], -1, self.conv.out_channels)
        y, winner = first_maximum(iter(blocks)) if training else (blocks.max(axis=0), None)
        y = y.reshape(len(x), *self.output_shape(x.shape[1:]))
        if self.conv.bias is not None:
            y += repeat_for_pixels(self.conv.bias.value, y.shape[1:])
        if training:
            self._save(y, winner, saved)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n out_h out_w o"]) -> Float[np.ndarray, "n h w c"]:
        """dL/dy to the block that won; from there as in Conv2D."""
        winner, saved = self._take(grad_y)
        grad = grad_y.reshape(winner.shape)
        if self.conv.bias is not None:
            self.conv.bias.grad = sum_over_rows(grad)
        blocks = np.prod(self.pool.window.kernel_size)
        grad_blocks = np.empty((blocks, *grad.shape), grad.dtype)
        for index, block in enumerate(grad_blocks):
            np.multiply(grad, winner == index, out=block)
        self.conv.needs_grad_x = self.needs_grad_x
        return self.conv.backward_rows(grad_blocks.reshape(1, -1, self.conv.out_channels), saved)

    def output_shape(self, input_shape: Shape) -> Shape:
        """That of the pooling."""
        return self.pool.output_shape(self.conv.output_shape(input_shape))

    def parameters(self) -> dict[str, Parameter]:
        """Those of the convolution."""
        return self.conv.parameters()
