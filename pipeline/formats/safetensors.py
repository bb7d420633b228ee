"""Named arrays in a safetensors file: a length, a JSON header of that length, and the arrays' bytes.

    8 bytes         the header's length, little-endian
    header          {"NAME": {"dtype": "F32", "shape": […], "data_offsets": [begin, end]}, …,
                     "__metadata__": {"KEY": "TEXT", …}}
    the rest        the arrays, little-endian, in C order, one after the other without gaps

The format is short, so that it is read and written here without the package, whose order of metadata is
random.
Source: https://github.com/huggingface/safetensors, section "Format".
"""

import json
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

METADATA = "__metadata__"
LARGEST_HEADER = 100_000_000  # bytes, as in the package
MANY = 100_000  # arrays; the header of a network has some hundreds
CODES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
BFLOAT16 = "BF16"  # the upper half of a float32


class FormatError(ValueError):
    """A file is not as its format demands; the message says what is wrong."""


def to_bytes(arrays: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file, the same for the same content; float32 arrays, in their order."""
    header: dict[str, Any] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
    parts, begin = [], 0
    for name, array in arrays.items():
        data = np.asarray(array, "<f4", order="C").tobytes()
        end = begin + len(data)
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, end]}
        parts.append(data)
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays begin at a multiple of 8 bytes
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def from_bytes(content: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """(arrays, metadata) of a file, in the order of its header; bfloat16 becomes float32, without loss.

    Each claim of the header is compared with the bytes that are there before memory is used for it.

    Raises: FormatError if the file does not fit its header, or holds another kind of numbers.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(len(content) - 8, LARGEST_HEADER):
        raise FormatError(
            f"it claims a header of {length:,} bytes, and has {max(len(content) - 8, 0):,} bytes for it"
        )
    try:
        header = json.loads(content[8 : 8 + length], object_pairs_hook=_without_repetition)
    except RecursionError:
        raise FormatError("its header is nested too deeply") from None
    except FormatError:
        raise
    except ValueError as error:  # of JSON and of UTF-8
        raise FormatError(f"its header is no JSON ({error})") from None
    if not isinstance(header, dict) or len(header) > MANY:
        raise FormatError("its header must be a JSON object of arrays by name")
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{METADATA} in its header must hold texts by name")
    body = memoryview(content)[8 + length :]
    arrays, ranges = {}, []
    for name, entry in header.items():
        arrays[name], place = _array(name, entry, body)
        ranges.append(place)
    expected = 0
    for begin, end in sorted(ranges):
        if begin != expected:
            raise FormatError(f"its arrays overlap or leave a gap at byte {begin:,}")
        expected = end
    if expected != len(body):
        raise FormatError(f"it has {len(body):,} bytes of arrays, but its header names {expected:,}")
    return arrays, metadata


def _array(name: str, entry: Any, body: memoryview) -> tuple[NDArray[Any], tuple[int, int]]:
    """The array that an entry of the header describes, and where it is."""
    match entry:
        case {"dtype": str(code), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise FormatError(f"{name} needs dtype, shape and data_offsets in the header")
    if code not in CODES and code != BFLOAT16:
        raise FormatError(f"{name} is {code}; known are {', '.join([*CODES, BFLOAT16])}")
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise FormatError(f"{name} has the shape {shape}")
    dtype = np.dtype("<u2" if code == BFLOAT16 else CODES[code])
    if not 0 <= begin <= end <= len(body) or prod(shape) * dtype.itemsize != end - begin or len(shape) > 32:
        raise FormatError(
            f"{name} claims {code} of shape {shape} at bytes {begin:,} to {end:,} of {len(body):,}, which "
            "does not fit"
        )
    array: NDArray[Any] = np.frombuffer(body[begin:end], dtype).reshape(shape)
    if code == BFLOAT16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array, (begin, end)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise FormatError("a name appears twice in its header")
    return found
