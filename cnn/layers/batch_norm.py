"""Batch normalisation."""

from math import prod
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike, NDArray

from cnn.checks import Count, Fraction, Given, Positive
from cnn.layers.checks import check_channels
from cnn.layers.layer import Layer, Rng, Shape
from cnn.ops.normalization import batch_normalize_adjoint, batch_statistics, scale_and_shift
from cnn.ops.reductions import sum_over_rows
from cnn.parameter import Parameter
from cnn.registry import LAYERS


@LAYERS.register
class BatchNorm(Layer):
    """Normalises each channel to mean 0 and variance 1 over the batch, then learns to scale and shift it.

        y = gamma · (x − μ) / sqrt(σ² + epsilon) + beta

    separately for each channel, the last axis. In training, μ and σ² are the mean and biased variance over
    all other axes: the images of the current shard and their pixels (ghost batch norm). They also update the
    running statistics, which replace them in evaluation:

        running = momentum · running + (1 − momentum) · batch

    One number per channel (a shard of one vector) has no variance, so training needs at least two.
    Source: Ioffe & Szegedy, "Batch normalization" (2015), algorithm 1; for shards, Hoffer, Hubara & Soudry,
    "Train longer, generalize better" (2017).

    Args:
        channels: the length of the last axis.
        scale: whether there is a gamma to learn; without it, gamma is 1.
        momentum: the fraction of the running statistics that each training batch keeps.
        epsilon: added to the variance, which keeps the root away from 0.
        dtype: the dtype of the parameters and statistics.

    Parameters: gamma (channels,), initially 1, unless scale is False; and beta (channels,), initially 0.
    Buffers: running_mean (channels,), initially 0, and running_var (channels,), initially 1.
    Raises: ValueError if an argument is invalid, if x has another number of channels, or if a training batch
    has fewer than two numbers per channel.
    """

    def __init__(
        self,
        channels: Annotated[Count, Given],
        *,
        scale: bool = True,
        momentum: Fraction = 0.9,
        epsilon: Positive = 1e-5,
        dtype: Annotated[DTypeLike, Given] = np.float32,
    ) -> None:
        self.channels = channels
        self.scale = scale
        self.momentum = momentum
        self.epsilon = epsilon
        self.gamma = Parameter(np.ones(channels, dtype), "gamma") if scale else None
        self.beta = Parameter(np.zeros(channels, dtype), "beta")
        self.running_mean = np.zeros(channels, dtype)
        self.running_var = np.ones(channels, dtype)

    def forward(
        self, x: Float[np.ndarray, "n *shape c"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *shape c"]:
        """The equation above, with the batch's statistics in training and the running ones in evaluation."""
        self.output_shape(x.shape[1:])
        if not training:
            return scale_and_shift(x, *self.evaluation())
        self.check_count(x.shape)
        z, offset, mean, variance = batch_statistics(x)
        inverse_deviation = self.observe(mean, variance)
        scale = self.factor() * inverse_deviation
        y = scale_and_shift(z, scale, self.beta.value - offset * scale)
        self._save(y, z, offset, inverse_deviation)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n *shape c"]) -> Float[np.ndarray, "n *shape c"]:
        """dL/dx, where x also acts through μ and σ², and dL/dgamma and dL/dbeta: sums over the batch.

        With z = x − constant, which has the same x̂, they are those of `batch_normalize_adjoint`.
        """
        z, offset, inverse_deviation = self._take(grad_y)
        grad_x, grad_gamma, self.beta.grad = batch_normalize_adjoint(
            grad_y, z, offset, inverse_deviation, self.factor()
        )
        if self.gamma is not None:
            self.gamma.grad = grad_gamma
        return grad_x

    def factor(self) -> Float[np.ndarray, " c"] | float:
        """gamma, or 1 if it is not trained."""
        return 1.0 if self.gamma is None else self.gamma.value

    def check_count(self, shape: Shape) -> None:
        """ValueError if a training batch of `shape` has fewer than two numbers per channel."""
        if (count := prod(shape[:-1])) < 2:
            raise ValueError(
                f"{self!r} needs at least two numbers per channel in training, since one has no variance; "
                f"received {count}, in a batch of shape {shape}. Use larger batches and shards, or another "
                "number of images, so that no shard holds a single one."
            )

    def observe(
        self, mean: Float[np.ndarray, " c"], variance: Float[np.ndarray, " c"]
    ) -> Float[np.ndarray, " c"]:
        """Update the running statistics by those of a batch; return 1 / sqrt(σ² + epsilon)."""
        for running, batch in ((self.running_mean, mean), (self.running_var, variance)):
            running *= self.momentum
            running += (1 - self.momentum) * batch
        return 1 / np.sqrt(variance + self.epsilon)

    def evaluation(self) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
        """(scale, shift) of evaluation, in which y = scale · x + shift."""
        scale = self.factor() / np.sqrt(self.running_var + self.epsilon)
        return scale, self.beta.value - self.running_mean * scale

    def as_evaluated(self) -> Layer:
        """The affine map of evaluation."""
        return _Evaluated(self)

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input shape."""
        return check_channels(self, input_shape, self.channels)

    def buffers(self) -> dict[str, NDArray[Any]]:
        """running_mean and running_var."""
        return {"running_mean": self.running_mean, "running_var": self.running_var}


class _Evaluated(BatchNorm):
    """Batch norm with the running statistics in training, too: they are constants, and y is affine in x."""

    def __init__(self, norm: BatchNorm) -> None:
        vars(self).update(vars(norm))

    def forward(
        self, x: Float[np.ndarray, "n *shape c"], *, training: bool = False, rng: Rng = None
    ) -> Float[np.ndarray, "n *shape c"]:
        """The equation above with the running statistics."""
        y = super().forward(x)
        if training:
            self._save(y, x)
        return y

    def backward(self, grad_y: Float[np.ndarray, "n *shape c"]) -> Float[np.ndarray, "n *shape c"]:
        """With constant μ and d = sqrt(σ² + epsilon),

        dL/dx = gamma / d · dL/dy        dL/dgamma = Σ dL/dy · (x − μ) / d        dL/dbeta = Σ dL/dy
        """
        (x,) = self._take(grad_y)
        if self.gamma is not None:
            normalized = (x - self.running_mean) / np.sqrt(self.running_var + self.epsilon)
            self.gamma.grad = sum_over_rows(grad_y * normalized)
        self.beta.grad = sum_over_rows(grad_y)
        scale, _ = self.evaluation()
        return scale_and_shift(grad_y, scale, np.zeros_like(scale))
