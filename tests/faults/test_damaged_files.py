"""Damaged and hostile files are loaded unchanged or refused with one clear message, and do no harm."""

import gzip
import io
import json
import resource
import struct
import time
import zipfile
from hashlib import sha256

import numpy as np
import pytest

from cnn import SGD, Progress, checkpoint
from cnn.checkpoint import CheckpointError
from pipeline.artefacts import trained
from pipeline.artefacts.train import Network
from pipeline.config.architectures import build_model
from pipeline.data.readers.idx import read_checked_idx, read_idx
from pipeline.errors import UserError
from pipeline.stages import resume

LONGEST = 2.0  # seconds for one file
MOST_MEMORY = 200e6  # bytes more than before, for any file


def idx(array, axes=None):
    axes = array.shape if axes is None else axes
    return bytes([0, 0, 8, len(axes)]) + struct.pack(f">{len(axes)}I", *axes) + array.tobytes()


def mutate(data, rng):
    """`data` with one to three changes: a flipped bit, changed bytes, bytes removed, repeated or appended."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if not data:
            break
        start, stop = sorted(rng.integers(0, len(data) + 1, 2))
        match rng.integers(0, 8):
            case 0 | 1:
                data[rng.integers(len(data))] ^= 1 << rng.integers(8)
            case 2:
                data[rng.integers(len(data))] = rng.integers(256)
            case 3:
                del data[stop:]
            case 4:
                del data[start:stop]
            case 5:
                data[start:start] = data[start:stop]
            case 6:
                stop = min(stop, start + 16)
                data[start:stop] = rng.bytes(stop - start)
            case 7:
                data += rng.bytes(rng.integers(1, 50))
    return bytes(data)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture
def watched():
    """watched(function): call it, in limited time. At the end, check that the test took little memory."""
    before = peak()

    def call(function):
        start = time.perf_counter()
        try:
            return function()
        finally:
            assert time.perf_counter() - start < LONGEST

    yield call
    assert peak() - before < MOST_MEMORY


def attempt(watched, function, error_type):
    """(what it returns, None) or (None, the message of the one error that it may raise)."""
    try:
        return watched(function), None
    except error_type as error:
        return None, str(error)


def test_mutated_idx_files_are_loaded_alike_or_refused(tmp_path, faults, watched):
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    content = idx(images)
    packed = gzip.compress(content, mtime=0)
    digest, path = sha256(content).hexdigest(), tmp_path / "images.gz"
    refused = 0
    for number in faults(400, 10_000):
        rng = np.random.default_rng(number)
        if rng.random() < 0.5:
            path.write_bytes(mutate(packed, rng))
        elif rng.random() < 0.5:
            path.write_bytes(gzip.compress(mutate(content, rng), mtime=0))
        else:  # a header that lies about counts
            axes = [int(2 ** rng.uniform(0, 32)) if rng.random() < 0.5 else n for n in images.shape]
            path.write_bytes(gzip.compress(idx(images, axes), mtime=0))
        array, message = attempt(watched, lambda: read_checked_idx(path, 3, digest), UserError)
        if message is None:
            np.testing.assert_array_equal(array, images, err_msg=str(number))
            continue
        refused += 1
        assert message.startswith(f"{path} is damaged: "), number
        assert message.count("\n") == 0, number
    assert refused > 100


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it ends within its header"),
        (idx(np.zeros(5, np.uint8)), "it has 1 axes, not 3"),
        (b"\0\1" + idx(np.zeros((1, 2, 2), np.uint8))[2:], "it does not begin with two zero bytes"),
        (b"\0\0\x0d\3" + bytes(16), "its numbers are of type 0x0d, not bytes"),
        (idx(np.zeros((2, 3, 3), np.uint8)) + b"x", "there are bytes after the 18"),
        (idx(np.zeros((2, 3, 3), np.uint8))[:-1], "it ends after 17 of the 18 bytes"),
        (idx(np.zeros(1, np.uint8), (60_000, 280, 280)), "its header claims 4,704,000,000 bytes, more than"),
    ],
)
def test_what_is_wrong_with_an_idx_file_is_told(tmp_path, content, reason):
    (tmp_path / "file.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=reason):
        read_idx(tmp_path / "file.gz", 3)


def test_a_gzip_bomb_is_not_unpacked(tmp_path, watched):
    path = tmp_path / "file.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:  # 500 MB from some 2 MB
        file.write(idx(np.zeros(1, np.uint8), (1, 28, 28)))
        for _ in range(500):
            file.write(bytes(2**20))
    with pytest.raises(ValueError, match="there are bytes after the 784"):
        watched(lambda: read_idx(path, 3))


def test_bytes_after_the_gzip_stream_are_refused(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((1, 2, 2), np.uint8))) + b"more")
    with pytest.raises(ValueError, match="there are bytes after the 4"):
        read_idx(path, 3)


LAYERS = [
    {"type": "conv2d", "out_channels": 2, "kernel_size": 3},
    {"type": "batch_norm"},
    {"type": "relu"},
    {"type": "flatten"},
    {"type": "dense", "out_features": 3},
]
METADATA = {
    "architecture": "small",
    "layers": LAYERS,
    "data": {
        "dataset": "none",
        "title": "none",
        "class_names": ["a", "b", "c"],
        "image_shape": [6, 6, 1],
        "framing": "crop",
        "background": [0.0],
        "mean": [0.0],
        "deviation": [1.0],
        "examples": {"train": 3, "validation": 3, "test": 3},
    },
    "epoch": 1,
    "environment": {"machine": "none", "numpy": "none", "numpy_simd": "", "pillow": "", "blas": ""},
}


def small_model():
    return build_model(LAYERS, "small", (6, 6, 1), 3, np.random.default_rng(0))


def repaired(content):
    """`content` with a checksum that matches, as an attacker would write it."""
    body = content[: -checkpoint.DIGEST_LENGTH]
    return body + sha256(body).hexdigest().encode()


def lie(arrays, rng):
    """A checkpoint with a checksum that matches, but with one false array header."""
    victim, stream = rng.choice(list(arrays)), io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            shape = array.shape
            if name == victim:
                shape = tuple(int(2 ** rng.uniform(0, 62)) for _ in range(rng.integers(0, 5)))
            descr = (
                rng.choice(["<f4", "<f8", "|V1000000000", "|O", "<U4", "nonsense"])
                if name == victim
                else "<f4"
            )
            text = f"{{'descr': {str(descr)!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
            header = text.encode().ljust(117) + b"\n"
            data = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + array.tobytes()
            archive.writestr(f"{name}.npy", data)
        archive.writestr(checkpoint.METADATA, json.dumps(METADATA))
        archive.comment = b"0" * checkpoint.DIGEST_LENGTH
    return repaired(stream.getvalue())


def test_mutated_checkpoints_are_loaded_alike_or_refused(tmp_path, faults, watched, monkeypatch):
    model = small_model()
    state = model.state_dict()
    path = tmp_path / "model.npz"
    monkeypatch.setattr(Network, "path", path)
    checkpoint.save(path, state, METADATA)
    content = path.read_bytes()
    assert watched(trained.load_model)[1].model_dump(mode="json") == METADATA
    for number in faults(400, 10_000):
        rng = np.random.default_rng(number)
        kind = rng.random()
        believed = kind < 0.4  # if the checksum matches
        if kind < 0.2:
            path.write_bytes(lie(state, rng))
        else:
            mutated = mutate(content, rng)
            path.write_bytes(repaired(mutated) if believed else mutated)
        result, message = attempt(watched, trained.load_model, UserError)
        if message is not None:
            assert str(path) in message, number
        else:
            loaded, metadata = result
            assert set(loaded.state_dict()) == set(state), number
            if not believed:
                assert metadata.model_dump(mode="json") == METADATA, number
                for name, array in loaded.state_dict().items():
                    np.testing.assert_array_equal(array, state[name], err_msg=str(number))


def test_a_mutated_checkpoint_of_a_run_changes_nothing(tmp_path, faults, watched, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def parts():
        model = small_model()
        return {
            "model": model,
            "optimizer": SGD(model.parameters(), 0.1, momentum=0.9),
            "progress": Progress(),
        }

    run = resume.RunCheckpoint("key", parts(), 30)
    run.kept_state = run.parts["model"].state_dict()
    run.save()
    content = run.path.read_bytes()
    for number in faults(100, 2000):
        rng = np.random.default_rng(number)
        mutated = mutate(content, rng)
        run.path.write_bytes(repaired(mutated) if rng.random() < 0.5 else mutated)
        again = resume.RunCheckpoint("key", parts(), 30)
        before = {part: stateful.state_dict() for part, stateful in again.parts.items()}
        _, message = attempt(watched, again.restore, CheckpointError)
        if message is not None:
            assert str(run.path) in message, number
            for part, stateful in again.parts.items():
                for name, array in stateful.state_dict().items():
                    np.testing.assert_array_equal(array, before[part][name], err_msg=str(number))
