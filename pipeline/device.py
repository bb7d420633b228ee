"""Where a network is computed: on the processor, or on a GPU with CuPy, which only this module imports."""

from typing import Any, Literal

from cnn import Sequential, move
from pipeline.errors import UserError

Device = Literal["cpu", "cuda"]


def place(model: Sequential, device: Device) -> None:
    """Move the network to the device, before its optimiser is made."""
    if device == "cuda":
        move(model, like=_cupy().empty(0))


def describe(device: Device) -> str | None:
    """The GPU, and the version of CuPy; None for the processor."""
    if device == "cpu":
        return None
    cupy = _cupy()
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return f"CuPy {cupy.__version__} on {name}"


def _cupy() -> Any:
    """CuPy, with a GPU that works; else UserError."""
    other = "Or compute on the processor, in params.yaml: device: cpu"
    try:
        import cupy
    except ImportError as error:
        raise UserError(
            f"device is cuda, which needs CuPy ({error}). Install the package for your version of CUDA: "
            f'pip install "cupy-cuda12x[ctk]", or "cupy-cuda13x[ctk]". {other}'
        ) from None
    try:
        float((cupy.ones((2, 2)) @ cupy.ones((2, 2))).sum())  # needs the GPU, a compiled kernel and cuBLAS
    except Exception as error:  # of CUDA: no driver, no GPU, a part of CUDA that is missing
        raise UserError(f"device is cuda, but CuPy cannot compute on a GPU here: {error}. {other}") from None
    return cupy
