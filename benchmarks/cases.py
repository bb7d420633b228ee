"""What is measured: networks, layers and sizes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import GELU, BatchNorm, Conv2D, Dense, Examples, Layer, MaxPool2D, ReLU, Sequential
from cnn.layers.layer import Shape
from pipeline.config.architectures import build_model, load_layers
from pipeline.paths import ARCHITECTURES

ROOT = Path(__file__).parents[1]
CLASSES = 10
THREADS = (1, 2)
PREDICTION_BATCH_SIZES = (256, 64)
LAYER_BATCH_SIZE = 64

Spec = dict[str, Any]  # a layer as in architectures.yaml


@dataclass(frozen=True)
class Network:
    """How a network is measured; `layers` is empty if architectures.yaml has them under its name."""

    shape: Shape
    batch_sizes: tuple[int, ...]  # --quick takes the first
    shard_size: int = 32  # images that one of our workers takes at a time
    layers: Sequence[Spec] = ()


def _block(channels: int, activation: str, *between: Spec, padding: str = "same") -> list[Spec]:
    """3x3 convolution, `between`, batch norm, activation."""
    convolution = {"type": "conv2d", "out_channels": channels, "kernel_size": 3, "padding": padding}
    return [convolution | {"bias": False}, *between, {"type": "batch_norm"}, {"type": activation}]


def _pool(size: int) -> Spec:
    return {"type": "max_pool2d", "kernel_size": size}


def _dense(**options: Any) -> Spec:
    return {"type": "dense", "out_features": CLASSES, **options}


def _vgg_like() -> Iterator[Spec]:
    for channels in (64, 128, 256):
        yield from 2 * _block(channels, "relu")
        yield _pool(2)
    yield from ({"type": "global_avg_pool2d"}, _dense())


def _deep() -> Iterator[Spec]:
    """Five 3x3 convolutions, which reach 99.7 % on MNIST with 144,298 parameters."""
    for channels in (32, 64):
        yield from 2 * _block(channels, "relu", padding="valid")
        yield from (_pool(2), {"type": "dropout", "rate": 0.1})
    yield from _block(128, "relu", padding="valid")
    yield from ({"type": "flatten"}, {"type": "dropout", "rate": 0.2}, _dense())


def _cifar_net() -> Iterator[Spec]:
    """A network that reaches 94 % on CIFAR-10 with 1.97 million parameters.

    Source: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024), section 3.
    """
    yield from ({"type": "conv2d", "out_channels": 24, "kernel_size": 2}, {"type": "gelu"})
    for channels in (64, 256, 256):
        yield from _block(channels, "gelu", _pool(2))
        yield from _block(channels, "gelu")
    yield from (_pool(3), {"type": "flatten"}, _dense(bias=False))


NETWORKS = {
    "baseline": Network((28, 28, 1), (64, 256)),
    "sample": Network((28, 28, 1), (64, 256)),
    "deep": Network((28, 28, 1), (128,), layers=[*_deep()]),
    "VGG-like": Network((32, 32, 3), (64, 256), layers=[*_vgg_like()]),
    "CIFAR net": Network((32, 32, 3), (512,), shard_size=64, layers=[*_cifar_net()]),
}


def make_network(name: str) -> tuple[Sequential, Shape]:
    """A network of NETWORKS or architectures.yaml, always with the same initial values; its input's shape."""
    network = NETWORKS.get(name, Network((28, 28, 1), ()))
    layers = [*network.layers] or load_layers(name, ROOT / ARCHITECTURES)
    return build_model(layers, name, network.shape, CLASSES, np.random.default_rng(0)), network.shape


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
    LayerCase("GELU, 32x32x64", lambda rng: GELU(), (32, 32, 64)),
    LayerCase("dense, 1600 to 128", lambda rng: Dense(1600, 128, rng=rng), (1600,)),
)
