"""ONNX's operators in terms of this library's layers, for test_onnx.py.

Each function takes an operator's inputs in ONNX's order and its attributes by ONNX's names, and returns its
outputs. An attribute that a function does not know raises TypeError, so none is ignored. The functions only
translate: they transpose, reshape, choose arguments and set parameters; the layer computes what the operator
specifies. Images are (image, channel, row, column) outside and (image, row, column, channel) inside.
"""

from math import prod

import numpy as np
from onnx import helper, numpy_helper

import cnn
from cnn.ops.normalization import normalize
from cnn.ops.pooling import max_pool_with_winner
from cnn.ops.windows import Window

UNUSED = np.random.default_rng(0)  # the initial parameters drawn from it are overwritten


def channels_last(x):
    return np.moveaxis(x, 1, -1)


def channels_first(x):
    return np.moveaxis(x, -1, 1)


def evaluate(layer, x, **state):
    """The layer's output in evaluation, with `state` for its parameters and buffers."""
    layer.load_state_dict(state)
    return layer.forward(x)


def four_sides(auto_pad, pads, size, kernel_size, stride, dilation):
    """ONNX's padding in the form that Conv2D and the poolings take."""
    if auto_pad == "NOTSET":
        top, left, bottom, right = pads
        return (top, bottom), (left, right)
    if auto_pad == "SAME_LOWER":  # the odd pixel at the top and the left: "same" mirrored
        vertical, horizontal = Window.of(kernel_size, stride, "same", dilation).pads(*size)
        return vertical[::-1], horizontal[::-1]
    return {"SAME_UPPER": "same", "VALID": "valid"}[auto_pad]


def conv(
    x,
    kernel,
    bias=None,
    *,
    kernel_shape=None,
    strides=(1, 1),
    dilations=(1, 1),
    group=1,
    auto_pad="NOTSET",
    pads=(0,) * 4,
):
    kernel = kernel.transpose(2, 3, 1, 0)
    size = kernel.shape[:2]
    assert kernel_shape is None or tuple(kernel_shape) == size
    layer = cnn.Conv2D(
        x.shape[1],
        kernel.shape[3],
        size,
        stride=tuple(strides),
        dilation=tuple(dilations),
        padding=four_sides(auto_pad, pads, x.shape[2:], size, strides, dilations),
        groups=group,
        bias=bias is not None,
        rng=UNUSED,
    )
    state = {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}
    return channels_first(evaluate(layer, channels_last(x), **state))


def pooling(layer_class, x, kernel_shape, strides, dilations, auto_pad, pads, ceil_mode, **options):
    return layer_class(
        tuple(kernel_shape),
        stride=tuple(strides),
        dilation=tuple(dilations),
        padding=four_sides(auto_pad, pads, x.shape[2:], kernel_shape, strides, dilations),
        ceil_mode=bool(ceil_mode),
        **options,
    )


def maximum_pool(
    x,
    *,
    kernel_shape,
    strides=(1, 1),
    dilations=(1, 1),
    auto_pad="NOTSET",
    pads=(0,) * 4,
    ceil_mode=0,
    storage_order=0,
):
    layer = pooling(cnn.MaxPool2D, x, kernel_shape, strides, dilations, auto_pad, pads, ceil_mode)
    y = evaluate(layer, channels_last(x))
    # The second output is the position of each maximum in all of x; `winner` is its position in the window.
    n, channels, height, width = x.shape
    _, winner = max_pool_with_winner(channels_last(x), layer.window)
    row, column = np.moveaxis(np.array(layer.window.offsets)[winner], -1, 0)
    (top, _), (left, _) = layer.window.pads(height, width)
    row += np.arange(y.shape[1])[:, None, None] * strides[0] - top
    column += np.arange(y.shape[2])[:, None] * strides[1] - left
    pixel = column * height + row if storage_order else row * width + column
    image = np.arange(n * channels).reshape(n, channels, 1, 1)
    return channels_first(y), channels_first(pixel) + image * height * width


def average_pool(
    x,
    *,
    kernel_shape,
    strides=(1, 1),
    dilations=(1, 1),
    auto_pad="NOTSET",
    pads=(0,) * 4,
    ceil_mode=0,
    count_include_pad=0,
):
    layer = pooling(
        cnn.AvgPool2D,
        x,
        kernel_shape,
        strides,
        dilations,
        auto_pad,
        pads,
        ceil_mode,
        count_include_pad=bool(count_include_pad),
    )
    return channels_first(evaluate(layer, channels_last(x)))


def global_average_pool(x):
    return evaluate(cnn.GlobalAvgPool2D(), channels_last(x))[:, :, None, None]


def global_max_pool(x):
    return evaluate(cnn.GlobalMaxPool2D(), channels_last(x))[:, :, None, None]


def batch_normalization(
    x, gamma, beta, mean, variance, *, epsilon=1e-5, momentum=0.9, training_mode=0, is_test=1
):
    assert is_test == 1  # the only value in cases older than training_mode
    layer = cnn.BatchNorm(x.shape[1], momentum=momentum, epsilon=epsilon)
    layer.load_state_dict({"gamma": gamma, "beta": beta, "running_mean": mean, "running_var": variance})
    y = layer.forward(channels_last(x), training=bool(training_mode))
    return channels_first(y), layer.running_mean, layer.running_var


def layer_normalization(x, gamma, beta=None, *, axis=-1, epsilon=1e-5, stash_type=1):
    assert stash_type == 1  # mean and deviation in float32
    leading = x.shape[:axis]
    vectors = x.reshape(prod(leading), -1)
    beta = np.zeros_like(gamma) if beta is None else beta
    layer = cnn.LayerNorm(vectors.shape[1], epsilon=epsilon)
    y = evaluate(layer, vectors, gamma=gamma.reshape(-1), beta=beta.reshape(-1))
    inverse_deviation = normalize(vectors, epsilon)[1]
    reduced = leading + (1,) * (x.ndim - len(leading))
    return y.reshape(x.shape), vectors.mean(axis=1).reshape(reduced), inverse_deviation.reshape(reduced)


def gemm(a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0, broadcast=1):  # noqa: N803
    assert broadcast == 1  # as always in later versions
    x = a.T if transA else a
    weight = alpha * (b.T if transB else b)
    if c is not None:
        c = beta * np.broadcast_to(c, np.broadcast_shapes(c.shape, (1, weight.shape[1])))
        if len(c) > 1:  # a bias for each example: the weights of one-hot features
            x, weight, c = np.hstack([x, np.eye(len(x), dtype=x.dtype)]), np.vstack([weight, c]), None
    layer = cnn.Dense(*weight.shape, bias=c is not None, rng=UNUSED)
    return evaluate(layer, x, weight=weight, **({} if c is None else {"bias": c[0]}))


def matmul(a, b):
    return gemm(a, b)


def flatten(x, *, axis=1):
    return evaluate(cnn.Flatten(), x.reshape(prod(x.shape[:axis]), *x.shape[axis:]))


def softmax(x, *, axis=-1):
    return np.moveaxis(evaluate(cnn.Softmax(), np.moveaxis(x, axis, -1)), -1, axis)


def log_softmax(x, *, axis=-1):
    return np.moveaxis(evaluate(cnn.LogSoftmax(), np.moveaxis(x, axis, -1)), -1, axis)


def softmax_cross_entropy_loss(scores, labels, weights=None, *, reduction="mean", ignore_index=None):
    classes = scores.shape[1]
    kept = labels.reshape(-1) != ignore_index
    logits = channels_last(scores).reshape(-1, classes)[kept]  # each position is an example
    targets = np.eye(classes, dtype=scores.dtype)[labels.reshape(-1)[kept]]
    if reduction == "mean":
        if weights is not None:  # ONNX divides by the sum of the weights, the library by their number
            weights = weights * (len(targets) / (targets @ weights).sum())
        loss = mean_loss(logits, targets, weights)
    else:
        loss = np.zeros(labels.size, np.float32)
        loss[kept] = [
            mean_loss(one, target, weights)
            for one, target in zip(logits[:, None], targets[:, None], strict=True)
        ]
        loss = loss.sum() if reduction == "sum" else loss.reshape(labels.shape)
    return loss, log_softmax(scores, axis=1)


def mean_loss(logits, targets, weights):
    loss, _ = cnn.softmax_cross_entropy(logits, targets, class_weights=weights)
    return np.float32(loss)  # from a Python float


def dropout(x, ratio=0.5, training_mode=False, *, seed=0):
    layer = cnn.Dropout(float(ratio))
    y, ones = (
        layer.forward(array, training=bool(training_mode), rng=Draws(seed)) for array in (x, np.ones_like(x))
    )
    return y, ones != 0


class Draws(np.random.Generator):
    """The random numbers that ONNX's own implementation draws."""

    def __init__(self, seed):
        super().__init__(np.random.PCG64())
        self.source = np.random.RandomState(seed)

    def random(self, size, dtype):
        return self.source.uniform(size=size).astype(dtype)


def relu(x):
    return evaluate(cnn.ReLU(), x)


def leaky_relu(x, *, alpha=0.01):
    return evaluate(cnn.LeakyReLU(alpha), x)


def elu(x, *, alpha=1.0):
    return evaluate(cnn.ELU(alpha), x)


def gelu(x, *, approximate="none"):
    return evaluate(cnn.GELU(approximate={"none": False, "tanh": True}[approximate]), x)


def sigmoid(x):
    return evaluate(cnn.Sigmoid(), x)


def swish(x, *, alpha=1.0):
    assert alpha == 1  # otherwise it is not the SiLU
    return evaluate(cnn.SiLU(), x)


def tanh(x):
    return evaluate(cnn.Tanh(), x)


OPERATORS = {
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Conv": conv,
    "Dropout": dropout,
    "Elu": elu,
    "Flatten": flatten,
    "Gelu": gelu,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "LayerNormalization": layer_normalization,
    "LeakyRelu": leaky_relu,
    "LogSoftmax": log_softmax,
    "MatMul": matmul,
    "MaxPool": maximum_pool,
    "Relu": relu,
    "Sigmoid": sigmoid,
    "Softmax": softmax,
    "SoftmaxCrossEntropyLoss": softmax_cross_entropy_loss,
    "Swish": swish,
    "Tanh": tanh,
}

# Nodes between operators in a graph that compute nothing.
GLUE = {
    "Constant": lambda *, value: numpy_helper.to_array(value),
    "Squeeze": lambda x, *, axes: np.squeeze(x, tuple(axes)),
    "Transpose": lambda x, *, perm: x.transpose(perm),
    "Unsqueeze": lambda x, *, axes: np.expand_dims(x, tuple(axes)),
}


def run(model, inputs):
    """The outputs of an ONNX model that consists of the operators above."""
    graph = model.graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    free = [value.name for value in graph.input if value.name not in values]
    values |= dict(zip(free, inputs, strict=True)) | {"": None}  # "" is an optional input that is left out
    for node in graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
        outputs = (OPERATORS | GLUE)[node.op_type](*(values[name] for name in node.input), **attributes)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        values |= dict(zip(node.output, outputs, strict=False))  # later outputs are optional
    return [values[value.name] for value in graph.output]
