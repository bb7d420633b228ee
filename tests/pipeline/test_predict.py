"""`python -m pipeline predict`, with a network that the test trains in a few seconds."""

import base64
import json
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from photographs import drawn_seven, enlarge, photograph
from PIL import Image
from rich.cells import cell_len
from scipy import ndimage
from sklearn.datasets import load_digits

from cnn import SGD, checkpoint, softmax_cross_entropy
from pipeline import __main__ as program
from pipeline.apps import predict as command
from pipeline.apps.photograph import find_digit, frame
from pipeline.artefacts.preprocess import Description
from pipeline.config.architectures import build_model
from pipeline.data.readers.folder import Pictures
from pipeline.data.readers.idx import read_idx
from pipeline.stages.preprocess import one_hot

ROOT = Path(__file__).parents[2]
MNIST = [
    folder for folder in (ROOT / "data/raw/mnist", ROOT.parent / "shared/datasets/mnist") if folder.is_dir()
]
LAYERS = [
    {"type": "conv2d", "out_channels": 8, "kernel_size": 3},
    {"type": "relu"},
    {"type": "max_pool2d", "kernel_size": 2},
    {"type": "flatten"},
    {"type": "dense", "out_features": 10},
]
NAMES = [str(digit) for digit in range(10)]
MEAN, DEVIATION = np.float32(0.13), np.float32(0.31)
DATA = {
    "dataset": "mnist",
    "title": "MNIST",
    "class_names": NAMES,
    "image_shape": [28, 28, 1],
    "framing": "digit",
    "background": [0.0],
    "mean": [0.13],
    "deviation": [0.31],
    "examples": {"train": 1, "validation": 1, "test": 1},
}
COLOUR = {"background": [0.0] * 3, "mean": [0.5] * 3, "deviation": [0.25] * 3}
RED, GREEN, BLUE = (200, 30, 40), (20, 180, 60), (30, 40, 220)


def mnist():
    """(training images, their labels, test images, their labels): 12,000 and 300 of MNIST."""
    parts = []
    for part, count in (("train", 12_000), ("t10k", 300)):
        images, _ = read_idx(MNIST[0] / f"{part}-images-idx3-ubyte.gz", 3)
        labels, _ = read_idx(MNIST[0] / f"{part}-labels-idx1-ubyte.gz", 1)
        parts += [images[:count] / np.float32(255), labels[:count]]
    return parts


def small_digits():
    """The same for scikit-learn's 8x8 digits; the training images are framed like MNIST's."""
    images, labels = load_digits(return_X_y=True)
    smooth = [enlarge(np.pad(image.reshape(8, 8) / 16, 3), 140) for image in images]
    train = np.stack([frame(ink, ink > 0.5) for ink in smooth[:-300]])
    large = [np.asarray(Image.fromarray(ink.astype(np.float32)).resize((28, 28))) for ink in smooth[-300:]]
    return [train, labels[:-300], np.stack(large), labels[-300:]]


@pytest.fixture(scope="module")
def examples():
    return mnist() if MNIST else small_digits()


@pytest.fixture(scope="module")
def trained(examples):
    """A network trained for a few epochs."""
    images, labels = examples[:2]
    images = ((images - MEAN) / DEVIATION).astype(np.float32)[..., np.newaxis]
    rng = np.random.default_rng(0)
    model = build_model(LAYERS, "the test", (28, 28, 1), 10, rng)
    optimizer = SGD(model.parameters(), 0.05, momentum=0.9)
    targets = one_hot(labels, 10).astype(np.float32)
    for _ in range(2 if MNIST else 15):
        order = rng.permutation(len(images))
        for batch in np.array_split(order, len(order) // 64):
            _, grad = softmax_cross_entropy(model.forward(images[batch], training=True), targets[batch])
            model.backward(grad)
            optimizer.step()
    return model


@pytest.fixture
def project(trained, tmp_path, monkeypatch):
    """A folder with the trained network, in which predict runs."""
    monkeypatch.chdir(tmp_path)
    save(trained)
    return tmp_path


def save(model, layers=LAYERS, **data):
    metadata = {"architecture": "baseline", "layers": layers, "data": DATA | data, "epoch": 1}
    metadata["environment"] = {"machine": "none", "numpy": "none", "numpy_simd": "", "pillow": "", "blas": ""}
    checkpoint.save(Path("models/model.npz"), model.state_dict(), metadata)


@pytest.fixture
def predict(monkeypatch, capsys):
    """predict(*arguments): (exit code or message, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pipeline", "predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            program.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


def test_nine_of_ten_photographed_digits_are_recognised(project, predict, examples):
    """Of test digits, which the network never saw, as photographs of 200 to 900 pixels."""
    digits, labels = examples[2:]
    files = [f"{number}.png" for number in range(50)]
    for number, file in enumerate(files):
        Image.fromarray(photograph(digits[number], np.random.default_rng(number))).save(file)
    _, out, _ = predict("--json", *files)
    right = [
        result.get("prediction") == str(label) for result, label in zip(json.loads(out), labels, strict=False)
    ]
    assert np.mean(right) >= (0.9 if MNIST else 0.85)  # enlarged 8x8 digits are harder to recognise


def test_probabilities_are_the_softmax_of_what_the_network_says_of_standardised_pixels(
    project, predict, trained
):
    drawn_seven().save("seven.png")
    _, out, _ = predict("--json", "seven.png")
    image = find_digit(Path("seven.png")).image.reshape(1, 28, 28, 1)
    (logits,) = trained.forward((np.rint(255 * image) / np.float32(255) - MEAN) / DEVIATION)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert list(json.loads(out)[0]["probabilities"].values()) == pytest.approx(expected, rel=1e-3)


def test_the_chart_is_read_without_colour(project, predict):
    drawn_seven().save("seven.png")
    code, out, err = predict("seven.png")
    assert (code, err) == (0, "")
    title, *lines = out.splitlines()
    assert title == "seven.png: 7"
    assert [line[1:].split()[0] for line in lines] == NAMES
    (marked,) = [line for line in lines if line.startswith(">")]
    assert marked.split()[:2][1] == "7"
    share = float(marked.split()[2].removesuffix("%")) / 100
    assert marked.count("█") == pytest.approx(40 * share, abs=1)
    assert max(line.count("█") for line in lines) == marked.count("█")
    assert "\x1b" not in out


def test_json_is_one_document_with_a_result_for_each_file(project, predict):
    drawn_seven().save("seven.png")
    drawn_seven(paper=20, ink=220).save("chalk.png")
    code, out, err = predict("seven.png", "--json", "missing.png", "chalk.png")
    assert code == 1
    assert err == "error: missing.png: it does not exist.\n"
    seven, missing, chalk = json.loads(out)
    assert missing == {"file": "missing.png", "error": "missing.png: it does not exist."}
    for result, file in ((seven, "seven.png"), (chalk, "chalk.png")):
        assert (result["file"], result["prediction"]) == (file, "7")
        assert list(result["probabilities"]) == NAMES
        assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert max(result["probabilities"], key=result["probabilities"].get) == "7"


def test_one_bad_file_does_not_hide_the_others(project, predict):
    drawn_seven().save("a.png")
    Path("b.png").write_text("no image")
    drawn_seven().save("c.png")
    code, out, err = predict("a.png", "b.png", "c.png")
    assert code == 1
    assert "a.png: 7" in out
    assert "c.png: 7" in out
    assert err.startswith("error: b.png: it is not an image in a known format")
    assert len(err.splitlines()) == 1


def png_of_size(width, height):
    """A grey PNG that says it is so large; its pixels are missing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png_of_size(60_000, 60_000), "a drawing in it is far too large."),
        (png_of_size(40, 28), "drawing 1 has 40x28 pixels, and this network receives 28x28."),
        (png_of_size(28, 28), "it cannot be read: "),
        (b"no picture", "it cannot be read: a drawing in it is no picture."),
        (None, "a .json file must be one of drawings that the playground has saved."),
    ],
)
def test_a_file_of_drawings_that_cannot_be_read_is_refused_with_the_reason(project, predict, content, reason):
    drawing = {"label": "7", "png": content and f"data:,{base64.b64encode(content).decode()}"}
    Path("drawings.json").write_text(json.dumps({"drawings": [drawing]}))
    drawn_seven().save("c.png")
    code, out, err = predict("drawings.json", "c.png")
    assert code == 1
    assert err.startswith(f"error: drawings.json: {reason}")
    assert "c.png: 7" in out


def test_a_crash_on_one_file_does_not_lose_the_answers_for_others(project, predict, monkeypatch):
    def crash_on_b(path):
        if path.name == "b.png":
            raise IndexError("out of range")
        return find_digit(path)

    monkeypatch.setattr(command, "find_digit", crash_on_b)
    drawn_seven().save("a.png")
    code, out, err = predict("b.png", "a.png", "--json")
    assert code == 1
    assert err.startswith("error: b.png: IndexError: out of range.")
    first, second = json.loads(out)
    assert err == f"error: {first['error']}\n"
    assert second["prediction"] == "7"


def test_pictures_of_files_of_one_name_do_not_overwrite_each_other(project, predict):
    for folder in ("x", "y"):
        Path(folder).mkdir()
        drawn_seven().save(f"{folder}/seven.jpg")
    assert predict("x/seven.jpg", "y/seven.jpg", "--show", "seen")[0] == 0
    assert sorted(path.name for path in Path("seen").iterdir()) == ["1-seven.png", "2-seven.png"]
    with Image.open("seen/1-seven.png") as picture:
        assert picture.width > 1000


def test_pictures_never_take_the_place_of_a_file(project, predict):
    drawn_seven().save("a.png")
    before = Path("a.png").read_bytes()
    code, out, _ = predict("--show", "a.png", "a.png")
    assert code == "error: --show needs a folder for its pictures; a.png is a file."
    assert out == ""
    assert Path("a.png").read_bytes() == before


def test_without_a_trained_network_it_says_how_to_get_one(tmp_path, monkeypatch, predict):
    monkeypatch.chdir(tmp_path)
    drawn_seven().save("a.png")
    assert predict("a.png")[0].startswith("error: There is no params.yaml in this folder")
    (tmp_path / "params.yaml").touch()
    assert predict("a.png")[0] == "error: models/model.npz is missing. Make it with: dvc repro train"


def test_a_name_that_is_no_text_is_no_obstacle(project, predict):
    name = "seven\udcff.png"  # a byte that is not UTF-8
    drawn_seven().save(name, format="PNG")
    code, out, _ = predict(name)
    assert code == 0
    assert out.startswith("seven�.png: 7")


def test_a_digit_for_a_network_of_another_shape_is_brought_to_it(project):
    drawn_seven().save("seven.png")
    digit = find_digit(Path("seven.png")).image
    image, _ = command.look_at(Path("seven.png"), description(framing="digit", image_shape=(32, 32, 3)))
    assert image.shape == (32, 32, 3)
    assert (image == image[..., :1]).all()
    rows, columns = ndimage.center_of_mass(image[..., 0].astype(float))
    assert (rows, columns) == pytest.approx([x * 32 / 28 for x in ndimage.center_of_mass(digit)], abs=0.7)


# Networks that were trained on other pictures


def description(**changes):
    return Description.model_validate_json(json.dumps(DATA | COLOUR | changes))


def save_colours(names=("red", "green", "blue"), framing="crop", others=0):
    """A network that says which channel is the brightest; it has more classes after those."""
    layers = [{"type": "global_avg_pool2d"}, {"type": "dense", "out_features": 3 + others}]
    model = build_model(layers, "the test", (8, 12, 3), 3 + others, np.random.default_rng(0))
    weight, bias = (model.parameters()[f"1.{part}"].value for part in ("weight", "bias"))
    weight[:], bias[:] = 0, 0
    weight[:, :3] = 20 * np.eye(3)
    names = [*names, *(f"class {number}" for number in range(others))]
    save(model, layers, class_names=names, image_shape=[8, 12, 3], framing=framing, **COLOUR)


@pytest.fixture
def colours(tmp_path, monkeypatch):
    """A folder with a network for three colours."""
    monkeypatch.chdir(tmp_path)
    save_colours()
    for name, colour in (("red", RED), ("green", GREEN), ("blue", BLUE)):
        Image.new("RGB", (300, 90), colour).save(f"{name}.png")


def test_a_picture_is_recognised_by_its_colours(colours, predict):
    _, out, err = predict("--json", "red.png", "green.png", "blue.png")
    assert err == ""
    assert [result["prediction"] for result in json.loads(out)] == ["red", "green", "blue"]


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_training_picture_gives_the_bytes_of_training(tmp_path, rng, fit, suffix):
    """Also a large JPEG file, which is decoded at a fraction of its size."""
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(rng.integers(0, 256, (900, 700, 3), np.uint8)).save(path)
    shape = (24, 32, 3)
    (trained,) = Pictures([path], shape, fit)[:]
    image, _ = command.look_at(path, description(framing=fit, image_shape=shape))
    np.testing.assert_array_equal(image, trained)


def test_the_framing_decides_what_the_network_sees(colours, predict):
    picture = Image.new("RGB", (300, 80), BLUE)  # the middle of 120 pixels is red
    picture.paste(RED, (90, 0, 210, 80))
    picture.save("middle.png")
    answers = {}
    for framing in ("crop", "stretch"):
        save_colours(framing=framing)
        answers[framing] = json.loads(predict("--json", "middle.png")[1])[0]["prediction"]
    assert answers == {"crop": "red", "stretch": "blue"}


def test_of_many_classes_the_five_most_probable_are_shown_and_json_has_all(colours, predict):
    save_colours(others=997)
    _, out, _ = predict("blue.png")
    title, *lines, rest = out.splitlines()
    assert title == "blue.png: blue"
    assert len(lines) == 5
    assert lines[0].startswith(">  blue  ")
    shares = [float(line.split("%")[0].split()[-1]) for line in lines]
    assert shares == sorted(shares, reverse=True)
    assert re.fullmatch(r"   and 995 other classes, together \d+\.\d%", rest)
    (result,) = json.loads(predict("blue.png", "--json")[1])
    assert len(result["probabilities"]) == 1000
    assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-4)


LONG = [
    "a name of a class that is by far too long for one line of any terminal",
    "日本語の猫の名前",
    "[b]:cat: <b>",
]


@pytest.mark.parametrize("width", [0, 1, 20, 40, 80, 200])
def test_names_and_numbers_are_whole_at_any_width(colours, predict, monkeypatch, width):
    save_colours(LONG)
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = predict("green.png")
    title, *lines = out.splitlines()
    assert title == f"green.png: {LONG[1]}"
    assert "…" not in out
    assert max(map(cell_len, lines)) <= (max(width, 20) if width else 80)
    names = "".join(re.sub(r"[\d.]+%.*", "", line[1:]) for line in lines)
    assert names.replace(" ", "") == "".join(LONG).replace(" ", "")
    assert sum(float(share) for share in re.findall(r"([\d.]+)%", out)) == pytest.approx(100, abs=0.2)
    assert ("█" in out) == (width == 0 or width >= 40)


def test_what_the_network_saw_is_saved_in_colour_beside_the_picture_with_its_frame(colours, predict):
    assert predict("red.png", "--show", "seen")[0] == 0
    with Image.open("seen/1-red.png") as picture:
        assert picture.size == (512 + 16 + 512, 341)  # 300x90 pixels, and 12x8
        assert picture.getpixel((10, 10)) == RED
        assert picture.getpixel((512 + 16 + 250, 170)) == RED
        blue = (np.asarray(picture)[40] == (0x2F, 0x7F, 0xD1)).all(axis=1)
    left, right = np.flatnonzero(blue)[[0, -1]]
    assert right - left == pytest.approx(135 * 512 / 300, abs=4)  # the middle in the proportions 12 to 8


def test_a_picture_that_is_used_whole_has_no_frame(colours, predict):
    save_colours(framing="pad")
    predict("red.png", "--show", "seen")
    with Image.open("seen/1-red.png") as picture:
        assert not (np.asarray(picture) == (0x2F, 0x7F, 0xD1)).all(axis=2).any()
