"""`python -m pipeline check-data`: what it prints, what its page shows, and that it changes nothing."""

import base64
import io
import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from projects import SHIPPED
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.apps.check_data import PAGE, size_of_result
from pipeline.config.params import load_params
from pipeline.data.own import survey
from pipeline.errors import UserError
from pipeline.stages.preprocess import split_parts

NAMES = ["<b>bold", 'cat "🐱" & co', "猫"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with params.yaml for pictures of 16x16 pixels in colour."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    text = (SHIPPED / "params.yaml").read_text()
    text = re.sub(r"(?m)^  image_size:", "  image_size: 16", text)
    Path("params.yaml").write_text(re.sub(r"(?m)^  channels:", "  channels: 3", text))


@pytest.fixture
def own(project, rng):
    """A folder with three classes, of 20, 30 and 40 pictures; the number of a class is in its colour."""
    for number, name in enumerate(NAMES):
        Path("own", name).mkdir(parents=True)
        for k in range(20 + 10 * number):
            pixels = rng.integers(0, 20, (24, 20 + 8 * (k % 2), 3), np.uint8)
            pixels[..., number] = 200
            Image.fromarray(pixels).save(Path("own", name, f"{k:02}.png"))
    return Path("own")


def check(*arguments):
    """(exit code, output, page)"""
    result = CliRunner().invoke(app, ["check-data", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.output, PAGE.read_text(encoding="utf-8")


def counts(output):
    """The table of classes: {class: [numbers]}."""
    lines = output.partition("\nImages of each class\n")[2].split("\n")[2:]
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[: lines.index("")]]
    return {name: [int(number) for number in numbers] for name, *numbers in rows}


def tiles(page):
    """The contact sheet: {class: [(title, image)]}."""
    sheet = {}
    for part in page.split("<h3>")[1:]:
        name = unescape(part.partition(" <span")[0])
        found = re.findall(r'<img src="data:image/\w+;base64,([^"]*)" alt="([^"]*)" title="\2"', part)
        sheet[name] = [
            (unescape(title), np.asarray(Image.open(io.BytesIO(base64.b64decode(address)))))
            for address, title in found
        ]
    return sheet


def test_the_counts_are_those_of_the_split(own):
    code, output, page = check(own)
    assert code == 0
    data = load_params().data.model_copy(update={"dataset": "own", "path": str(own)})
    _, labels = split_parts(survey(data).usable.parts(), data, seed=0)
    parts = [np.bincount(labels[part]).tolist() for part in ("train", "validation", "test")]
    expected = {name: [*numbers, sum(numbers)] for name, *numbers in zip(NAMES, *parts, strict=True)}
    assert counts(output) == expected
    for name, numbers in expected.items():
        row = next(row for row in re.findall("<tr>.*?</tr>", page) if name in unescape(row))
        assert re.findall(r"<td>(\d+)</td>", row) == [str(number) for number in numbers]


def test_it_says_what_the_images_are_and_what_happens_to_them(own):
    _, output, page = check(own)
    for text in (
        "usable images: 90",
        "sizes: 20x24 pixels (45 images), 28x24 pixels (45 images)",
        "colours: 90 in colour",
        "each image: is cropped to its middle and resized to 16x16 pixels, in colour",
        "parts: test: 15 % of all images; validation: 5 % of the rest; training: all of the rest",
        "data/processed: 0.1 MB: 90 images of 768 bytes, and their labels",
    ):
        assert f"  {text}\n" in output
        assert text.partition(": ")[2] in unescape(page)
    assert output.endswith("To train on them: dvc exp run -S data.dataset=own -S data.path=own\n")


def test_the_sheet_shows_pictures_of_each_class_as_the_network_receives_them(own):
    _, _, page = check(own)
    data = load_params().data.model_copy(update={"dataset": "own", "path": str(own)})
    images = survey(data).usable.train_images
    sheet = tiles(page)
    assert list(sheet) == NAMES
    for name, shown in sheet.items():
        assert len(shown) == 12
        titles = [title for title, _ in shown]
        files = sorted(str(file.relative_to(own)) for file in (own / name).iterdir())
        assert (titles[0], titles[-1]) == (files[0], files[-1])
        assert titles == sorted(set(titles))
        for title, image in shown:
            (received,) = images[[images.paths.index(own / title)]]
            np.testing.assert_array_equal(image, received)


def test_all_problems_are_listed_and_the_rest_is_shown(own):
    folder = own / NAMES[0]
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no picture")
    shutil.copy(folder / "00.png", own / NAMES[1] / "copy.png")
    (own / "notes.txt").write_text("hello")
    code, output, page = check(own)
    assert code == 1
    problems = [
        f"{NAMES[0]}/empty.png: it is empty.",
        f"{NAMES[0]}/text.jpg: it is not an image in a known format",
        f"{NAMES[1]}/copy.png: the same image as {NAMES[0]}/00.png, under another label",
    ]
    assert "\nProblems, to be solved before training (3):\n" in output
    for problem in problems:
        assert f"\n- {problem}" in output
        assert f"<li>{problem}" in unescape(page)
    assert "notes.txt is not a picture, and is passed over." in output
    assert counts(output) == dict(zip(NAMES, ([20], [30], [40]), strict=True))
    assert [len(shown) for shown in tiles(page).values()] == [12, 12, 12]
    assert "To train" not in output


def test_more_problems_than_an_error_message_has_are_all_printed(own):
    for number in range(120):
        (own / NAMES[0] / f"bad {number}.png").touch()
    _, output, _ = check(own)
    assert output.count(": it is empty.\n") == 120


def test_a_size_that_is_missing_is_a_problem_and_no_size_is_claimed(own):
    shutil.copy(SHIPPED / "params.yaml", "params.yaml")
    code, output, page = check(own)
    assert code == 1
    assert "Set data.image_size, for example to 32" in output
    assert "  each image: is in colour, and needs data.image_size\n" in output
    assert all(tiles(page).values())


@pytest.mark.parametrize(
    ("size", "channels", "what"),
    [
        ("", "", "needs data.image_size and data.channels"),
        (16, "", "is cropped to its middle and resized to 16x16 pixels, and needs data.channels"),
        (16, 1, "is cropped to its middle and resized to 16x16 pixels, grey"),
        ("", 1, "is grey, and needs data.image_size"),
    ],
)
def test_what_happens_to_each_image_is_a_sentence(own, size, channels, what):
    Image.new("L", (20, 24)).save(own / NAMES[0] / "grey.png")
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(
        text.replace("image_size: 16", f"image_size: {size}").replace("channels: 3", f"channels: {channels}")
    )
    _, output, _ = check(own)
    assert f"  each image: {what}\n" in output
    assert ("data/processed" in output) == (
        what == "is cropped to its middle and resized to 16x16 pixels, grey"
    )


def test_more_than_three_sizes_are_a_range(own):
    for number in range(2):
        Image.new("RGB", (30 + number, 30), (0, 0, 9)).save(own / NAMES[0] / f"x{number}.png")
    _, output, _ = check(own)
    assert "  sizes: 4, from 20x24 to 31x30 pixels; the most frequent is 20x24, of 45 images\n" in output


def test_classes_with_few_images_or_none_in_a_part_are_noted(project, rng):
    sizes = {"train": [10, 3, 12, 9, 3], "validation": [5, 0, 5, 5, 0], "test": [5, 2, 0, 1, 0]}
    arrays = {"class_names": ["ant", "zoo 1", "<i>", "owl", "bee"]}
    for part, counts in sizes.items():
        arrays[f"{part}_labels"] = np.repeat(np.arange(5), counts)
        arrays[f"{part}_images"] = rng.integers(0, 256, (sum(counts), 16, 16, 3), np.uint8)
    np.savez("own.npz", **arrays)
    code, output, page = check("own.npz")
    notes = [
        "zoo 1: 3 training images, none for validation; with so few, the figures for this class say little.",
        "<i>: 12 training images, none for test; with so few, the figures for this class say little.",
        "owl: 9 training images; with so few, the figures for this class say little.",
        "bee: 3 training images, none for validation and test; with so few, the figures for this class say "
        "little.",
    ]
    assert code == 0
    assert "\nNotes (4):\n" + "".join(f"- {note}\n" for note in notes) in output
    assert [note for note in notes if f"<li>{note}</li>" in unescape(page)] == notes
    assert 'Read the <a href="#notes">notes</a> first.' in page


def test_enough_images_of_each_class_are_not_noted(own):
    _, output, page = check(own)
    assert "Notes" not in output
    assert "notes</a>" not in page


def test_a_large_result_is_noted(own):
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("image_size: 16", "image_size: [2000, 2048]"))
    surveyed = survey(load_params().data.model_copy(update={"dataset": "own", "path": "own"}))
    fact, notes = size_of_result(90, surveyed, load_params().data)
    assert fact == "1.1 GB: 90 images of 12,288,000 bytes, and their labels"
    assert notes == [
        "data/processed will take 1.1 GB, and as much again in DVC's cache. A smaller data.image_size takes less."
    ]
    assert size_of_result(80, surveyed, load_params().data)[1] == []


def test_a_path_may_begin_with_the_home_folder(own, monkeypatch):
    monkeypatch.setenv("HOME", str(Path.cwd()))
    code, output, _ = check("~/own")
    assert code == 0
    assert output.startswith(f"{Path.cwd() / 'own'}:\n")
    with pytest.raises(UserError, match=r"^~nobody-has-this-name/own does not exist"):
        check("~nobody-has-this-name/own")


def test_a_split_that_is_impossible_is_a_problem(own):
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("test_size: 0.15", "test_size: 2"))
    code, output, page = check(own)
    assert code == 1
    assert "- The 90 training images of own cannot be split into 88 for training and 2 for test" in output
    assert " In params.yaml: data.train_size and data.test_size.</li>" in page


def test_names_are_shown_as_text_and_the_page_needs_no_other_file(own):
    (own / NAMES[2] / '"><script>alert(1)<script>.png').touch()
    (own / NAMES[2] / "esc\x1b[31m\nape.png").touch()
    _, output, page = check(own)
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;bold" in page
    assert "\x1b" not in output
    assert "esc�[31m�ape.png: it is empty." in output
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "default-src 'none'" in page


def test_a_name_that_is_no_text_is_no_obstacle(own):
    shutil.copy(own / NAMES[0] / "00.png", own / NAMES[0] / "zz\udcff.png")
    _, output, _ = check(own)
    assert "zz�.png: the same image as" in output


def test_an_npz_file_is_checked_too(project, rng):
    images = rng.integers(0, 256, (60, 16, 16, 3), np.uint8)
    labels = np.arange(60) % 3
    np.savez(
        "own.npz",
        train_images=images,
        train_labels=labels,
        test_images=images[::-1] // 2,
        test_labels=labels[::-1],
        class_names=NAMES,
    )
    code, output, page = check("own.npz")
    assert code == 0
    assert "  size: 16x16 pixels, all of them\n" in output
    assert "  each image: stays at 16x16 pixels, in colour\n" in output
    assert counts(output) == {name: [19, 1, 20, 40] for name in NAMES}
    for title, image in tiles(page)[NAMES[1]]:
        part, number = re.fullmatch(r"(\w+) image (\d+)", title).groups()
        expected = images if part == "train" else images[::-1] // 2
        np.testing.assert_array_equal(image, expected[int(number)])


@pytest.mark.parametrize(("classes", "each", "side"), [(40, 9, 96), (400, 1, 48)])
def test_many_classes_have_fewer_pictures_on_a_small_page(project, rng, classes, each, side):
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("image_size: 16", "image_size: 128"))
    count = 10 * classes
    images = rng.integers(0, 256, (count, 12, 12, 3), np.uint8)
    np.savez("own.npz", train_images=images, train_labels=np.arange(count) % classes)
    sheet = tiles(check("own.npz")[2])
    assert len(sheet) == classes
    assert {len(shown) for shown in sheet.values()} == {each}
    assert {image.shape for shown in sheet.values() for _, image in shown} == {(side, side, 3)}
    assert PAGE.stat().st_size < 5_000_000


def test_nothing_but_the_page_is_written(own):
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    check(own)
    assert {
        path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path != PAGE
    } == before


def test_without_a_path_that_of_params_is_checked(own):
    path = Path("params.yaml")
    text = path.read_text().replace("dataset: mnist", "dataset: own")
    path.write_text(text.replace("path: data/README.md", "path: own"))
    code, output, _ = check()
    assert code == 0
    assert output.startswith("own:\n")
    assert output.endswith("To train on them: dvc repro\n")


def test_another_dataset_is_named_with_the_command_for_own_images(project):
    with pytest.raises(UserError) as error:
        check()
    assert str(error.value).startswith("params.yaml chooses the dataset mnist, ")
    assert str(error.value).endswith(": python -m pipeline check-data FOLDER")


def test_an_empty_folder_is_a_problem(project):
    Path("own").mkdir()
    code, output, page = check("own")
    assert code == 1
    assert "a network needs at least two classes" in output
    assert "Images of each class" not in output
    assert "Pictures of each class" not in output
    assert output.endswith("\nAs a page: reports/check_data.html\n")
    assert tiles(page) == {}
