"""What is measured: networks, layers and sizes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import BatchNorm, Conv2D, Dense, Examples, Layer, MaxPool2D, ReLU, Sequential
from cnn.layers.layer import Shape
from pipeline.config.architectures import build_model, load_layers
from pipeline.paths import ARCHITECTURES

ROOT = Path(__file__).parents[1]
CLASSES = 10
BATCH_SIZES = (64, 256)
THREADS = (1, 2)
LAYER_BATCH_SIZE = 64


def _vgg_like() -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = []
    for channels in (64, 128, 256):
        for _ in range(2):
            layers += [
                {
                    "type": "conv2d",
                    "out_channels": channels,
                    "kernel_size": 3,
                    "padding": "same",
                    "bias": False,  # batch_norm adds one
                },
                {"type": "batch_norm"},
                {"type": "relu"},
            ]
        layers.append({"type": "max_pool2d", "kernel_size": 2})
    return [*layers, {"type": "global_avg_pool2d"}, {"type": "dense", "out_features": CLASSES}]


VGG_LIKE = _vgg_like()
INPUT_SHAPES: dict[str, Shape] = {
    "baseline": (28, 28, 1),
    "sample": (28, 28, 1),
    "VGG-like": (32, 32, 3),
}


def make_network(name: str) -> tuple[Sequential, Shape]:
    """A network of INPUT_SHAPES, with the same initial values in each call, and the shape of its input."""
    layers = VGG_LIKE if name == "VGG-like" else load_layers(name, ROOT / ARCHITECTURES)
    shape = INPUT_SHAPES.get(name, (28, 28, 1))
    return build_model(layers, name, shape, CLASSES, np.random.default_rng(0)), shape


def make_examples(count: int, shape: Shape) -> Examples:
    """Random images and one-hot targets: how long a step takes does not depend on what they show."""
    rng = np.random.default_rng(1)
    images = rng.random((count, *shape), dtype=np.float32)
    return Examples(images, np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, count)])


@dataclass(frozen=True)
class LayerCase:
    """A single layer: the function that makes it, and the shape of its input."""

    name: str
    make: Callable[[np.random.Generator], Layer]
    shape: Shape

    def arrays(self, layer: Layer) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A batch x, and a dL/dy for it."""
        rng = np.random.default_rng(2)
        y_shape = layer.output_shape(self.shape)
        return (
            rng.standard_normal((LAYER_BATCH_SIZE, *self.shape), dtype=np.float32),
            rng.standard_normal((LAYER_BATCH_SIZE, *y_shape), dtype=np.float32),
        )


def _convolution(size: int, channels: int) -> LayerCase:
    return LayerCase(
        f'convolution 3x3 "same", {size}x{size}x{channels}',
        lambda rng: Conv2D(channels, channels, 3, padding="same", rng=rng),
        (size, size, channels),
    )


LAYERS = (
    _convolution(32, 64),
    _convolution(16, 128),
    _convolution(8, 256),
    LayerCase("max pooling 2x2, 32x32x64", lambda rng: MaxPool2D(2), (32, 32, 64)),
    LayerCase("batch norm, 32x32x64", lambda rng: BatchNorm(64), (32, 32, 64)),
    LayerCase("ReLU, 32x32x64", lambda rng: ReLU(), (32, 32, 64)),
    LayerCase("dense, 1600 to 128", lambda rng: Dense(1600, 128, rng=rng), (1600,)),
)
