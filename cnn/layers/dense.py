"""The fully connected layer."""

from typing import Annotated

import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike

from cnn.checks import Count, Given, InitialRng
from cnn.initializers import Initializer, fan_in_uniform, zeros
from cnn.layers.layer import Layer, Rng, Shape
from cnn.parameter import Parameter
from cnn.registry import LAYERS


@LAYERS.register
class Dense(Layer):
    """An affine map of each example: every output sees every input.

        y[n, o] = bias[o] + Σ_i x[n, i] · weight[i, o]

    Args:
        in_features: the length of x.
        out_features: the length of y.
        bias: whether to add a bias.
        initializer: initial values of the weight, see `cnn.initializers`; the bias starts at zero.
        rng: the source of the initial weight.
        dtype: the dtype of the parameters.

    Parameters: weight (in, out) and bias (out,).
    Raises: ValueError if an argument is invalid, or if x does not fit.
    """

    def __init__(
        self,
        in_features: Annotated[Count, Given],
        out_features: Count,
        *,
        bias: bool = True,
        initializer: Initializer = fan_in_uniform,
        rng: InitialRng,
        dtype: Annotated[DTypeLike, Given] = np.float32,
    ) -> None:
        self.in_features = in_features
        self.out_features = out_features
        self.initializer = initializer
        self.weight = Parameter(initializer((in_features, out_features), rng, dtype), "weight")
        self.bias = Parameter(zeros((out_features,), rng, dtype), "bias") if bias else None

    def forward(
        self, x: Float[np.ndarray, "n i"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n o"]:
        """x · weight + bias."""
        self.output_shape(x.shape[1:])
        y = x @ self.weight.value
        if self.bias is not None:
            y += self.bias.value
        if training:
            self._save(y, x)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n o"]) -> Float[np.ndarray, "n i"]:
        """dL/dweight = xᵀ · dL/dy, dL/dbias = Σ_n dL/dy, dL/dx = dL/dy · weightᵀ."""
        (x,) = self._take(grad_y)
        self.weight.grad = x.T @ grad_y
        if self.bias is not None:
            self.bias.grad = grad_y.sum(axis=0)
        return grad_y @ self.weight.value.T

    def output_shape(self, input_shape: Shape) -> Shape:
        """(out_features,)."""
        if tuple(input_shape) != (self.in_features,):
            raise ValueError(
                f"{self!r} needs vectors of shape ({self.in_features},); received {tuple(input_shape)}. "
                "Put a Flatten in front of it to turn images into vectors."
            )
        return (self.out_features,)

    def multiply_adds(self, input_shape: Shape) -> int:
        """Each weight meets one number of x: the size of the weight."""
        return self.weight.value.size
