"""Gzipped IDX files, the format of MNIST, read with limits on every size that a damaged one could claim.

It holds a magic number (0, 0, 8 for bytes, number of axes), the big-endian length of each axis, the bytes.
Source: LeCun, Cortes & Burges, "The MNIST database of handwritten digits", section "File formats".
"""

import struct
import zlib
from collections.abc import Sequence
from hashlib import sha256
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import LARGEST_FILE, DataFile, RawData
from pipeline.errors import damage_reported

LARGEST_ARRAY = 2**26  # bytes; the largest known is 47 MB


def read_idx_files(folder: Path, files: Sequence[DataFile]) -> RawData:
    """Read training images, their labels, test images and their labels, in this order, from `folder`."""
    arrays = [
        read_checked_idx(folder / file.name, axes, file.content_sha256)
        for file, axes in zip(files, (3, 1, 3, 1), strict=True)
    ]
    return RawData(*arrays)


def read_checked_idx(path: Path, axes: int, content_sha256: str | None) -> NDArray[np.uint8]:
    """The array with this number of axes in the file; UserError if its content has another SHA-256."""
    with damage_reported(path, "fetch"):
        array, digest = read_idx(path, axes)
        if digest != content_sha256:
            raise ValueError("the SHA-256 of its content is not the published one")
    return array


def read_idx(path: Path, axes: int) -> tuple[NDArray[np.uint8], str]:
    """(the array with this number of axes in the file, the SHA-256 of all unpacked bytes).

    ValueError with a reason if the file does not hold exactly that; OSError if it cannot be read.
    """
    with path.open("rb") as file:
        packed = file.read(LARGEST_FILE + 1)
    if len(packed) > LARGEST_FILE:
        raise ValueError(f"it is larger than {LARGEST_FILE:,} bytes")
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # gzip
    try:
        header = unpacker.decompress(packed, 4 + 4 * axes)
        _check_magic(header, axes)
        shape = struct.unpack(f">{axes}I", header[4:])
        size = prod(shape)
        if size > LARGEST_ARRAY:
            raise ValueError(f"its header claims {size:,} bytes, more than {LARGEST_ARRAY:,}")
        body = unpacker.decompress(unpacker.unconsumed_tail, size + 1)
    except zlib.error as error:
        raise ValueError(f"it does not unpack ({error})") from None
    if len(body) > size or unpacker.unused_data:
        raise ValueError(f"there are bytes after the {size:,} that its header claims")
    if len(body) < size or not unpacker.eof:
        raise ValueError(f"it ends after {len(body):,} of the {size:,} bytes that its header claims")
    return np.frombuffer(body, np.uint8).reshape(shape), sha256(header + body).hexdigest()


def _check_magic(header: bytes, axes: int) -> None:
    if len(header) < 4:
        raise ValueError("it ends within its header")
    if header[:2] != b"\0\0":
        raise ValueError("it does not begin with two zero bytes, as IDX files do")
    if header[2] != 8:
        raise ValueError(f"its numbers are of type {header[2]:#04x}, not bytes (0x08)")
    if header[3] != axes:
        raise ValueError(f"it has {header[3]} axes, not {axes}")
    if len(header) < 4 + 4 * axes:
        raise ValueError("it ends within its header")
