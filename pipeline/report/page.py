"""The report as one HTML file that sends no request: it contains its texts, tables, SVG and images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cnn import Sequential
from cnn.layers.layer import Shape
from cnn.layers.trace import trace_shapes
from pipeline.artefacts.evaluate import Metrics
from pipeline.artefacts.train import Network
from pipeline.config.params import Params
from pipeline.config.yaml_files import to_yaml
from pipeline.report.calibration import Bin, expected_calibration_error
from pipeline.report.figures import DIVERGING, to_png_address
from pipeline.report.reference import REFERENCE_ACCURACY, REFERENCE_SOURCE
from pipeline.report.rendering import fill

Image = NDArray[np.floating[Any]]
Rows = Sequence[tuple[str, Sequence[tuple[str, Image]]]]
TEMPLATE = Path(__file__).parent / "templates/report.html"


class Example(NamedTuple):
    """A test image (h, w, c), and the network's probabilities for it."""

    number: int
    image: NDArray[np.float32]
    actual: int
    probabilities: NDArray[np.float32]

    @property
    def answers(self) -> list[int]:
        """The classes, the most probable first."""
        return [int(k) for k in np.argsort(self.probabilities)[::-1]]


@dataclass(frozen=True)
class Findings:
    """Everything that the page shows."""

    network: Network
    metrics: Metrics
    params: Params
    model: Sequential
    matrix: NDArray[np.int_]
    bins: list[Bin]
    svgs: dict[str, Markup]
    wrong: Sequence[Example]
    hard: Sequence[Example]
    confused: Mapping[tuple[int, int], Sequence[Image]]
    filters: Rows
    maps: Rows
    followed: Example
    arguments: Sequence[tuple[Example, Image]]


def build(found: Findings) -> str:
    """The page."""
    network, errors = found.network, found.matrix * (1 - np.eye(len(found.matrix), dtype=int))
    return fill(
        TEMPLATE,
        found=found,
        network=network,
        metrics=found.metrics,
        params=found.params,
        names=network.data.class_names,
        title=f"{network.architecture} on {network.data.title}",
        reference=(REFERENCE_ACCURACY, REFERENCE_SOURCE) if network.data.dataset == "mnist" else None,
        layers=_layers(found.model, network.data.image_shape),
        matrix=found.matrix.tolist(),
        most_errors=max(1, int(errors.max())),
        calibration_error=expected_calibration_error(found.bins),
        yaml={
            "params.yaml": to_yaml(found.params.model_dump(mode="json")),
            "the network in architectures.yaml": to_yaml({network.architecture: network.layers}),
            "environment": to_yaml(network.environment.model_dump(mode="json")),
        },
        DIVERGING=DIVERGING,
        grey=lambda image: to_png_address(image[..., 0]),
        png=to_png_address,
        largest=lambda images: max((float(np.abs(image).max()) for image in images), default=0.0) or 1.0,
    )


def _layers(model: Sequential, input_shape: Shape) -> list[tuple[str, str, Shape, str]]:
    """For each layer: its name, what it is, the shape of its output, and its number of parameters."""
    rows = [("", "input", input_shape, "")]
    for name, layer, _, shape in trace_shapes(model, input_shape):
        inside = bool(layer.children())
        count = f"{own:,}" if (own := layer.count_own_parameters()) else ""
        rows.append((name, f"{type(layer).__name__}:" if inside else repr(layer), shape, count))
    return rows
