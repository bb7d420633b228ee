"""Chains of element-wise operations as one kernel, for arrays on a device.

Each NumPy operation reads and writes whole arrays. On the processor, blocks keep them in the cache
(`cnn.ops.blocks`). On a GPU, which has no such cache, a kernel computes the whole chain for one number at a
time. It stands beside the plain lines, which define it, compute on the host, and are its test.
"""

from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from typing import Any

from cnn.ops.arrays import empty, is_on_host

Function = Callable[..., Any]


def with_kernel(inputs: str, outputs: str, operation: str) -> Callable[[Function], Function]:
    """Decorate a function of arrays: for those on a device, one kernel computes what it returns.

    The function is called with the inputs, which are broadcast, and then with those of the outputs that exist
    already. It writes into these, and returns the other one, if there is one.

    Args:
        inputs, outputs: names, separated by spaces; all are of the type T of the arrays.
        operation: what is computed for each number, in CUDA C.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def call(*arguments: Any) -> Any:
            if is_on_host(arguments[0]):
                return function(*arguments)
            library = type(arguments[0]).__module__.partition(".")[0]
            kernel = _compile(library, inputs, outputs, operation, function.__name__)
            given = len(arguments) - len(inputs.split())
            shape, like = arguments[0].shape, arguments[0]
            new = [empty(shape, like) for _ in outputs.split()[given:]]  # at most one
            kernel(*arguments, *new)
            return new[0] if new else None

        return call

    return decorate


@cache
def _compile(library: str, inputs: str, outputs: str, operation: str, name: str) -> Any:
    """The kernel, made by the library that has the arrays."""
    typed = (", ".join(f"T {name}" for name in names.split()) for names in (inputs, outputs))
    return import_module(library).ElementwiseKernel(*typed, operation, name)
