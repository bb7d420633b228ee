"""A network as a list of layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cnn.layers.checks import check_count
from cnn.layers.layer import Layer, Shape
from cnn.parameter import Parameter


class Sequential(Layer):
    """The composition of its layers, first to last: y = f_last(… f_1(f_0(x))).

    Parameters are named "INDEX.NAME", as in "0.kernel".
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def forward(self, x: Float[np.ndarray, "n *shape"], training: bool = True) -> Float[np.ndarray, "n *out"]:
        """Each layer's output is the next one's input."""
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, grad_y: Float[np.ndarray, "n *out"]) -> Float[np.ndarray, "n *shape"]:
        """The chain rule, last layer to first: dL/d(input) of one layer is dL/d(output) of the one before."""
        for layer in reversed(self.layers):
            grad_y = layer.backward(grad_y)
        return grad_y

    def predict(self, x: Float[np.ndarray, "n *shape"], batch_size: int = 256) -> Float[np.ndarray, "n *out"]:
        """What the network says of any number of examples, `batch_size` at a time; changes no state.

        For a network that ends in a Dense layer these are logits; `cnn.ops.softmax.softmax` makes them
        probabilities. `x` may be memory-mapped.
        """
        check_count("batch_size", batch_size)
        y: NDArray[Any] | None = None
        for start in range(0, max(len(x), 1), batch_size):
            batch = self.forward(np.asarray(x[start : start + batch_size]), training=False)
            if y is None:
                y = np.empty((len(x), *batch.shape[1:]), batch.dtype)
            y[start : start + batch_size] = batch
        assert y is not None  # the loop runs at least once
        return y

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape after the last layer; an error names the layer that does not fit."""
        return [input_shape, *(shape for _, shape in self._walk(input_shape))][-1]

    def parameters(self) -> dict[str, Parameter]:
        """All layers' parameters, in order."""
        return {
            f"{index}.{name}": parameter
            for index, layer in enumerate(self.layers)
            for name, parameter in layer.parameters().items()
        }

    def summary(self, input_shape: Shape) -> str:
        """A table of layers, output shapes and parameter counts, for one input of `input_shape`."""
        rows = [("", "layer", "output shape", "parameters"), ("", "input", _format(input_shape), "")]
        for index, (layer, shape) in enumerate(self._walk(input_shape)):
            count = sum(parameter.value.size for parameter in layer.parameters().values())
            rows.append((str(index), repr(layer), _format(shape), f"{count:,}"))
        total = sum(parameter.value.size for parameter in self.parameters().values())
        rows.append(("", "total", "", f"{total:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join(
            f"{index:>{widths[0]}}  {name:<{widths[1]}}  {shape:<{widths[2]}}  {count:>{widths[3]}}"
            for index, name, shape, count in rows
        )

    def __repr__(self) -> str:
        return f"Sequential([{', '.join(map(repr, self.layers))}])"

    def _walk(self, shape: Shape) -> list[tuple[Layer, Shape]]:
        """Each layer with the shape of its output."""
        walked = []
        for index, layer in enumerate(self.layers):
            try:
                output = layer.output_shape(shape)
            except ValueError as error:
                raise ValueError(
                    f"{error} In layer {index}, {layer!r}, whose input has shape {shape}."
                ) from None
            walked.append((layer, output))
            shape = output
        return walked


def _format(shape: Shape) -> str:
    return " x ".join(map(str, shape))
