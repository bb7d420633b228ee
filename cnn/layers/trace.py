"""Records what passes through each layer of a network, whatever it is composed of."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cnn.layers.layer import Layer, Rng, Shape
from cnn.parameter import Parameter

T = TypeVar("T", bound="Traced")


class Traced(Layer):
    """A copy of a layer, with the same parameters and buffers, that records what last passed through it.

    All layers inside are traced, too. `name` is the name in the network, as `Layer.walk` returns it; `x`,
    `y`, `grad_x` and `grad_y` are those of the last forward and backward, `input_shape` and `shape` those of
    the last `output_shape`.
    """

    def __init__(self, name: str, layer: Layer, order: list[Any]) -> None:
        self.name, self.original = name, layer
        self.is_branch = False  # a list inside a layer that is not a list
        self._order = order
        self._layer = layer.map(self._trace_child)
        self.input_shape: Shape = ()
        self.shape: Shape = ()
        self.x = self.y = self.grad_x = self.grad_y = np.empty(0)

    def forward(
        self, x: Float[np.ndarray, "n *shape"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *out"]:
        """Compute the layer's output; record it and x."""
        self._enter()
        self.x = x
        self.y = self._layer.forward(x, training=training, rng=rng)
        return self.y

    def backward(self, grad_y: Float[np.ndarray, "n *out"]) -> Float[np.ndarray, "n *shape"]:
        """Compute the layer's dL/dx; record it and dL/dy."""
        self.grad_y = grad_y
        self.grad_x = self._layer.backward(grad_y)
        return self.grad_x

    def output_shape(self, input_shape: Shape) -> Shape:
        """Compute the layer's output shape; record it and the input shape."""
        self._enter()
        self.input_shape = input_shape
        self.shape = self._layer.output_shape(input_shape)
        return self.shape

    def children(self) -> dict[str, Layer]:
        """The traced layers inside."""
        return self._layer.children()

    def own_parameters(self) -> dict[str, Parameter]:
        """The layer's own parameters."""
        return self._layer.own_parameters()

    def parameters(self) -> dict[str, Parameter]:
        """The layer's parameters."""
        return self._layer.parameters()

    def buffers(self) -> dict[str, NDArray[Any]]:
        """The layer's buffers."""
        return self._layer.buffers()

    def __repr__(self) -> str:
        return repr(self.original)

    # What a composite may ask of a layer inside, it may ask of its traced copy.

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "original" not in vars(self):
            raise AttributeError(name)
        return getattr(self.original, name)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.children().values())

    def __len__(self) -> int:
        return len(self.children())

    def __getitem__(self, index: int) -> Layer:
        return list(self.children().values())[index]

    def _trace_child(self, inner: str, child: Layer) -> "Traced":
        traced = type(self)(f"{self.name}.{inner}".lstrip("."), child, self._order)
        traced.is_branch = child.is_list and not self.original.is_list
        return traced

    def _enter(self) -> None:
        if not any(other is self for other in self._order):
            self._order.append(self)


class Trace(Generic[T]):
    """A traced network; `network` computes what the original does."""

    def __init__(self, model: Layer, kind: type[T] = Traced) -> None:  # type: ignore[assignment]
        self._order: list[T] = []
        self.network = kind("", model, self._order)

    @property
    def layers(self) -> list[T]:
        """The layers inside, in the order in which they were first computed, each one before those inside it.

        A branch, such as the layers of a Residual, is left out, but its layers are included.
        """
        return [layer for layer in self._order if layer is not self.network and not layer.is_branch]


def trace_shapes(model: Layer, input_shape: Shape) -> Iterator[tuple[str, Layer, Shape, Shape]]:
    """Yield (name, layer, input shape, output shape) of every layer, for one input of `input_shape`."""
    trace: Trace[Traced] = Trace(model)
    trace.network.output_shape(input_shape)
    for layer in trace.layers:
        yield layer.name, layer.original, layer.input_shape, layer.shape


def trace_forward(
    model: Layer, x: Float[np.ndarray, "n *shape"]
) -> Iterator[tuple[str, Layer, NDArray[np.floating]]]:
    """Yield (name, layer, its output in evaluation) of every layer inside."""
    trace: Trace[Traced] = Trace(model)
    trace.network.forward(x)
    for layer in trace.layers:
        yield layer.name, layer.original, layer.y


def trace_backward(
    model: Layer, x: Float[np.ndarray, "n *shape"], loss: Callable[[NDArray[Any]], tuple[float, NDArray[Any]]]
) -> tuple[float, Trace[Traced]]:
    """(L, the trace) of a forward and a backward pass in evaluation; assigns the parameters' gradients.

    `loss` maps the network's outputs to (L, dL/d(outputs)). In evaluation, batch norm's statistics are
    constants and no number is dropped, so these are the gradients of what the network answers with.
    """
    trace: Trace[Traced] = Trace(model.as_evaluated())
    rng = np.random.default_rng(0)  # whatever is drawn has no effect in evaluation
    value, grad_outputs = loss(trace.network.forward(x, training=True, rng=rng))
    trace.network.backward(grad_outputs)
    return value, trace
