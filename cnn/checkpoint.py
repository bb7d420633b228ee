"""Arrays and a description of them in one file, without pickle.

The file is an ordinary `.npz` (so `numpy.load` reads it, too) with one more member, `metadata.json`. Its
last 64 bytes, the ZIP archive's comment, are the SHA-256 of all bytes before them: no changed byte goes
unnoticed. The same content always gives the same bytes.
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
    """A checkpoint that is missing, damaged or none at all."""


def save(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write `arrays` and `metadata` (anything that JSON can hold) to `path`, atomically."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            npy.write_array(member, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
            archive.writestr(_zip_info(f"{name}.npy"), member.getvalue())
        archive.writestr(_zip_info(METADATA), json.dumps(metadata, indent=2, allow_nan=False))
        archive.comment = b"0" * DIGEST_LENGTH  # its place; the digest itself covers the archive's end, too
    content = buffer.getvalue()[:-DIGEST_LENGTH]
    write_bytes(path, content + sha256(content).hexdigest().encode())


def load(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """(arrays, metadata) as `save` wrote them to `path`; CheckpointError for whatever is wrong."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read: {error.strerror}.") from None
    if sha256(content[:-DIGEST_LENGTH]).hexdigest().encode() != content[-DIGEST_LENGTH:]:
        raise CheckpointError(
            f"The checkpoint {path} is damaged or none at all: its checksum does not match its content."
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: archive.read(_stored(info)) for info in archive.infolist()}
        metadata = json.loads(members.pop(METADATA))
        arrays = {name.removesuffix(".npy"): parse_array(data) for name, data in members.items()}
    except Exception as error:  # zipfile raises many kinds for what is no archive
        raise CheckpointError(f"The checkpoint {path} is not one that this project wrote: {error}.") from None
    return arrays, metadata


def _zip_info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # dated 1980, so that no clock gets into the bytes
    info.create_system = 3  # "Unix" on every system, for the same reason
    return info


def _stored(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Refuse compressed members: `save` writes none, and a small one could unpack to any size."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")
    return info


def parse_array(data: bytes) -> NDArray[Any]:
    """The array in the bytes of a `.npy` file; ValueError if its header promises what is not there."""
    file = io.BytesIO(data)
    if npy.read_magic(file) != (1, 0):
        raise ValueError("an array has an unknown format version")
    try:
        shape, fortran_order, dtype = npy.read_array_header_1_0(file)
        body = data[file.tell() :]
        if fortran_order or dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError("its order, type or shape is not one that is written here")
        if len(body) != prod(shape) * dtype.itemsize:
            raise ValueError(f"it claims {prod(shape)} numbers and has {len(body)} bytes")
        return np.frombuffer(body, dtype).reshape(shape).copy()
    except Exception as error:  # NumPy raises many kinds for a header that is no Python or no type
        raise ValueError(f"an array's header does not describe its content ({error})") from None
