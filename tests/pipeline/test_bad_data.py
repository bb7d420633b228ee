"""Own images that cannot be used: each kind is refused with its reason, all at once, and nothing is written."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from projects import SHIPPED

from pipeline.config.params import load_params
from pipeline.data.own import survey
from pipeline.errors import UserError
from pipeline.paths import PROCESSED
from pipeline.stages.preprocess import preprocess

PER_CLASS = 4


def options(path, **changes):
    data = load_params(SHIPPED / "params.yaml").data
    return data.model_copy(
        update={"dataset": "own", "path": str(path), "test_size": 0.25, "validation_size": 0.3} | changes
    )


def picture(number=0, mode="RGB", size=(6, 5)):
    """A picture unlike those of other numbers."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def content(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def good_folder(folder, classes=("cat", "dog"), start=0):
    for number in range(PER_CLASS * len(classes)):
        path = folder / classes[number % len(classes)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(start + number).save(path)
    return folder


def png(header, *chunks):
    """A PNG file of these chunks, with right checksums, whatever they say."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in ((b"IHDR", header), *chunks):
        body = kind + data
        parts.append(struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body)))
    return b"".join(parts)


def headed(width, height, bits=8, colour=2):
    return struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)


GOOD = content(picture(1000, size=(64, 48)))
JPEG = content(picture(1000, size=(64, 48)), "JPEG")
floats = Image.fromarray(np.array([[0.0, 1000.0]], np.float32))
nan = Image.fromarray(np.array([[0.0, np.nan]], np.float32))
wide = Image.fromarray(np.array([[0, 70_000]], np.int32))

BAD_FILES = {  # the content of one more file in a class's folder: (name, content, what is said of it)
    "empty": ("a.png", b"", "it is empty"),
    "text under a picture's name": ("a.jpg", b"not a picture", "is not an image in a known format"),
    "a web page": ("a.png", b"<!doctype html><title>404</title>", "is not an image in a known format"),
    "a program": (
        "a.eps",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "EPS is a program",
    ),
    "zeros": ("a.png", bytes(500), "is not an image in a known format"),
    "half a PNG": ("a.png", GOOD[: len(GOOD) // 2], "damaged"),
    "a PNG without pixels": ("a.png", png(headed(5, 5), (b"IEND", b"")), "damaged"),
    "a PNG with a wrong checksum": ("a.png", GOOD[:60] + b"\xff\xfe" + GOOD[62:], "damaged"),
    "a PNG of no width": ("a.png", png(headed(0, 5), (b"IEND", b"")), "damaged|not an image"),
    "a PNG with a strange bit depth": ("a.png", png(headed(5, 5, 3), (b"IEND", b"")), "damaged|not an image"),
    "a bomb": (
        "a.png",
        png(headed(30_000, 30_000), (b"IDAT", zlib.compress(b""))),
        "more than 89 million pixels",
    ),
    "half a JPEG": ("a.jpg", JPEG[: len(JPEG) // 2], "damaged"),
    "a JPEG without its end": ("a.jpg", JPEG[:-200], "damaged"),
    "a JPEG header alone": ("a.jpg", JPEG[:20], "damaged|not an image"),
    "half a BMP": ("a.bmp", content(picture(7, size=(64, 48)), "BMP")[:3000], "damaged"),
    "half a GIF": ("a.gif", content(picture(7, size=(64, 48)), "GIF")[:900], "damaged"),
    "half a WebP": ("a.webp", content(picture(7, size=(64, 48)), "WEBP")[:500], "damaged|not an image"),
    "half a TIFF": ("a.tiff", content(picture(7, size=(64, 48)), "TIFF")[:2000], "damaged|not an image"),
    "floats of no known range": ("a.tiff", content(floats, "TIFF"), "its numbers run from 0 to 1000"),
    "floats that are no numbers": ("a.tiff", content(nan, "TIFF"), "its numbers run from nan to nan"),
    "more than 16 bits": ("a.tiff", content(wide, "TIFF"), "its numbers run from 0 to 70000"),
    "another suffix than the content's, damaged": ("a.jpg", GOOD[:700], "damaged"),
    "no suffix, damaged": ("a", GOOD[:700], "damaged"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_with_its_reason(tmp_path, monkeypatch, name):
    file, data, reason = BAD_FILES[name]
    folder = good_folder(tmp_path / "own")
    (folder / "cat" / file).write_bytes(data)
    assert_refused(monkeypatch, tmp_path, folder, rf"- .*cat/{file}: .*({reason})")


def test_all_bad_files_are_named_at_once(tmp_path, monkeypatch):
    folder = good_folder(tmp_path / "own")
    for number, (file, data, _) in enumerate(BAD_FILES.values()):
        (folder / "dog" / f"{number}-{file}").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    problems = survey(options(folder)).problems
    for number, (file, _, reason) in enumerate(BAD_FILES.values()):
        assert [text for text in problems if f"/{number}-{file}: " in text], (file, reason)
    assert len(problems) == len(BAD_FILES)


def nested(folder):
    (folder / "cat/more").mkdir()
    picture(99).save(folder / "cat/more/a.png")


def two_labels(folder):
    picture(0).save(folder / "dog/copy.png")


def parts(folder, names=("train", "test")):
    good_folder(folder / "own")
    folder = folder / "own"
    for number, name in enumerate(names):
        good_folder(folder / name, start=100 * (number + 1))
    for name in ("cat", "dog"):
        for path in (folder / name).iterdir():
            path.unlink()
        (folder / name).rmdir()


def leak(folder, part="test"):
    picture(100).save(folder / part / "cat/copy.png")


def remove(folder, pattern):
    for path in folder.glob(pattern):
        path.unlink()


BAD_FOLDERS = {  # how a good folder is spoilt, and what is said
    "one class": (
        lambda f: (remove(f, "dog/*"), (f / "dog").rmdir()),
        "one class, cat: a network needs at least two",
    ),
    "no class": (lambda f: [(remove(f, f"{n}/*"), (f / n).rmdir()) for n in ("cat", "dog")], "no class"),
    "a picture in a format that cannot be read": (
        lambda f: (f / "cat/phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50)),
        "cat/phone.HEIC: it is not an image in a known format",
    ),
    "an empty class": (lambda f: (f / "owl").mkdir(), "owl: no pictures"),
    "a class of text files": (
        lambda f: (f / "owl").mkdir() or (f / "owl/a.txt").write_text("a"),
        "owl: no pictures",
    ),
    "a class of one": (
        lambda f: remove(f, "dog/[3-9].png"),
        "dog: 1 usable training images; at least 3 are needed",
    ),
    "a class of two": (
        lambda f: remove(f, "dog/[5-9].png"),
        "dog: 2 usable training images; at least 3 are needed",
    ),
    "a folder in a class's folder": (nested, "cat/more: a folder inside a class's folder"),
    "a folder around the classes": (
        lambda f: [(f / "all").mkdir(), *((f / n).rename(f / "all" / n) for n in ("cat", "dog"))],
        'all is the only folder: name it in data.path: ".*own/all"',
    ),
    "a picture outside": (lambda f: picture(99).save(f / "a.png"), "- a.png: a picture outside"),
    "a picture under two labels": (
        two_labels,
        r"dog/copy.png: the same image as .*cat/0.png, under another label",
    ),
    "grey and colour": (
        lambda f: picture(99, "L").save(f / "cat/a.png"),
        "1 pictures are grey and 8 are in colour",
    ),
    "mixed sizes": (lambda f: picture(99, size=(7, 9)).save(f / "cat/a.png"), "2 sizes, 6x5 and 7x9"),
    "turned sizes": (
        lambda f: (f / "cat/a.jpg").write_bytes(content(picture(99), "JPEG", exif=turned())),
        "2 sizes, 6x5 and 5x6",
    ),
    "a name with a line break": (lambda f: (f / "dog").rename(f / "d\nog"), "visible characters"),
    "a name with a space at its end": (lambda f: (f / "dog").rename(f / "dog "), "visible characters"),
    "a file with control characters in its name": (
        lambda f: (f / "cat/a\x1b[2J\n.png").touch(),
        "cat/a�\\[2J�.png: it is empty",
    ),
    "a name that is no text": (
        lambda f: os.rename(os.fsencode(f / "dog"), os.fsencode(f) + b"/d\xff"),
        "visible characters",
    ),
    "a link to nothing": (lambda f: (f / "cat/a.png").symlink_to("nowhere"), "cat/a.png: it does not exist"),
    "a link to a folder": (
        lambda f: (f / "owl").symlink_to(f / "cat"),
        "owl: a link to a folder, in which DVC sees no changes",
    ),
    "a device": (
        lambda f: (f / "cat/a.png").symlink_to("/dev/zero"),
        "cat/a.png: it is not an ordinary file",
    ),
    "a pipe": (lambda f: os.mkfifo(f / "cat/a.png"), "cat/a.png: it is not an ordinary file"),
}


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    return exif


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_a_bad_folder_is_refused_with_the_reason(tmp_path, monkeypatch, name):
    spoil, reason = BAD_FOLDERS[name]
    folder = good_folder(tmp_path / "own")
    spoil(folder)
    assert_refused(monkeypatch, tmp_path, folder, reason)


BAD_PARTS = {
    "the same picture in training and test": (
        leak,
        r"test/cat/copy.png: .*train/cat/0.png: a leak between train and test",
    ),
    "a class that train lacks": (
        lambda f: good_folder(f / "test", ("owl",), 900),
        "test has owl, which train lacks",
    ),
    "a class without training pictures": (lambda f: remove(f, "train/dog/*"), "train/dog: no pictures"),
    "a part within a part": (
        lambda f: good_folder(f / "train/cat", ("test",), 900),
        "train/cat/test: a folder inside",
    ),
    "two folders for validation": (
        lambda f: [good_folder(f / part, start=700 + k) for k, part in enumerate(("validation", "val"))],
        "val, validation: 2 folders of one part",
    ),
    "a picture beside the classes of a part": (
        lambda f: picture(99).save(f / "test/a.png"),
        "test/a.png: a picture outside",
    ),
    "too few training pictures": (
        lambda f: remove(f, "train/cat/[1-9].png"),
        "cat: 1 usable training images; at least 2 are needed",
    ),
}


@pytest.mark.parametrize("name", BAD_PARTS)
def test_bad_parts_are_refused_with_the_reason(tmp_path, monkeypatch, name):
    spoil, reason = BAD_PARTS[name]
    parts(tmp_path)
    spoil(tmp_path / "own")
    assert_refused(monkeypatch, tmp_path, tmp_path / "own", reason)


def problems_of(folder):
    return survey(options(folder)).problems


@pytest.mark.parametrize("inner", ["dataset", "one/two/three"])
@pytest.mark.parametrize("names", [("train", "test"), ("train",), ()])
def test_of_a_folder_around_the_data_only_the_right_path_is_said(tmp_path, inner, names):
    (tmp_path / "My Photos" / inner).parent.mkdir(parents=True)
    good_folder(tmp_path / "own") if not names else parts(tmp_path, names)
    (tmp_path / "own").rename(tmp_path / "My Photos" / inner)
    (tmp_path / "My Photos/.DS_Store").touch()
    (tmp_path / "My Photos/read me.txt").touch()
    path = tmp_path / "My Photos"
    assert problems_of(path) == [f'{inner} is the only folder: name it in data.path: "{path / inner}".']
    assert not problems_of(path / inner)


def test_a_folder_in_the_only_class_is_not_taken_for_the_data(tmp_path):
    folder = good_folder(tmp_path / "own", ("cat",))
    nested(folder)
    first, *others = problems_of(folder)
    assert first == "cat: the only folder here. If it holds the classes, name it in data.path."
    assert len(others) == 2


def test_a_link_to_the_folder_around_it_is_not_followed(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "loop").symlink_to(folder)
    assert any("a link to a folder" in problem for problem in problems_of(folder))


def test_the_right_path_is_said_without_control_characters(tmp_path):
    (tmp_path / "own").mkdir()
    good_folder(tmp_path / "own/all\x1b[2J")
    assert problems_of(tmp_path / "own")[0].startswith("all�[2J is the only folder: ")


def test_of_a_classs_own_folder_its_pictures_are_counted(tmp_path):
    assert problems_of(good_folder(tmp_path / "own") / "cat") == [
        "no folder of a class, but 4 pictures outside of one. Name the folder above it if this is one class."
    ]


def test_pictures_and_folders_in_the_same_wrong_place_are_one_problem(tmp_path):
    folder = good_folder(tmp_path / "own")
    for number in range(5):
        picture(90 + number).save(folder / f"{number}.png")
        (folder / f"dog/inner {number}").mkdir()
    assert problems_of(folder) == [
        "0.png and 4 more: pictures outside of the classes' folders. Move or remove them.",
        "dog/inner 0 and 4 more: folders inside a class's folder. Move the pictures up, or remove them.",
    ]


def test_a_class_that_is_renamed_in_one_part_is_one_problem(tmp_path):
    parts(tmp_path)
    (tmp_path / "own/train/cat").rename(tmp_path / "own/train/Bear")
    (tmp_path / "own/test/cat").rename(tmp_path / "own/test/Bär")
    assert problems_of(tmp_path / "own") == [
        "train has Bear, which test lacks; test has Bär, which train lacks. Each class needs the same name in "
        "both."
    ]


def test_of_many_classes_that_train_lacks_some_are_named(tmp_path):
    parts(tmp_path)
    good_folder(tmp_path / "own/test", [f"c{number:02}" for number in range(30)], 900)
    (problem,) = problems_of(tmp_path / "own")
    assert problem.startswith("test has c00, c01, ")
    assert " c09 and 20 more, which train lacks." in problem


def test_an_empty_class_is_one_problem(tmp_path):
    folder = good_folder(tmp_path / "own")
    (folder / "owl").mkdir()
    assert problems_of(folder) == ["owl: no pictures."]


def test_more_than_three_sizes_are_a_range(tmp_path):
    folder = good_folder(tmp_path / "own")
    for number in range(3):
        picture(90 + number, size=(20 + number, 20)).save(folder / f"cat/x{number}.png")
    assert "the pictures have 4 sizes, from 6x5 to 22x20 pixels. Set " in problems_of(folder)[0]


def good_arrays():
    rng = np.random.default_rng(0)
    labels = np.arange(12) % 3
    return {
        "train_images": rng.integers(0, 256, (12, 5, 4, 3), np.uint8),
        "train_labels": labels,
        "test_images": rng.integers(0, 256, (6, 5, 4, 3), np.uint8),
        "test_labels": labels[:6],
    }


def with_label(number, value):
    labels = np.arange(12) % 3
    labels[number] = value
    return {"train_labels": labels}


A = good_arrays()
BAD_ARRAYS = {  # what is changed in good arrays (None: removed), and what is said
    "no images": ({"train_images": None}, "train_images is missing"),
    "no labels": ({"train_labels": None}, "train_labels is missing"),
    "no training part": (
        {"train_images": None, "train_labels": None},
        "train_images and train_labels are missing",
    ),
    "test images without labels": ({"test_labels": None}, "test_labels is missing"),
    "an array under both names": ({"x_train": A["train_images"]}, "train_images is in it twice"),
    "an unknown name": ({"trian_images": A["train_images"]}, "trian_images: not a known name"),
    "floats": ({"train_images": A["train_images"] / 255}, "train_images: numbers of type float64"),
    "wide integers": (
        {"train_images": A["train_images"].astype(np.int32)},
        "train_images: numbers of type int32",
    ),
    "channels first": ({"train_images": A["train_images"].transpose(0, 3, 1, 2)}, "Put the channels last"),
    "four channels": ({"train_images": np.zeros((12, 5, 4, 4), np.uint8)}, r"shape \(12, 5, 4, 4\)"),
    "flat images": ({"train_images": np.zeros((12, 60), np.uint8)}, r"shape \(12, 60\)"),
    "images without pixels": ({"train_images": np.zeros((12, 0, 4, 3), np.uint8)}, r"shape \(12, 0, 4, 3\)"),
    "no training images": (
        {"train_images": A["train_images"][:0], "train_labels": A["train_labels"][:0]},
        "train_images: no images",
    ),
    "a single number": ({"train_images": np.uint8(3)}, r"shape \(\)"),
    "one label too few": ({"train_labels": A["train_labels"][1:]}, "12 images and 11 labels"),
    "one-hot targets": ({"train_labels": np.eye(3)[A["train_labels"]]}, r"targets.argmax\(axis=1\)"),
    "fractions as labels": ({"train_labels": A["train_labels"] / 2}, "train_labels: float64"),
    "texts as labels": (
        {"train_labels": A["train_labels"].astype(str)},
        r"train_labels: texts of shape .*np.unique\(labels, ",
    ),
    "texts as bytes as labels": (
        {"train_labels": A["train_labels"].astype("S")},
        r"train_labels: texts as bytes of .*np.unique\(labels, ",
    ),
    "labels that count from 1": (
        {"train_labels": A["train_labels"] + 1, "test_labels": A["test_labels"] + 1},
        r"no image of class 0; .*Do they count from 1\? Then subtract 1\.",
    ),
    "a negative label": (with_label(0, -1), "numbers from -1 to 2"),
    "a huge label": (with_label(0, 10**9), "numbers from 0 to 1000000000"),
    "a class without images": (with_label(slice(2, None, 3), 3), "train_labels: no image of class 2"),
    "a test label that training lacks": ({"test_labels": np.arange(6)}, "test_labels: labels up to 5"),
    "more labels than names": ({"class_names": np.array(["a", "b"])}, "there are 2 classes"),
    "more names than labels": ({"class_names": np.array(list("abcd"))}, "no image of class 3"),
    "two equal names": ({"class_names": np.array(["a", "b", "a"])}, "class_names: each must be different"),
    "a name with a line break": ({"class_names": np.array(["a", "b", "c\nd"])}, "visible characters"),
    "an empty name": ({"class_names": np.array(["a", "b", ""])}, "visible characters"),
    "numbers as names": ({"class_names": np.arange(3)}, "class_names: int64"),
    "objects": ({"train_images": np.array([{}, None] * 6, object)}, "train_images: it holds Python objects"),
    "test images of another shape": ({"test_images": np.zeros((6, 9, 9, 3), np.uint8)}, "differ in shape"),
    "one class": ({"train_labels": np.zeros(12, int), "test_labels": np.zeros(6, int)}, "one class, 0"),
    "a class of one": (with_label(slice(0, 9, 3), 1), "0: 1 usable training images; at least 2 are needed"),
    "the same image in training and test": (
        {"test_images": np.concatenate([A["train_images"][:1], A["test_images"][1:]])},
        "test image 0: the same image as train image 0: a leak",
    ),
    "the same image under two labels": (
        {"train_images": np.concatenate([A["train_images"][:11], A["train_images"][:1]])},
        "train image 11: the same image as train image 0, under another label",
    ),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays_are_refused_with_the_reason(tmp_path, monkeypatch, name):
    changes, reason = BAD_ARRAYS[name]
    arrays = {key: value for key, value in (good_arrays() | changes).items() if value is not None}
    np.savez(tmp_path / "own.npz", **arrays)
    assert_refused(monkeypatch, tmp_path, tmp_path / "own.npz", reason)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cannot be read as an .npz file"),
        (b"not an archive", "cannot be read as an .npz file"),
        (b"PK\x05\x06" + bytes(18), "train_images and train_labels are missing"),
        (content(picture()), "cannot be read as an .npz file"),
        (b"\x80\x04.", "cannot be read as an .npz file"),  # a pickle
    ],
)
def test_a_file_that_is_no_npz_file_is_refused(tmp_path, monkeypatch, data, reason):
    (tmp_path / "own.npz").write_bytes(data)
    assert_refused(monkeypatch, tmp_path, tmp_path / "own.npz", reason)


def test_an_npy_file_under_the_wrong_name_is_refused(tmp_path, monkeypatch):
    with (tmp_path / "own.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    assert_refused(monkeypatch, tmp_path, tmp_path / "own.npz", "it is an .npy file, of one array")


@pytest.mark.parametrize("cut", [10, 200, 1000])
def test_a_damaged_npz_file_is_refused(tmp_path, monkeypatch, cut):
    path = tmp_path / "own.npz"
    np.savez(path, **good_arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[:cut] + whole[cut + 50 :])
    assert_refused(monkeypatch, tmp_path, path, "own.npz cannot be used")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("data/README.md", "data.path does not name your images"),
        ("nowhere", "nowhere does not exist"),
        ("a.txt", "a.txt is neither a folder nor an .npz file"),
        ("empty", "no class: a network needs at least two"),
        ("data/raw/mine", "lies in data/raw, which DVC empties"),
        ("data/../models", "lies in models, which DVC empties"),
    ],
)
def test_a_path_without_images_is_refused(tmp_path, monkeypatch, path, reason):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "empty").mkdir()
    assert_refused(monkeypatch, tmp_path, Path(path), reason)


@pytest.mark.parametrize("test_size", [0.9, 0.01, 1, 50])
def test_a_split_that_leaves_a_part_without_classes_is_refused(tmp_path, monkeypatch, test_size):
    folder = good_folder(tmp_path / "own")
    assert_refused(monkeypatch, tmp_path, folder, "cannot be split", test_size=test_size)


def assert_refused(monkeypatch, tmp_path, path, reason, **changes):
    """preprocess stops with this reason, and leaves what an earlier run has written."""
    monkeypatch.chdir(tmp_path)
    PROCESSED.mkdir(parents=True)
    (PROCESSED / "dataset.json").write_text("earlier")
    with pytest.raises(UserError, match=f"(?s){reason}"):
        preprocess(options(path, **changes), 0)
    assert [file.name for file in PROCESSED.iterdir()] == ["dataset.json"]
    assert (PROCESSED / "dataset.json").read_text() == "earlier"
