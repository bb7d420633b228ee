"""Views into a network, in numbers. `cnn.layers.trace` has the activations; plotting is done elsewhere."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnn.layers import Conv2D, Layer, Sequential
from cnn.layers.layer import Shape
from cnn.layers.trace import trace_shapes
from cnn.ops.arrays import to_host
from cnn.parameter import Parameter
from cnn.state import Stateful

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LARGEST_CHUNK = 2**22  # numbers, of images with covered parts: 16 MB of float32


def kernels(model: Layer) -> Iterator[tuple[str, NDArray[np.floating]]]:
    """(name, kernel (kernel_h, kernel_w, in / groups, out)) of every convolution."""
    for name, layer in model.walk():
        if isinstance(layer, Conv2D):
            yield name, layer.kernel.value


def multiply_adds(model: Sequential, input_shape: Shape, *, training: bool) -> int:
    """The multiply-adds of a network's weights for one example, see `Layer.multiply_adds`; at all depths.

    Training takes three products of the same size: y, dL/dθ and dL/dx. A layer at the very start does not
    need the last.
    """
    total = 0
    for name, layer, shape, _ in trace_shapes(model, input_shape):
        is_first = set(name) <= {"0", "."}  # also in lists within lists: "0.0"
        total += layer.multiply_adds(shape) * ((2 if is_first else 3) if training else 1)
    return total


class Occlusion(NamedTuple):
    """How much a score falls if squares of an image are covered, one at a time."""

    side: int  # of the squares, in pixels
    falls: NDArray[np.floating]  # (rows, columns): of each square; positive: it is evidence for a high score
    per_pixel: NDArray[np.floating]  # (h, w): the mean over the four squares in which a pixel lies

    @property
    def strongest(self) -> tuple[slice, slice, float]:
        """(rows, columns, fall) of the square whose covering lowers the score most."""
        row, column = np.unravel_index(self.falls.argmax(), self.falls.shape)
        height, width = self.per_pixel.shape
        rows, columns = _square(int(row), self.side, height), _square(int(column), self.side, width)
        return rows, columns, float(self.falls[row, column])


def occlusion(
    score: Callable[[NDArray[np.floating]], NDArray[np.floating]],
    image: NDArray[np.floating],
    *,
    background: float | NDArray[np.floating] = 0.0,
) -> Occlusion:
    """How much the score of an image (h, w, c) falls if each of many squares is covered.

    The squares, filled with `background` (a number, or one for each channel), are about a seventh of the
    shorter side wide. Each overlaps the next by half, and they extend beyond the edges, so that every pixel
    lies in four. `score` maps images (n, h, w, c) to one number each; it is called with several MB at a time.
    Source: Zeiler & Fergus, "Visualizing and understanding convolutional networks" (2014), section 4.2.
    """
    height, width, _ = image.shape
    step = max(1, math.floor(min(height, width) / 14 + 0.5))
    side = 2 * step
    rows = [_square(row, side, height) for row in range(-(-height // step) + 1)]
    columns = [_square(column, side, width) for column in range(-(-width // step) + 1)]
    falls = np.zeros((len(rows), len(columns)))
    squares = [
        (index, place)
        for index in np.ndindex(falls.shape)
        if (image[place := (rows[index[0]], columns[index[1]])] != background).any()  # else nothing changes
    ]
    whole = score(image[None])
    at_once = max(1, LARGEST_CHUNK // image.size)
    for start in range(0, len(squares), at_once):
        chunk = squares[start : start + at_once]
        covered = np.repeat(image[None], len(chunk), axis=0)
        for one, (_, place) in zip(covered, chunk, strict=True):
            one[place] = background
        for (index, _), fall in zip(chunk, whole - score(covered), strict=True):
            falls[index] = fall
    per_pixel = np.zeros((height, width))
    for index in np.ndindex(falls.shape):
        per_pixel[rows[index[0]], columns[index[1]]] += falls[index] / 4
    return Occlusion(side, falls, per_pixel)


def _square(number: int, side: int, length: int) -> slice:
    """The part of square `number` that lies within an axis of this length; number 0 starts before it."""
    start = (number - 1) * side // 2
    return slice(max(start, 0), min(start + side, length))


class EpochStatistics(Stateful):
    """RMS gradient norm of each parameter over an epoch (before clipping), and value quantiles at its end."""

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self.parameters = dict(parameters)
        self._steps = np.array(0)
        self._squares = {name: np.array(0.0) for name in parameters}

    def add_step(self, squares: Mapping[str, float]) -> None:
        """Add the gradients of one step, given by their `cnn.clipping.gradient_squares`."""
        self._steps += 1
        for name in self._squares:
            self._squares[name] += squares[name]

    def finish_epoch(self) -> list[dict[str, Any]]:
        """Return a row for each parameter, with the RMS of |dL/dθ| over the steps; then start a new epoch."""
        rows = []
        for name, parameter in self.parameters.items():
            quantiles = np.quantile(to_host(parameter.value).astype(np.float64), QUANTILES)
            rows.append(
                {"parameter": name, "gradient_norm": float(np.sqrt(self._squares[name] / self._steps))}
                | {
                    f"q{level:.0%}".rstrip("%"): float(q)
                    for level, q in zip(QUANTILES, quantiles, strict=True)
                }
            )
            self._squares[name][...] = 0
        self._steps[...] = 0
        return rows

    def _state(self) -> dict[str, NDArray[np.generic]]:
        return {"steps": self._steps} | {f"squares.{name}": value for name, value in self._squares.items()}
