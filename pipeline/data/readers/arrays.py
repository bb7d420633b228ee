"""NumPy's `.npy` files of bytes."""

from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnn.checkpoint import parse_array
from pipeline.errors import damage_reported


def read_array(path: Path, content_sha256: str | None) -> NDArray[np.uint8]:
    """The array of bytes in the file; UserError if its content has another SHA-256."""
    with damage_reported(path, "fetch"):
        array = parse_array(path.read_bytes())
        if array.dtype != np.uint8 or sha256(array.tobytes()).hexdigest() != content_sha256:
            raise ValueError("the SHA-256 of its content is not the pinned one")
    return array
