"""`python -m pipeline playground`: a page that runs the trained network in the browser, as one draws."""

import base64
import inspect
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import Layer, Sequential
from cnn.atomic import write_text
from cnn.layers.layer import Shape
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.train import Network
from pipeline.artefacts.trained import load_model
from pipeline.config.architectures import LAYERS, gives_probabilities
from pipeline.data.catalogue import DATASETS
from pipeline.paths import REPORTS
from pipeline.report.rendering import fill

PLAYGROUND = REPORTS / "playground.html"
TEMPLATE = Path(__file__).parent / "page/playground.html"
TYPES = {layer_type: name for name, layer_type in LAYERS.items()}
Labelled = list[tuple[int, NDArray[np.float32]]]  # (class, image)


def playground() -> None:
    """Write the page: one file, which needs nothing else and asks no network for anything."""
    model, network = load_model()
    examples = example_images(network.data)
    write_text(PLAYGROUND, render(model, network, examples))
    if not examples:
        print("note: There are no test images in it: data/processed does not hold what it was trained on.")
    print(f"The network is in {PLAYGROUND}: open it in a browser, and draw.")


def example_images(data: Description) -> Labelled:
    """The first test image of each class; none if data/processed is missing or holds other `data`."""
    if not Description.path.exists() or Description.load() != data:
        return []
    test = load_examples("test", data)
    classes, first = np.unique(test.targets.argmax(axis=1), return_index=True)
    return [(int(label), test.images[index]) for label, index in zip(classes, first, strict=True)]


def render(model: Sequential, about: Network, examples: Labelled) -> str:
    """The page for a network and what train wrote about it; the same ones give the same text."""
    weights: list[NDArray[Any]] = []
    content = {
        "architecture": about.architecture,
        "data": about.data.model_dump(mode="json") | {"dataset": DATASETS[about.data.dataset].title},
        "network": describe(model, about.data.image_shape, "", weights),
        "gives_probabilities": gives_probabilities(model),
        "weights": encode(weights),
        "examples": [{"label": label, "pixels": encode([image])} for label, image in examples],
    }
    return fill(TEMPLATE, content=content)


def describe(layer: Layer, input_shape: Shape, name: str, weights: list[NDArray[Any]]) -> dict[str, Any]:
    """What `page/network.js` must know of a layer; its arrays are appended to `weights`.

    All geometry is settled here, where `cnn.ops.windows` knows it: "same" padding, say, comes out in pixels.
    """
    children = layer.children()
    description: dict[str, Any] = {
        "name": name,
        "type": TYPES[type(layer)],
        "title": type(layer).__name__ if children else repr(layer),
        "purpose": (inspect.getdoc(layer) or "").partition("\n\n")[0].replace("\n", " ").replace("`", ""),
        "shape": layer.output_shape(input_shape),
    }
    for option in inspect.signature(type(layer)).parameters:
        if isinstance(value := getattr(layer, option, None), int | float):
            description[option] = value
    if window := getattr(layer, "window", None):
        description |= {
            "kernel_size": window.kernel_size,
            "stride": window.stride,
            "dilation": window.dilation,
            "pads": window.pads(*input_shape[:2]),
        }
    if not children:
        parameters = {key: parameter.value for key, parameter in layer.parameters().items()}
        description["arrays"] = {}
        for key, array in (parameters | layer.buffers()).items():
            description["arrays"][key] = {"start": sum(w.size for w in weights), "length": array.size}
            weights.append(array)
    description["children"] = []
    for key, child in children.items():
        child_name = f"{name}.{key}".lstrip(".")
        description["children"].append(describe(child, input_shape, child_name, weights))
        if isinstance(layer, Sequential):
            input_shape = child.output_shape(input_shape)
    return description


def encode(arrays: list[NDArray[Any]]) -> str:
    """Their numbers one after another, as base64 of little-endian float32, the order of all browsers."""
    return base64.b64encode(b"".join(array.astype("<f4").tobytes() for array in arrays)).decode("ascii")
