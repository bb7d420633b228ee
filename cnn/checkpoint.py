"""Checkpoints: arrays and metadata in one file, without pickle.

The file is an ordinary `.npz` (so `numpy.load` also reads it) with an additional member, `metadata.json`.
Its last 64 bytes, the ZIP archive's comment, are the SHA-256 of all bytes before them, so that any changed
byte is detected. The same content always gives the same bytes.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cnn.atomic import write_bytes

METADATA = "metadata.json"
DIGEST_LENGTH = 64


class CheckpointError(ValueError):
    """A file is missing, damaged, or not a checkpoint."""


def save(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write `arrays` and `metadata` (any JSON value) to `path`, atomically."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            npy.write_array(member, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
            archive.writestr(_zip_info(f"{name}.npy"), member.getvalue())
        archive.writestr(_zip_info(METADATA), json.dumps(metadata, indent=2, allow_nan=False))
        archive.comment = (
            b"0" * DIGEST_LENGTH
        )  # placeholder, so that the digest also covers the archive's end
    content = buffer.getvalue()[:-DIGEST_LENGTH]
    write_bytes(path, content + sha256(content).hexdigest().encode())


def load(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return (arrays, metadata) as `save` wrote them to `path`; raise CheckpointError for any problem."""
    return parse(read(path), path)


def read(path: Path) -> bytes:
    """The content of a file, for `parse`; raise CheckpointError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read: {error.strerror}.") from None


def parse(content: bytes, path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """As `load`, from the file's `content`; `path` is named in errors."""
    if sha256(content[:-DIGEST_LENGTH]).hexdigest().encode() != content[-DIGEST_LENGTH:]:
        raise CheckpointError(
            f"The checkpoint {path} is damaged, or not a checkpoint: its checksum does not match its content."
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: archive.read(_stored(info)) for info in archive.infolist()}
        metadata = json.loads(members.pop(METADATA))
        arrays = {name.removesuffix(".npy"): parse_array(data) for name, data in members.items()}
    except Exception as error:  # zipfile raises many kinds of errors for invalid archives
        raise CheckpointError(f"The checkpoint {path} was not written by this library: {error}.") from None
    return arrays, metadata


def _zip_info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # dated 1980, so that the bytes do not depend on the clock
    info.create_system = 3  # "Unix" on every system, for the same reason
    return info


def _stored(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Refuse compressed members: `save` writes none, and a small one could unpack to any size."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")
    return info


def parse_array(data: bytes) -> NDArray[Any]:
    """The array in the bytes of a `.npy` file; ValueError if its header does not match its content."""
    file = io.BytesIO(data)
    if npy.read_magic(file) != (1, 0):
        raise ValueError("an array has an unknown format version")
    try:
        shape, fortran_order, dtype = npy.read_array_header_1_0(file)
        body = data[file.tell() :]
        if fortran_order or dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError("its order, type or shape is not supported")
        if len(body) != prod(shape) * dtype.itemsize:
            raise ValueError(f"it claims {prod(shape)} numbers, but has {len(body)} bytes")
        return np.frombuffer(body, dtype).reshape(shape).copy()
    except Exception as error:  # NumPy raises many kinds of errors for invalid headers
        raise ValueError(f"an array's header does not describe its content ({error})") from None
