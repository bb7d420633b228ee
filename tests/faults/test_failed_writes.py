"""A write that fails or is interrupted leaves the old file intact, and no other file."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from projects import SHIPPED

from cnn import checkpoint
from cnn.atomic import write_array, write_bytes, write_text

ROOT = Path(__file__).parents[2]
SIZE = 300_000
ARRAY = np.arange(SIZE // 4, dtype=np.float32)


WRITERS = {
    "text.csv": lambda path: write_text(path, "x" * SIZE),
    "bytes.gz": lambda path: write_bytes(path, bytes(SIZE)),
    "array.npy": lambda path: write_array(path, ARRAY),
    "model.npz": lambda path: checkpoint.save(path, {"a": ARRAY}, {}),
}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    """write(): overwrite the file in the folder, which contains `old`."""
    path = tmp_path / request.param
    path.write_bytes(b"old")

    def run():
        WRITERS[path.name](path)

    run.path = path
    return run


def assert_old(write):
    assert write.path.read_bytes() == b"old"
    assert list(write.path.parent.iterdir()) == [write.path]


def in_a_child(function):
    """The text that `function` returns in a fork of this process."""
    read, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(send, function().encode())
        except BaseException as error:
            os.write(send, f"unexpected {error!r}".encode())
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(read) as text:
        said = text.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.parametrize("room", [0, 1000, SIZE - 1])
def test_a_disk_without_room_is_told(write, room):
    def attempt():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # like a full disk: no more bytes are written
        try:
            write()
        except OSError as error:
            return f"{error.strerror} {error.filename}"
        return "written"

    said = in_a_child(attempt)
    assert said == f"File too large {write.path}"
    assert_old(write)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_a_failure_at_the_last_moment_is_told(write, monkeypatch, call, number):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        write()
    assert caught.value.filename == str(write.path)
    assert_old(write)


def test_a_folder_that_may_not_be_written_is_told(write):
    folder = write.path.parent
    folder.chmod(0o555)

    def attempt():
        if os.getuid() == 0:  # root may write anywhere
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            write()
        except OSError as error:
            return f"{error.strerror} {error.filename}"
        return "written"

    for parent in (folder, *folder.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    said = in_a_child(attempt)
    folder.chmod(0o755)
    assert said == f"Permission denied {write.path}"
    assert_old(write)


def test_a_process_killed_while_it_writes_leaves_the_old_file(write, faults):
    for number in faults(3, 20):
        delay = np.random.default_rng(number).uniform(0, 0.01)
        pid = os.fork()
        if pid == 0:
            try:
                while True:
                    write()
            finally:
                os._exit(0)
        time.sleep(0.003 + delay)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        content = write.path.read_bytes()
        new = write.path.with_name("new" + write.path.suffix)
        WRITERS[write.path.name](new)
        assert content in (b"old", new.read_bytes())
        new.unlink()
    write()  # removes what the killed processes left
    assert list(write.path.parent.iterdir()) == [write.path]


@pytest.mark.parametrize("stage", ["fetch", "preprocess", "train"])
def test_a_stage_on_a_full_disk_ends_in_one_message(tmp_path, stage):
    for name in ("params.yaml", "architectures.yaml"):
        text = (SHIPPED / name).read_text().replace("dataset: mnist", "dataset: digits")
        (tmp_path / name).write_text(text.replace("epochs: 10", "epochs: 1"))
    stages = ["fetch", "preprocess", "train"]

    def run(stage, limit=None):
        return subprocess.run(
            [sys.executable, "-m", "pipeline", stage],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            preexec_fn=limit,
        )

    for earlier in stages[: stages.index(stage)]:
        assert run(earlier).returncode == 0
    result = run(stage, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900)))
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert "File too large" in result.stderr
    assert run(stage).returncode == 0
