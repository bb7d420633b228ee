"""The base class of all layers."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from cnn import registry
from cnn.ops.arrays import place
from cnn.parameter import Parameter
from cnn.state import Stateful

Shape = tuple[int, ...]
Rng = np.random.Generator | None


class Layer(Stateful):
    """A differentiable function y = f(x; θ) on batches; the first axis counts the examples.

    - `forward(x)` computes y. Only with `training=True` does it save what `backward` will need, or update
      state; otherwise it changes nothing. It may save x or y itself: do not change them in place before
      `backward`. Layers that are random in training draw from `rng`.
    - `backward(grad_y)` takes dL/dy, assigns dL/dθ to each parameter's `grad`, and returns dL/dx. It uses
      up what the last training forward saved, and frees it.
    - `output_shape` checks all geometry. The shapes that it takes and returns have no batch axis. A layer
      with layers inside calls their `output_shape` in its own, and likewise `forward` and `backward`.

    A layer is complete once constructed: its parameters exist, and nothing is built later. It keeps the
    arguments of its constructor as attributes of the same names. Attributes that are `Parameter`s are its
    parameters, and attributes that are layers, or lists of layers, are the layers inside it.
    """

    is_list = False  # whether it only applies the layers inside, one after the other
    _saved: tuple[Any, ...] | None = None

    @abstractmethod
    def forward(
        self, x: Float[np.ndarray, "n *shape"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *out"]:
        """y = f(x; θ)."""

    @abstractmethod
    def backward(self, grad_y: Float[np.ndarray, "n *out"]) -> Float[np.ndarray, "n *shape"]:
        """dL/dx from dL/dy, by the chain rule."""

    @abstractmethod
    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of y for x of `input_shape`, without the batch axis; ValueError if x does not fit."""

    def backward_parameters(self, grad_y: Float[np.ndarray, "n *out"]) -> None:
        """Assign dL/dθ as `backward` does, if dL/dx is not needed; a layer may override it to skip dL/dx."""
        self.backward(grad_y)

    def children(self) -> dict[str, "Layer"]:
        """The layers inside this one by name. Their parameters and buffers are this layer's, too."""
        found: dict[str, Layer] = {}
        for name, value in vars(self).items():
            if isinstance(value, Layer):
                found[name] = value
            elif isinstance(value, list | tuple):
                found |= {f"{name}.{i}": layer for i, layer in enumerate(value) if isinstance(layer, Layer)}
            if _hides(value):
                raise ValueError(
                    f"{type(self).__name__} keeps layers or parameters in {name}, where nothing finds them. "
                    "Make each an attribute; layers may also be in one list."
                )
        return found

    def map(self, function: Callable[[str, "Layer"], "Layer"]) -> "Layer":
        """Return a copy with function(name, child) in place of each layer inside, and the same parameters."""
        copied = copy.copy(self)
        names = {id(child): name for name, child in self.children().items()}
        for attribute, value in vars(self).items():
            if isinstance(value, Layer):
                setattr(copied, attribute, function(names.get(id(value), attribute), value))
            elif isinstance(value, list | tuple) and any(isinstance(item, Layer) for item in value):
                items = [function(names[id(i)], i) if isinstance(i, Layer) else i for i in value]
                setattr(copied, attribute, type(value)(items))
        return copied

    def as_evaluated(self) -> "Layer":
        """Return a copy with the same parameters whose training computes what evaluation does.

        So `backward` can follow what the network answers with. A layer that computes something else in
        training overrides it.
        """
        return self.map(lambda _, child: child.as_evaluated())

    def walk(self) -> Iterator[tuple[str, "Layer"]]:
        """Yield (name, layer) of all layers inside, each one before those inside it."""
        for name, child in self.children().items():
            yield name, child
            for inner, layer in child.walk():
                yield f"{name}.{inner}", layer

    def own_parameters(self) -> dict[str, Parameter]:
        """Its own trainable parameters by name, without those of the layers inside."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Parameter)}

    def parameters(self) -> dict[str, Parameter]:
        """The trainable parameters by name; those of layers inside as "CHILD.NAME"."""
        return self.own_parameters() | {
            f"{child}.{name}": parameter
            for child, layer in self.children().items()
            for name, parameter in layer.parameters().items()
        }

    def buffers(self) -> dict[str, NDArray[Any]]:
        """Arrays of the state that are not trained, by name as in `parameters`; floating-point numbers."""
        return {
            f"{child}.{name}": buffer
            for child, layer in self.children().items()
            for name, buffer in layer.buffers().items()
        }

    def place(self, x: ArrayLike) -> NDArray[Any]:
        """`x` where the parameters and buffers are: on the host, or on a device, see `cnn.move`."""
        arrays = [parameter.value for parameter in self.parameters().values()]
        return place(x, like=next(iter([*arrays, *self.buffers().values()]), np.empty(0)))

    def count_parameters(self) -> int:
        """The number of trainable numbers."""
        return sum(parameter.value.size for parameter in self.parameters().values())

    def count_own_parameters(self) -> int:
        """The number of trainable numbers of its own, without those of the layers inside."""
        return sum(parameter.value.size for parameter in self.own_parameters().values())

    def multiply_adds(self, input_shape: Shape) -> int:
        """The multiply-adds of its weights with one input of `input_shape`, without those of layers inside.

        They are counted by definition, whatever method computes them. A layer that multiplies no matrices has
        none: what it does for each number is left out, as are biases.
        """
        return 0

    def spec(self) -> dict[str, Any]:
        """Its type and arguments, as plain values that JSON and YAML can hold; `cnn.from_spec` reads them."""
        return registry.spec(registry.LAYERS, self)

    def __repr__(self) -> str:
        """The call of the constructor, without arguments that have their default or were not kept."""
        return registry.call(self)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: everything but the activations saved for `backward`."""
        return {name: value for name, value in vars(self).items() if name != "_saved"}

    def _state(self) -> dict[str, NDArray[Any]]:
        return {name: parameter.value for name, parameter in self.parameters().items()} | self.buffers()

    def _save(self, y: NDArray[Any], *values: Any) -> None:
        """Keep `values` for the next backward, and the shape that its argument must have."""
        self._saved = (y.shape, *values)

    def _take(self, grad_y: NDArray[Any]) -> tuple[Any, ...]:
        """Return what `_save` kept, and forget it."""
        if self._saved is None:
            raise RuntimeError(
                f"{self!r}.backward() was called without a forward(x, training=True) before it. "
                "Each backward uses up one training forward, so a layer can appear only once in a network."
            )
        shape, *values = self._saved
        if grad_y.shape != shape:
            raise ValueError(
                f"{self!r}.backward() needs a gradient of its output's shape, {shape}; "
                f"received {grad_y.shape}."
            )
        self._saved = None
        return tuple(values)


def _hides(value: Any) -> bool:
    """Whether layers or parameters are in a container that `children` and `parameters` do not look into."""
    if isinstance(value, dict):
        return any(isinstance(item, Layer | Parameter) for item in value.values())
    if not isinstance(value, list | tuple):
        return False
    nested = [part for item in value if isinstance(item, list | tuple) for part in item]
    return any(isinstance(item, Parameter) for item in value) or any(
        isinstance(part, Layer | Parameter) for part in nested
    )
