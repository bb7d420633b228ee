"""State as named arrays, the interface that layers, optimisers and averages share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.ops.arrays import place, to_host


class Stateful(ABC):
    """An object whose whole state is a set of named arrays, so that a run can resume from a copy of them."""

    @abstractmethod
    def _state(self) -> dict[str, NDArray[Any]]:
        """The arrays themselves, not copies, by name."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of all arrays that make up the state, by name; they are on the host."""
        return {name: np.array(to_host(array)) for name, array in self._state().items()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Copy in `state`, which `state_dict` of an equal object returned.

        Names, shapes and dtypes must match; otherwise ValueError lists the differences, and nothing changes.
        """
        own = self._state()
        problems = [f"missing: {name}" for name in own if name not in state]
        problems += [f"unexpected: {name}" for name in state if name not in own]
        for name, array in own.items():
            if name in state and state[name].shape != array.shape:
                problems.append(f"{name} has shape {state[name].shape}, not {array.shape}")
            elif name in state and state[name].dtype != array.dtype:
                problems.append(f"{name} is {state[name].dtype}, not {array.dtype}")
        if problems:
            raise ValueError(f"The state does not fit this {type(self).__name__}: {'; '.join(problems)}.")
        for name, array in own.items():
            array[...] = place(state[name], like=array)
