"""Atomic writes: a file is either complete or unchanged."""

import errno
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success, rename it to `path` in one step.

    The folder is created if it is missing. If the body raises, the temporary file is removed, and `path`
    keeps its previous content. The same holds after a crash or a power failure, because the new content
    reaches the disk before its name does. Temporary files left behind by killed processes are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Keep the suffix: matplotlib derives the format from it. Host and process id keep processes apart.
    start = f".{path.stem}.tmp-{platform.node()}-"
    temporary = path.with_name(f"{start}{os.getpid()}{path.suffix}")
    for left in path.parent.glob(f"{escape(start)}*{escape(path.suffix)}"):
        if not _is_of_running_process(left):
            left.unlink(missing_ok=True)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        if os.name == "posix":  # other systems cannot open a folder
            _flush(path.parent)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # not the temporary name
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8, with its line endings unchanged."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write `array` to `path` atomically, as a `.npy` file."""
    write_rows(path, array.shape, array.dtype, [array])


def write_rows(path: Path, shape: tuple[int, ...], dtype: DTypeLike, parts: Iterable[NDArray[Any]]) -> None:
    """Write an array atomically, as a `.npy` file, whose rows come in `parts` and need not fit into memory.

    np.save is not used: if the disk is full, it may drop the last bytes without an error.
    """
    header = {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        npy.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.asarray(part, dtype, order="C").data)


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    except OSError as error:
        if not (path.is_dir() and error.errno == errno.EINVAL):  # some file systems cannot sync folders
            raise
    finally:
        os.close(file)


def _is_of_running_process(temporary: Path) -> bool:
    if os.name != "posix":  # other systems: os.kill would end the process
        return True
    try:
        os.kill(int(temporary.stem.rpartition("-")[2]), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, OSError):  # not a temporary file of ours, or another user's process
        return True
    return True
