"""CIFAR-10: a small archive of the official layout, from a server on this machine to trained weights."""

import io
import tarfile
import threading
from dataclasses import replace
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from projects import SHIPPED, set_params

from pipeline.artefacts.evaluate import Metrics
from pipeline.artefacts.preprocess import Description
from pipeline.config.params import load_params
from pipeline.data.catalogue import DATASETS
from pipeline.data.dataset import DataFile
from pipeline.data.readers import cifar
from pipeline.errors import UserError
from pipeline.paths import PROCESSED, RAW
from pipeline.stages.evaluate import evaluate
from pipeline.stages.fetch import fetch
from pipeline.stages.preprocess import preprocess
from pipeline.stages.train import train

NAME = "cifar-10-binary.tar.gz"
MEMBERS = [*cifar.TRAIN, cifar.TEST]


def records(number, count=20):
    """(images, labels, the bytes of a member)."""
    rng = np.random.default_rng(number)
    images, labels = rng.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count) % 10
    content = b"".join(
        bytes([label]) + b"".join(image[..., channel].tobytes() for channel in range(3))
        for image, label in zip(images, labels, strict=True)
    )
    return images, labels, content


def archive(path, members, folder="cifar-10-batches-bin/", compression="gz"):
    """Write (name, content or a ready header) for each member."""
    with tarfile.open(path, f"w:{compression}") as file:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = folder + name
                file.addfile(content)
            else:
                member = tarfile.TarInfo(folder + name)
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))


def good_members():
    return [("batches.meta.txt", b"airplane\n"), *((name, records(k)[2]) for k, name in enumerate(MEMBERS))]


def publish(monkeypatch, path):
    """Make the archive at `path` the published one."""
    content = path.read_bytes()
    file = DataFile(NAME, sha256(content).hexdigest(), size=len(content))
    monkeypatch.setitem(DATASETS, "cifar10", replace(DATASETS["cifar10"], files=(file,), mirrors=()))


@pytest.fixture
def server(tmp_path):
    """The address of a folder, SERVED, that a server on this machine serves."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    served = tmp_path / "served"
    (served / "cifar10").mkdir(parents=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served)) as http:
        threading.Thread(target=http.serve_forever).start()
        yield served / "cifar10", f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_it_is_fetched_read_trained_on_and_evaluated(tmp_path, monkeypatch, server, capsys):
    folder, address = server
    archive(folder / NAME, good_members())
    publish(monkeypatch, folder / NAME)
    monkeypatch.setenv("DATASET_MIRROR", address)
    monkeypatch.chdir(tmp_path)
    set_params(
        tmp_path,
        {
            "data.dataset": "cifar10",
            "data.validation_size": 20,
            "data.standardize": "channel",
            "train.epochs": 1,
        },
        SHIPPED,
    )
    (tmp_path / "architectures.yaml").write_text((SHIPPED / "architectures.yaml").read_text())
    params = load_params()
    fetch(params.data)
    assert [path.name for path in (RAW / "cifar10").iterdir()] == [NAME]  # nothing is unpacked
    preprocess(params.data, params.seed)
    description = Description.load()
    assert description.image_shape == (32, 32, 3)
    assert description.class_names[:3] == ["airplane", "automobile", "bird"]
    assert description.examples == {"train": 80, "validation": 20, "test": 20}
    images, labels, _ = records(5)
    np.testing.assert_array_equal(np.load(PROCESSED / "test_images.npy"), images)
    np.testing.assert_array_equal(np.load(PROCESSED / "test_targets.npy").argmax(axis=1), labels)
    everything = {image.tobytes() for k in range(5) for image in records(k)[0]}
    kept = [np.load(PROCESSED / f"{part}_images.npy") for part in ("train", "validation")]
    assert {image.tobytes() for part in kept for image in part} == everything
    train(params)
    evaluate(params.evaluate)
    metrics = Metrics.load()
    assert metrics.dataset == "cifar10"
    assert metrics.test.examples == 20


def link(kind):
    member = tarfile.TarInfo()
    member.type, member.linkname = kind, "/etc/passwd"
    return member


def huge():
    member = tarfile.TarInfo()
    member.size = 2**40
    return member


def replaced(name, content):
    return [(n, content if n == name else c) for n, c in good_members()]


BAD = {
    "a member is missing": (good_members()[:-1], "test_batch.bin is missing"),
    "all members are missing": ([], "data_batch_1.bin, .* is missing"),
    "a member comes twice": ([*good_members(), good_members()[1]], "it holds data_batch_1.bin twice"),
    "a member ends within a record": (
        replaced("data_batch_2.bin", b"\0" * 3074),
        "no whole number of records",
    ),
    "a member is empty": (replaced("data_batch_2.bin", b""), "no whole number of records"),
    "a symbolic link": (replaced("test_batch.bin", link(tarfile.SYMTYPE)), "is a link or a folder"),
    "a hard link": (replaced("test_batch.bin", link(tarfile.LNKTYPE)), "is a link or a folder"),
    "a folder": (replaced("test_batch.bin", link(tarfile.DIRTYPE)), "is a link or a folder"),
    "a huge member": (replaced("batches.meta.txt", huge()), "claims 1,099,511,627,776 bytes"),
    "many members": ([(f"{k}.txt", b"") for k in range(200)], "more than 100 members"),
    "a label that is no class": (replaced("test_batch.bin", b"\x0a" + bytes(3072)), "do not fit together"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_archive_is_refused_even_if_its_hash_is_the_published_one(tmp_path, monkeypatch, name):
    members, reason = BAD[name]
    archive(tmp_path / NAME, members)
    publish(monkeypatch, tmp_path / NAME)
    with pytest.raises(UserError, match=reason):
        DATASETS["cifar10"].read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08", b"\x1f\x8b\x08\x00" + bytes(50)])
def test_a_file_that_is_no_archive_is_refused(tmp_path, monkeypatch, content):
    (tmp_path / NAME).write_bytes(content)
    publish(monkeypatch, tmp_path / NAME)
    with pytest.raises(UserError, match="is damaged"):
        DATASETS["cifar10"].read(tmp_path)


def test_half_an_archive_is_refused(tmp_path, monkeypatch):
    archive(tmp_path / NAME, good_members())
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole[: len(whole) // 2])
    publish(monkeypatch, tmp_path / NAME)
    with pytest.raises(UserError, match="it does not unpack"):
        DATASETS["cifar10"].read(tmp_path)


def test_names_that_lead_out_of_the_folder_write_nothing(tmp_path, monkeypatch):
    archive(tmp_path / NAME, good_members(), folder="../../outside/")
    publish(monkeypatch, tmp_path / NAME)
    before = sorted(tmp_path.parent.rglob("*"))
    raw = DATASETS["cifar10"].read(tmp_path)
    np.testing.assert_array_equal(raw.test_images, records(5)[0])
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_another_archive_than_the_published_one_is_not_fetched(tmp_path, monkeypatch):
    (tmp_path / "mirror/cifar10").mkdir(parents=True)
    archive(tmp_path / "mirror/cifar10" / NAME, good_members())
    monkeypatch.setitem(DATASETS, "cifar10", replace(DATASETS["cifar10"], mirrors=()))
    monkeypatch.setenv("DATASET_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.chdir(tmp_path)
    data = load_params(SHIPPED / "params.yaml").data.model_copy(update={"dataset": "cifar10"})
    with pytest.raises(UserError, match="its SHA-256 is not the published one"):
        fetch(data)
    assert not (RAW / "cifar10" / NAME).exists()
