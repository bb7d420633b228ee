"""The same bits on every x86-64 processor with AVX2: which code NumPy and its BLAS run.

The order of a sum, and so its last bits, depends on how many numbers a processor adds at once. OpenBLAS and
NumPy choose their code by processor, when they are loaded. By default, everybody gets the code for AVX2.
This module imports nothing that imports NumPy.
"""

import os
import platform
from collections.abc import Mapping

NATIVE_VARIABLE = "NATIVE_BITS"  # set to 1: the fastest code for this processor, whose bits are its own
SETTINGS = {
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # all that NumPy 2.4 dispatches above AVX2
}


def is_native(variables: Mapping[str, str] = os.environ) -> bool:
    """Whether the user asks for the fastest code instead of the same bits."""
    return variables.get(NATIVE_VARIABLE, "") not in ("", "0")


def choose_portable() -> None:
    """Let NumPy and OpenBLAS, if they are not imported yet, run the same code on all x86-64 processors."""
    if not is_native() and platform.machine().lower() in ("x86_64", "amd64"):
        os.environ |= SETTINGS
