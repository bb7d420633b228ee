"""A trainable array and its gradient."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Parameter:
    """A trainable array: `value`, and `grad` = dL/d(value), of the same shape.

    A layer's `backward` assigns `grad`; it never adds to it, so there is nothing to zero between steps.
    Optimisers change `value` in place, so every reference to the array sees the update.
    `grad` is None until the first `backward`.
    """

    def __init__(self, value: NDArray[Any], name: str) -> None:
        self.value = value
        self.grad: NDArray[Any] | None = None
        self.name = name

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.value.shape))
        return f"Parameter({self.name}: {shape} {np.dtype(self.value.dtype)})"
