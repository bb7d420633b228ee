"""The machine and its peak speed."""

import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from joblib import cpu_count
from threadpoolctl import threadpool_info, threadpool_limits

from cnn import Flatten, Sequential
from cnn.engine.fused import FusedConv2D
from cnn.engine.passes import plan
from cnn.layers.layer import Shape

LOAD = "cores at work for other programs"

PEAK_SIZES = (512, 1024, 1536, 2048)  # rows and columns of the square matrices that are multiplied
PEAK_TRIES = 8
COPY_BYTES = 2**28


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
        "jax": _version("jax"),
        LOAD: other_load(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


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


def bandwidth(threads: int) -> float:
    """The best speed of copying a large array on this many threads, in 10⁹ bytes a second, both ways."""
    parts = np.array_split(np.ones(COPY_BYTES // 4, np.float32), threads)
    copies = [np.empty_like(part) for part in parts]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(PEAK_TRIES):
            start = time.perf_counter()
            list(pool.map(np.copyto, copies, parts))
            best = max(best, 2 * COPY_BYTES / (time.perf_counter() - start) / 1e9)
    return best


def products_left(model: Sequential, shape: Shape, shard_size: int) -> int:
    """Multiply-adds of a training step for one example as the library computes it: with minimal filtering.

    Its transforms are left out, and what a max pooling would drop. The first layer does not need dL/dx.
    """
    total = 0
    for index, layer in enumerate(plan(model).layers):
        output = layer.output_shape(shape)
        count = layer.multiply_adds(shape)
        if isinstance(layer, FusedConv2D):
            conv = layer.conv
            pool = (1, 1) if layer.pool is None else layer.pool.window.kernel_size
            height, width = output[0] * pool[0], output[1] * pool[1]
            count = height * width * conv.kernel.value.size
            if m := layer.tile(output, shard_size):
                count = (m + 2) ** 2 * -(-height // m) * -(-width // m) * conv.kernel.value[0, 0].size
        total += count * (2 if index == 0 else 3)
        shape = output
    return total


def bytes_passed(model: Sequential, shape: Shape) -> int:
    """Bytes of a training step for one example if each layer reads x, writes y, and the same for gradients.

    The first layer writes no gradient. `Flatten` passes nothing. Parameters are left out.
    """
    total = -prod(shape)
    for layer in model.layers:
        output = layer.output_shape(shape)
        if not isinstance(layer, Flatten):
            total += 2 * (prod(shape) + prod(output))
        shape = output
    return total * np.dtype(np.float32).itemsize
