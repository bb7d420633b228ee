"""architectures.yaml: the networks by name, and what params.yaml chooses of them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn import Layer, Sequential, Softmax, SpecError
from cnn.layers.layer import Shape
from cnn.random import Stream, derive_rng
from cnn.registry import unknown
from cnn.specs import layers_from_specs
from cnn.whitening import layer_to_whiten
from pipeline.config.params import Params
from pipeline.config.yaml_files import read_mapping
from pipeline.errors import UserError
from pipeline.paths import ARCHITECTURES


def load_layers(architecture: str, path: Path = ARCHITECTURES) -> list[Any]:
    """The list of layers named `architecture` in the file at `path`, not yet checked."""
    architectures = {str(name): layers for name, layers in read_mapping(path).items()}
    if architecture not in architectures:
        raise UserError(f"{unknown('architecture', architecture, architectures)} They are in {path}.")
    if not re.fullmatch(r"[\w-]+", architecture):  # DVC reads a dot as a key within a key
        raise UserError(
            f"In {path}: the name of an architecture must consist of letters, digits, _ and -; "
            f"received {architecture!r}."
        )
    layers = architectures[architecture]
    if not isinstance(layers, list) or not layers:
        raise UserError(
            f"In {path}: {architecture} must be a list of at least one layer; received {layers!r}."
        )
    return layers


def build_chosen(params: Params, input_shape: Shape, classes: int) -> tuple[Sequential, list[Any]]:
    """The network that params.yaml chooses, with its initial values, and its list of layers as written.

    UserError if it does not fit inputs of `input_shape`, the number of `classes`, or the chosen loss.
    """
    name = params.model.architecture
    layers, source = load_layers(name), f"{ARCHITECTURES}: {name}"
    rng = derive_rng(params.seed, Stream.INITIALIZATION)
    model = build_model(layers, source, input_shape, classes, rng)
    if not model.parameters():
        raise UserError(f"A network without parameters cannot learn.\nIn {source}.")
    try:
        layer_to_whiten(model)
    except ValueError as error:
        raise UserError(f"{error}\nIn {source}.") from None
    _check_ending(model, params.train.loss.name, source)
    return model, layers


def build_model(
    layers: Sequence[Any], source: str, input_shape: Shape, classes: int, rng: np.random.Generator
) -> Sequential:
    """The network that `layers` describes, for inputs of `input_shape` and this number of `classes`.

    In the description, the word `classes` stands for their number, as in `out_features: classes`.

    Initial values are drawn from `rng`. `source` is where the description is, for error messages:
    "architectures.yaml: baseline".
    """
    try:
        model = Sequential(layers_from_specs(_with_classes(layers, classes), input_shape, rng, source))
    except SpecError as error:
        raise UserError(str(error)) from None
    shape = model.output_shape(input_shape)
    if shape != (classes,):
        raise UserError(
            f"A network must end with one number for each of the {classes} classes, in shape ({classes},); "
            f"this one ends in shape {shape}. Let it end with flatten and "
            f"{{type: dense, out_features: classes}}.\nIn {source}."
        )
    return model


def _with_classes(description: Any, classes: int) -> Any:
    """The `description` with the number in place of the word `classes`."""
    match description:
        case "classes":
            return classes
        case list():
            return [_with_classes(item, classes) for item in description]
        case dict():
            return {key: _with_classes(value, classes) for key, value in description.items()}
    return description


def gives_probabilities(layer: Layer) -> bool:
    """Whether a network ends in Softmax, and so in probabilities instead of logits."""
    while isinstance(layer, Sequential) and layer.layers:
        layer = layer.layers[-1]
    return isinstance(layer, Softmax)


def _check_ending(model: Sequential, loss: str, source: str) -> None:
    """UserError if the loss needs logits and softmax comes after the last parameters, or the reverse."""
    if loss == "cross_entropy" and not gives_probabilities(model):
        raise UserError(
            "The loss cross_entropy needs probabilities: let the network end with {type: softmax}, or use "
            f"the loss softmax_cross_entropy.\nIn {source}, and in params.yaml: train.loss.name."
        )
    after_parameters: list[Layer] = []
    for layer in _flat(model):
        after_parameters = [] if layer.parameters() else [*after_parameters, layer]
    if loss == "softmax_cross_entropy" and any(isinstance(layer, Softmax) for layer in after_parameters):
        raise UserError(
            "The loss softmax_cross_entropy needs logits, since it applies softmax itself, and applying it "
            "twice would be wrong. Remove the softmax after the last layer with parameters, or set "
            f"train.loss.name to cross_entropy.\nIn {source}."
        )


def _flat(model: Sequential) -> list[Layer]:
    """The layers of `model`, with each Sequential replaced by its layers."""
    return [
        inner
        for layer in model.layers
        for inner in (_flat(layer) if isinstance(layer, Sequential) else [layer])
    ]
