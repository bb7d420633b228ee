"""Layers by their names in architectures.yaml, and the network that a list of them describes."""

import inspect
import json
from collections.abc import Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from cnn import (
    ELU,
    GELU,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Layer,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    SpatialDropout,
    Tanh,
    initializers,
)
from cnn.initializers import Initializer
from cnn.layers.layer import Shape
from cnn.random import Stream, derive_rng
from pipeline.config.params import Params, load_layers
from pipeline.errors import UserError, shown, unknown
from pipeline.paths import ARCHITECTURES

LAYERS: dict[str, type[Layer]] = {
    "avg_pool2d": AvgPool2D,
    "batch_norm": BatchNorm,
    "conv2d": Conv2D,
    "dense": Dense,
    "dropout": Dropout,
    "elu": ELU,
    "flatten": Flatten,
    "gelu": GELU,
    "global_avg_pool2d": GlobalAvgPool2D,
    "global_max_pool2d": GlobalMaxPool2D,
    "layer_norm": LayerNorm,
    "leaky_relu": LeakyReLU,
    "log_softmax": LogSoftmax,
    "max_pool2d": MaxPool2D,
    "relu": ReLU,
    "residual": Residual,
    "sequential": Sequential,
    "sigmoid": Sigmoid,
    "silu": SiLU,
    "softmax": Softmax,
    "spatial_dropout": SpatialDropout,
    "tanh": Tanh,
}
INITIALIZERS: dict[str, Initializer] = {
    name: getattr(initializers, name)
    for name in (
        "fan_in_uniform",
        "glorot_normal",
        "glorot_uniform",
        "he_normal",
        "he_uniform",
        "lecun_normal",
        "lecun_uniform",
        "orthogonal",
        "zeros",
    )
}

# Constructor arguments that follow from the layer's place, and so are never written down.
INFERRED = {"in_channels", "in_features", "channels", "rng", "dtype"}


# What stands in the file for arguments that it cannot hold: lists of descriptions, and names.
NESTED = {Sequence[Layer]: list[Any], Sequence[Layer] | None: list[Any] | None}
NAMED = {Initializer: Literal[tuple(INITIALIZERS)]}


def build_chosen(params: Params, input_shape: Shape, classes: int) -> tuple[Sequential, list[Any]]:
    """The network that params.yaml chooses, with its initial values, and its description as it stands.

    UserError where it does not fit inputs of `input_shape`, so many `classes`, or the chosen loss.
    """
    name = params.model.architecture
    layers, source = load_layers(name), f"{ARCHITECTURES}: {name}"
    rng = derive_rng(params.seed, Stream.INITIALIZATION)
    model = build_model(layers, source, input_shape, classes, rng)
    if not model.parameters():
        raise UserError(f"A network without any parameter cannot learn.\nIn {source}.")
    _check_ending(model, params.train.loss.name, source)
    return model, layers


def build_model(
    layers: Sequence[Any], source: str, input_shape: Shape, classes: int, rng: np.random.Generator
) -> Sequential:
    """The network that `layers` describes, for inputs of `input_shape` and so many `classes`.

    Layer by layer, each with the shape that the one before gives; initial values are drawn from `rng` in
    that order. `source` is where the description stands, for errors: "architectures.yaml: baseline".
    """
    built, shape = _build_layers(layers, source, input_shape, rng)
    if shape != (classes,):
        raise UserError(
            f"A network must end with one number for each of the {classes} classes, in shape ({classes},); "
            f"this one ends in shape {shape}. Let it end with flatten and "
            f"{{type: dense, out_features: {classes}}}.\nIn {source}."
        )
    return Sequential(built)


def gives_probabilities(layer: Layer) -> bool:
    """Whether a network ends in Softmax, and so in probabilities instead of logits."""
    while isinstance(layer, Sequential) and layer.layers:
        layer = layer.layers[-1]
    return isinstance(layer, Softmax)


def _check_ending(model: Sequential, loss: str, source: str) -> None:
    """UserError where the loss needs logits and softmax comes after the last parameters, or the reverse."""
    if loss == "cross_entropy" and not gives_probabilities(model):
        raise UserError(
            "The loss cross_entropy needs probabilities: let the network end with {type: softmax}, or take "
            f"the loss softmax_cross_entropy.\nIn {source}, and in params.yaml: train.loss.name."
        )
    after_parameters: list[Layer] = []
    for layer in _flat(model):
        after_parameters = [] if layer.parameters() else [*after_parameters, layer]
    if loss == "softmax_cross_entropy" and any(isinstance(layer, Softmax) for layer in after_parameters):
        raise UserError(
            "The loss softmax_cross_entropy needs logits, since it applies softmax itself, and twice would "
            "be wrong. Remove the softmax after the last layer with parameters, or set train.loss.name to "
            f"cross_entropy.\nIn {source}."
        )


def _flat(model: Sequential) -> list[Layer]:
    """The layers of `model`, with those of a Sequential in its place."""
    return [
        inner
        for layer in model.layers
        for inner in (_flat(layer) if isinstance(layer, Sequential) else [layer])
    ]


def _build_layers(
    specs: Sequence[Any], source: str, shape: Shape, rng: np.random.Generator
) -> tuple[list[Layer], Shape]:
    """The layers that `specs` describe for inputs of `shape`, and the shape that the last one gives."""
    if not isinstance(specs, list):
        raise UserError(f"Layers are written as a list; received {specs!r}. In {source}.")
    built: list[Layer] = []
    for index, spec in enumerate(specs):
        place = f"{source}[{index}]"
        if (
            not isinstance(spec, dict)
            or not isinstance(spec.get("type"), str)
            or not all(map(_is_text, spec))
        ):
            raise UserError(f"A layer is written {{type: NAME, …}}; received {spec!r}. In {place}.")
        kind = spec["type"]
        if kind not in LAYERS:
            raise UserError(f"{unknown('layer type', kind, LAYERS)} In {place}.")
        try:
            options = _check_options(kind, {k: v for k, v in spec.items() if k != "type"})
        except UserError as error:
            raise UserError(f"{error}\nIn {place} ({kind}), whose input has shape {shape}.") from None
        for name in _nested(LAYERS[kind]):
            if options.get(name) is not None:
                options[name], _ = _build_layers(options[name], f"{place}.{name}", shape, rng)
        try:
            layer = _build_layer(LAYERS[kind], options, shape, rng)
            shape = layer.output_shape(shape)
        except (ValueError, MemoryError) as error:
            raise UserError(f"{error}\nIn {place} ({kind}), whose input has shape {shape}.") from None
        built.append(layer)
    return built, shape


def _build_layer(
    layer_type: type[Layer], options: dict[str, Any], shape: Shape, rng: np.random.Generator
) -> Layer:
    """One layer, from its constructor's signature: what it asks for is inferred or stands in `options`."""
    arguments = inspect.signature(layer_type).parameters
    inferred = dict.fromkeys(("in_channels", "in_features", "channels"), shape[-1]) | {"rng": rng}
    return layer_type(**options, **{name: value for name, value in inferred.items() if name in arguments})


def _check_options(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """`options` with the types that the constructor's annotations ask for; UserError where one has not."""
    schema = _options_schema(LAYERS[kind])
    try:
        # Through JSON, since a pair is a list in YAML, and strict pydantic takes lists for tuples only there.
        parsed = schema.model_validate_json(json.dumps(options, default=str))
    except (RecursionError, ValueError) as error:
        if not isinstance(error, ValidationError) or not error.errors()[0]["loc"]:
            raise UserError(f"The options of {kind} are nested too deeply.") from None
        # A name that is not known comes first: it may be the one that is missing, misspelt.
        details = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        name = str(details["loc"][0])
        if name in INFERRED:
            raise UserError(f"{name} follows from the layer's place: leave it out.") from None
        if details["type"] == "missing":
            raise UserError(f"{kind} needs {name}.") from None
        if details["type"] == "extra_forbidden":
            if not schema.model_fields:
                raise UserError(f"{kind} takes no options; received {name}.") from None
            raise UserError(unknown(f"option of {kind}", name, schema.model_fields)) from None
        if details["type"] == "literal_error":
            raise UserError(unknown(name, str(options[name]), INITIALIZERS)) from None
        annotation = schema.model_fields[name].annotation
        kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
        expected = " or ".join(inspect.formatannotation(kind).replace("typing.", "") for kind in kinds)
        expected = expected.replace("list[Any]", "list of layers").replace("NoneType", "null")
        raise UserError(f"{name} must be of type {expected}; received {shown(options[name])}.") from None
    checked = {name: getattr(parsed, name) for name in parsed.model_fields_set}
    return checked | {k: INITIALIZERS[v] for k, v in checked.items() if k == "initializer"}


def _is_text(key: object) -> bool:
    return isinstance(key, str)


def _nested(layer_type: type[Layer]) -> list[str]:
    """The names of the constructor's arguments that are layers, in their order: that of the initial draws."""
    return [name for name, hint in _hints(layer_type).items() if hint in NESTED]


def _hints(layer_type: type[Layer]) -> dict[str, Any]:
    """The types of the constructor's arguments."""
    return {} if layer_type.__init__ is object.__init__ else get_type_hints(layer_type.__init__)


def _options_schema(layer_type: type[Layer]) -> type[BaseModel]:
    """A pydantic model of what may be written for a layer: its constructor's arguments, less the inferred."""
    hints = _hints(layer_type)
    fields: dict[str, Any] = {
        name: (
            (NESTED | NAMED).get(hints[name], hints[name]),
            ... if argument.default is argument.empty else argument.default,
        )
        for name, argument in inspect.signature(layer_type).parameters.items()
        if name not in INFERRED and name in hints
    }
    return create_model(layer_type.__name__, __config__=ConfigDict(extra="forbid", strict=True), **fields)
