"""Experiments of DVC that run in a folder of their own, within .dvc/tmp, where relative paths lead elsewhere."""

import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from projects import commit, environment, make_project, run

from pipeline.data import sources

MODULE = """
from pipeline.data.dataset import DIGITS, DataFile, Dataset
from pipeline.data.readers.idx import read_idx_files

FILES = {files}
DATASET = Dataset("tiny", DIGITS, read_idx_files, tuple(DataFile(*file) for file in FILES))
"""
PLACES = {"a.gz": "mirror", "b.gz": "shared/datasets"}  # beside the project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a dataset, of which the mirror and the shared folder have a file each, and one more."""
    folder = make_project(tmp_path_factory.mktemp("beside") / "project", {"data.dataset": "tiny"})
    hashes = []
    for name, place in PLACES.items():
        path = folder.parent / place / "tiny" / name
        path.parent.mkdir(parents=True)
        path.write_text(name)
        hashes.append((name, hashlib.sha256(path.read_bytes()).hexdigest()))
    for name, files in (("tiny", hashes), ("lost", [("c.gz", "")])):
        (folder / f"pipeline/data/catalogue/{name}.py").write_text(MODULE.format(files=files))
    commit(folder)
    return folder


def test_sources_beside_the_checkout_are_found_from_the_folder_of_an_experiment(project):
    result = run(project, "dvc", "exp", "run", "--temp", "fetch", DATASET_MIRROR="../mirror")
    assert result.returncode == 0, result.stderr
    assert "tiny: 2 files in data/raw/tiny." in result.stdout
    assert not (project / "data/raw").exists()


def test_a_queue_finds_them_too_and_its_log_names_the_folders_that_do_not_have_a_file(project, request):
    if not request.config.getoption("long"):
        pytest.skip("takes half a minute; make test-faults runs it")
    for name in ("tiny", "lost"):
        options = ["--name", f"try-{name}", "-S", f"data.dataset={name}"]
        result = run(project, "dvc", "exp", "run", "--queue", "--force", *options, "fetch")
        assert result.returncode == 0, result.stderr
    start_queue(project, DATASET_MIRROR="../mirror")
    tiny, lost = (run(project, "dvc", "queue", "logs", f"try-{name}").stdout for name in ("tiny", "lost"))
    assert "tiny: 2 files in data/raw/tiny." in tiny
    assert f"- {project.parent}/mirror/lost/c.gz: there is no such file" in lost
    assert f"- {project.parent}/shared/datasets/lost/c.gz: there is no such file" in lost


def start_queue(project, **variables):
    """Start the queue, and wait until it is empty; its worker keeps the output open for some time longer."""
    command = [sys.executable, "-m", "dvc", "queue", "start"]
    subprocess.run(command, cwd=project, env=environment(**variables), stdout=subprocess.DEVNULL, check=True)
    deadline = time.monotonic() + 120
    while any(word in (status := queue_status(project)) for word in ("Queued", "Running")):
        assert time.monotonic() < deadline, status
        time.sleep(0.5)


def queue_status(project):
    return run(project, "dvc", "queue", "status").stdout


def test_own_images_that_git_does_not_keep_are_found_by_an_absolute_path(project, rng):
    for name in ("a", "b"):
        (project / "pictures" / name).mkdir(parents=True)
        for number, pixels in enumerate(rng.integers(0, 256, (20, 8, 8), np.uint8)):
            Image.fromarray(pixels).save(project / "pictures" / name / f"{number}.png")
    settings = ["data.dataset=own", f"data.path={project}/pictures", "data.validation_size=0.1"]
    options = [part for setting in settings for part in ("-S", setting)]
    result = run(project, "dvc", "exp", "run", "--temp", *options, "preprocess")
    assert result.returncode == 0, result.stderr
    assert "images of 8x8 pixels, grey, in data/processed." in result.stdout


@pytest.mark.parametrize("place", ["", "nowhere", ".."])
def test_a_variable_of_another_checkout_changes_no_source(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / place))
    assert sources.checkout() == tmp_path
    monkeypatch.setenv("DATASET_MIRROR", "mirror")
    assert sources.sources("tiny", ["http://a/"]) == [
        f"{tmp_path}/mirror/tiny",
        f"{tmp_path.parent}/shared/datasets/tiny",
        "http://a",
    ]
