"""Pictures: arrays in, matplotlib figures out. The only file that imports matplotlib."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray

from cnn.atomic import atomic_path
from pipeline.artefacts.evaluate import LARGEST_MATRIX, largest_confusions
from pipeline.report.calibration import Bin
from pipeline.report.images import Pixels

Array = NDArray[Any]
Rows = Sequence[Mapping[str, Any]]

DOTS_PER_INCH = 150
INK = "#1d2430"  # of text and axes; on pages, the colour of the surrounding text
# Blue and orange are kept for positive and negative numbers. These are legible on white and on nearly black:
TRAIN_COLOUR, VALIDATION_COLOUR = "#8a8f98", "#12908a"
SERIES = ("#12908a", "#b0509a", "#7d68c8", "#8a8f98", "#c44b4b", "#5d8c2f", "#a08000", "#6b7fa3")
RIGHT, WRONG = "#e1e3e8", "#b4235a"  # of the confusion matrix, as in report.css
WEIGHTS = ("kernel", "weight")  # the ends of the names of parameters with two axes or more
FEWEST = 10  # answers in a group: of fewer, the share of right ones says next to nothing
LONGEST_NAME = 18  # characters of a class's name
BARS = 25  # confusions of many classes
FONT = "DejaVu Sans"  # comes with matplotlib: with a font of the system, bytes would differ between machines
STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "font.family": FONT,
    "font.size": 10,
    "grid.color": "#8a8f98",
    "grid.alpha": 0.25,
    "image.interpolation": "none",
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "cnn",  # equal figures give equal bytes
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $x$
    "xtick.color": INK,
    "ytick.color": INK,
}


class Row(NamedTuple):
    """Small images side by side, each with a caption."""

    title: str
    tiles: Sequence[tuple[str, Pixels]]


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style, without changing the style of the rest of the program."""
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        yield


@cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf").get_charmap())


def drawable(text: str) -> str:
    """The text, with □ for each character that the font lacks, so that matplotlib does not warn."""
    known = _characters() | {ord("\n")}
    return "".join(character if ord(character) in known else "□" for character in text)


def labels(names: Sequence[str], longest: int = LONGEST_NAME) -> list[str]:
    """Names of classes for figures: a long one is cut and numbered; the font may lack characters of others.

    Of these, only the number is given: class 3.
    """
    return [
        f"class {number}"
        if drawable(name) != name
        else name
        if len(name) <= longest
        else f"{number} {name[: longest - 1]}…"
        for number, name in enumerate(names)
    ]


@styled()
def confusion_matrix_figure(matrix: NDArray[np.int_], class_names: Sequence[str], title: str) -> Figure:
    """Counts of actual (rows) against predicted (columns) classes; of many classes, the largest confusions.

    Right answers, on the diagonal, are grey; wrong ones are red, darker the more there are of them,
    on a scale of their own, since they are few.
    """
    size, names = len(class_names), labels(class_names)
    if size > LARGEST_MATRIX:
        return _largest_confusions_figure(matrix, names, title)
    side = max(7.2, 0.42 * size + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    right = np.eye(size, dtype=bool)
    errors = np.where(right, 0, matrix)
    share = np.where(errors, 0.12 + 0.45 * errors / max(errors.max(), 1), 0)[..., None]
    colours = (1 - share) + share * np.array(to_rgb(WRONG))
    colours[right] = to_rgb(RIGHT)
    axes.imshow(colours)
    for row, column in np.ndindex(size, size):
        if count := matrix[row, column]:
            style: dict[str, Any] = {"fontweight": "bold" if row == column else "normal"}
            axes.text(
                column, row, f"{count}", ha="center", va="center", fontsize=10 if size <= 12 else 7, **style
            )
    axes.set_xticks(range(size), names)
    axes.set_yticks(range(size), names)
    if max(map(len, names)) > 2:
        axes.tick_params(axis="x", labelrotation=45 if size <= 12 else 90)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_verticalalignment("top" if size <= 12 else "center")
            label.set_rotation_mode("anchor")
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(drawable(title), fontsize=11)
    return figure


def _largest_confusions_figure(matrix: NDArray[np.int_], names: Sequence[str], title: str) -> Figure:
    found = largest_confusions(matrix, BARS)
    figure = Figure(figsize=(9, 0.26 * max(len(found), 4) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    counts = [confusion.images for confusion in found]
    bars = axes.barh(range(len(found)), counts, color=WRONG, alpha=0.57)
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=8)
    pairs = [f"{names[actual]} taken for {names[predicted]}" for actual, predicted, _ in found]
    axes.set_yticks(range(len(found)), pairs, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("test images")
    axes.set_title(drawable(f"{title}; the most frequent confusions"), fontsize=11)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


@styled()
def training_curves_figure(history: Rows, kept: int | None = None) -> Figure:
    """Loss, accuracy and, if it changes, learning rate by epoch; the rows are those of history.csv.

    A line marks the epoch whose weights were kept.
    """
    rates = [row["learning_rate"] for row in history]
    quantities = ["loss", "accuracy"] + ["learning_rate"] * (min(rates) < max(rates))
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    grid = figure.subplots(1, len(quantities), width_ratios=(3, 3, 2)[: len(quantities)])
    for axes, quantity in zip(grid, quantities, strict=True):
        if kept is not None:
            axes.axvline(kept, color=TRAIN_COLOUR, linestyle=":", label=f"epoch {kept}, kept")
        if quantity == "learning_rate":
            _curve(axes, history, quantity, "", SERIES[1])
            axes.set_ylim(0, 1.1 * max(rates))
        else:
            _curve(axes, history, f"train_{quantity}", "train", TRAIN_COLOUR)
            _curve(axes, history, f"validation_{quantity}", "validation", VALIDATION_COLOUR)
        axes.set_xlabel("epoch")
        axes.set_title(f"{quantity.replace('_', ' ')} by epoch", fontsize=10)
        _tidy(axes)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@styled()
def calibration_figure(bins: Sequence[Bin]) -> Figure:
    """Share of right answers by confidence, with 95 % intervals; `bins` come from `calibration_bins`."""
    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color=TRAIN_COLOUR, label="as often right as it says")
    shown = [b for b in bins if b["count"] >= FEWEST]
    below = [b["accuracy"] - b["low_accuracy"] for b in shown]
    above = [b["high_accuracy"] - b["accuracy"] for b in shown]
    upper.errorbar(
        [b["confidence"] for b in shown],
        [b["accuracy"] for b in shown],
        np.maximum([below, above], 0),
        fmt="o",
        capsize=3,
        color=VALIDATION_COLOUR,
        label="this network, 95 % interval",
    )
    upper.set_title("How often answers are right, by their confidence", fontsize=10)
    upper.set_ylabel("right")
    upper.yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    edges = [b["low"] for b in bins]
    widths = [b["high"] - b["low"] for b in bins]
    lower.bar(edges, [b["count"] for b in bins], widths, align="edge", color=TRAIN_COLOUR, edgecolor=INK)
    lower.set_ylim(bottom=0.7)  # 1 is visible
    _logarithmic(lower)
    lower.set_ylabel("images")
    lower.set_xlabel("confidence: the probability of the answer")
    lower.xaxis.set_major_formatter(PercentFormatter(1))
    for axes in (upper, lower):
        _tidy(axes, integers=False)
    return figure


@styled()
def statistics_figure(rows: Rows, sizes: Mapping[str, int]) -> Figure:
    """For each parameter with two axes or more, by epoch: size of the gradient, spread of the values.

    A long vector has a greater length than a short one of like numbers; so lengths are divided by √n, where
    `sizes` has n for each parameter. This is the root mean square of the gradient's entries.
    """
    names = weights_of(rows)
    heights = (3.4, 2.2 * -(-len(names) // 4))
    figure = Figure(figsize=(11, sum(heights)), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    axes = above.subplots()
    for number, name in enumerate(names):
        own = [row for row in rows if row["parameter"] == name]
        colour, line = SERIES[number % len(SERIES)], ("-", "--", ":")[number // len(SERIES) % 3]
        gradients = [row["gradient_norm"] / sizes[name] ** 0.5 for row in own]
        axes.plot([row["epoch"] for row in own], gradients, line, color=colour, label=name, marker=".")
    _logarithmic(axes)
    axes.set_title("gradients: root mean square of their entries, by epoch", fontsize=10)
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
        small.set_title(f"values of {name}, by epoch", fontsize=9)
        _tidy(small)
    for unused in grid[len(names) :]:
        unused.set_axis_off()
    return figure


def weights_of(rows: Rows) -> list[str]:
    """The parameters with two axes or more in rows of statistics.csv; all of them if there is none."""
    names = list(dict.fromkeys(row["parameter"] for row in rows))
    return [name for name in names if name.endswith(WEIGHTS)] or names


@styled()
def seeds_figure(panels: Mapping[str, tuple[Mapping[int, float], float, float, float]], title: str) -> Figure:
    """For each title (value by seed, mean, low, high): a dot for each seed, on mean and interval."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    figure.suptitle(drawable(title), fontsize=10)
    places = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, (values, mean, low, high)) in zip(places, panels.items(), strict=True):
        axes.axhspan(low, high, color=VALIDATION_COLOUR, alpha=0.15, linewidth=0)
        axes.axhline(mean, color=VALIDATION_COLOUR, linewidth=1)
        axes.plot(range(len(values)), list(values.values()), "o", color=INK, markersize=5)
        axes.set_xticks(range(len(values)), [str(seed) for seed in values])
        axes.set_xlabel("seed")
        axes.set_title(name, fontsize=10)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=2))
        axes.margins(x=0.1)
        axes.grid(visible=True, axis="y")
    return figure


@styled()
def search_figure(
    curves: Mapping[int, tuple[Sequence[float], bool]],
    panels: Mapping[str, tuple[Sequence[tuple[Any, float, bool]], bool]],
    title: str,
) -> Figure:
    """The trials of a search: the best accuracy so far by epoch, and the final one by each setting.

    `curves` has for each trial (accuracies, whether it ran to its end); `panels` for each setting (value,
    accuracy, whether it ran to its end) of all trials, and whether the axis is logarithmic.
    """
    columns = min(3, 1 + len(panels))
    figure = Figure(figsize=(4 * columns, 3.2 * -(-(1 + len(panels)) // columns)), layout="constrained")
    figure.suptitle(drawable(title), fontsize=10)
    first, *others = figure.subplots(-(-(1 + len(panels)) // columns), columns, squeeze=False).ravel()
    colours = {True: VALIDATION_COLOUR, False: TRAIN_COLOUR}
    for values, finished in curves.values():
        style: dict[str, Any] = {"marker": ".", "color": colours[finished], "linewidth": 1}
        first.plot(range(1, len(values) + 1), values, "-" if finished else "--", **style)
    first.set_title("best validation accuracy so far, by epoch\n(dashed: stopped early)", fontsize=10)
    _tidy(first)
    for axes, (name, (points, logarithmic)) in zip(others, panels.items(), strict=False):
        numbers = all(
            isinstance(value, int | float) and not isinstance(value, bool) for value, _, _ in points
        )
        known = list(dict.fromkeys(str(value) for value, _, _ in points))
        for finished, marker in ((False, "x"), (True, "o")):
            own = [(value, accuracy) for value, accuracy, is_finished in points if is_finished == finished]
            places = [value if numbers else known.index(str(value)) for value, _ in own]
            axes.plot(places, [accuracy for _, accuracy in own], marker, color=colours[finished])
        if not numbers:
            axes.set_xticks(range(len(known)), [drawable(text[:LONGEST_NAME]) for text in known])
        elif logarithmic and points:
            axes.set_xscale("log")
        axes.set_title(drawable(name), fontsize=10)
        axes.grid(visible=True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (first, *others[: len(panels)]):
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    for unused in others[len(panels) :]:
        unused.set_axis_off()
    return figure


@styled()
def tiles_figure(rows: Sequence[Row], title: str, width: float = 0.62) -> Figure:
    """Rows of small images, each in a square `width` inches wide, with its caption above."""
    columns = max((len(row.tiles) for row in rows), default=1)
    lines = max((caption.count("\n") + 1 for row in rows for caption, _ in row.tiles if caption), default=0)
    left = 1.9 if any(row.title for row in rows) else 0.15
    gap = 0.08 + 0.13 * lines
    total = max(left + (width + 0.06) * columns + 0.1, 6.4), 0.55 + (width + gap) * max(len(rows), 1)
    figure = Figure(figsize=total)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    figure.text(0.1 / total[0], 1 - 0.35 / total[1], drawable(title), fontsize=10, va="center")
    for number, row in enumerate(rows):
        top = 0.55 + number * (width + gap) + gap - 0.06
        axes.text(left - 0.1, top + width / 2, drawable(row.title), ha="right", va="center", fontsize=8)
        for column, (caption, pixels) in enumerate(row.tiles):
            height, breadth = (width * side / max(pixels.shape[:2]) for side in pixels.shape[:2])
            middle = left + (width + 0.06) * column + width / 2
            y = top + (width - height) / 2
            extent = (middle - breadth / 2, middle + breadth / 2, y + height, y)
            axes.imshow(pixels, extent=extent, aspect="auto")
            axes.text(middle, top - 0.03, drawable(caption), ha="center", va="bottom", fontsize=6.5)
    if not any(row.tiles for row in rows):
        axes.text(0.1, 0.6, "There are none.", va="top", fontsize=8)
    axes.set_xlim(0, total[0])
    axes.set_ylim(total[1], 0)
    return figure


@styled()
def name_figure(figure: Figure, name: str) -> None:
    """Say on the figure which network it is about."""
    name = drawable(name if len(name) <= 90 else f"{name[:89]}…")
    place: dict[str, Any] = {"x": 0.99, "ha": "right"}
    if figure.get_layout_engine() is None:  # else there is room for it
        place["y"] = 1 - 0.05 / figure.get_figheight()
    figure.suptitle(name, fontsize=8, color=TRAIN_COLOUR, **place)


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


def _logarithmic(axes: Axes) -> None:
    """A logarithmic vertical axis, whose labels are plain numbers; the fewer decades, the more in each."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(
        MaxNLocator(5)
        if high < 10 * low
        else LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=7)
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
