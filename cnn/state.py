"""What layers, optimisers and averages share: state as named arrays."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray


class Stateful(ABC):
    """Something whose whole state is a set of named arrays, so that a run can go on from a copy of them."""

    @abstractmethod
    def _state(self) -> dict[str, NDArray[Any]]:
        """The arrays themselves, by name."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of all arrays that make up the state, by name."""
        return {name: array.copy() for name, array in self._state().items()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over `state`, made by `state_dict` of an equal object.

        Names, shapes and dtypes must be the same, or ValueError lists what differs and nothing changes.
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
            array[...] = state[name]
