import errno
import hashlib
import io
import os
import platform
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cnn import checkpoint
from cnn.atomic import atomic_path, write_text
from cnn.checkpoint import CheckpointError

ARRAYS = {
    "0.kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bias": np.zeros(0),
    "scalar": np.array(2.0),
}
METADATA = {"epoch": 3, "names": ["a", "ä"]}


@pytest.fixture
def path(tmp_path):
    checkpoint.save(tmp_path / "new" / "model.npz", ARRAYS, METADATA)
    return tmp_path / "new" / "model.npz"


def test_what_is_saved_is_loaded(path):
    arrays, metadata = checkpoint.load(path)
    assert metadata == METADATA
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].flags.writeable


def test_numpy_reads_the_arrays_as_well(path):
    np.testing.assert_array_equal(np.load(path)["0.kernel"], ARRAYS["0.kernel"])


def test_the_same_content_gives_the_same_bytes(path, tmp_path):
    checkpoint.save(tmp_path / "again.npz", ARRAYS, METADATA)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_any_changed_byte_is_noticed(path):
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match="is damaged"):
            checkpoint.load(path)


@pytest.mark.parametrize("content", [b"", b"x", b"0" * 64, b"0" * 1000])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "model.npz").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(tmp_path / "model.npz")


def test_a_missing_checkpoint_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot be read: No such file or directory\."):
        checkpoint.load(tmp_path / "model.npz")


def test_pickled_objects_are_never_written(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        checkpoint.save(tmp_path / "model.npz", {"a": np.array([object()])}, {})
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "file.txt").write_text("old")

    def write_half():
        with atomic_path(tmp_path / "file.txt") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert (tmp_path / "file.txt").read_text() == "old"


def test_a_compressed_checkpoint_is_refused(tmp_path):
    """It could unpack to any size, and `save` never writes one."""
    checkpoint.save(tmp_path / "model.npz", {"a": np.zeros(100)}, {})
    content = io.BytesIO()
    with (
        zipfile.ZipFile(tmp_path / "model.npz") as old,
        zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    digest = hashlib.sha256(content.getvalue()).hexdigest().encode()
    (tmp_path / "model.npz").write_bytes(content.getvalue() + digest)
    with pytest.raises(CheckpointError, match="is compressed"):
        checkpoint.load(tmp_path / "model.npz")


def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path):
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    here = platform.node()
    left = f".file.tmp-{here}-{gone.stdout.strip()}.txt"
    kept = {
        ".file-2023.txt",  # a user's
        ".file.txt",
        f".file.tmp-{here}-{os.getppid()}.txt",  # of a running process
        f".file.tmp-{here}-20250101120000.txt",
        f".file.tmp-{here}-.txt",
        ".file.tmp-another-host-1.txt",
        f".file2.tmp-{here}-{gone.stdout.strip()}.txt",
    }
    for name in {left} | kept:
        (tmp_path / name).touch()
    write_text(tmp_path / "file.txt", "new")
    assert {path.name for path in tmp_path.iterdir()} == kept | {"file.txt"}


def test_two_processes_write_to_different_temporary_files(tmp_path):
    code = "import sys; from pathlib import Path; from cnn.atomic import atomic_path\n"
    code += "with atomic_path(Path(sys.argv[1])) as temporary: print(temporary.name); temporary.touch()"
    with atomic_path(tmp_path / "file.txt") as mine:
        mine.write_text("mine")
        command = [sys.executable, "-c", code, str(tmp_path / "file.txt")]
        other = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
        )
        assert other.stdout.strip() != mine.name
    assert (tmp_path / "file.txt").read_text() == "mine"


def test_content_reaches_the_disk_before_its_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(file):
        events.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "content")
        fsync(file)

    def record_replace(path, target):
        events.append("name")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    write_text(tmp_path / "file.txt", "new")
    assert events == ["content", "name", "folder"]


def test_a_file_system_that_cannot_flush_folders_is_no_obstacle(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse_folders(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(file)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write_text(tmp_path / "file.txt", "new")
    assert (tmp_path / "file.txt").read_text() == "new"
