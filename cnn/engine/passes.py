"""Rewrites a network into an equivalent one with fewer steps and the same parameters.

Each pass rewrites a list of layers by an identity of real numbers, so results differ only by rounding. `plan`
applies a list of passes; to switch one off, leave it out of the list.
"""

import copy
from collections.abc import Callable, Sequence

from cnn.engine.fused import FusedConv2D
from cnn.engine.fused_batch_norm import FirstConvBatchNorm
from cnn.layers import BatchNorm, Conv2D, Layer, MaxPool2D, ReLU, Sequential
from cnn.ops.winograd import best_tile
from cnn.parameter import Parameter

Pass = Callable[[list[Layer]], list[Layer]]


def fold_batch_norm(layers: list[Layer]) -> list[Layer]:
    """In evaluation, make a BatchNorm part of the Conv2D before it; the new Conv2D has parameters of its own.

    scale · (x * kernel + bias) + shift = x * (scale · kernel) + (scale · bias + shift)
    """

    def merge(conv: Layer, norm: Layer) -> list[Layer]:
        assert isinstance(conv, Conv2D)
        assert isinstance(norm, BatchNorm)
        scale, shift = norm.evaluation()
        folded = copy.copy(conv)
        folded.kernel = Parameter(conv.kernel.value * scale, "kernel")
        folded.bias = Parameter(shift if conv.bias is None else conv.bias.value * scale + shift, "bias")
        return [folded]

    return _replace_pairs(layers, (Conv2D,), BatchNorm, merge)


def relu_after_max_pool(layers: list[Layer]) -> list[Layer]:
    """Swap a ReLU and the max pooling after it, so that ReLU processes fewer values.

    max(relu(a), relu(b)) = relu(max(a, b))
    """
    return _replace_pairs(layers, (ReLU,), MaxPool2D, lambda relu, pool: [pool, relu])


def first_batch_norm(layers: list[Layer]) -> list[Layer]:
    """Fuse a Conv2D of images (at most four channels) at the start and the BatchNorm after it.

    With mean a and covariance C of the patches, those of the outputs are aᵀ K and K_oᵀ C K_o for kernels K.
    """
    if [type(layer) for layer in layers[:2]] != [Conv2D, BatchNorm]:
        return layers
    conv, norm, *others = layers
    assert isinstance(conv, Conv2D)
    assert isinstance(norm, BatchNorm)
    patch = conv.kernel.value.size // conv.out_channels
    pays = conv.in_channels <= 4 and conv.groups == 1 and patch <= conv.out_channels
    return [FirstConvBatchNorm(conv, norm), *others] if pays else layers


def winograd(layers: list[Layer]) -> list[Layer]:
    """Compute a Conv2D with 3x3 kernels, stride 1 and enough channels with fewer products.

    y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for tiles of the image, see `cnn.ops.winograd`.
    """
    return [FusedConv2D(x, minimal=True) if type(x) is Conv2D and _is_for_winograd(x) else x for x in layers]


def conv_with_max_pool(layers: list[Layer]) -> list[Layer]:
    """Fuse a convolution and a max pooling in adjacent windows after it, which avoids the full-size output.

    max(a + bias, b + bias) = max(a, b) + bias
    """

    def merge(conv: Layer, pool: Layer) -> list[Layer]:
        assert isinstance(pool, MaxPool2D)
        if isinstance(conv, Conv2D) and conv.groups == 1 and _is_adjacent(pool):
            return [FusedConv2D(conv, pool)]
        if isinstance(conv, FusedConv2D) and conv.pool is None and conv.groups == 1 and _is_adjacent(pool):
            return [FusedConv2D(conv.conv, pool, minimal=conv.minimal)]
        return [conv, pool]

    return _replace_pairs(layers, (Conv2D, FusedConv2D), MaxPool2D, merge)


def first_convolution(layers: list[Layer]) -> list[Layer]:
    """Replace a Conv2D at the start by one that can skip dL/dx, see `Layer.backward_parameters`."""
    return [FusedConv2D(x) if i == 0 and type(x) is Conv2D else x for i, x in enumerate(layers)]


PASSES: tuple[Pass, ...] = (
    fold_batch_norm,
    relu_after_max_pool,
    first_batch_norm,
    winograd,
    conv_with_max_pool,
    first_convolution,
)


def plan(layer: Layer, passes: Sequence[Pass] = PASSES, *, evaluation: bool = False) -> Layer:
    """Return a faster layer that computes the same as `layer`, with the same parameters and buffers.

    The lists of `Sequential`s are rewritten at every depth. A layer whose type is not exactly known here (a
    subclass, for example) stays as it is, except for the layers inside it. With `evaluation`, the result is
    for the current values of parameters and buffers only, and cannot be trained.
    """
    if not layer.children():
        return layer
    planned = layer.map(lambda name, child: plan(child, passes, evaluation=evaluation))
    if type(planned) is Sequential:
        for rewrite in passes:
            if evaluation or rewrite is not fold_batch_norm:
                planned.layers = rewrite(planned.layers)
    return planned


def _replace_pairs(
    layers: list[Layer],
    first: tuple[type[Layer], ...],
    second: type[Layer],
    replace: Callable[[Layer, Layer], list[Layer]],
) -> list[Layer]:
    """`layers` with replace(a, b) for each a of a type in `first` that is followed by b of type `second`."""
    result: list[Layer] = []
    for layer in layers:
        if type(layer) is second and result and type(result[-1]) in first:
            result += replace(result.pop(), layer)
        else:
            result.append(layer)
    return result


def _is_for_winograd(conv: Conv2D) -> bool:
    """Whether minimal filtering can compute `conv`, and is faster on large images."""
    window = conv.window
    plain = window.kernel_size == (3, 3) and window.stride == window.dilation == (1, 1) and conv.groups == 1
    return plain and best_tile(64, 64, conv.in_channels, conv.out_channels, 64) != 0


def _is_adjacent(pool: MaxPool2D) -> bool:
    """Whether pooling windows are adjacent, without gaps or padding."""
    window = pool.window
    tiles = window.stride == window.kernel_size and window.dilation == (1, 1) and not window.ceil_mode
    return tiles and window.padding == ((0, 0), (0, 0))
