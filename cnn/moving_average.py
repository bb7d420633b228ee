"""A moving average of the weights, which often predicts better than the last weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.checks import Kept, checked
from cnn.optimizers import blend
from cnn.parameter import Parameter
from cnn.state import Stateful


class MovingAverage(Stateful):
    """The exponential moving average a of each parameter θ, taken after each step of the optimiser.

        decay_t = min(decay, (1 + t) / (10 + t))      t = updates before this one
        a = decay_t · a + (1 − decay_t) · θ

    a starts as a copy of θ. The early decay_t are small, so that a soon forgets these first values.
    Only parameters are averaged; buffers are not.
    The state is "updates" and one array for each parameter, named as in "average.0.kernel".

    Source: the averages of Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992),
    with exponentially decaying weights.

    Args:
        parameters: as returned by `Sequential.parameters()`.
        decay: the fraction of a that each update keeps in the long run.

    Raises: ValueError if `decay` is out of its range.
    """

    @checked
    def __init__(self, parameters: Mapping[str, Parameter], decay: Kept) -> None:
        self.parameters = dict(parameters)
        self.decay = decay
        self._updates = np.zeros((), np.int64)
        self._averages = {name: parameter.value.copy() for name, parameter in self.parameters.items()}

    def update(self) -> None:
        """Update the average with the current weights; RuntimeError inside `applied`."""
        if any(parameter.value is self._averages[name] for name, parameter in self.parameters.items()):
            raise RuntimeError(
                "MovingAverage.update() was called inside applied(), where the values are the averages "
                "themselves. Call it outside of the with block."
            )
        t = int(self._updates)
        decay = min(self.decay, (1 + t) / (10 + t))
        for name, parameter in self.parameters.items():
            blend(self._averages[name], parameter.value, decay)
        self._updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """In the `with` block, each parameter's `value` is its average; afterwards, it is the former array.

        No array is copied, so evaluate in the block, but do not train.
        """
        weights = {name: parameter.value for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.value = self._averages[name]
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.value = weights[name]

    def _state(self) -> dict[str, NDArray[Any]]:
        return {"updates": self._updates} | {
            f"average.{name}": average for name, average in self._averages.items()
        }
