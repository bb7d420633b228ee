"""Own images: which pictures are read, as which bytes, in which parts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from projects import ROOT, commit, make_project, run, stages_run
from test_bad_data import content, good_arrays, good_folder, options, parts, picture, turned

from pipeline.apps.predict import look_at
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.preprocess import Description
from pipeline.data.catalogue import DATASETS
from pipeline.data.dataset import Dataset, RawData
from pipeline.data.own import survey
from pipeline.data.pictures import fit_array, fit_picture, read_picture
from pipeline.paths import PROCESSED
from pipeline.stages import preprocess as stage
from pipeline.stages.preprocess import preprocess


def pixels_of(path):
    return np.asarray(read_picture(path))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("png", {}),
        ("bmp", {}),
        ("tiff", {}),
        ("tiff", {"compression": "tiff_lzw"}),
        ("webp", {"lossless": True}),
        ("ppm", {}),
        ("tga", {}),
    ],
)
def test_a_lossless_format_gives_the_bytes_that_were_saved(tmp_path, suffix, options):
    image = picture(3, size=(20, 13))
    image.save(tmp_path / f"a.{suffix}", **options)
    np.testing.assert_array_equal(pixels_of(tmp_path / f"a.{suffix}"), np.asarray(image))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux")
def test_a_large_picture_is_in_memory_once(tmp_path):
    Image.new("RGB", (6000, 5000)).save(tmp_path / "a.png")
    program = (
        "import re, sys; from pathlib import Path; from pipeline.data.pictures import read_fitted\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before = peak(); read_fitted(Path(sys.argv[1]), (8, 8, 3), 'crop'); print(peak() - before)"
    )
    printed = subprocess.check_output([sys.executable, "-c", program, tmp_path / "a.png"], cwd=ROOT)
    assert int(printed) * 1024 < 1.5 * 4 * 6000 * 5000  # Pillow has four bytes for a pixel in colour


def test_the_content_decides_not_the_suffix(tmp_path):
    picture(3).save(tmp_path / "a.png")
    for name in ("b.jpg", "c"):
        shutil.copy(tmp_path / "a.png", tmp_path / name)
        np.testing.assert_array_equal(pixels_of(tmp_path / name), np.asarray(picture(3)))


def test_a_picture_is_upright_as_its_exif_data_say(tmp_path):
    image = picture(3, size=(20, 13))
    image.save(tmp_path / "a.png", exif=turned())
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), np.rot90(np.asarray(image), -1))


def test_sixteen_bits_become_eight(tmp_path):
    values = np.array([[0, 128, 129, 257, 65535]], np.uint16)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(pixels_of(tmp_path / name), [[0, 0, 1, 1, 255]])


def test_floats_are_fractions_or_bytes(tmp_path):
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.tiff"), [[0, 128, 255]])
    Image.fromarray(np.array([[0, 0.5, 200]], np.float32)).save(tmp_path / "b.tiff")
    np.testing.assert_array_equal(pixels_of(tmp_path / "b.tiff"), [[0, 0, 200]])


def test_white_lies_behind_transparent_parts(tmp_path):
    colours = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), [[[10, 20, 30], [255] * 3, [204] * 3]])
    grey = Image.fromarray(colours[..., 2:])  # grey and opacity
    grey.save(tmp_path / "b.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "b.png"), [[30, 255, 204]])
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.save(tmp_path / "c.png", transparency=0)
    np.testing.assert_array_equal(pixels_of(tmp_path / "c.png"), [[[255] * 3, [200, 0, 0]]])


def test_a_palette_of_greys_is_grey_and_one_of_colours_is_not(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    for colours, mode in (([0, 0, 0, 7, 7, 7], "L"), ([0, 0, 0, 7, 7, 8], "RGB")):
        image.putpalette(colours)
        image.save(tmp_path / "a.gif")
        assert read_picture(tmp_path / "a.gif").mode == mode


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixels_of(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def test_a_cmyk_picture_is_read_in_colour(tmp_path):
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.jpg")
    red, green, blue = pixels_of(tmp_path / "a.jpg")[4, 4].tolist()
    assert red < 30
    assert min(green, blue) > 220


def test_one_bit_is_black_or_white(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), [[255, 0]])


STRIPES = Image.fromarray(np.repeat(np.array([[0, 0, 80, 80, 160, 160]], np.uint8), 2, axis=0))


def test_crop_keeps_the_middle():
    np.testing.assert_array_equal(fit_picture(STRIPES, (2, 2, 1), "crop")[..., 0], [[80, 80]] * 2)
    tall = STRIPES.rotate(90, expand=True)
    np.testing.assert_array_equal(fit_picture(tall, (2, 2, 1), "crop")[..., 0], [[80, 80]] * 2)


def test_pad_keeps_all_between_borders_in_the_colour_of_the_pictures_border():
    padded = fit_picture(STRIPES, (6, 6, 1), "pad")[..., 0]
    np.testing.assert_array_equal(padded[2:4], np.asarray(STRIPES))
    assert set(padded[[0, 1, 4, 5]].ravel().tolist()) == {80}


def test_stretch_changes_the_proportions():
    stretched = fit_picture(STRIPES, (4, 6, 1), "stretch")[..., 0]
    np.testing.assert_array_equal(stretched, np.repeat(np.asarray(STRIPES), 2, axis=0))


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_picture_that_has_the_shape_is_not_changed(fit):
    image = picture(5, size=(7, 6))
    np.testing.assert_array_equal(fit_picture(image, (6, 7, 3), fit), np.asarray(image))


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (64, 64)])
def test_pictures_of_any_proportions_fit_any_shape(fit, size):
    for shape in ((1, 1, 3), (5, 9, 3), (32, 32, 1)):
        assert fit_picture(picture(1, size=size), shape, fit).shape == shape


def test_grey_becomes_colour_and_back():
    grey = np.random.default_rng(0).integers(0, 256, (2, 4, 4), np.uint8)
    colour = fit_array(grey, (4, 4, 3), "crop")
    np.testing.assert_array_equal(colour, np.repeat(grey[..., None], 3, axis=-1))
    np.testing.assert_array_equal(fit_array(colour, (4, 4, 1), "crop")[..., 0], grey)


def processed(monkeypatch, tmp_path, path, seed=0, **changes):
    """What preprocess makes of the images in `path`: {part: (bytes, labels)}, and the description."""
    monkeypatch.chdir(tmp_path)
    preprocess(options(path, **changes), seed)
    parts = {
        part: (
            np.load(PROCESSED / f"{part}_images.npy"),
            np.load(PROCESSED / f"{part}_targets.npy").argmax(axis=1),
        )
        for part in ("train", "validation", "test")
    }
    return parts, Description.load()


def as_set(*parts):
    return sorted(
        (label, image.tobytes())
        for images, labels in parts
        for image, label in zip(images, labels, strict=True)
    )


def test_a_folder_is_split_into_parts_that_hold_each_picture_once(tmp_path, monkeypatch):
    folder = good_folder(tmp_path / "own", ("b", "a", "c"))
    found, description = processed(monkeypatch, tmp_path, folder)
    assert description.class_names == ["a", "b", "c"]
    assert (description.dataset, description.title) == ("own", "own images: own")
    assert description.image_shape == (5, 6, 3)
    assert {part: len(labels) for part, (_, labels) in found.items()} == {
        "train": 6,
        "validation": 3,
        "test": 3,
    }
    expected = [
        (k, np.asarray(Image.open(path)).tobytes())
        for k, name in enumerate(description.class_names)
        for path in (folder / name).iterdir()
    ]
    assert as_set(*found.values()) == sorted(expected)
    assert np.bincount(found["test"][1]).tolist() == [1, 1, 1]


def test_the_split_follows_the_seed(tmp_path, monkeypatch):
    folder = good_folder(tmp_path / "own", ("a", "b", "c"))
    one, same, other = (processed(monkeypatch, tmp_path, folder, seed)[0] for seed in (0, 0, 1))
    for part in one:
        np.testing.assert_array_equal(one[part][0], same[part][0])
    assert any(as_set(one[part]) != as_set(other[part]) for part in one)


@pytest.mark.parametrize("name", ["validation", "valid", "val"])
def test_parts_that_are_there_are_used_as_they_are(tmp_path, monkeypatch, name):
    parts(tmp_path, ("train", "validation", "test"))
    (tmp_path / "own/validation").rename(tmp_path / "own" / name)
    found, _ = processed(monkeypatch, tmp_path, tmp_path / "own")
    for part, start in (("train", 100), ("validation", 200), ("test", 300)):
        wanted = [((k % 2), np.asarray(picture(start + k)).tobytes()) for k in range(8)]
        assert as_set(found[part]) == sorted(wanted), part
    fewer, _ = processed(monkeypatch, tmp_path, tmp_path / "own", train_size=4)
    assert [len(fewer[part][1]) for part in ("train", "validation", "test")] == [4, 8, 8]


def test_names_of_parts_may_have_capitals(tmp_path, monkeypatch):
    parts(tmp_path, ("Training", "Val", "TEST"))
    found, _ = processed(monkeypatch, tmp_path, tmp_path / "own")
    assert [len(found[part][1]) for part in ("train", "validation", "test")] == [8, 8, 8]


def test_copies_within_a_class_are_used_once_and_named(tmp_path, monkeypatch, capsys):
    folder = good_folder(tmp_path / "own")
    shutil.copy(folder / "cat/0.png", folder / "cat/again.png")
    found, _ = processed(monkeypatch, tmp_path, folder)
    assert sum(len(labels) for _, labels in found.values()) == 8
    assert "note: cat/again.png: the same image as cat/0.png; it is used once." in capsys.readouterr().out
    found, _ = processed(monkeypatch, tmp_path, folder, allow_duplicates=True)
    assert sum(len(labels) for _, labels in found.values()) == 9


def test_copies_are_kept_in_parts_from_which_nothing_is_split_off(tmp_path, monkeypatch):
    parts(tmp_path, ("train", "test"))
    shutil.copy(tmp_path / "own/test/cat/0.png", tmp_path / "own/test/cat/again.png")
    shutil.copy(tmp_path / "own/train/cat/0.png", tmp_path / "own/train/cat/again.png")
    found, _ = processed(monkeypatch, tmp_path, tmp_path / "own")
    assert len(found["test"][1]) == 9
    assert len(found["train"][1]) + len(found["validation"][1]) == 8


def test_leaks_and_two_labels_can_be_allowed(tmp_path, monkeypatch):
    arrays = good_arrays()
    arrays["test_images"][0] = arrays["train_images"][1]
    np.savez(tmp_path / "own.npz", **arrays)
    found, _ = processed(monkeypatch, tmp_path, tmp_path / "own.npz", allow_duplicates=True)
    np.testing.assert_array_equal(found["test"][0], arrays["test_images"])


def test_what_is_no_picture_is_named_and_passed_over(tmp_path, monkeypatch):
    folder = good_folder(tmp_path / "own")
    others = (
        ".DS_Store",
        "cat/Thumbs.db",
        "cat/notes.txt",
        "cat/.hidden.png",
        "__MACOSX/a.png",
        "labels.csv",
    )
    for name in others:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no picture")
    found = survey(options(folder))
    assert found.problems == []
    passed = {note.split(" ")[0] for note in found.notes}
    assert passed == {name.partition("/a")[0] if "MACOSX" in name else name for name in others}
    assert sum(found.sizes.values()) == 8


def test_a_backup_that_dvc_ignores_and_a_pipe_are_passed_over(tmp_path, monkeypatch):
    folder = good_folder(tmp_path / "own", classes=("C#", "dog"))
    for number, name in enumerate(("0.png~", "#0.png#")):
        (folder / "C#" / name).write_bytes(content(picture(500 + number)))
    os.mkfifo(folder / "dog/pipe")
    found = survey(options(folder))
    assert found.problems == []
    assert {note.split(" ")[0] for note in found.notes} == {"C#/0.png~", "C#/#0.png#", "dog/pipe"}


@pytest.mark.parametrize("suffix", ["", "_keras", "_column"])
def test_arrays_are_read_under_the_projects_names_and_keras_names(tmp_path, monkeypatch, suffix):
    arrays = good_arrays()
    saved = dict(arrays)
    if suffix:
        saved = {
            f"{'x' if 'images' in name else 'y'}_{name.partition('_')[0]}": a for name, a in arrays.items()
        }
    if suffix == "_column":
        saved["y_train"] = saved["y_train"][:, None].astype(np.uint8)
    np.savez(tmp_path / "own.npz", class_names=np.array(["ä", "b c", "文"]), **saved)
    found, description = processed(monkeypatch, tmp_path, tmp_path / "own.npz")
    np.testing.assert_array_equal(found["test"][0], arrays["test_images"])
    np.testing.assert_array_equal(found["test"][1], arrays["test_labels"])
    both = as_set(found["train"], found["validation"])
    assert both == as_set((arrays["train_images"], arrays["train_labels"]))
    assert description.class_names == ["ä", "b c", "文"]


def test_any_dataset_can_be_brought_to_another_size_and_channels(tmp_path, monkeypatch):
    np.savez(tmp_path / "own.npz", **good_arrays())
    found, description = processed(
        monkeypatch, tmp_path, tmp_path / "own.npz", image_size=[8, 6], channels=1, fit="pad"
    )
    assert description.image_shape == (8, 6, 1)
    assert description.framing == "pad"
    expected = fit_array(good_arrays()["test_images"], (8, 6, 1), "pad")
    np.testing.assert_array_equal(found["test"][0], expected)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, ""),
        ({"image_size": [5, 4], "channels": 3}, ""),
        (
            {"image_size": [7, 6]},
            "note: Given's images of 4x5 pixels in colour become 6x7 pixels in colour, since data.image_size is "
            "set.\n",
        ),
        (
            {"image_size": 32, "channels": 1},
            "note: Given's images of 4x5 pixels in colour become 32x32 pixels in grey, since data.image_size and "
            "data.channels are set.\n",
        ),
    ],
)
def test_a_dataset_in_another_shape_than_its_own_is_noted(tmp_path, monkeypatch, capsys, changes, note):
    images, labels = good_arrays()["train_images"], np.arange(12) % 2
    given = Dataset("Given", ("a", "b"), lambda *_: RawData(images, labels, images, labels), ())
    monkeypatch.setitem(DATASETS, "given", given)
    monkeypatch.chdir(tmp_path)
    preprocess(options("anything", dataset="given", **changes), 0)
    assert capsys.readouterr().out.startswith(f"{note}train ")


def test_constants_are_those_of_the_training_images(tmp_path, monkeypatch):
    np.savez(tmp_path / "own.npz", **good_arrays())
    for standardize, axes in (("global", None), ("channel", (0, 1, 2))):
        found, description = processed(monkeypatch, tmp_path, tmp_path / "own.npz", standardize=standardize)
        x = found["train"][0] / 255
        np.testing.assert_allclose(description.mean, np.broadcast_to(x.mean(axis=axes), 3), rtol=1e-12)
        np.testing.assert_allclose(description.deviation, np.broadcast_to(x.std(axis=axes), 3), rtol=1e-12)
        images = np.asarray(load_examples("train", description).images)
        np.testing.assert_allclose(images.mean(axis=axes), 0, atol=1e-6)
        np.testing.assert_allclose(images.std(axis=axes), 1, rtol=1e-5)


def test_the_background_is_the_median_of_the_borders(tmp_path, monkeypatch):
    images = np.full((12, 4, 4, 3), 7, np.uint8)
    images[:, 1:3, 1:3] = np.arange(12)[:, None, None, None]
    images[:, 0], images[:, 3] = 3, 200  # a third of the borders each, beside the third that stays
    images[..., 2] //= 7
    monkeypatch.setattr(stage, "choose_dataset", lambda data: Given(images))
    monkeypatch.chdir(tmp_path)
    preprocess(options("anything"), 0)
    assert Description.load().background == [7 / 255, 7 / 255, 1 / 255]


class Given:
    title, class_names, framing = "given", ("a", "b"), "crop"

    def __init__(self, images):
        self.images = images

    def read(self, folder):
        labels = np.arange(len(self.images)) % 2
        return RawData(self.images, labels, self.images, labels)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_predict_frames_pictures_as_any_dataset_was_fitted(tmp_path, monkeypatch, fit):
    images, labels = good_arrays()["train_images"], np.arange(12) % 2
    given = Dataset("given", ("a", "b"), lambda *_: RawData(images, labels, images, labels), ())
    monkeypatch.setitem(DATASETS, "given", given)
    monkeypatch.chdir(tmp_path)
    preprocess(options("anything", dataset="given", image_size=[4, 7], fit=fit), 0)
    description = Description.load()
    Image.fromarray(images[3]).save("a.png")
    seen, _ = look_at(tmp_path / "a.png", description)
    np.testing.assert_array_equal(seen, np.load(PROCESSED / "test_images.npy")[3])


def test_chunks_have_few_images_if_these_are_large():
    class Asked:
        def __getitem__(self, rows):
            assert len(rows) * 1000 * 1000 * 3 <= stage.LARGEST_CHUNK
            return np.broadcast_to(np.zeros((), np.uint8), (len(rows), 1000, 1000, 3))

    shape = 1000, 1000, 3
    chunks = stage.read_in_chunks(Asked(), np.arange(50), shape, "crop")
    assert sum(len(chunk) for chunk in chunks) == 50


@pytest.mark.walk
def test_dvc_tracks_own_images_and_brings_them_to_a_colleague(tmp_path):
    changes = {
        "data.dataset": "own",
        "data.path": "data/own",
        "data.test_size": 0.25,
        "data.validation_size": 0.25,
        "train.epochs": 1,
    }
    project = make_project(tmp_path / "project", changes)
    good_folder(project / "data/own", start=50)
    assert run(project, "dvc", "add", "data/own").returncode == 0
    first = run(project, "dvc", "repro", "train")
    assert stages_run(first.stdout) == ["fetch", "preprocess", "train"], first.stderr
    picture(99).save(project / "data/own/cat/0.png")
    changed = run(project, "dvc", "repro", "train")
    assert stages_run(changed.stdout) == ["preprocess", "train"]
    picture(98).save(project / "data/own/cat/new.png")
    added = run(project, "dvc", "repro", "preprocess")
    assert stages_run(added.stdout) == ["preprocess"]
    assert "train 5, validation 2, test 2 images of 6x5 pixels, colour, in" in added.stdout
    (project / "data/own/cat/new.png").unlink()
    again = run(project, "dvc", "repro", "train")  # all are known from before: results come from the cache
    assert "Running stage" not in again.stdout
    assert (
        run(project, "dvc", "remote", "add", "--default", "shared", str(tmp_path / "shared")).returncode == 0
    )
    assert run(project, "dvc", "push").returncode == 0
    commit(project)
    subprocess.run(["git", "clone", "-q", project, tmp_path / "colleague"], check=True)
    pulled = run(tmp_path / "colleague", "dvc", "pull")
    for name in ("data/own/cat/0.png", "models/model.npz"):
        assert (tmp_path / "colleague" / name).read_bytes() == (project / name).read_bytes(), pulled.stderr
    raw = tmp_path / "colleague/data/raw"  # DVC brings no empty folders back, and warns if this one is empty
    assert [path.relative_to(raw).as_posix() for path in raw.rglob("*.*")] == ["own/where.txt"]
    assert "Running stage" not in run(tmp_path / "colleague", "dvc", "repro", "train").stdout
