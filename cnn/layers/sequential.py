"""A network as a list of layers."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cnn.checks import Whole
from cnn.layers.layer import Layer, Rng, Shape
from cnn.layers.trace import trace_shapes
from cnn.ops.arrays import to_host
from cnn.registry import LAYERS


@LAYERS.register
class Sequential(Layer):
    """The composition of its layers, first to last: y = f_last(… f_1(f_0(x))).

    A layer's name is its index, so parameters have names like "0.kernel".

    Args:
        layers: the layers, first to last.
    """

    is_list = True

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Layer:
        return self.layers[index]

    def forward(
        self, x: Float[np.ndarray, "n *shape"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *out"]:
        """Each layer's output is the next one's input; those that need random numbers draw from `rng`."""
        if getattr(x, "dtype", None) not in (np.float32, np.float64):
            received = getattr(x, "dtype", type(x).__name__)
            raise ValueError(
                f"Networks compute with NumPy arrays of float32 or float64; received {received}. "
                "Convert it with np.asarray(x, np.float32)."
            )
        for layer in self.layers:
            x = layer.forward(x, training=training, rng=rng)
        return x

    def backward(self, grad_y: Float[np.ndarray, "n *out"]) -> Float[np.ndarray, "n *shape"]:
        """The chain rule, last layer to first: dL/d(input) of one layer is dL/d(output) of the one before."""
        for layer in reversed(self.layers):
            grad_y = layer.backward(grad_y)
        return grad_y

    def backward_parameters(self, grad_y: Float[np.ndarray, "n *out"]) -> None:
        """The same, except that dL/dx of the first layer is not needed."""
        for layer in reversed(self.layers[1:]):
            grad_y = layer.backward(grad_y)
        if self.layers:
            self.layers[0].backward_parameters(grad_y)

    def predict(self, x: Float[np.ndarray, "n *shape"], batch_size: int = 256) -> Float[np.ndarray, "n *out"]:
        """The outputs for any number of examples, computed `batch_size` at a time; changes no state.

        For a network that ends in a Dense layer these are logits; `cnn.ops.softmax.softmax` makes them
        probabilities. `x` may be memory-mapped. x and outputs are on the host, wherever the network is.
        """
        Whole().check("batch_size", batch_size)
        y: NDArray[Any] | None = None
        for start in range(0, max(len(x), 1), batch_size):
            batch = to_host(self.forward(self.place(x[start : start + batch_size])))
            if y is None:
                y = np.empty((len(x), *batch.shape[1:]), batch.dtype)
            y[start : start + batch_size] = batch
        assert y is not None  # the loop runs at least once
        return y

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape after the last layer; an error names the layer that does not fit."""
        shape = input_shape
        for index, layer in enumerate(self.layers):
            try:
                shape = layer.output_shape(shape)
            except ValueError as error:
                raise ValueError(
                    f"{error} In layer {index}, {layer!r}, whose input has shape {shape}."
                ) from None
        return shape

    def children(self) -> dict[str, Layer]:
        """The layers by index."""
        return {str(index): layer for index, layer in enumerate(self.layers)}

    def summary(self, input_shape: Shape) -> str:
        """A table of layers, output shapes and parameter counts, for one input of `input_shape`.

        The parameters of a layer with layers inside are counted at these.
        """
        rows = [("", "layer", "output shape", "parameters"), ("", "input", _format(input_shape), "")]
        for name, layer, _, shape in trace_shapes(self, input_shape):
            composite = bool(layer.children())
            title = f"{type(layer).__name__}:" if composite else repr(layer)
            own = layer.count_own_parameters()
            count = "" if composite and not own else f"{own:,}"
            rows.append((name, "  " * name.count(".") + title, _format(shape), count))
        rows.append(("", "total", "", f"{self.count_parameters():,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join(
            f"{index:<{widths[0]}}  {name:<{widths[1]}}  {shape:<{widths[2]}}  {count:>{widths[3]}}"
            for index, name, shape, count in rows
        )


def _format(shape: Shape) -> str:
    return " x ".join(map(str, shape))
