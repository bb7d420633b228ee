"""Initial values of parameters: functions (shape, rng, dtype) -> array.

For a kernel of shape (kernel_h, kernel_w, in, out) or a weight of shape (in, out), all axes but the last
feed an output: fan_in = kernel_h·kernel_w·in. Values are drawn in float64 and then cast, so that
float32 and float64 networks with the same seed start from the same numbers.
"""

from collections.abc import Callable
from math import prod, sqrt
from typing import Annotated, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cnn.checks import Given
from cnn.registry import INITIALIZERS

Shape = Annotated[tuple[int, ...], Given]
Rng = Annotated[np.random.Generator, Given]
DType = Annotated[DTypeLike, Given]
WHITENING_EPSILON = 5e-4  # added to each λ

Initializer = Callable[[tuple[int, ...], np.random.Generator, DTypeLike], NDArray[Any]]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out): the number of inputs that feed an output, and of outputs that an input feeds."""
    if len(shape) < 2:
        raise ValueError(
            f"fan_in and fan_out need a shape with at least two axes (…, in, out); received {shape}."
        )
    receptive_field = prod(shape[:-2])
    return receptive_field * shape[-2], receptive_field * shape[-1]


@INITIALIZERS.register
def he_normal(shape: Shape, rng: Rng, dtype: DType) -> NDArray[Any]:
    """Normal with mean 0 and variance 2 / fan_in: keeps the variance of activations through a ReLU.

    Source: He, Zhang, Ren & Sun, "Delving Deep into Rectifiers" (2015), equation 10.
    """
    return _normal(2.0 / fans(shape)[0], shape, rng, dtype)


@INITIALIZERS.register
def he_uniform(shape: Shape, rng: Rng, dtype: DType) -> NDArray[Any]:
    """Uniform with the variance of `he_normal`: on ±sqrt(6 / fan_in)."""
    return _uniform(2.0 / fans(shape)[0], shape, rng, dtype)


@INITIALIZERS.register
def fan_in_uniform(shape: Shape, rng: Rng, dtype: DType) -> NDArray[Any]:
    """Uniform on ±1 / sqrt(fan_in): smaller than the others, so that outputs start close to 0.

    Source: Glorot & Bengio (2010), equation 1, where it is called the commonly used heuristic.
    """
    return _uniform(1.0 / (3.0 * fans(shape)[0]), shape, rng, dtype)


@INITIALIZERS.register
def glorot_normal(shape: Shape, rng: Rng, dtype: DType) -> NDArray[Any]:
    """Normal with the variance of `glorot_uniform`: 2 / (fan_in + fan_out)."""
    return _normal(2.0 / sum(fans(shape)), shape, rng, dtype)


@INITIALIZERS.register
def glorot_uniform(shape: Shape, rng: Rng, dtype: DType) -> NDArray[Any]:
    """Uniform on ±sqrt(6 / (fan_in + fan_out)): keeps variances in both directions through a linear layer.

    Source: Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks"
    (2010), equation 16.
    """
    return _uniform(2.0 / sum(fans(shape)), shape, rng, dtype)


@INITIALIZERS.register
def lecun_normal(shape: Shape, rng: Rng, dtype: DType) -> NDArray[Any]:
    """Normal with mean 0 and variance 1 / fan_in: keeps the variance of activations through a linear layer.

    Source: LeCun, Bottou, Orr & Müller, "Efficient BackProp" (1998), equation 16.
    """
    return _normal(1.0 / fans(shape)[0], shape, rng, dtype)


@INITIALIZERS.register
def lecun_uniform(shape: Shape, rng: Rng, dtype: DType) -> NDArray[Any]:
    """Uniform with the variance of `lecun_normal`: on ±sqrt(3 / fan_in)."""
    return _uniform(1.0 / fans(shape)[0], shape, rng, dtype)


@INITIALIZERS.register
def orthogonal(shape: Shape, rng: Rng, dtype: DType) -> NDArray[Any]:
    """A matrix (fan_in, out) with orthonormal columns, or rows if there are fewer rows: keeps lengths.

    It is the Q of a QR decomposition of normal numbers. Its signs are chosen so that R has a positive
    diagonal, which makes it uniform among all such matrices.
    Source: Saxe, McClelland & Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks" (2014); for the signs, Mezzadri (2007).
    """
    rows, columns = fans(shape)[0], shape[-1]
    tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q *= np.sign(np.diag(r))
    return (q if rows >= columns else q.T).reshape(shape).astype(dtype)


@INITIALIZERS.register
def dirac(shape: Shape, rng: Rng, dtype: DType) -> NDArray[Any]:
    """The first filters pass one input channel on unchanged; the others are as `fan_in_uniform` draws them.

        kernel[i, j, c, o] = 1 if i, j is the centre and c = o, else 0        for o below the number of inputs

    So what a layer receives is there for the next layer from the start, beside what the layer itself finds.
    A kernel with an even side has its centre above and to the left of the middle, as padding "same" puts it.
    If channels are in groups, this holds for the first group: the kernels of the others are random.
    Source: Zagoruyko & Komodakis, "DiracNets: Training very deep neural networks without skip-connections"
    (2017), in the form of Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024), section 3.3.
    """
    kernel = fan_in_uniform(shape, rng, dtype)
    passed = min(shape[-2:])
    kernel[..., :passed] = 0
    centre = tuple((side - 1) // 2 for side in shape[:-2])
    kernel[centre][range(passed), range(passed)] = 1
    return kernel


@INITIALIZERS.register
def whitening(shape: Shape, rng: Rng, dtype: DType) -> NDArray[Any]:
    """A kernel that makes what it sees uncorrelated, for a first convolution; `cnn.whiten` fits it to images.

        kernel = [K, −K],    K = V / sqrt(λ + epsilon)

    V are eigenvectors of the mean of p pᵀ over the patches p of images, λ their eigenvalues. Until the
    images are known, these are those of white noise: V = I and λ = 1. Half as many outputs as there are
    numbers in a patch, or fewer, belong to either sign: of fewer, those of the largest λ.
    """
    fan_in, outputs = fans(shape)[0], shape[-1]
    if outputs % 2 or outputs > 2 * fan_in:
        raise ValueError(
            "whitening needs an even number of outputs, at most twice the numbers in a patch, "
            f"{2 * fan_in}; received {outputs}."
        )
    half = np.eye(fan_in, outputs // 2) / sqrt(1 + WHITENING_EPSILON)
    return np.concatenate([half, -half], axis=1).reshape(shape).astype(dtype)


@INITIALIZERS.register
def zeros(shape: Shape, rng: Rng, dtype: DType) -> NDArray[Any]:
    """All zeros, for biases. Accepts `rng` like the other initialisers, but draws nothing from it."""
    return np.zeros(shape, dtype)


def _normal(
    variance: float, shape: tuple[int, ...], rng: np.random.Generator, dtype: DTypeLike
) -> NDArray[Any]:
    return (rng.standard_normal(shape) * sqrt(variance)).astype(dtype)


def _uniform(
    variance: float, shape: tuple[int, ...], rng: np.random.Generator, dtype: DTypeLike
) -> NDArray[Any]:
    """Uniform on ±limit has the variance limit² / 3."""
    limit = sqrt(3.0 * variance)
    return rng.uniform(-limit, limit, shape).astype(dtype)
