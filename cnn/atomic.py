"""Files that are there whole or not at all."""

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success it takes the place of `path` in one step.

    The folder is made if it is missing. If the body raises, the temporary file is removed and whatever was
    at `path` before is still there; so it is after a crash or loss of power, for the new content reaches the
    disk before its name does. What an earlier process left, which was killed here, is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: matplotlib chooses by it. Host and process id keep two processes apart.
    start = f".{path.stem}.tmp-{platform.node()}-"
    temporary = path.with_name(f"{start}{os.getpid()}{path.suffix}")
    for left in path.parent.glob(f"{escape(start)}*{escape(path.suffix)}"):
        if not _is_of_running_process(left):
            left.unlink(missing_ok=True)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            _flush(path.parent)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # what the caller knows, not the temporary name
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8, with its line ends as they are."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write `array` to `path` atomically, as a `.npy` file.

    Not by np.save: where the disk is full, it may leave out the last bytes without a word.
    """
    array = np.asarray(array, order="C")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(array))
        file.write(array.data)


def _flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    except OSError as error:
        if not (path.is_dir() and error.errno == errno.EINVAL):  # some file systems cannot do it for folders
            raise
    finally:
        os.close(file)


def _is_of_running_process(temporary: Path) -> bool:
    if os.name != "posix":  # where os.kill would end the process
        return True
    try:
        os.kill(int(temporary.stem.rpartition("-")[2]), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, OSError):  # not one of ours, or another user's
        return True
    return True
