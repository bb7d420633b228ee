"""The machine and its peak speed."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from joblib import cpu_count
from threadpoolctl import threadpool_info, threadpool_limits

LOAD = "cores at work for other programs"

PEAK_SIZES = (512, 1024, 1536, 2048)  # rows and columns of the square matrices that are multiplied
PEAK_TRIES = 8


def describe() -> dict[str, Any]:
    """Processor, cores, versions, and the load from other programs while nothing is measured."""
    (blas,) = [
        f"{library['internal_api']} {library['version']} ({library['architecture']})"
        for library in threadpool_info()
        if library["user_api"] == "blas" and "numpy" in library["filepath"]
    ] or ["unknown"]
    return {
        "processor": _processor(),
        "cores": cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": blas,
        "torch": version("torch"),
        LOAD: other_load(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def other_load(seconds: float = 2.0) -> float:
    """How many cores are busy while this program sleeps for `seconds`; 0 if the system does not report it."""
    before = _core_seconds()
    time.sleep(seconds)
    return round((_core_seconds() - before) / seconds, 1)


def _core_seconds() -> float:
    """The busy time of all cores since the system's start; 0 if the system does not report it."""
    try:
        line = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0]
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, *rest = map(int, line.split()[1:9])  # see proc(5)
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def sgemm_peak(threads: int) -> float:
    """The best speed of BLAS on this many threads, in 10⁹ operations a second: square float32 products."""
    rng = np.random.default_rng(0)
    best = 0.0
    with threadpool_limits(threads, user_api="blas"):
        for size in PEAK_SIZES:
            a = rng.random((size, size), dtype=np.float32)
            y = a @ a
            for _ in range(PEAK_TRIES):
                start = time.perf_counter()
                np.matmul(a, a, out=y)
                best = max(best, 2 * size**3 / (time.perf_counter() - start) / 1e9)
    return best
