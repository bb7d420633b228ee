"""`python -m pipeline predict`, with a network that the test trains in a few seconds."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from photographs import drawn_seven, enlarge, photograph
from PIL import Image
from sklearn.datasets import load_digits

from cnn import SGD, checkpoint, softmax_cross_entropy
from pipeline import __main__ as program
from pipeline.apps import predict as command
from pipeline.apps.photograph import find_digit, frame
from pipeline.config.architectures import build_model
from pipeline.data.readers.idx import read_idx
from pipeline.stages.preprocess import one_hot, scale

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
DATA = {"dataset": "mnist", "class_names": NAMES, "image_shape": [28, 28, 1], "mean": 0.13, "deviation": 0.31}
DATA["examples"] = {"train": 1, "validation": 1, "test": 1}


def mnist():
    """(training images, their labels, test images, their labels): 12,000 and 300 of MNIST."""
    parts = []
    for part, count in (("train", 12_000), ("t10k", 300)):
        images, _ = read_idx(MNIST[0] / f"{part}-images-idx3-ubyte.gz", 3)
        labels, _ = read_idx(MNIST[0] / f"{part}-labels-idx1-ubyte.gz", 1)
        parts += [scale(images[:count])[..., 0], labels[:count]]
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
    images = ((images - DATA["mean"]) / DATA["deviation"]).astype(np.float32)[..., np.newaxis]
    rng = np.random.default_rng(0)
    model = build_model(LAYERS, "the test", (28, 28, 1), 10, rng)
    optimizer = SGD(model.parameters(), 0.05, momentum=0.9)
    targets = one_hot(labels, 10)
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


def save(model, **data):
    metadata = {"architecture": "baseline", "layers": LAYERS, "data": DATA | data, "epoch": 1}
    metadata["environment"] = {"machine": "none", "numpy": "none", "numpy_simd": [], "blas": []}
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
    (logits,) = trained.forward((image - np.float32(0.13)) / np.float32(0.31))
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
    assert err == "error: missing.png does not exist.\n"
    seven, missing, chalk = json.loads(out)
    assert missing == {"file": "missing.png", "error": "missing.png does not exist."}
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
    assert err.startswith("error: b.png is not an image in a known format.")
    assert len(err.splitlines()) == 1


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
    assert predict("a.png")[0] == "error: models/model.npz is missing. Make it with: dvc repro train"


def test_a_network_for_other_things_than_digits_says_so_and_uses_its_own_names(project, predict, trained):
    names = ["shirt", "trouser", "pullover", "dress", "coat", "sandal", "blouse", "sneaker", "bag", "boot"]
    save(trained, dataset="fashion_mnist", class_names=names)
    drawn_seven().save("a.png")
    code, out, err = predict("a.png")
    assert code == 0
    assert out.startswith("a.png: sneaker\n")
    assert err.startswith("note: The network was trained on fashion_mnist, not on handwritten digits.")
    assert len(err.splitlines()) == 1


def test_a_name_that_is_no_text_is_no_obstacle(project, predict):
    name = "seven\udcff.png"  # a byte that is not UTF-8
    drawn_seven().save(name, format="PNG")
    code, out, _ = predict(name)
    assert code == 0
    assert out.startswith("seven?.png: 7")
