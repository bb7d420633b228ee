"""Pictures: arrays in, matplotlib figures out. The only file that imports matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cnn.atomic import atomic_path

DOTS_PER_INCH = 150
TRAIN_COLOUR, VALIDATION_COLOUR = "#8a8f98", "#1f5fa8"


def confusion_matrix_figure(matrix: NDArray[np.int_], class_names: Sequence[str], title: str) -> Figure:
    """Counts of actual (rows) against predicted (columns) classes.

    Right answers, on the diagonal, are grey; wrong ones are the redder the more there are of them, on a
    scale of their own, since they are few.
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
    axes.grid(which="minor", color="#d5d8dd", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(title)
    return figure


def training_curves_figure(history: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Loss and accuracy by epoch, training and validation together; the columns are those of history.csv."""
    figure = Figure(figsize=(9.6, 4), layout="constrained")
    figure.suptitle(title)
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        _curve(axes, history, f"train_{quantity}", "train", TRAIN_COLOUR)
        _curve(axes, history, f"validation_{quantity}", "validation", VALIDATION_COLOUR)
        axes.set_xlabel("epoch")
        axes.set_ylabel(quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="#e6e8eb")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper right" if quantity == "loss" else "lower right")
    return figure


def digit_figure(
    photograph: NDArray[np.float64], box: tuple[slice, slice], image: NDArray[np.float32], title: str
) -> Figure:
    """The photograph, its rows and columns `box` framed, and beside it `image`, what the network saw."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    figure.suptitle(title)
    whole, seen = figure.subplots(1, 2)
    whole.imshow(photograph, cmap="gray", vmin=0, vmax=1)
    rows, columns = box
    corner, width, height = (columns.start, rows.start), columns.stop - columns.start, rows.stop - rows.start
    for colour, line in (("white", 4), (VALIDATION_COLOUR, 2)):  # to be seen on any photograph
        whole.add_patch(Rectangle(corner, width, height, fill=False, color=colour, linewidth=line))
    whole.set_title("photograph, and where the digit is", fontsize=10)
    seen.imshow(image, cmap="gray", vmin=0, vmax=1)
    seen.set_title(f"what the network saw: {image.shape[1]}x{image.shape[0]} pixels", fontsize=10)
    for axes in (whole, seen):
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, atomically; equal figures give equal bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)


def _curve(axes: Axes, history: Mapping[str, Sequence[float]], column: str, label: str, colour: str) -> None:
    style: dict[str, Any] = {"marker": "o", "markersize": 3.5, "color": colour}
    axes.plot(history["epoch"], history[column], label=label, **style)
