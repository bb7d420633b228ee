import gzip
import hashlib
import http.server
import struct
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.params import Data
from pipeline.data import sources
from pipeline.data.catalogue import DATASETS
from pipeline.data.dataset import DIGITS, DataFile, Dataset
from pipeline.data.readers.idx import read_idx_files
from pipeline.errors import UserError
from pipeline.paths import RAW
from pipeline.stages import fetch


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)
LABELS = np.array([3, 1, 4], np.uint8)
CONTENTS = {"train-i.gz": IMAGES, "train-l.gz": LABELS, "test-i.gz": IMAGES[::-1], "test-l.gz": LABELS[::-1]}
FILES = {name: gzip.compress(idx(array), mtime=0) for name, array in CONTENTS.items()}


def tiny(files):
    return Dataset(title="tiny", class_names=DIGITS, read_files=read_idx_files, files=files)


@pytest.fixture(autouse=True)
def tiny_dataset(tmp_path, monkeypatch):
    """A dataset "tiny" of the same kind as MNIST, without public mirrors, in an empty project folder."""
    files = tuple(
        DataFile(name, hashlib.sha256(data).hexdigest(), hashlib.sha256(gzip.decompress(data)).hexdigest())
        for name, data in FILES.items()
    )
    monkeypatch.setitem(DATASETS, "tiny", tiny(files))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv(sources.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(sources, "PAUSES", (0, 0))
    mirror = tmp_path / "mirror" / "tiny"
    mirror.mkdir(parents=True)
    for name, data in FILES.items():
        (mirror / name).write_bytes(data)
    return tmp_path / "mirror"


def fetch_all():
    for file in DATASETS["tiny"].files:
        sources.fetch_file(file, RAW / "tiny" / file.name, [])
    return DATASETS["tiny"].read(RAW / "tiny")


def assert_whole(raw):
    np.testing.assert_array_equal(raw.train_images, IMAGES)
    np.testing.assert_array_equal(raw.test_labels, LABELS[::-1])


@pytest.fixture
def server(tiny_dataset):
    """The mirror folder, served over HTTP on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tiny_dataset)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_files_come_from_a_mirror_folder(tiny_dataset, monkeypatch):
    monkeypatch.setenv("DATASET_MIRROR", str(tiny_dataset))
    assert_whole(fetch_all())


def test_files_come_from_a_mirror_url(server, monkeypatch):
    monkeypatch.setenv("DATASET_MIRROR", server)
    assert_whole(fetch_all())


def test_files_come_from_a_shared_folder_beside_the_project(tiny_dataset):
    (tiny_dataset.parent / "shared").mkdir()
    tiny_dataset.rename(tiny_dataset.parent / "shared" / "datasets")
    assert_whole(fetch_all())


def test_what_is_there_and_whole_needs_no_source(tiny_dataset, monkeypatch):
    monkeypatch.setenv("DATASET_MIRROR", str(tiny_dataset))
    fetch_all()
    monkeypatch.delenv("DATASET_MIRROR")
    assert_whole(fetch_all())


def test_the_next_source_is_asked_where_one_has_a_wrong_file(tiny_dataset, monkeypatch, server):
    bad = tiny_dataset.parent / "bad"
    (bad / "tiny").mkdir(parents=True)
    (bad / "tiny" / "train-i.gz").write_bytes(b"<html>not found</html>")
    monkeypatch.setenv("DATASET_MIRROR", str(bad))
    monkeypatch.setattr(sources, "SHARED_FOLDER", tiny_dataset)
    assert_whole(fetch_all())


def repack(folder):
    for path in folder.glob("*.gz"):
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=1))


def unpack(folder):
    for path in folder.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def unpack_under_the_same_name(folder):
    for path in folder.glob("*.gz"):
        path.write_bytes(gzip.decompress(path.read_bytes()))


@pytest.mark.parametrize("change", [repack, unpack, unpack_under_the_same_name])
def test_files_that_somebody_unpacked_or_packed_again_are_taken(tiny_dataset, monkeypatch, change):
    change(tiny_dataset / "tiny")
    monkeypatch.setenv("DATASET_MIRROR", str(tiny_dataset))
    assert_whole(fetch_all())
    monkeypatch.delenv("DATASET_MIRROR")
    assert_whole(fetch_all())  # they count as fetched


def test_files_that_somebody_packed_again_are_taken_from_a_server(tiny_dataset, monkeypatch, server):
    repack(tiny_dataset / "tiny")
    monkeypatch.setenv("DATASET_MIRROR", server)
    assert_whole(fetch_all())


@pytest.mark.parametrize("change", [repack, unpack, unpack_under_the_same_name])
def test_other_content_is_refused_however_it_is_packed(tiny_dataset, monkeypatch, change):
    (tiny_dataset / "tiny" / "train-i.gz").write_bytes(FILES["test-i.gz"])
    change(tiny_dataset / "tiny")
    monkeypatch.setenv("DATASET_MIRROR", str(tiny_dataset))
    with pytest.raises(UserError, match="its SHA-256 is not the published one, and its content's is not"):
        fetch_all()
    assert not list(RAW.rglob("train-i*"))


@pytest.mark.parametrize("over_http", [False, True])
def test_a_wrong_file_is_refused_and_nothing_is_left(tiny_dataset, monkeypatch, server, over_http, tmp_path):
    (tiny_dataset / "tiny" / "train-i.gz").write_bytes(FILES["train-i.gz"][:-1])
    mirror = server if over_http else str(tiny_dataset)
    monkeypatch.setenv("DATASET_MIRROR", mirror)
    with pytest.raises(UserError) as error:
        fetch_all()
    assert str(error.value).splitlines() == [
        "No source has train-i.gz of tiny. Tried:",
        f"- {mirror}/tiny/train-i.gz: its SHA-256 is not the published one, and its content's is not, either",
        f"- {tmp_path}/shared/datasets/tiny/train-i.gz: there is no such file",
        "Either set DATASET_MIRROR to a folder or URL that holds tiny/train-i.gz,",
        "or use the digits that come with scikit-learn: dvc exp run -S data.dataset=digits",
    ]
    assert not [path for path in RAW.rglob("*") if path.is_file()]


def test_a_source_that_has_not_the_file_or_does_not_answer_is_told(tiny_dataset, monkeypatch, server):
    monkeypatch.setenv("DATASET_MIRROR", f"{server}/nowhere")
    with pytest.raises(UserError, match=r"it answered: 404 File not found\n"):
        fetch_all()
    monkeypatch.setenv("DATASET_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="it cannot be reached"):
        fetch_all()
    monkeypatch.setenv("DATASET_MIRROR", "gopher://nowhere")
    with pytest.raises(UserError, match="only folders, http and https addresses"):
        fetch_all()
    for address in ("http://a..b", "http://[::1", "http://127.0.0.1:99999"):
        monkeypatch.setenv("DATASET_MIRROR", address)
        with pytest.raises(UserError, match="the address is not valid"):
            fetch_all()
    monkeypatch.setenv("DATASET_MIRROR", "x" * 5000)
    with pytest.raises(UserError, match="it cannot be read: File name too long"):
        fetch_all()
    monkeypatch.setenv("DATASET_MIRROR", "nowhere")
    with pytest.raises(UserError, match=r"nowhere/tiny/train-i\.gz: there is no such file"):
        fetch_all()


@pytest.mark.parametrize(
    ("mirror", "shown"),
    [
        ("{server}/nowhere", "http://…@127.0.0.1:"),
        ("http://me:secret@a..b", "http://…@a..b/tiny"),
        ("http://me:se/cr@secret@127.0.0.1:9", "http://…@127.0.0.1:9/tiny"),
        ("http://secret@127.0.0.1:9/", "http://…@127.0.0.1:9/tiny"),
        ("git+https://me:secret@nowhere", "git+https:…@nowhere/tiny"),
        ("me:secret@nowhere", "me:…@nowhere/tiny"),
        ("no@where", "{here}/no@where/tiny"),
    ],
)
def test_passwords_are_not_shown(monkeypatch, server, capfd, mirror, shown):
    mirror = mirror.format(server=server.replace("//", "//me:secret@"))
    monkeypatch.setenv("DATASET_MIRROR", mirror)
    with pytest.raises(UserError) as error:
        fetch_all()
    said = str(error.value) + "".join(capfd.readouterr())
    assert f"- {shown.format(here=Path.cwd())}" in said
    assert "secret" not in said


def test_only_the_files_of_the_dataset_are_counted(tiny_dataset, monkeypatch, capsys):
    (RAW / "tiny").mkdir(parents=True)
    (RAW / "tiny" / "stray").touch()
    monkeypatch.setenv("DATASET_MIRROR", str(tiny_dataset))
    fetch.fetch(Data.model_construct(dataset="tiny"))
    assert capsys.readouterr().out == "tiny: 4 files in data/raw/tiny.\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing. Make it with: dvc repro fetch"),
        (
            lambda path: path.write_bytes(FILES["train-i.gz"][:100]),
            "is damaged: it ends after 79 of the 2,352",
        ),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_bytes(b"hello"), "is damaged: it does not unpack"),
        (lambda path: path.write_bytes(FILES["test-i.gz"]), "the SHA-256 of its content is not"),
        (lambda path: path.write_bytes(FILES["train-i.gz"][:-20] + bytes(20)), "is damaged"),
    ],
)
def test_a_damaged_file_is_never_read_as_data(tiny_dataset, monkeypatch, damage, message):
    monkeypatch.setenv("DATASET_MIRROR", str(tiny_dataset))
    fetch_all()
    damage(RAW / "tiny" / "train-i.gz")
    with pytest.raises(UserError, match=message):
        DATASETS["tiny"].read(RAW / "tiny")


@pytest.mark.parametrize(("name", "array"), [("train-l.gz", LABELS[:2]), ("test-l.gz", LABELS + 7)])
def test_labels_that_do_not_fit_their_images_are_refused(tiny_dataset, monkeypatch, name, array):
    data = gzip.compress(idx(array), mtime=0)
    (tiny_dataset / "tiny" / name).write_bytes(data)
    files = [
        DataFile(name, hashlib.sha256(data).hexdigest(), hashlib.sha256(idx(array)).hexdigest())
        if file.name == name
        else file
        for file in DATASETS["tiny"].files
    ]
    monkeypatch.setitem(DATASETS, "tiny", tiny(tuple(files)))
    monkeypatch.setenv("DATASET_MIRROR", str(tiny_dataset))
    with pytest.raises(
        UserError, match=r"files of tiny do not fit together: 3 images, [23] labels, of which"
    ):
        fetch_all()


def test_digits_need_no_source_and_become_28_by_28(tmp_path):
    DATASETS["digits"].write_files(tmp_path / "digits")
    raw = DATASETS["digits"].read(tmp_path / "digits")
    assert raw.train_images.shape == (1437, 28, 28)
    assert raw.test_images.shape == (360, 28, 28)
    assert (raw.train_images.min(), raw.train_images.max()) == (0, 255)
    assert not raw.train_images[:, :2].any()
    np.testing.assert_array_equal(raw.train_images[:, 2:26:3, 2:26], raw.train_images[:, 4:26:3, 2:26])


def test_damaged_digits_are_refused(tmp_path):
    DATASETS["digits"].write_files(tmp_path)
    np.save(tmp_path / "labels.npy", np.zeros(1797, np.uint8))
    with pytest.raises(UserError, match="is damaged: the SHA-256 of its content is not"):
        DATASETS["digits"].read(tmp_path)
