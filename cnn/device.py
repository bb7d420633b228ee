"""Moves a network to a device, such as a GPU, and back."""

import numpy as np
from numpy.typing import NDArray

from cnn.layers.layer import Layer
from cnn.ops.arrays import place, to_host
from cnn.parameter import Parameter


def move(model: Layer, like: NDArray[np.generic]) -> None:
    """Move the parameters and buffers of `model` to where `like` is; gradients are forgotten.

        move(model, like=cupy.empty(0))          to the GPU
        move(model, like=np.empty(0))            back to the host

    All that `fit`, `predict` and the layers compute is then computed there, because NumPy hands each call to
    the type of its arguments. Input and outputs of `fit` and `predict` stay on the host, and so do random
    numbers, so they are the same everywhere; sums are not, since a device adds in another order. Move a
    network before its optimiser and its average are made: their arrays are created beside the parameters.

    Args:
        model: any layer; its parameters are the same objects afterwards, with other arrays.
        like: an array on the device, of the type that it is to have there, such as CuPy's.

    Raises: ValueError if a buffer is not an attribute of its layer.
    """
    for layer in [model, *(inner for _, inner in model.walk())]:
        for name, value in vars(layer).items():
            if isinstance(value, Parameter):
                value.value, value.grad = place(to_host(value.value), like), None
            elif any(value is buffer for buffer in layer.buffers().values()):
                setattr(layer, name, place(to_host(value), like))
    arrays = {name: parameter.value for name, parameter in model.parameters().items()} | model.buffers()
    if left := [name for name, array in arrays.items() if type(array) is not type(place(array[:0], like))]:
        raise ValueError(
            f"move could not move: {', '.join(left)}. A buffer must be an attribute of its layer."
        )
