"""What every layer is."""

import inspect
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cnn.parameter import Parameter
from cnn.state import Stateful

Shape = tuple[int, ...]


class Layer(Stateful):
    """A differentiable function y = f(x; θ) on batches; the first axis counts the examples.

    - `forward(x, training=True)` computes y. Only with `training=True` does it save what `backward` will
      need or update any state; with `training=False` it changes nothing. What it saves may be x or y
      itself: do not change them in place before `backward`. Where `takes_rng` is true, it also takes
      `rng=`, the source of its random numbers in training.
    - `backward(grad_y)` takes dL/dy, assigns dL/dθ to each parameter's `grad`, and returns dL/dx. It uses
      up what the last training forward saved, and frees it.
    - `output_shape` and the shapes it takes leave out the batch axis. All geometry is checked there.

    A layer is complete once constructed: its parameters exist, and nothing is built later. It keeps the
    arguments of its constructor as attributes of the same names.
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

    @property
    def takes_rng(self) -> bool:
        """Whether `forward` takes `rng=`; so it does where a layer inside does."""
        return any(layer.takes_rng for layer in self.children().values())

    def children(self) -> dict[str, "Layer"]:
        """The layers inside this one by name. Their parameters and buffers are this layer's, too."""
        return {}

    def parameters(self) -> dict[str, Parameter]:
        """The trainable parameters by name; those of layers inside as "CHILD.NAME"."""
        return {
            f"{child}.{name}": parameter
            for child, layer in self.children().items()
            for name, parameter in layer.parameters().items()
        }

    def buffers(self) -> dict[str, NDArray[Any]]:
        """The arrays that belong to the state and are not trained, by name, as in `parameters`."""
        return {
            f"{child}.{name}": buffer
            for child, layer in self.children().items()
            for name, buffer in layer.buffers().items()
        }

    def walk(self, input_shape: Shape) -> Iterator[tuple[str, "Layer", Shape]]:
        """(name, layer, output shape) of the layers inside, in the order in which they are computed."""
        yield from ()

    def __repr__(self) -> str:
        """As the constructor was called, without arguments that have their default, rng and dtype."""
        shown = []
        for name, argument in inspect.signature(type(self)).parameters.items():
            if name in ("rng", "dtype"):
                continue
            value = getattr(self, name)
            if isinstance(argument.default, bool):  # of an optional parameter, such as the bias
                value = value is not None and value is not False
            if value != argument.default:
                text = getattr(value, "__name__", repr(value))
                shown.append(f"{name}={text}" if argument.kind is argument.KEYWORD_ONLY else text)
        return f"{type(self).__name__}({', '.join(shown)})"

    def _state(self) -> dict[str, NDArray[Any]]:
        return {name: parameter.value for name, parameter in self.parameters().items()} | self.buffers()

    def _save(self, y: NDArray[Any], *values: Any) -> None:
        """Keep `values` for the one backward that follows, and the shape that its argument must have."""
        self._saved = (y.shape, *values)

    def _take(self, grad_y: NDArray[Any]) -> tuple[Any, ...]:
        """What `_save` kept, once."""
        if self._saved is None:
            raise RuntimeError(
                f"{self!r}.backward() was called without a forward(x, training=True) before it. "
                "Each backward uses up one training forward; a layer can stand in a network once."
            )
        shape, *values = self._saved
        if grad_y.shape != shape:
            raise ValueError(
                f"{self!r}.backward() needs a gradient of its output's shape, {shape}; "
                f"received {grad_y.shape}."
            )
        self._saved = None
        return tuple(values)
