"""Arrays that are created where others are: on the host, as NumPy's, or on a device, as CuPy's.

NumPy hands each call of its functions to the type of the arrays that are given (NEP 13 and 18). So a network
whose parameters are CuPy arrays computes on the GPU by the same lines, `np.exp(x)` included. Only a new array
has none to follow; `like` is the one beside which it is created (NEP 35).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array = NDArray[Any]
Shape = int | tuple[int, ...]


def empty(shape: Shape, like: Array, dtype: DTypeLike | None = None) -> Array:
    """An array whose values are still to be written; its dtype is that of `like`, unless given."""
    return np.empty(shape, like.dtype if dtype is None else dtype, like=like)


def zeros(shape: Shape, like: Array, dtype: DTypeLike | None = None) -> Array:
    """An array of zeros."""
    return np.zeros(shape, like.dtype if dtype is None else dtype, like=like)


def full(shape: Shape, value: ArrayLike, like: Array) -> Array:
    """An array filled with `value`: a number, or an array that is repeated along the axes before its own."""
    array = empty(shape, like)  # np.full passes on arguments that CuPy's does not take
    array[...] = value if np.ndim(value) == 0 else place(value, like)
    return array


def arange(start: int, stop: int, step: int, like: Array) -> Array:
    """The whole numbers from `start` to before `stop`, `step` apart."""
    return np.arange(start, stop, step, like=like)


def place(array: ArrayLike, like: Array) -> Array:
    """`array` where `like` is: random numbers, images and other input, which come from the host."""
    return np.asarray(array, like=like)


def to_host(array: Array) -> NDArray[Any]:
    """`array` as one of NumPy's: itself, or a copy of what is on a device."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def is_on_host(array: Array) -> bool:
    """Whether `array` is one of NumPy's."""
    return isinstance(array, np.ndarray)
