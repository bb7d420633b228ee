"""What every layer is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cnn.parameter import Parameter

Shape = tuple[int, ...]


class Layer(ABC):
    """A differentiable function y = f(x; θ) on batches; the first axis counts the examples.

    - `forward(x, training=True)` computes y. Only with `training=True` does it save what `backward` will
      need or update any state; with `training=False` it changes nothing. What it saves may be x or y
      itself: do not change them in place before `backward`.
    - `backward(grad_y)` takes dL/dy, assigns dL/dθ to each parameter's `grad`, and returns dL/dx. It uses
      up what the last training forward saved, and frees it.
    - `output_shape` and the shapes it takes leave out the batch axis. All geometry is checked there.

    A layer is complete once constructed: its parameters exist, and nothing is built later.
    """

    _saved: tuple[Any, ...] | None = None

    @abstractmethod
    def forward(self, x: Float[np.ndarray, "n *shape"], training: bool = True) -> Float[np.ndarray, "n *out"]:
        """y = f(x; θ)."""

    @abstractmethod
    def backward(self, grad_y: Float[np.ndarray, "n *out"]) -> Float[np.ndarray, "n *shape"]:
        """dL/dx from dL/dy, by the chain rule."""

    @abstractmethod
    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of y for x of `input_shape`, without the batch axis; ValueError if x does not fit."""

    def parameters(self) -> dict[str, Parameter]:
        """The trainable parameters by name."""
        return {}

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of all arrays that make up the layer's state, by name."""
        return {name: parameter.value.copy() for name, parameter in self.parameters().items()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over `state`, made by `state_dict` of an equal layer. Nothing changes if anything differs."""
        parameters = self.parameters()
        problems = [f"missing: {name}" for name in parameters if name not in state]
        problems += [f"unexpected: {name}" for name in state if name not in parameters]
        problems += [
            f"{name} has shape {state[name].shape}, not {parameter.value.shape}"
            for name, parameter in parameters.items()
            if name in state and state[name].shape != parameter.value.shape
        ]
        if problems:
            raise ValueError(f"The state does not fit this {type(self).__name__}: {'; '.join(problems)}.")
        for name, parameter in parameters.items():
            parameter.value[...] = state[name]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _save(self, y: NDArray[Any], *values: Any) -> None:
        """Keep `values` for the one backward that follows, and the shape that its argument must have."""
        self._saved = (y.shape, *values)

    def _take(self, grad_y: NDArray[Any]) -> tuple[Any, ...]:
        """What `_save` kept, once."""
        if self._saved is None:
            raise RuntimeError(
                f"{self!r}.backward() was called without a forward(x, training=True) before it. "
                "Each backward uses up one training forward."
            )
        shape, *values = self._saved
        if grad_y.shape != shape:
            raise ValueError(
                f"{self!r}.backward() needs a gradient of its output's shape, {shape}; "
                f"received {grad_y.shape}."
            )
        self._saved = None
        return tuple(values)
