"""Checks of shapes that several layers share; each error states the rule and what was received."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnn.layers.layer import Layer, Shape


def check_channels(layer: "Layer", shape: "Shape", channels: int) -> "Shape":
    """`shape`, if its last axis has length `channels`."""
    if not shape or shape[-1] != channels:
        raise ValueError(
            f"{layer!r} needs {channels} channels on the last axis; received shape {tuple(shape)}."
        )
    return shape


def check_image_shape(layer: "Layer", shape: "Shape", channels: int | None = None) -> tuple[int, int, int]:
    """`shape`, if it is (height, width, channels) with as many channels as the layer takes."""
    wanted = f"(height, width, {channels or 'channels'})"
    if len(shape) != 3 or min(shape) < 1 or (channels is not None and shape[2] != channels):
        raise ValueError(f"{layer!r} needs images of shape {wanted}; received {tuple(shape)}.")
    return shape[0], shape[1], shape[2]
