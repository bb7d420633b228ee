"""Builds networks from plain values, as YAML and JSON files hold them. `Layer.spec` is the inverse."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import DTypeLike

from cnn.initializers import Initializer
from cnn.layers import Layer
from cnn.layers.layer import Shape
from cnn.registry import INITIALIZERS, LAYERS, REQUIRED, Option, options, unknown

DEEPEST = 20  # layers in layers


class SpecError(ValueError):
    """No network can be built from a description; the message says which part of it is wrong."""


def from_spec(
    spec: Mapping[str, Any], *, rng: np.random.Generator | None = None, dtype: DTypeLike = np.float32
) -> Layer:
    """Build the layer that `spec` describes, as returned by `Layer.spec`: {"type": "relu"}, for example.

    Args:
        rng: the source of initial values; None uses seed 0, for values that are replaced afterwards.
        dtype: the dtype of the parameters.

    Raises: SpecError if no layer can be built from it.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    return _Builder(rng, dtype).build(spec, "spec", None)


def layers_from_specs(
    specs: Sequence[Any], input_shape: Shape, rng: np.random.Generator, place: str = "layers"
) -> list[Layer]:
    """Build the layers of a hand-written list, for inputs of `input_shape`. Raises SpecError.

    Arguments that follow from the layer before (in_channels, for example) are not written. Initial values
    are drawn from `rng` in the order of the layers. `place` is the location of the list, for errors.
    """
    return _Builder(rng, np.float32).build_list(specs, place, input_shape)


class _Builder:
    """Builds layers. If it knows the input shape, it infers the arguments that follow from the shape."""

    def __init__(self, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.rng, self.dtype = rng, dtype
        self.depth = 0  # of the layer that is being built

    def build_list(self, specs: Any, place: str, shape: Shape | None) -> list[Layer]:
        if not isinstance(specs, list):
            raise SpecError(f"Layers must be written as a list; received {specs!r}. In {place}.")
        built: list[Layer] = []
        for index, spec in enumerate(specs):
            built.append(self.build(spec, f"{place}[{index}]", shape))
            if shape is not None:
                with _Located(f"{place}[{index}]", spec, shape):
                    shape = built[-1].output_shape(shape)
        return built

    def build(self, spec: Any, place: str, shape: Shape | None) -> Layer:
        named = isinstance(spec, Mapping) and isinstance(spec.get("type"), str)
        if not named or not all(isinstance(key, str) for key in spec):
            raise SpecError(f"A layer must be written {{type: NAME, …}}; received {spec!r}. In {place}.")
        if spec["type"] not in LAYERS:
            raise SpecError(f"{unknown(LAYERS.kind, spec['type'], LAYERS)} In {place}.")
        if self.depth == DEEPEST:
            raise SpecError(f"Layers are nested more than {DEEPEST} deep. In {place[:80]}….")
        with _Located(place, spec, shape):
            layer_type = LAYERS[spec["type"]]
            known = options(layer_type)
            written = {name: value for name, value in spec.items() if name != "type"}
            _check_names(spec["type"], written, known, place_decides=shape is not None)
            self.depth += 1
            arguments = {
                name: self._value(option, written, place, shape)
                for name, option in known.items()
                if name in written
                or (option.given and (shape is not None or option.name in ("rng", "dtype")))
            }
            self.depth -= 1
            missing = [n for n, o in known.items() if o.default is REQUIRED and n not in arguments]
            if missing:
                raise ValueError(f"{spec['type']} needs {missing[0]}.")
            layer: Layer = layer_type(**arguments)
            return layer

    def _value(self, option: Option, written: Mapping[str, Any], place: str, shape: Shape | None) -> Any:
        if option.name not in written:
            if option.name in ("rng", "dtype"):
                return getattr(self, option.name)
            assert shape is not None
            return shape[-1]  # the length of the last axis
        value = written[option.name]
        if option.annotation == Initializer:
            return INITIALIZERS.find(value)
        if not _mentions_layers(option) or (value is None and option.default is None):
            return _as_tuples(value)
        if option.takes_list:
            return self.build_list(value, f"{place}.{option.name}", shape)
        return self.build(value, f"{place}.{option.name}", shape)


class _Located:
    """Turns errors in its `with` block into a SpecError that also names the place in the description."""

    def __init__(self, place: str, spec: Mapping[str, Any], shape: Shape | None) -> None:
        seen = "" if shape is None else f", whose input has shape {shape}"
        self.where = f"\nIn {place} ({spec['type']}){seen}."

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, ValueError | TypeError | MemoryError) and not isinstance(error, SpecError):
            raise SpecError(f"{error}{self.where}") from None


def _check_names(
    kind: str, written: Mapping[str, Any], known: Mapping[str, Option], *, place_decides: bool
) -> None:
    """ValueError for an option that the layer does not have, or that follows from its place."""
    for name in written:
        if place_decides and name in known and known[name].given:
            raise ValueError(f"{name} follows from the layer's place: leave it out.")
    writable = [name for name, option in known.items() if not (place_decides and option.given)]
    for name in written:
        if name not in writable:
            if not writable:
                raise ValueError(f"{kind} takes no options; received {name}.")
            raise ValueError(unknown(f"option of {kind}", name, writable))


def _mentions_layers(option: Option) -> bool:
    alternatives = (option.annotation, *get_args(option.annotation))
    return Layer in alternatives or any(Layer in get_args(annotation) for annotation in alternatives)


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
