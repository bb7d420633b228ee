"""Checks that several layers share; each error says the rule and what was received."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cnn.layers.layer import Layer, Shape


def check_count(name: str, value: object) -> int:
    """`value`, if it is a whole number >= 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1; received {value!r}.")
    return int(value)


def check_flag(name: str, value: object) -> bool:
    """`value`, if it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False; received {value!r}.")
    return value


def check_image_shape(layer: "Layer", shape: "Shape", channels: int | None = None) -> tuple[int, int, int]:
    """`shape`, if it is (height, width, channels) with as many channels as the layer takes."""
    wanted = f"(height, width, {channels or 'channels'})"
    if len(shape) != 3 or (channels is not None and shape[2] != channels):
        raise ValueError(f"{layer!r} needs images of shape {wanted}; received {tuple(shape)}.")
    return shape[0], shape[1], shape[2]
