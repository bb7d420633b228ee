"""Normalisation to mean 0 and variance 1, and its adjoint: over the rows of a batch, or within each row.

Those over a batch work in blocks of examples, once for sums and once for what depends on them.
"""

import numpy as np
from jaxtyping import Float

from cnn.ops.arrays import empty, zeros
from cnn.ops.blocks import blocks
from cnn.ops.kernels import with_kernel
from cnn.ops.reductions import repeat_for_pixels, sum_over_rows

Array = Float[np.ndarray, "*n c"]
Channels = Float[np.ndarray, " c"]


def batch_statistics(x: Array) -> tuple[Array, Channels, Channels, Channels]:
    """(z, E[z], μ, σ²): x − k, and mean and biased variance of each channel, over all axes but the last.

    With k near the data, the mean of the first block, and E the mean over all m rows,

        z = x − k        μ = k + E[z]        σ² = E[z²] − E[z]²

    Without k, most of the last difference would cancel if |μ| is far above σ; so would x·scale + shift. Now
    the rounding error of σ² is at most 1 + E[z]²/σ² times as large as that of a sum of squares, which is at
    most the number of blocks, since the first one is among the data. Sums of blocks are added in float64.
    Source: Chan, Golub & LeVeque, "Algorithms for computing the sample variance" (1983), on shifted data.
    """
    count = x.size // x.shape[-1]
    first = x[next(blocks(x))]
    shift = sum_over_rows(first) / (first.size // first.shape[-1])
    shifts = repeat_for_pixels(shift, x.shape[1:])
    z = empty(x.shape, like=x)
    total, squares = zeros((2, x.shape[-1]), like=x, dtype=np.float64)
    for block in blocks(x):
        np.subtract(x[block], shifts, out=z[block])
        total += sum_over_rows(z[block])
        squares += sum_over_rows(z[block] * z[block])
    mean = total / count
    variance = np.maximum(squares / count - mean * mean, 0)  # rounding may make it negative
    return z, mean.astype(x.dtype), (shift + mean).astype(x.dtype), variance.astype(x.dtype)


@with_kernel("x scale shift", "y", "y = x * scale + shift;")
def scale_and_shift(x: Array, scale: Channels, shift: Channels) -> Array:
    """y = x·scale + shift, with one scale and one shift for each channel."""
    y = empty(x.shape, like=x)
    scales, shifts = (repeat_for_pixels(vector, x.shape[1:]) for vector in (scale, shift))
    for block in blocks(x):
        np.multiply(x[block], scales, out=y[block])
        y[block] += shifts
    return y


def batch_normalize_adjoint(
    grad_y: Array, z: Array, mean: Channels, inverse_deviation: Channels, gamma: Channels | float
) -> tuple[Array, Channels, Channels]:
    """(dL/dz, dL/dgamma, dL/dbeta) of y = gamma·ẑ + beta, where ẑ = (z − E[z]) / d over m rows.

        dL/dbeta = Σ dL/dy        dL/dgamma = Σ dL/dy·ẑ
        dL/dz = gamma / d · (dL/dy − dL/dbeta / m − ẑ · dL/dgamma / m)

    z_i affects ẑ_i directly, by 1/d, and all ẑ_j through E[z] and d: ∂E[z]/∂z_i = 1/m and ∂d/∂z_i = ẑ_i/m,
    so ∂ẑ_j/∂z_i = (δ_ij − 1/m − ẑ_j·ẑ_i/m) / d. Summed over j with gamma·dL/dy_j, this is the last equation.
    The result takes the place of `z`.
    """
    count = z.size // z.shape[-1]
    total, projection = zeros((2, z.shape[-1]), like=z, dtype=np.float64)
    for block in blocks(z):
        total += sum_over_rows(grad_y[block])
        projection += sum_over_rows(grad_y[block] * z[block])
    grad_beta = total.astype(mean.dtype)
    grad_gamma = ((projection - total * mean) * inverse_deviation).astype(mean.dtype)
    slope = -grad_gamma * inverse_deviation / count
    offset = -grad_beta / count - slope * mean
    _input_gradient(z, grad_y, slope, offset, gamma * inverse_deviation, z)
    return z, grad_gamma, grad_beta


@with_kernel("z grad_y slope offset scale", "grad_z", "grad_z = (z * slope + offset + grad_y) * scale;")
def _input_gradient(
    z: Array, grad_y: Array, slope: Channels, offset: Channels, scale: Channels, grad_z: Array
) -> None:
    """dL/dz = (z·slope + offset + dL/dy) · scale, which may take the place of `z`."""
    slopes, offsets, scales = (repeat_for_pixels(vector, z.shape[1:]) for vector in (slope, offset, scale))
    for block in blocks(z):
        part = grad_z[block]
        np.multiply(z[block], slopes, out=part)
        part += offsets
        part += grad_y[block]
        part *= scales


Reduced = Float[np.ndarray, "*n 1"]


def normalize(x: Array, epsilon: float) -> tuple[Array, Reduced]:
    """(x̂, 1/d) over the last axis: x̂ = (x − μ) / d, d = sqrt(σ² + epsilon)."""
    normalized = x - x.mean(axis=-1, keepdims=True)
    inverse_deviation = 1 / np.sqrt(np.square(normalized).mean(axis=-1, keepdims=True) + epsilon)
    normalized *= inverse_deviation
    return normalized, inverse_deviation


def normalize_adjoint(grad: Array, normalized: Array, inverse_deviation: Reduced) -> Array:
    """dL/dx from dL/dx̂, over the last axis, by the equation of `batch_normalize_adjoint` with gamma = 1."""
    projection = (grad * normalized).mean(axis=-1, keepdims=True)
    return inverse_deviation * (grad - grad.mean(axis=-1, keepdims=True) - normalized * projection)
