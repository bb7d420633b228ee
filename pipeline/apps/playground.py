"""`python -m pipeline playground`: a page that runs the trained network in the browser."""

import base64
import itertools
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import Sequential
from cnn.atomic import write_text
from cnn.layers.trace import Trace, Traced
from cnn.registry import name_of, options, summary
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.train import Network
from pipeline.artefacts.trained import load_model, probabilities_of
from pipeline.config.architectures import gives_probabilities
from pipeline.errors import UserError
from pipeline.paths import REPORTS
from pipeline.report.rendering import fill

PLAYGROUND = REPORTS / "playground.html"
TEMPLATE = Path(__file__).parent / "page/playground.html"
LARGEST_CHOICE = 24  # test images in the page
MEASURED, MEASURED_BYTES = 100, 400_000  # test images that show what a lesson has cost, and their bytes
Labelled = Sequence[tuple[int, NDArray[np.uint8]]]  # (class, image)


def playground() -> None:
    """Write the page: one file, which needs no other file and sends no request."""
    model, network = load_model()
    examples = example_images(network.data)
    write_text(PLAYGROUND, render(model, network, examples, measured_images(network.data)))
    if not examples:
        print("note: The page has no test images: data/processed does not hold the data of this network.")
    print(f"The network is in {PLAYGROUND}: open it in a browser.")


def example_images(data: Description) -> Labelled:
    """The first test image of each of the first classes; none if data/processed does not hold `data`."""
    if not Description.path.exists() or Description.load() != data:
        return []
    test = load_examples("test", data)
    classes, first = np.unique(test.targets.argmax(axis=1), return_index=True)
    chosen = zip(classes[:LARGEST_CHOICE], first, strict=False)
    return [(int(label), to_bytes(test.images[index], data)) for label, index in chosen]


def measured_images(data: Description) -> Labelled:
    """Up to MEASURED further test images, as many of each class as there is room for; none as above.

    The first of each class is left out, since a reader may choose it and train the network on it.
    """
    if not Description.path.exists() or Description.load() != data:
        return []
    test = load_examples("test", data)
    labels = test.targets.argmax(axis=1)
    count = min(MEASURED, MEASURED_BYTES // math.prod(data.image_shape))
    places = [np.flatnonzero(labels == label)[1:] for label in np.unique(labels)]
    turns = itertools.zip_longest(*(list(indices[:count]) for indices in places))  # class by class
    chosen = [index for turn in turns for index in turn if index is not None][:count]
    return [(int(labels[index]), to_bytes(test.images[index], data)) for index in chosen]


def to_bytes(x: NDArray[np.float32], data: Description) -> NDArray[np.uint8]:
    """The image that the network receives as `x`."""
    return np.rint(255 * data.brightness(x)).astype(np.uint8)


def render(model: Sequential, about: Network, examples: Labelled, measured: Labelled = ()) -> str:
    """The page for a network and the record that train wrote of it; the same ones give the same text."""
    trace: Trace[Traced] = Trace(model)
    trace.network.output_shape(about.data.image_shape)
    weights: list[NDArray[Any]] = []
    content = {
        "architecture": about.architecture,
        "data": about.data.model_dump(mode="json"),
        "network": describe(trace.network, weights),
        "gives_probabilities": gives_probabilities(model),
        "weights": encode(weights),
        "first": hardest(model, about.data, examples),
        "examples": [{"label": label, "pixels": to_base64(image.tobytes())} for label, image in examples],
        "measured": {
            "labels": [label for label, _ in measured],
            "pixels": to_base64(b"".join(image.tobytes() for _, image in measured)),
        },
    }
    return fill(TEMPLATE, content=content)


def hardest(model: Sequential, data: Description, examples: Labelled) -> int:
    """The number of the example that the page begins with: the one whose class gets the least probability.

    If the network reads an image well, all gradients are nearly 0: there is little to see, and to teach.
    """
    likely = [probabilities_of(model, model.predict(data.normalise(x)[None]))[0, k] for k, x in examples]
    return int(np.argmin(likely)) if likely else 0


def describe(layer: Traced, weights: list[NDArray[Any]]) -> dict[str, Any]:
    """What `page/network.js` needs to know about a layer; its arrays are appended to `weights`.

    All geometry is computed here, by `cnn.ops.windows`: "same" padding, for example, is given in pixels.
    """
    original, children = layer.original, layer.children()
    kind = name_of(type(original))
    if kind not in layers_of_the_page():
        raise UserError(
            f"The playground cannot compute layer {layer.name}, {original!r}: page/network.js has no {kind}. "
            f"In {TEMPLATE.parent / 'network.js'}: add it to LAYERS."
        )
    description: dict[str, Any] = {
        "name": layer.name,
        "type": kind,
        "title": type(original).__name__ if children else repr(original),
        "purpose": summary(type(original)),
        "shape": layer.shape,
    }
    for option in options(type(original)):
        if isinstance(value := getattr(original, option, None), int | float):
            description[option] = value
    if window := getattr(original, "window", None):
        description |= {
            "kernel_size": window.kernel_size,
            "stride": window.stride,
            "dilation": window.dilation,
            "pads": window.pads(*layer.input_shape[:2]),
        }
    if not children:
        parameters = {key: parameter.value for key, parameter in layer.parameters().items()}
        description["arrays"] = {}
        for key, array in (parameters | layer.buffers()).items():
            description["arrays"][key] = {
                "start": sum(w.size for w in weights),
                "length": array.size,
                "shape": array.shape,
                "is_trained": key in parameters,
            }
            weights.append(array)
    description["children"] = {
        key: describe(child, weights) for key, child in children.items() if isinstance(child, Traced)
    }
    return description


@cache
def layers_of_the_page() -> frozenset[str]:
    """The layer types that `page/network.js` computes: the keys of its LAYERS."""
    source = TEMPLATE.with_name("network.js").read_text(encoding="utf-8")
    table = source.partition("const LAYERS = {\n")[2].partition("\n};")[0]
    return frozenset(re.findall(r"^  (\w+)(?=[:,(])", table, flags=re.M))


def encode(arrays: list[NDArray[Any]]) -> str:
    """The arrays' numbers in sequence, as base64 of little-endian float32, the byte order of all browsers."""
    return to_base64(b"".join(array.astype("<f4").tobytes() for array in arrays))


def to_base64(data: bytes) -> str:
    """The bytes as text."""
    return base64.b64encode(data).decode("ascii")
