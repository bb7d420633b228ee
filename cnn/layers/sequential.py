"""A network as a list of layers."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cnn.checks import check_count
from cnn.layers.layer import Layer, Shape


class Sequential(Layer):
    """The composition of its layers, first to last: y = f_last(… f_1(f_0(x))).

    A layer's name is its index, so that parameters are named as in "0.kernel".
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def forward(
        self,
        x: Float[np.ndarray, "n *shape"],
        training: bool = True,
        rng: np.random.Generator | None = None,
    ) -> Float[np.ndarray, "n *out"]:
        """Each layer's output is the next one's input; those that need random numbers draw from `rng`."""
        if x.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"Networks compute in float32 or float64; received {x.dtype}. "
                "Convert it with x.astype(np.float32)."
            )
        for layer in self.layers:
            random: dict[str, Any] = {"rng": rng} if layer.takes_rng else {}
            x = layer.forward(x, training, **random)
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
        return [input_shape, *(shape for _, _, shape in self._steps(input_shape))][-1]

    def children(self) -> dict[str, Layer]:
        """The layers by index."""
        return {str(index): layer for index, layer in enumerate(self.layers)}

    def walk(self, input_shape: Shape) -> Iterator[tuple[str, Layer, Shape]]:
        """Each layer, and after it the layers inside it."""
        shape = input_shape
        for name, layer, output in self._steps(input_shape):
            yield name, layer, output
            for inner, inner_layer, inner_shape in layer.walk(shape):
                yield f"{name}.{inner}", inner_layer, inner_shape
            shape = output

    def summary(self, input_shape: Shape) -> str:
        """A table of layers, output shapes and parameter counts, for one input of `input_shape`.

        The count of a layer with layers inside stands at those.
        """
        rows = [("", "layer", "output shape", "parameters"), ("", "input", _format(input_shape), "")]
        for name, layer, shape in self.walk(input_shape):
            composite = bool(layer.children())
            title = f"{type(layer).__name__}:" if composite else repr(layer)
            count = "" if composite else f"{count_parameters(layer):,}"
            rows.append((name, "  " * name.count(".") + title, _format(shape), count))
        rows.append(("", "total", "", f"{count_parameters(self):,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join(
            f"{index:<{widths[0]}}  {name:<{widths[1]}}  {shape:<{widths[2]}}  {count:>{widths[3]}}"
            for index, name, shape, count in rows
        )

    def _steps(self, shape: Shape) -> Iterator[tuple[str, Layer, Shape]]:
        """Each layer with its name and its output's shape; an error names the layer that does not fit."""
        for index, layer in enumerate(self.layers):
            try:
                output = layer.output_shape(shape)
            except ValueError as error:
                raise ValueError(
                    f"{error} In layer {index}, {layer!r}, whose input has shape {shape}."
                ) from None
            yield str(index), layer, output
            shape = output


def count_parameters(layer: Layer) -> int:
    """How many numbers a layer or model can learn."""
    return sum(parameter.value.size for parameter in layer.parameters().values())


def _format(shape: Shape) -> str:
    return " x ".join(map(str, shape))
