"""The report as one HTML file that asks no network for anything: texts, tables, SVG, and images inside."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnn import Sequential
from cnn.layers.layer import Shape
from cnn.layers.sequential import count_parameters
from pipeline.config.params import Params
from pipeline.config.yaml_files import to_yaml
from pipeline.data.catalogue import DATASETS, REFERENCE_ACCURACY
from pipeline.report.calibration import Bin, expected_calibration_error
from pipeline.report.figures import DIVERGING, to_png_address

Image = NDArray[np.floating[Any]]
Rows = Sequence[tuple[str, Sequence[tuple[str, Image]]]]
PAGE = Path(__file__).parent / "templates"


class Example(NamedTuple):
    """A test image (h, w, c), and what the network says of it."""

    number: int
    image: NDArray[np.float32]
    actual: int
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Findings:
    """All that the page tells."""

    metadata: Mapping[str, Any]
    metrics: Mapping[str, Any]
    params: Params
    model: Sequential
    matrix: NDArray[np.int_]
    bins: list[Bin]
    svgs: dict[str, str]
    wrong: Sequence[Example]
    hard: Sequence[Example]
    confused: Mapping[tuple[int, int], Sequence[Image]]
    filters: Rows
    maps: Rows
    followed: Example
    arguments: Sequence[tuple[Example, Image]]

    @property
    def names(self) -> list[str]:
        """The classes."""
        return list(self.metadata["data"]["class_names"])


def build(found: Findings) -> str:
    """The page."""
    data, metrics, train = found.metadata["data"], found.metrics, found.params.train
    texts = {
        "title": f"{found.metadata['architecture']} on {DATASETS[data['dataset']].title}",
        "train_count": f"{data['examples']['train']:,}",
        "validation_count": f"{data['examples']['validation']:,}",
        "test_count": f"{data['examples']['test']:,}",
        "epoch": str(metrics["model"]["epoch"]),
        "optimizer": train.optimizer.name,
        "batch_size": str(train.batch_size),
        "schedule": train.schedule.name.replace("_", "-"),
        "calibration_error": f"{expected_calibration_error(found.bins):.2%}",
        "followed": str(found.followed.number),
        "answer": found.names[int(found.followed.probabilities.argmax())],
        "seed": str(found.params.seed),
        "params": to_yaml(found.params.model_dump(mode="json")),
        "layers": to_yaml({found.metadata["architecture"]: found.metadata["layers"]}),
        "environment": to_yaml(found.metadata["environment"]),
    }
    parts = {
        "style": (PAGE / "report.css").read_text(encoding="utf-8"),
        "headline": _headline(found),
        "network": _network(found.model, tuple(data["image_shape"])),
        "matrix_head": "".join(f'<th scope="col">{escape(name)}</th>' for name in found.names),
        "matrix": _matrix(found),
        "named": "named" if max(map(len, found.names)) > 3 else "",
        "classes": _classes(metrics),
        "wrong": _digits(found, found.wrong) or "<li>There is none.</li>",
        "hard": _digits(found, found.hard) or "<li>There is none.</li>",
        "filters": _strips(found.filters, DIVERGING, symmetric=True) or "<p>There is none.</p>",
        "maps": _strips(found.maps, "gray"),
        "arguments": _arguments(found),
    }
    template = Template((PAGE / "report.html").read_text(encoding="utf-8"))
    return template.substitute({key: escape(text) for key, text in texts.items()} | parts | found.svgs)


def _headline(found: Findings) -> str:
    test = found.metrics["test"]
    level = f"{100 * found.params.evaluate.confidence_level:g}%"
    interval = f"{level} interval {test['accuracy_low']:.2%} to {test['accuracy_high']:.2%}"
    cells = [
        ("", f"{test['accuracy']:.2%}", f"test accuracy ({interval})"),
        ("small", f"{test['examples'] - round(test['accuracy'] * test['examples']):,}", "mistakes"),
        ("small", f"{found.metrics['model']['parameters']:,}", "parameters"),
    ]
    if found.metrics["dataset"] == "mnist":
        cells.append(("small", f"{REFERENCE_ACCURACY:.2%}", "a published NumPy CNN, 10 epochs"))
    return "".join(
        f'<div class="{kind}"><strong>{value}</strong><span>{text}</span></div>'
        for kind, value, text in cells
    )


def _network(model: Sequential, input_shape: Shape) -> str:
    rows = [("", "input", input_shape, "")]
    for name, layer, shape in model.walk(input_shape):
        inside = bool(layer.children())
        count = "" if inside or not layer.parameters() else f"{count_parameters(layer):,}"
        rows.append((name, f"{type(layer).__name__}:" if inside else repr(layer), shape, count))
    return "\n".join(
        f'<li class="{"inside" if "." in name else ""}"><span class="soft">{name}</span>'
        f'<span>{escape(text)}</span><span class="number">{" x ".join(map(str, shape))}</span>'
        f'<span class="number">{count}</span></li>'
        for name, text, shape, count in rows
    )


def _matrix(found: Findings) -> str:
    size = len(found.names)
    worst = max(1, int((found.matrix * (1 - np.eye(size, dtype=int))).max()))
    return "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(_cell(found, row, column, worst) for column in range(size))
        + "</tr>"
        for row, name in enumerate(found.names)
    )


def _cell(found: Findings, row: int, column: int, worst: int) -> str:
    count = int(found.matrix[row, column])
    if row == column:
        return f'<td class="hit">{count:,}</td>'
    if not count:
        return "<td></td>"
    times = "once" if count == 1 else f"{count} times"
    text = f"{escape(found.names[row])} taken for {escape(found.names[column])} {times}"
    images = " ".join(_image(image[..., 0]) for image in found.confused[row, column])
    share = round(12 + 55 * count / worst)
    return (
        f'<td tabindex="0" style="background:color-mix(in srgb, var(--wrong) {share}%, transparent)" '
        f'aria-label="{text}">{count}<div class="tip">{text}<br>{images}</div></td>'
    )


def _classes(metrics: Mapping[str, Any]) -> str:
    return "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{c["precision"]:.4f}</td><td>{c["recall"]:.4f}</td>'
        f"<td>{c['f1']:.4f}</td><td>{c['support']:,}</td></tr>"
        for name, c in metrics["per_class"].items()
    )


def _digits(found: Findings, examples: Iterable[Example]) -> str:
    items = []
    for example in examples:
        actual = escape(found.names[example.actual])
        items.append(
            f"<li>{_image(example.image[..., 0], text=f'test image {example.number}: {actual}')}"
            f'<div class="soft">is {actual} · no. {example.number}</div>'
            + "".join(_bar(found, example, k) for k in np.argsort(example.probabilities)[::-1][:3])
            + "</li>"
        )
    return "\n".join(items)


def _bar(found: Findings, example: Example, k: np.intp) -> str:
    probability = float(example.probabilities[k])
    kind = "actual" if k == example.actual else "chosen" if k == example.probabilities.argmax() else ""
    return (
        f'<div class="bar"><span>{escape(found.names[k])}</span>'
        f'<i class="{kind}" style="width:{100 * probability:.1f}%"></i><b>{probability:.1%}</b></div>'
    )


def _strips(rows: Rows, colours: str, *, symmetric: bool = False) -> str:
    parts = []
    for title, tiles in rows:
        limit = max((float(np.abs(image).max()) for _, image in tiles), default=0.0) or 1.0
        images = "".join(_image(image, colours, limit if symmetric else None) for _, image in tiles)
        parts.append(f'<div class="soft">{escape(title)}</div><div class="strip">{images}</div>')
    return "\n".join(parts)


def _arguments(found: Findings) -> str:
    tiles = []
    for example, heat in found.arguments:
        name = escape(found.names[example.actual])
        limit = float(np.abs(heat).max()) or 1.0
        tiles.append(
            f"<figure>{_image(example.image[..., 0], text=f'test image {example.number}: {name}')}<br>"
            f"{_image(heat, DIVERGING, limit, text=f'what argues for {name}')}"
            f"<figcaption>{name}</figcaption></figure>"
        )
    return "\n".join(tiles)


def _image(image: Image, colours: str = "gray", limit: float | None = None, text: str = "") -> str:
    return f'<img alt="{text}" src="{to_png_address(image, colours, limit)}">'
