"""safetensors files: as the package writes and reads them; damaged and hostile ones are refused."""

import json
import resource

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from pipeline.formats.safetensors import FormatError, from_bytes, to_bytes


@pytest.fixture
def arrays(rng):
    shapes = {"0.kernel": (3, 3, 1, 8), "0.bias": (8,), "one": (), "none": (0, 4)}
    return {name: rng.random(shape).astype(np.float32) for name, shape in shapes.items()}


def file(header, body=b""):
    """A file with this header, of JSON or of bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_the_package_reads_what_is_written_here(arrays, tmp_path):
    content = to_bytes(arrays, {"network": '{"ä": 1}'})
    (tmp_path / "file").write_bytes(content)
    found = safetensors.numpy.load(content)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    with safe_open(tmp_path / "file", "np") as opened:
        assert opened.metadata() == {"network": '{"ä": 1}'}


def test_what_is_written_is_read_again_with_the_same_bytes_each_time(arrays):
    content = to_bytes(arrays, {"b": "2", "a": "1"})
    assert content == to_bytes(arrays, {"a": "1", "b": "2"})
    assert (8 + int.from_bytes(content[:8], "little")) % 8 == 0
    found, metadata = from_bytes(content)
    assert metadata == {"a": "1", "b": "2"}
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_what_the_package_writes_is_read_here(arrays):
    arrays |= {"half": np.float16([1.5, -2]), "count": np.int64([3]), "double": np.arange(3.0)}
    found, metadata = from_bytes(safetensors.numpy.save(arrays, {"format": "pt"}))
    assert metadata == {"format": "pt"}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_bfloat16_is_the_upper_half_of_float32():
    halves = np.array([0x3F80, 0xC040, 0x7F80], "<u2")  # 1, -3, infinity
    found, _ = from_bytes(file({"x": entry([3], 0, 6, "BF16")}, halves.tobytes()))
    np.testing.assert_array_equal(found["x"], np.float32([1, -3, np.inf]), strict=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it claims a header of 0 bytes, and has 0 bytes for it"),
        (b"\x01", "it claims a header of 1 bytes, and has 0 bytes for it"),
        (
            b"\xff" * 8 + b"{}",
            "it claims a header of 18,446,744,073,709,551,615 bytes, and has 2 bytes for it",
        ),
        (
            file(b"nothing"),
            "its header is no JSON (Expecting value: line 1 column 1 (char 0))",
        ),
        (file(b"[" * 100_000), "its header is nested too deeply"),
        (file([]), "its header must be a JSON object of arrays by name"),
        (file(b'{"a": 1, "a": 2}'), "a name appears twice in its header"),
        (file({"__metadata__": {"a": 1}}), "__metadata__ in its header must hold texts by name"),
        (file({"x": {}}), "x needs dtype, shape and data_offsets in the header"),
        (
            file({"x": entry([1], 0, 1, "F8_E4M3")}, b"0"),
            "x is F8_E4M3; known are F64, F32, F16, I64, I32, I16, I8, U8, BOOL, BF16",
        ),
        (file({"x": entry([-1], 0, 4)}, b"0000"), "x has the shape [-1]"),
        (file({"x": entry([1.5], 0, 4)}, b"0000"), "x has the shape [1.5]"),
        (
            file({"x": entry([10**12, 10**12], 0, 4)}, b"0000"),
            "x claims F32 of shape [1000000000000, 1000000000000] at bytes 0 to 4 of 4, which does not fit",
        ),
        (
            file({"x": entry([2], 0, 8)}, b"0000"),
            "x claims F32 of shape [2] at bytes 0 to 8 of 4, which does not fit",
        ),
        (
            file({"x": entry([1], 4, 0)}, b"0000"),
            "x claims F32 of shape [1] at bytes 4 to 0 of 4, which does not fit",
        ),
        (
            file({"x": entry([1], -4, 0)}, b"0000"),
            "x claims F32 of shape [1] at bytes -4 to 0 of 4, which does not fit",
        ),
        (
            file({"x": entry([1] * 100, 0, 4)}, b"0000"),
            f"x claims F32 of shape {[1] * 100} at bytes 0 to 4 of 4, which does not fit",
        ),
        (
            file({"x": entry([1], 0, 4), "y": entry([1], 0, 4)}, b"0000"),
            "its arrays overlap or leave a gap at byte 0",
        ),
        (file({"x": entry([1], 4, 8)}, b"00000000"), "its arrays overlap or leave a gap at byte 4"),
        (
            file({"x": entry([1], 0, 4)}, b"00000"),
            "it has 5 bytes of arrays, but its header names 4",
        ),
    ],
)
def test_a_file_that_does_not_fit_its_header_is_refused(content, message):
    with pytest.raises(FormatError) as error:
        from_bytes(content)
    assert str(error.value) == message


def test_damaged_files_are_refused_or_read_and_use_no_memory_for_claims(arrays, faults):
    """Where the package refuses a file, it is refused here, too."""
    content = to_bytes(arrays, {"network": "{}"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in faults(500, 100_000):
        rng = np.random.default_rng(seed)
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(min(len(damaged), 400)))  # mostly in the header
            match rng.integers(4):
                case 0:
                    damaged[place] ^= 1 << int(rng.integers(8))
                case 1:
                    damaged[place] = int(rng.integers(256))
                case 2:
                    del damaged[place : place + int(rng.integers(1, 9))]
                case 3:
                    del damaged[int(rng.integers(8, len(damaged))) :]
            damaged += b"" if len(damaged) > 20 else b"0" * 20
        try:
            found, _ = from_bytes(bytes(damaged))
        except FormatError:
            continue
        theirs = safetensors.numpy.load(bytes(damaged))
        assert theirs.keys() == found.keys(), seed
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert used < 50_000  # KB
