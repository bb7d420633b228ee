import numpy as np
import pytest

from cnn import checkpoint
from cnn.atomic import atomic_path
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
    with pytest.raises(CheckpointError, match="is damaged or none at all"):
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
