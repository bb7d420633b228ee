"""The report as one HTML file that sends no request: it contains its texts, tables, SVG and images."""

import inspect
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
from cnn.registry import options
from pipeline.artefacts.evaluate import LARGEST_MATRIX, Confusion, Metrics
from pipeline.artefacts.train import Network
from pipeline.config.groups import COLUMNS, group_rows
from pipeline.config.params import Params
from pipeline.config.yaml_files import to_yaml
from pipeline.report.calibration import Bin, expected_calibration_error
from pipeline.report.diagram import network_svg
from pipeline.report.facts import FRAMINGS, plain, scale_in_words, shape_in_words, size_in_words
from pipeline.report.figures import Row, labels, weights_of
from pipeline.report.images import Pixels, to_address, visible
from pipeline.report.journey import Journey
from pipeline.report.reference import REFERENCE_ACCURACY, REFERENCE_SOURCE
from pipeline.report.rendering import fill
from pipeline.report.verdict import verdict, worst_classes

Image = NDArray[np.floating[Any]]
WORST = 10  # classes, of many
LONGEST_FILE = 32  # characters of a file's name
TEMPLATE = Path(__file__).parent / "templates/report.html"


class Example(NamedTuple):
    """A test image (h, w, c), and the network's probabilities for it."""

    number: int
    image: NDArray[np.float32]
    actual: int
    probabilities: NDArray[np.float32]
    file: str  # see `Prediction`

    @property
    def shown(self) -> list[int]:
        """The three most probable classes, and the actual one if it is not among them."""
        best = self.answers[:3]
        return best if self.actual in best else [*best, self.actual]

    @property
    def answers(self) -> list[int]:
        """The classes, the most probable first."""
        return [int(k) for k in np.argsort(-self.probabilities, kind="stable")]


class Argument(NamedTuple):
    """What argued for the network's answer: see `pipeline.report.evidence`."""

    example: Example
    image: Pixels
    heat: Pixels
    scale: str  # the largest change of the log-odds that it shows
    side: int  # of the patches that were covered
    times: str  # by how much the strongest patch multiplies the odds; empty if none argues for it
    patch: tuple[slice, slice]  # its rows and columns


@dataclass(frozen=True)
class Findings:
    """Everything that the page shows."""

    network: Network
    metrics: Metrics
    params: Params
    model: Sequential
    history: Sequence[Mapping[str, Any]]
    statistics: Sequence[Mapping[str, Any]]
    matrix: NDArray[np.int_]
    bins: list[Bin]
    svgs: dict[str, Markup]
    wrong: Sequence[Example]
    hard: Sequence[Example]
    pairs: Sequence[Confusion]
    confused: Sequence[Sequence[Image]]  # images of each pair
    filters: Sequence[Row]
    journey: Journey
    followed: Example
    arguments: Sequence[Argument]
    sure: float  # right answers with a higher probability are not in `hard`


def build(found: Findings) -> str:
    """The page."""
    network, metrics, size = found.network, found.metrics, len(found.matrix)
    data, errors = network.data, found.matrix * (1 - np.eye(size, dtype=int))
    worst = worst_classes(metrics.per_class)
    return fill(
        TEMPLATE,
        found=found,
        network=network,
        data=data,
        metrics=metrics,
        params=found.params,
        names=data.class_names,
        figure_names=labels(data.class_names),
        title=f"{network.architecture} on {data.title}",
        verdict=verdict(found.matrix, data.class_names, metrics.per_class),
        most_frequent=float(found.matrix.sum(axis=1).max() / found.matrix.sum()),
        facts=(shape_in_words(data), scale_in_words(data), FRAMINGS[data.framing]),
        reference=(REFERENCE_ACCURACY, REFERENCE_SOURCE) if data.dataset == "mnist" else None,
        diagram=network_svg(found.model, data.image_shape),
        layers=_layers(found.model, data.image_shape),
        kinds=_kinds(found.model),
        last=found.history[-1],
        kept=next((row for row in found.history if row["epoch"] == network.epoch), found.history[-1]),
        gradients=_gradients(found),
        plain=plain,
        matrix=found.matrix.tolist() if size <= LARGEST_MATRIX else None,
        most_errors=max(1, int(errors.max())),
        shown_classes=worst[:WORST] if size > LARGEST_MATRIX else list(metrics.per_class),
        number={name: k for k, name in enumerate(data.class_names)},
        calibration_error=expected_calibration_error(found.bins),
        groups=group_rows(found.params.train, found.model),
        group_columns=COLUMNS,
        rates={row["learning_rate"] for row in found.history},
        yaml={
            "params.yaml": to_yaml(found.params.model_dump(mode="json")),
            "the network in architectures.yaml": to_yaml({network.architecture: network.layers}),
            "environment": to_yaml(network.environment.model_dump(mode="json")),
        },
        percent=percent,
        short_file=short_file,
        shown_answers=lambda example: (
            example.answers[:3] + [example.actual] * (example.actual not in example.answers[:3])
        ),
        address=to_address,
        picture=lambda image: to_address(visible(data.brightness(image))),
    )


def percent(probability: float) -> str:
    """One digit after the point; never 100 % or 0 %, to which no network is entitled."""
    if probability >= 0.9995:
        return "> 99.9%"
    return "< 0.1%" if probability < 0.0005 else f"{probability:.1%}"


def short_file(path: str) -> str:
    """The name at the end of a path; of a long one, its beginning and its end, which tells it from others."""
    name = path.rpartition("/")[2]
    half = (LONGEST_FILE - 1) // 2
    return name if len(name) <= LONGEST_FILE else f"{name[:half]}…{name[-half:]}"


def _layers(model: Sequential, input_shape: Shape) -> list[tuple[str, str, str, str]]:
    """For each layer: its name, what it is, the shape of its output, and its number of parameters."""
    rows = [("", "input", size_in_words(input_shape), "")]
    for name, layer, _, shape in trace_shapes(model, input_shape):
        inside = bool(layer.children())
        count = f"{own:,}" if (own := layer.count_own_parameters()) else ""
        rows.append(
            (name, f"{type(layer).__name__}:" if inside else repr(layer), size_in_words(shape), count)
        )
    return rows


def _kinds(model: Sequential) -> list[tuple[str, str]]:
    """(name and arguments, what it does) of each kind of layer, in the order of their first appearance."""
    found = {}
    for _, layer in model.walk():
        kind = type(layer)
        if not layer.is_list and kind.__name__ not in found:
            given = [name for name, option in options(kind).items() if not option.keyword_only]
            words = (inspect.getdoc(kind) or "").partition("\n")[0]
            found[kind.__name__] = (f"{kind.__name__}({', '.join(given)})", words)
    return list(found.values())


def _gradients(found: Findings) -> tuple[str, str, float] | None:
    """The first and the last weights, and the ratio of their gradients' sizes in the last epoch."""
    names, parameters = weights_of(found.statistics), found.model.parameters()
    if len(names) < 2:
        return None
    norms = {row["parameter"]: row["gradient_norm"] for row in found.statistics}  # of the last epoch
    first, last = (norms[name] / parameters[name].value.size ** 0.5 for name in (names[0], names[-1]))
    return (names[0], names[-1], first / last) if last else None
