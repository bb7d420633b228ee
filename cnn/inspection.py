"""Views into a network, as arrays. `cnn.layers.trace` has the activations; plotting is done elsewhere."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.layers import Conv2D, Layer
from cnn.parameter import Parameter
from cnn.state import Stateful

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def kernels(model: Layer) -> Iterator[tuple[str, NDArray[np.floating]]]:
    """(name, kernel (kernel_h, kernel_w, in / groups, out)) of every convolution."""
    for name, layer in model.walk():
        if isinstance(layer, Conv2D):
            yield name, layer.kernel.value


def occlusion(
    score: Callable[[NDArray[np.floating]], NDArray[np.floating]],
    image: NDArray[np.floating],
    *,
    patch: int = 5,
    background: float | NDArray[np.floating] = 0.0,
) -> NDArray[np.floating]:
    """How much the score of an image (h, w, c) falls if the area around each pixel is covered.

    A square of `patch` pixels of `background` (a number, or one for each channel) is put around each pixel in
    turn; `score` maps images (n, h, w, c) to one number each. In the result (h, w), a positive value means
    that the covered area is evidence for a high score, and a negative value that it is evidence against one.
    Source: Zeiler & Fergus, "Visualizing and understanding convolutional networks" (2014), section 4.2.
    """
    height, width, _ = image.shape
    covered = np.repeat(image[None], height * width, axis=0)
    reach = patch // 2
    for index, (row, column) in enumerate(np.ndindex(height, width)):
        rows = slice(max(row - reach, 0), row + reach + 1)
        columns = slice(max(column - reach, 0), column + reach + 1)
        covered[index, rows, columns] = background
    return (score(image[None]) - score(covered)).reshape(height, width)


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
            quantiles = np.quantile(parameter.value.astype(np.float64), QUANTILES)
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
