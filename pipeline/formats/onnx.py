"""A network as an ONNX model: each layer becomes the operators that compute it in evaluation.

Images enter as (N, height, width, channels), as everywhere in this project. ONNX's convolutions and poolings
want the channels first, so a transposition stands before the first of them, and before each layer that needs
the channels last again, such as Flatten. N is symbolic: any number of images.

The weights keep their names and, except for kernels, their layout: "0.kernel" is (out, in / groups, height,
width) in the file. Only operators of version 17 are used, since many tools read no later ones: GELU and SiLU
are composed, dilated average pooling is a convolution.
Source: https://onnx.ai/onnx/operators, and for the format https://onnx.ai/onnx/repo-docs/IR.html.
"""

from collections.abc import Callable, Mapping
from math import pi, sqrt
from typing import Any, NamedTuple, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cnn import layers as kinds
from cnn.layers import Layer, Sequential
from cnn.layers.layer import Shape
from cnn.layers.pool import Pool2D
from cnn.ops.windows import FourSides
from pipeline.artefacts.preprocess import Description
from pipeline.config.architectures import gives_probabilities
from pipeline.errors import UserError

OPSET, IR = 17, 8
INPUT, LOGITS, PROBABILITIES = "images", "logits", "probabilities"
BATCH = "N"
FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)  # the transpositions to channels first, and to channels last
L = TypeVar("L", bound=Layer)


class Value(NamedTuple):
    """An intermediate result: its name, its shape as the library has it, and whether channels come first."""

    name: str
    shape: Shape
    channels_first: bool = False


class Graph:
    """Nodes and constants, in the order in which they were added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, TensorProto] = {}

    def constant(self, name: str, array: NDArray[Any] | float) -> str:
        """Add a constant: an array, or a number as float32; return its name."""
        values = np.asarray(array, np.float32) if isinstance(array, float) else np.asarray(array, order="C")
        self.constants[name] = numpy_helper.from_array(values, name)
        return name

    def node(self, operator: str, inputs: list[str], place: str, **attributes: Any) -> str:
        """Add a node; its output, whose name is returned, is PLACE/OPERATOR, numbered from the second on."""
        name = f"{place}/{operator}"
        number = sum(other.op_type == operator and other.name.startswith(name) for other in self.nodes)
        name += f"_{number + 1}" if number else ""
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def channels_first(self, x: Value, place: str) -> str:
        """The name of x as (N, channels, height, width)."""
        if len(x.shape) != 3 or x.channels_first:
            return x.name
        return self.node("Transpose", [x.name], place, perm=FIRST)

    def channels_last(self, x: Value, place: str) -> str:
        """The name of x as (N, height, width, channels)."""
        if not x.channels_first:
            return x.name
        return self.node("Transpose", [x.name], place, perm=LAST)


Emitter = Callable[[Graph, str, Any, Value], Value]
EMITTERS: dict[type[Layer], Emitter] = {}


def emits(*layer_types: type[Layer]) -> Callable[[Emitter], Emitter]:
    """Register what adds these layers to a graph: (graph, name of the layer, layer, x) -> y."""

    def register(emitter: Emitter) -> Emitter:
        EMITTERS.update(dict.fromkeys(layer_types, emitter))
        return emitter

    return register


def emit(graph: Graph, place: str, layer: Layer, x: Value) -> Value:
    """Add a layer, whose name in the network is `place`; UserError if its type has no emitter."""
    if type(layer) not in EMITTERS:
        raise UserError(
            f"Nothing says which operators of ONNX compute the layer {place}, {type(layer).__name__}. "
            "Register a function for it in pipeline/formats/onnx.py, as docs/export.md shows."
        )
    return EMITTERS[type(layer)](graph, place, layer, x)


@emits(kinds.Sequential)
def _sequential(graph: Graph, place: str, layer: Sequential, x: Value) -> Value:
    for name, child in layer.children().items():
        x = emit(graph, f"{place}.{name}" if place else name, child, x)
    return x


@emits(kinds.Residual)
def _residual(graph: Graph, place: str, layer: kinds.Residual, x: Value) -> Value:
    y = _sequential(graph, f"{place}.layers", layer.layers, x)
    other = x if layer.shortcut is None else _sequential(graph, f"{place}.shortcut", layer.shortcut, x)
    to_layout = graph.channels_first if y.channels_first else graph.channels_last
    total = graph.node("Add", [y.name, to_layout(other, place)], place)
    return Value(total, y.shape, y.channels_first)


@emits(kinds.Conv2D)
def _conv(graph: Graph, place: str, layer: kinds.Conv2D, x: Value) -> Value:
    kernel = graph.constant(f"{place}.kernel", layer.kernel.value.transpose(3, 2, 0, 1))
    bias = [] if layer.bias is None else [graph.constant(f"{place}.bias", layer.bias.value)]
    y = graph.node(
        "Conv",
        [graph.channels_first(x, place), kernel, *bias],
        place,
        kernel_shape=layer.window.kernel_size,
        strides=layer.window.stride,
        dilations=layer.window.dilation,
        group=layer.groups,
        pads=_pads(layer.window.pads(*x.shape[:2])),
    )
    return Value(y, layer.output_shape(x.shape), channels_first=True)


@emits(kinds.Dense)
def _dense(graph: Graph, place: str, layer: kinds.Dense, x: Value) -> Value:
    weight = graph.constant(f"{place}.weight", layer.weight.value)
    if layer.bias is None:
        y = graph.node("MatMul", [x.name, weight], place)
    else:
        y = graph.node("Gemm", [x.name, weight, graph.constant(f"{place}.bias", layer.bias.value)], place)
    return Value(y, layer.output_shape(x.shape))


@emits(kinds.MaxPool2D)
def _max_pool(graph: Graph, place: str, layer: kinds.MaxPool2D, x: Value) -> Value:
    pads = layer.window.cover(*x.shape[:2])  # with what ceil_mode adds; no maximum is there
    name = graph.channels_first(x, place)
    if _exceeds(pads, layer):
        name, pads = _padded(graph, place, name, pads, -np.inf), ((0, 0), (0, 0))
    y = graph.node(
        "MaxPool",
        [name],
        place,
        kernel_shape=layer.window.kernel_size,
        strides=layer.window.stride,
        dilations=layer.window.dilation,
        pads=_pads(pads),
    )
    return Value(y, layer.output_shape(x.shape), channels_first=True)


@emits(kinds.AvgPool2D)
def _avg_pool(graph: Graph, place: str, layer: kinds.AvgPool2D, x: Value) -> Value:
    """The mean over whole windows of the padded image; where a window counts fewer pixels, times a factor."""
    window, (height, width, channels) = layer.window, x.shape
    name, pads = graph.channels_first(x, place), window.cover(height, width)
    if any(_pads(pads)):
        name = _padded(graph, place, name, pads, 0.0)
    options: dict[str, Any] = {"kernel_shape": window.kernel_size, "strides": window.stride}
    area = window.kernel_size[0] * window.kernel_size[1]
    if window.dilation == (1, 1):
        y = graph.node("AveragePool", [name], place, **options)
    else:
        share = np.full((channels, 1, *window.kernel_size), 1 / area, np.float32)
        kernel = graph.constant(f"{place}.share", share)
        y = graph.node("Conv", [name, kernel], place, dilations=window.dilation, group=channels, **options)
    counted = window.pads(height, width) if layer.count_include_pad else ((0, 0), (0, 0))
    count = window.coverage(height, width, counted)
    if (count != area).any():
        factor = graph.constant(f"{place}.factor", (area / count[None, None, :, :, 0]).astype(np.float32))
        y = graph.node("Mul", [y, factor], place)
    return Value(y, layer.output_shape(x.shape), channels_first=True)


@emits(kinds.GlobalAvgPool2D, kinds.GlobalMaxPool2D)
def _global_pool(graph: Graph, place: str, layer: Layer, x: Value) -> Value:
    operator = "GlobalAveragePool" if isinstance(layer, kinds.GlobalAvgPool2D) else "GlobalMaxPool"
    pooled = graph.node(operator, [graph.channels_first(x, place)], place)
    return Value(graph.node("Flatten", [pooled], place), layer.output_shape(x.shape))


@emits(kinds.BatchNorm)
def _batch_norm(graph: Graph, place: str, layer: kinds.BatchNorm, x: Value) -> Value:
    gamma = np.ones_like(layer.beta.value) if layer.gamma is None else layer.gamma.value
    arrays = {
        "gamma": gamma,
        "beta": layer.beta.value,
        "running_mean": layer.running_mean,
        "running_var": layer.running_var,
    }
    inputs = [graph.constant(f"{place}.{name}", array) for name, array in arrays.items()]
    name = graph.channels_first(x, place)
    y = graph.node("BatchNormalization", [name, *inputs], place, epsilon=layer.epsilon)
    return Value(y, x.shape, channels_first=len(x.shape) == 3)


@emits(kinds.LayerNorm)
def _layer_norm(graph: Graph, place: str, layer: kinds.LayerNorm, x: Value) -> Value:
    gamma = graph.constant(f"{place}.gamma", layer.gamma.value)
    beta = graph.constant(f"{place}.beta", layer.beta.value)
    inputs = [graph.channels_last(x, place), gamma, beta]
    y = graph.node("LayerNormalization", inputs, place, axis=-1, epsilon=layer.epsilon)
    return Value(y, x.shape)


@emits(kinds.Softmax, kinds.LogSoftmax)
def _softmax(graph: Graph, place: str, layer: Layer, x: Value) -> Value:
    y = graph.node(type(layer).__name__, [x.name], place, axis=1 if x.channels_first else -1)
    return x._replace(name=y)


@emits(kinds.ReLU, kinds.Sigmoid, kinds.Tanh)
def _activation(graph: Graph, place: str, layer: Layer, x: Value) -> Value:
    operators = {kinds.ReLU: "Relu", kinds.Sigmoid: "Sigmoid", kinds.Tanh: "Tanh"}
    return x._replace(name=graph.node(operators[type(layer)], [x.name], place))


@emits(kinds.LeakyReLU)
def _leaky_relu(graph: Graph, place: str, layer: kinds.LeakyReLU, x: Value) -> Value:
    return x._replace(name=graph.node("LeakyRelu", [x.name], place, alpha=layer.slope))


@emits(kinds.ELU)
def _elu(graph: Graph, place: str, layer: kinds.ELU, x: Value) -> Value:
    return x._replace(name=graph.node("Elu", [x.name], place, alpha=layer.alpha))


@emits(kinds.SiLU)
def _silu(graph: Graph, place: str, layer: kinds.SiLU, x: Value) -> Value:
    sigmoid = graph.node("Sigmoid", [x.name], place)
    return x._replace(name=graph.node("Mul", [x.name, sigmoid], place))


@emits(kinds.GELU)
def _gelu(graph: Graph, place: str, layer: kinds.GELU, x: Value) -> Value:
    """½·x·(1 + erf(x / √2)), or with tanh(√(2/π)·(x + 0.044715·x³)) in place of erf."""
    one, half = graph.constant(f"{place}.one", 1.0), graph.constant(f"{place}.half", 0.5)
    if layer.approximate:
        cube = graph.node("Mul", [graph.node("Mul", [x.name, x.name], place), x.name], place)
        part = graph.node("Mul", [cube, graph.constant(f"{place}.part", 0.044715)], place)
        inner = graph.node("Add", [x.name, part], place)
        scaled = graph.node("Mul", [inner, graph.constant(f"{place}.factor", sqrt(2 / pi))], place)
        bend = graph.node("Tanh", [scaled], place)
    else:
        root = graph.constant(f"{place}.root", sqrt(2))
        bend = graph.node("Erf", [graph.node("Div", [x.name, root], place)], place)
    product = graph.node("Mul", [x.name, graph.node("Add", [bend, one], place)], place)
    return x._replace(name=graph.node("Mul", [product, half], place))


@emits(kinds.Scale)
def _scale(graph: Graph, place: str, layer: kinds.Scale, x: Value) -> Value:
    factor = graph.constant(f"{place}.factor", float(layer.factor))
    return x._replace(name=graph.node("Mul", [x.name, factor], place))


@emits(kinds.Flatten)
def _flatten(graph: Graph, place: str, layer: kinds.Flatten, x: Value) -> Value:
    if len(x.shape) == 1:
        return x
    y = graph.node("Flatten", [graph.channels_last(x, place)], place)
    return Value(y, layer.output_shape(x.shape))


@emits(kinds.Dropout, kinds.SpatialDropout)
def _dropout(graph: Graph, place: str, layer: kinds.Dropout, x: Value) -> Value:
    return x


def to_onnx(
    model: Sequential, data: Description, metadata: Mapping[str, str], *, from_bytes: bool = False
) -> ModelProto:
    """The network as a checked ONNX model; the same network always gives the same one.

    Args:
        model: the network.
        data: what its images are; their normalisation becomes part of the model.
        metadata: texts to store in the model.
        from_bytes: whether images come as uint8, as decoded, instead of float32 in [0, 1].
    """
    graph = Graph()
    x = _normalised(graph, data, from_bytes)
    if gives_probabilities(model):
        *before, last = _flat(model)
        for place, layer in before:
            x = emit(graph, place, layer, x)
        y = graph.node("Softmax", [x.name], last[0], axis=-1)
    else:
        x = emit(graph, "", model, x)
        y = graph.node("Softmax", [x.name], PROBABILITIES, axis=-1)
    graph.nodes.append(helper.make_node("Identity", [x.name], [LOGITS], name=LOGITS))
    graph.nodes.append(helper.make_node("Identity", [y], [PROBABILITIES], name=PROBABILITIES))
    kind = TensorProto.UINT8 if from_bytes else TensorProto.FLOAT
    shape: list[str | int | None] = [BATCH, len(data.class_names)]
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "network",
            [helper.make_tensor_value_info(INPUT, kind, [BATCH, *data.image_shape])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name in (LOGITS, PROBABILITIES)
            ],
            list(graph.constants.values()),
        ),
        ir_version=IR,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="numpy-cnn",
    )
    helper.set_model_props(proto, dict(sorted(metadata.items())))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def to_bytes(proto: ModelProto) -> bytes:
    """The bytes of the file; the same for the same model."""
    return proto.SerializeToString(deterministic=True)


def _normalised(graph: Graph, data: Description, from_bytes: bool) -> Value:
    """`Description.normalise`, step by step."""
    name = INPUT
    if from_bytes:
        name = graph.node("Cast", [name], INPUT, to=TensorProto.FLOAT)
        name = graph.node("Div", [name, graph.constant(f"{INPUT}.255", 255.0)], INPUT)
    if any(data.mean) or any(deviation != 1 for deviation in data.deviation):
        mean = graph.constant(f"{INPUT}.mean", np.array(data.mean, np.float32))
        deviation = graph.constant(f"{INPUT}.deviation", np.array(data.deviation, np.float32))
        name = graph.node("Div", [graph.node("Sub", [name, mean], INPUT), deviation], INPUT)
    return Value(name, data.image_shape)


def _flat(layer: Sequential, place: str = "") -> list[tuple[str, Layer]]:
    """(name, layer) of the layers, with each Sequential replaced by its layers."""
    return [
        found
        for name, child in layer.children().items()
        for found in (
            _flat(child, f"{place}{name}.") if isinstance(child, Sequential) else [(f"{place}{name}", child)]
        )
    ]


def _pads(sides: FourSides) -> list[int]:
    """In ONNX's order: top, left, bottom, right."""
    (top, bottom), (left, right) = sides
    return [top, left, bottom, right]


def _exceeds(sides: FourSides, layer: Pool2D) -> bool:
    """Whether a side is as long as the kernel, which onnxruntime refuses as padding of a pooling."""
    return any(
        pad >= size for side, size in zip(sides, layer.window.kernel_size, strict=True) for pad in side
    )


def _padded(graph: Graph, place: str, name: str, sides: FourSides, value: float) -> str:
    """The images with `value` around them."""
    top, left, bottom, right = _pads(sides)
    pads = graph.constant(f"{place}.pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    return graph.node("Pad", [name, pads, graph.constant(f"{place}.padding", value)], place)
