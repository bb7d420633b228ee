"""Pictures: arrays in, matplotlib figures out. The only file that imports matplotlib."""

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from cnn.atomic import atomic_path

Array = NDArray[Any]
Rows = Sequence[Mapping[str, Any]]

DOTS_PER_INCH = 150
INK = "#1d2430"  # of text and axes; on pages, the colour of the surrounding text
TRAIN_COLOUR, VALIDATION_COLOUR = "#8a8f98", "#2f7fd1"  # both are legible on white and on nearly black
SERIES = ("#2f7fd1", "#d9772b", "#3d9a5b", "#b0509a", "#7d68c8", "#8a8f98", "#c44b4b", "#2a9d9d")
GREY = matplotlib.colormaps["gray"]
# Orange is negative, white 0, blue positive, as in the playground.
DIVERGING = LinearSegmentedColormap.from_list("orange_to_blue", ["#b8500c", "#ffffff", "#1d5fc4"])
WEIGHTS = ("kernel", "weight")  # the ends of the names of parameters with two axes or more
STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "font.size": 10,
    "grid.color": "#8a8f98",
    "grid.alpha": 0.25,
    "image.interpolation": "none",
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "cnn",  # equal figures give equal bytes
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style, without changing the style of the rest of the program."""
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        yield


@styled()
def confusion_matrix_figure(matrix: NDArray[np.int_], class_names: Sequence[str], title: str) -> Figure:
    """Counts of actual (rows) against predicted (columns) classes.

    Right answers, on the diagonal, are grey; wrong ones are red, darker the more there are of them,
    on a scale of their own, since they are few.
    """
    size = len(class_names)
    figure = Figure(figsize=(7.2, 7.2), layout="constrained")
    axes = figure.add_subplot()
    right = np.eye(size, dtype=bool)
    errors = np.where(right, 0, matrix)
    red = matplotlib.colormaps["Reds"](0.6 * errors / max(errors.max(), 1))
    red[errors == 0] = (1, 1, 1, 1)
    red[right] = (0.88, 0.89, 0.91, 1)
    axes.imshow(red)
    for row, column in np.ndindex(size, size):
        if count := matrix[row, column]:
            bold = "bold" if row == column else "normal"
            axes.text(column, row, f"{count}", ha="center", va="center", fontweight=bold, fontsize=10)
    axes.set_xticks(range(size), class_names)
    axes.set_yticks(range(size), class_names)
    if max(map(len, class_names)) > 2:
        axes.tick_params(axis="x", labelrotation=45)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(title)
    return figure


@styled()
def training_curves_figure(history: Rows) -> Figure:
    """Loss, accuracy and learning rate by epoch; the rows are those of history.csv."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 3), ("loss", "accuracy", "learning_rate"), strict=True):
        if quantity == "learning_rate":
            _curve(axes, history, quantity, "", SERIES[1])
            axes.set_ylim(0, 1.1 * max(row[quantity] for row in history))
        else:
            _curve(axes, history, f"train_{quantity}", "train", TRAIN_COLOUR)
            _curve(axes, history, f"validation_{quantity}", "validation", VALIDATION_COLOUR)
            axes.legend(loc="lower right" if quantity == "accuracy" else "upper right")
        axes.set_xlabel("epoch")
        axes.set_title(quantity.replace("_", " "), fontsize=10)
        _tidy(axes)
    return figure


@styled()
def calibration_figure(bins: Rows) -> Figure:
    """Accuracy by confidence; `bins` come from `calibration_bins`."""
    figure = Figure(figsize=(5.2, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color=TRAIN_COLOUR, label="perfectly calibrated")
    style: dict[str, Any] = {"marker": "o", "color": VALIDATION_COLOUR}
    upper.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], **style, label="this network")
    upper.set_ylabel("right")
    upper.yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside upper center", ncols=2)
    edges = [b["low"] for b in bins]
    widths = [b["high"] - b["low"] for b in bins]
    lower.bar(edges, [b["count"] for b in bins], widths, align="edge", color=TRAIN_COLOUR, edgecolor=INK)
    lower.set_yscale("log")
    lower.set_ylabel("images")
    lower.set_xlabel("confidence: the probability of the answer")
    lower.xaxis.set_major_formatter(PercentFormatter(1))
    for axes in (upper, lower):
        _tidy(axes, integers=False)
    return figure


@styled()
def statistics_figure(rows: Rows) -> Figure:
    """For each parameter with two axes or more, by epoch: length of the gradient, spread of the values."""
    names = list(dict.fromkeys(row["parameter"] for row in rows if row["parameter"].endswith(WEIGHTS)))
    names = names or list(dict.fromkeys(row["parameter"] for row in rows))
    figure = Figure(figsize=(11, 3.2 + 2.2 * -(-len(names) // 4)), layout="constrained")
    heights = (3.2, 2.2 * -(-len(names) // 4))
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    axes = above.subplots()
    for number, name in enumerate(names):
        own = [row for row in rows if row["parameter"] == name]
        colour, line = SERIES[number % len(SERIES)], ("-", "--", ":")[number // len(SERIES) % 3]
        epochs = [row["epoch"] for row in own]
        axes.plot(epochs, [row["gradient_norm"] for row in own], line, color=colour, label=name, marker=".")
    axes.set_yscale("log")
    axes.set_title("length of the gradient (root mean square over the epoch's steps)", fontsize=10)
    axes.set_xlabel("epoch")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, ncols=-(-len(names) // 14))
    _tidy(axes)
    grid = below.subplots(-(-len(names) // 4), 4, squeeze=False).ravel()
    for number, (name, small) in enumerate(zip(names, grid, strict=False)):
        own = [row for row in rows if row["parameter"] == name]
        epochs, colour = [row["epoch"] for row in own], SERIES[number % len(SERIES)]
        if len(own) == 1:  # a band needs some width
            epochs, own = [epochs[0] - 0.3, epochs[0] + 0.3], own * 2
        for low, high, alpha in (("q5", "q95", 0.25), ("q25", "q75", 0.45)):
            small.fill_between(
                epochs,
                [row[low] for row in own],
                [row[high] for row in own],
                color=colour,
                alpha=alpha,
                linewidth=0,
            )
        small.plot(epochs, [row["q50"] for row in own], color=colour)
        small.set_title(f"values of {name}", fontsize=9)
        _tidy(small)
    for unused in grid[len(names) :]:
        unused.set_axis_off()
    return figure


@styled()
def tiles_figure(
    rows: Sequence[tuple[str, Sequence[tuple[str, Array]]]], colours: Sequence[Colormap]
) -> Figure:
    """Rows of small images, each with a caption: [(title of the row, [(caption, image (h, w))])].

    `colours` has a map for each row: GREY, each image on its own scale, or DIVERGING, for values
    from −m to m, where m is the largest absolute value in the row, so that 0 is in the middle.
    """
    columns = max(1, *(len(tiles) for _, tiles in rows))
    captions = any(caption for _, tiles in rows for caption, _ in tiles)
    figure = Figure(
        figsize=(0.62 * columns + 1.6, (0.9 if captions else 0.68) * len(rows) + 0.2), layout="constrained"
    )
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for (title, tiles), line, colour in zip(rows, grid, colours, strict=True):
        largest = max((float(np.abs(image).max()) for _, image in tiles), default=0) or 1.0
        for axes in line:
            axes.set_axis_off()
        for (caption, image), axes in zip(tiles, line, strict=False):
            limits: dict[str, Any] = {"vmin": -largest, "vmax": largest} if colour == DIVERGING else {}
            axes.imshow(image, cmap=colour, **limits)
            axes.set_title(caption, fontsize=7, pad=2)
        line[0].text(
            -0.15, 0.5, title, transform=line[0].transAxes, ha="right", va="center", fontsize=8, color=INK
        )
    return figure


@styled()
def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, atomically; equal figures give equal bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)


@styled()
def to_svg(figure: Figure, description: str) -> Markup:
    """The figure as an SVG element in the colour of a page's text, with `description` for screen readers."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"font: ([^;\"]*?)'[^;\"]*\"", r'font: \1system-ui, sans-serif"', svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)  # so that it fills the available width
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1))


def to_png_address(image: Array, colours: Colormap = GREY, limit: float | None = None) -> str:
    """A small image (h, w) as a `data:` address; with `limit`, colours run from −limit to limit."""
    stream = io.BytesIO()
    low, high = (None, None) if limit is None else (-limit, limit)
    imsave(stream, image, cmap=colours, vmin=low, vmax=high, format="png", metadata={"Software": ""})
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _curve(axes: Axes, history: Rows, column: str, label: str, colour: str) -> None:
    style: dict[str, Any] = {"marker": "o", "markersize": 3.5, "color": colour}
    axes.plot([row["epoch"] for row in history], [row[column] for row in history], label=label, **style)


def _tidy(axes: Axes, *, integers: bool = True) -> None:
    if integers:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.margins(x=0.05)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, 0.9), max(high, 1.1))
    axes.grid(visible=True)
    axes.spines[["top", "right"]].set_visible(False)
