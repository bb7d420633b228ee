"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success it takes the place of `path` in one step.

    The folder is made if it is missing. If the body raises, the temporary file is removed and whatever was
    at `path` before is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: np.save and matplotlib choose by it. The process id keeps two processes apart.
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8, with its line ends as they are."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode())
