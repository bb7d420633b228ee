"""Layers by their names in architectures.yaml, and the network that a list of them describes."""

import inspect
import json
from collections.abc import Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from cnn import AvgPool2D, Conv2D, Dense, Flatten, Layer, MaxPool2D, ReLU, Sequential, Softmax
from cnn.layers.layer import Shape
from pipeline.errors import UserError, unknown

LAYERS: dict[str, type[Layer]] = {
    "avg_pool2d": AvgPool2D,
    "conv2d": Conv2D,
    "dense": Dense,
    "flatten": Flatten,
    "max_pool2d": MaxPool2D,
    "relu": ReLU,
    "softmax": Softmax,
}

# Constructor arguments that follow from the layer's place, and so are never written down.
INFERRED = {"in_channels", "in_features", "rng", "dtype"}


def build_model(
    layers: Sequence[Any], source: str, input_shape: Shape, classes: int, rng: np.random.Generator
) -> Sequential:
    """The network that `layers` describes, for inputs of `input_shape` and so many `classes`.

    Layer by layer, each with the shape that the one before gives; initial values are drawn from `rng` in
    that order. `source` is where the description stands, for errors: "architectures.yaml: baseline".
    """
    built: list[Layer] = []
    shape = input_shape
    for index, spec in enumerate(layers):
        place = f"In {source}[{index}]"
        if (
            not isinstance(spec, dict)
            or not isinstance(spec.get("type"), str)
            or not all(map(_is_text, spec))
        ):
            raise UserError(f"A layer is written {{type: NAME, …}}; received {spec!r}. {place}.")
        kind = spec["type"]
        if kind not in LAYERS:
            raise UserError(f"{unknown('layer type', kind, LAYERS)} {place}.")
        try:
            layer = _build_layer(kind, {k: v for k, v in spec.items() if k != "type"}, shape, rng)
            shape = layer.output_shape(shape)
        except (ValueError, MemoryError, UserError) as error:
            raise UserError(f"{error}\n{place} ({kind}), whose input has shape {shape}.") from None
        built.append(layer)
    if shape != (classes,):
        raise UserError(
            f"A network must end with one number for each of the {classes} classes, in shape ({classes},); "
            f"this one ends in shape {shape}. Let it end with flatten and "
            f"{{type: dense, out_features: {classes}}}.\nIn {source}."
        )
    for index in reversed(range(len(built))):
        if isinstance(built[index], Softmax):
            raise UserError(
                "A network must end in logits: the loss applies softmax itself, and twice would be wrong. "
                f"Remove this softmax.\nIn {source}[{index}]."
            )
        if built[index].parameters():
            break
    return Sequential(built)


def _build_layer(kind: str, options: dict[str, Any], shape: Shape, rng: np.random.Generator) -> Layer:
    """One layer, from its constructor's signature: what it asks for is inferred or stands in `options`."""
    layer_type = LAYERS[kind]
    arguments = inspect.signature(layer_type).parameters
    checked = _check_options(kind, options)
    inferred = {"in_channels": shape[-1], "in_features": shape[-1], "rng": rng}
    return layer_type(**checked, **{name: value for name, value in inferred.items() if name in arguments})


def _check_options(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """`options` with the types that the constructor's annotations ask for; UserError where one has not."""
    schema = _options_schema(LAYERS[kind])
    try:
        # Through JSON, since a pair is a list in YAML, and strict pydantic takes lists for tuples only there.
        parsed = schema.model_validate_json(json.dumps(options, default=str))
    except ValidationError as error:
        # A name that is not known comes first: it may be the one that is missing, misspelt.
        details = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        name = str(details["loc"][0])
        if details["type"] == "missing":
            raise UserError(f"{kind} needs {name}.") from None
        if details["type"] == "extra_forbidden":
            if not schema.model_fields:
                raise UserError(f"{kind} takes no options; received {name}.") from None
            raise UserError(unknown(f"option of {kind}", name, schema.model_fields)) from None
        annotation = schema.model_fields[name].annotation
        kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
        expected = " or ".join(inspect.formatannotation(kind).replace("typing.", "") for kind in kinds)
        raise UserError(f"{name} must be of type {expected}; received {options[name]!r}.") from None
    return {name: getattr(parsed, name) for name in parsed.model_fields_set}


def _is_text(key: object) -> bool:
    return isinstance(key, str)


def _options_schema(layer_type: type[Layer]) -> type[BaseModel]:
    """A pydantic model of what may be written for a layer: its constructor's arguments, less the inferred."""
    if layer_type.__init__ is object.__init__:
        return create_model(layer_type.__name__, __config__=ConfigDict(extra="forbid"))
    hints = get_type_hints(layer_type.__init__)
    fields: dict[str, Any] = {
        name: (hints[name], ... if argument.default is argument.empty else argument.default)
        for name, argument in inspect.signature(layer_type).parameters.items()
        if name not in INFERRED
    }
    return create_model(layer_type.__name__, __config__=ConfigDict(extra="forbid", strict=True), **fields)
