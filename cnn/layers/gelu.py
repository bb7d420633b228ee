"""The Gaussian error linear unit."""

from math import pi, sqrt

import numpy as np
from jaxtyping import Float

from cnn.layers.elementwise import Elementwise
from cnn.ops.kernels import with_kernel
from cnn.ops.normal import normal_distribution
from cnn.registry import LAYERS


@LAYERS.register
class GELU(Elementwise):
    """A smooth rectifier that weights x by the fraction of normal numbers below it: y = x·Φ(x).

        Φ(x) = ½·(1 + erf(x / √2)), or, with approximate, ½·(1 + tanh(√(2/π)·(x + 0.044715·x³)))

    Source: Hendrycks & Gimpel, "Gaussian error linear units" (2016), section 2.

    Args:
        approximate: whether to use tanh, which is faster and differs by less than 0.001.
    """

    def __init__(self, *, approximate: bool = False) -> None:
        self.approximate = approximate

    def function(self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> None:
        """x·Φ(x)."""
        np.multiply(x, _tanh_form(x)[0] if self.approximate else normal_distribution(x)[0], out=y)

    def function_and_derivative(
        self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Φ(x) + x·Φ'(x), with Φ'(x) = exp(−x²/2) / √(2π), or that of the approximation."""
        if self.approximate:
            return _tanh_form_with_derivative(x, y)
        return _with_derivative(x, y, *normal_distribution(x))


def _with_derivative(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    phi: Float[np.ndarray, " n"],
    slope: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """Write x·Φ(x) into y, and return its derivative, in the place of Φ'(x)."""
    np.multiply(x, phi, out=y)
    slope *= x
    slope += phi
    return slope


@with_kernel(
    "x",
    "y slope",
    f"""
    T square = x * x;
    T t = tanh((T(0.044715) * square + T(1)) * x * T({sqrt(2 / pi)}));
    T density = (square * T({1.5 * 0.044715 * sqrt(2 / pi)}) + T({0.5 * sqrt(2 / pi)})) * (T(1) - t * t);
    T phi = (t + T(1)) * T(0.5);
    y = x * phi;
    slope = density * x + phi;
    """,
)
def _tanh_form_with_derivative(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """`_with_derivative` of the approximation."""
    return _with_derivative(x, y, *_tanh_form(x))


def _tanh_form(x: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The approximation of Φ(x), and its derivative."""
    square = x * x
    t = 0.044715 * square
    t += 1
    t *= x
    t *= sqrt(2 / pi)
    np.tanh(t, out=t)
    square *= 1.5 * 0.044715 * sqrt(2 / pi)
    square += 0.5 * sqrt(2 / pi)
    square *= 1 - t * t
    t += 1
    t *= 0.5
    return t, square
