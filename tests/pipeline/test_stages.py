from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from projects import SHIPPED
from rich.console import Console
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from cnn import EpochReport, Examples, softmax_cross_entropy
from pipeline.artefacts.evaluate import ClassMeasures, Prediction, largest_confusions, load_predictions
from pipeline.artefacts.files import Files, load_files
from pipeline.artefacts.preprocess import Description
from pipeline.config.params import load_params
from pipeline.data.dataset import RawData
from pipeline.errors import UserError
from pipeline.report.figures import confusion_matrix_figure, save_figure, training_curves_figure
from pipeline.stages import preprocess as preprocess_stage
from pipeline.stages import train
from pipeline.stages.evaluate import format_matrix, measure, to_predictions, top_accuracy
from pipeline.stages.preprocess import one_hot, split_parts

LABELS = np.repeat(np.arange(10, dtype=np.uint8), 30)


def data(**changes):
    return load_params(SHIPPED / "params.yaml").data.model_copy(
        update={"dataset": "digits", "validation_size": 0.1} | changes
    )


def split(labels, data, seed):
    """The rows for training and for validation."""
    images = np.arange(len(labels))  # stand for images
    parts = {"train": (images, labels), "test": (images, labels)}
    selected, _ = split_parts(parts, data, seed)
    return selected["train"][1], selected["validation"][1]


def describe(**changes):
    return Description(
        **{
            "dataset": "digits",
            "title": "digits",
            "class_names": ["a", "b"],
            "image_shape": (2, 2, 1),
            "framing": "crop",
            "background": [0.0],
            "mean": [0.0],
            "deviation": [1.0],
            "examples": {"train": 1, "validation": 1, "test": 1},
        }
        | changes
    )


def test_pixels_become_fractions():
    images = np.array([[[0, 51], [255, 1]]], np.uint8)[..., None]
    scaled = describe().normalise(images)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[0, :, :, 0], [[0, 0.2], [1, 1 / 255]], rtol=1e-7)


def test_normalisation_by_channel_and_its_inverse(rng):
    images = rng.integers(0, 256, (3, 4, 5, 3), np.uint8)
    description = describe(
        image_shape=(4, 5, 3), background=[0, 0, 1], mean=[0.1, 0.2, 0.3], deviation=[0.5, 1, 2]
    )
    x = description.normalise(images)
    expected = (images / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 1, 2])
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(description.brightness(x), images / 255, atol=1e-6)
    np.testing.assert_allclose(description.normalised_background, [-0.2, -0.2, 0.35], rtol=1e-6)
    np.testing.assert_allclose(description.normalised_black, [-0.2, -0.2, -0.15], rtol=1e-6)
    np.testing.assert_allclose(description.normalised_white, [1.8, 0.8, 0.35], rtol=1e-6)


def test_one_hot_has_a_one_in_the_labels_column():
    np.testing.assert_array_equal(one_hot(np.array([2, 0], np.uint8), 3), [[0, 0, 1], [1, 0, 0]])


def test_the_split_is_a_partition_in_the_proportions_of_the_classes():
    train, validation = split(LABELS, data(), seed=0)
    assert sorted([*train, *validation]) == list(range(300))
    assert np.bincount(LABELS[validation]).tolist() == [3] * 10
    assert np.bincount(LABELS[train]).tolist() == [27] * 10


def test_a_smaller_training_set_keeps_the_proportions_and_stays_clear_of_validation():
    train, validation = split(LABELS, data(train_size=50, validation_size=20), seed=0)
    assert np.bincount(LABELS[train]).tolist() == [5] * 10
    assert np.bincount(LABELS[validation]).tolist() == [2] * 10
    assert not set(train) & set(validation)


def test_the_split_depends_on_the_seed_alone():
    one, same, other = (split(LABELS, data(), seed)[1].tolist() for seed in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize(
    ("train_size", "validation_size"), [(None, 300), (None, 5), (9, 0.1), (290, 20), (None, 0.99)]
)
def test_a_split_that_cannot_be_is_refused(train_size, validation_size):
    with pytest.raises(UserError, match="cannot be split into"):
        split(LABELS, data(train_size=train_size, validation_size=validation_size), seed=0)


def test_each_part_has_some_of_a_rare_class():
    labels = np.repeat([0, 1, 2], [300, 3, 40])
    images = np.arange(len(labels))  # stand for images
    for train_size in (None, 200, 3):
        options = data(test_size=0.1, validation_size=5, train_size=train_size)
        selected, chosen = split_parts({"train": (images, labels)}, options, 0)
        rows = np.concatenate([rows for _, rows in selected.values()])
        assert len(set(rows)) == len(rows)  # no image is in two parts
        assert [len(chosen[part]) for part in ("test", "validation")] == [34, 5]
        assert len(chosen["train"]) == train_size or len(rows) == len(labels)
        for part, (_, rows) in selected.items():
            np.testing.assert_array_equal(chosen[part], labels[rows])
            assert set(chosen[part]) == {0, 1, 2}


@pytest.mark.parametrize("train_size", [1, 299, 300, 301])
def test_a_training_size_is_refused_if_all_parts_are_given_and_it_leaves_too_few(train_size):
    parts = dict.fromkeys(("train", "validation", "test"), (np.arange(300), LABELS))
    if train_size == 300:
        split_parts(parts, data(train_size=train_size), 0)
        return
    with pytest.raises(UserError, match="train_size must be null, or from 10 to 290"):
        split_parts(parts, data(train_size=train_size), 0)


def test_measures_equal_their_definitions(rng):
    names = ["cat", "dog", "owl"]
    logits = rng.standard_normal((40, 3)).astype(np.float32)
    actual = rng.integers(0, 3, 40)
    predicted = logits.argmax(axis=1)
    metrics, per_class, text = measure(
        logits,
        Examples(logits, one_hot(actual, 3)),
        softmax_cross_entropy,
        names,
        0.95,
    )
    assert metrics.accuracy == np.mean(actual == predicted)
    for index, name in enumerate(names):
        right = ((actual == index) & (predicted == index)).sum()
        precision, recall = right / (predicted == index).sum(), right / (actual == index).sum()
        assert per_class[name].precision == pytest.approx(precision, abs=1e-6)
        assert per_class[name].recall == pytest.approx(recall, abs=1e-6)
        assert per_class[name].f1 == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-6)
        assert per_class[name].support == (actual == index).sum()
        assert name in text
    assert metrics.macro_f1 == pytest.approx(np.mean([c.f1 for c in per_class.values()]), abs=2e-6)


def test_the_wilson_interval_has_its_published_values():
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3
    for right, count, interval in (
        (81, 263, (0.2553, 0.3662)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ):
        outputs, actual = np.eye(2)[np.zeros(count, int)], np.arange(count) >= right
        examples = Examples(outputs, np.eye(2)[actual.astype(int)])
        measures, _, _ = measure(outputs, examples, softmax_cross_entropy, ["a", "b"], 0.95)
        assert (measures.accuracy_low, measures.accuracy_high) == pytest.approx(interval, abs=5e-5)


def test_predictions_are_listed_with_their_probability(tmp_path, monkeypatch):
    probabilities = np.array([[0.9, 0.1], [0.25, 0.75]], np.float32)
    monkeypatch.setattr(Prediction, "path", tmp_path / "predictions.csv")
    rows = to_predictions(probabilities, np.array([0, 0]), ["a", "b"], ["a/1, 2.png", ""])
    Prediction.save(rows)
    assert [row.actual for row in Prediction.load()] == ["a", "a"]
    assert Prediction.path.read_text().splitlines() == [
        "index,actual,predicted,probability,file",
        '0,a,a,0.9000,"a/1, 2.png"',
        "1,a,b,0.7500,",
    ]
    assert load_predictions(["a", "b"]).files == ["a/1, 2.png", ""]


def test_predictions_without_a_column_of_files_are_still_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Prediction, "path", tmp_path / "predictions.csv")
    Prediction.path.write_text("index,actual,predicted,probability\n0,a,b,0.9000\n")
    assert load_predictions(["a", "b"]).files == [""]


def photographs(folder, classes=("apple", "pear"), count=6):
    """A folder of pictures of two greys, whose names are those of no other class."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(100 * k, 100 * k + 100, (8, 8), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name} {number}.png")


def test_each_image_keeps_the_name_of_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "own")
    Path("own/pear/pear 0.png").rename("own/pear/pear\n0.png")
    own = data(dataset="own", path="own", validation_size=2, test_size=4)
    preprocess_stage.preprocess(own, 0)
    description = Description.load()
    found = []
    for part, images in (("train", 6), ("validation", 2), ("test", 4)):
        files = load_files(part, description)
        assert len(files) == images
        pixels = np.load(f"data/processed/{part}_images.npy")
        targets = np.load(f"data/processed/{part}_targets.npy").argmax(axis=1)
        for file, image, target in zip(files, pixels, targets, strict=True):
            path = Path("own", file.replace("�", "\n"))
            np.testing.assert_array_equal(np.asarray(Image.open(path)), image[..., 0])
            assert file.startswith(("apple/", "pear/")[target])
        found += files
    assert len(set(found)) == 12
    assert "pear/pear�0.png" in found


def test_images_that_are_no_files_leave_no_names_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "own")
    preprocess_stage.preprocess(data(dataset="own", path="own", validation_size=2, test_size=4), 0)
    assert Files.path.exists()
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
    np.savez("own.npz", train_images=images, train_labels=np.arange(12) % 2)
    preprocess_stage.preprocess(data(dataset="own", path="own.npz", validation_size=2, test_size=4), 0)
    assert not Files.path.exists()
    assert load_files("test", Description.load()) == [""] * 4


def test_damaged_names_of_files_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(Files, "path", tmp_path / "files.json")
    Files(train=["a"], validation=["b"], test=["c", "d"]).save()
    assert load_files("train", describe()) == ["a"]
    with pytest.raises(UserError, match=r"says 1 images for test, but it names 2\. .*--force preprocess"):
        load_files("test", describe())
    Files.path.write_text('{"train": []}')
    with pytest.raises(UserError, match=r"files\.json is damaged: .*--force preprocess"):
        load_files("train", describe())


def test_the_matrix_as_text_has_actual_classes_in_rows():
    matrix = confusion_matrix([0, 0, 1], [1, 0, 1])
    assert format_matrix(matrix, ["a", "b"]).splitlines()[1].split() == ["a", "1", "1"]


def test_a_class_may_be_called_as_the_rows_of_scikit_learns_report_and_may_have_no_test_images(rng):
    names = ["accuracy", "macro avg", "weighted avg", "never tested"]
    logits = rng.standard_normal((30, 4)).astype(np.float32)
    actual, predicted = rng.integers(0, 3, 30), logits.argmax(axis=1)
    examples = Examples(logits, one_hot(actual, 4).astype(np.float32))
    _, per_class, text = measure(logits, examples, softmax_cross_entropy, names, 0.95)
    for index, name in enumerate(names[:3]):
        assert per_class[name].support == (actual == index).sum()
        recall = np.mean(predicted[actual == index] == index)
        assert per_class[name].recall == pytest.approx(recall, abs=1e-6)
    assert per_class["never tested"] == ClassMeasures(precision=0.0, recall=0.0, f1=0.0, support=0)
    assert text.count("accuracy") == 2


def test_any_class_name_survives_the_file_of_predictions(tmp_path, monkeypatch):
    names = ["a, b", 'say "c"', "<b>", "$x_1$ | %", "日本", "اسم", "'", "="]
    monkeypatch.setattr(Prediction, "path", tmp_path / "predictions.csv")
    actual = np.arange(len(names))
    Prediction.save(to_predictions(np.eye(len(names), dtype=np.float32)[::-1], actual, names, names))
    predictions = load_predictions(names)
    np.testing.assert_array_equal(predictions.actual, actual)
    np.testing.assert_array_equal(predictions.predicted, actual[::-1])
    assert predictions.files == names
    np.testing.assert_array_equal(predictions.matrix(len(names)), np.eye(len(names))[::-1])


def test_the_largest_confusions_come_first(rng):
    matrix = rng.integers(0, 4, (5, 5))
    matrix[3, 1] = 9
    found = largest_confusions(matrix, 7)
    assert found[0] == (3, 1, 9)
    assert len(found) == 7
    assert all(actual != predicted and matrix[actual, predicted] == n for actual, predicted, n in found)
    left = sorted(matrix[~np.eye(5, dtype=bool)])[::-1]
    assert [n for _, _, n in found] == left[:7]
    assert largest_confusions(np.diag([3, 4]), 7) == []


def test_the_matrix_as_text_stays_narrow_for_long_names_and_many_classes():
    names = [f"a class with a very long name, number {k}" for k in range(9)]
    lines = format_matrix(np.diag(range(9)), names).splitlines()
    assert lines[0].split() == ["actual", "\\", "predicted", *"012345678"]
    assert lines[4].endswith("number 3  3       0     0     0     3     0     0     0     0     0")
    matrix = np.zeros((1000, 1000), int)
    matrix[500, 2] = 7
    names = [f"n{k}" for k in range(1000)]
    assert format_matrix(matrix, names).splitlines() == [
        "The largest confusions",
        "       7  n500 taken for n2",
    ]
    assert "There are none." in format_matrix(np.zeros((31, 31), int), names[:31])


def test_figures_are_the_same_bytes_each_time(tmp_path):
    history = [
        {"epoch": epoch, "learning_rate": 0.1}
        | {f"{part}_{what}": 0.1 * epoch for part in ("train", "validation") for what in ("loss", "accuracy")}
        for epoch in (1, 2)
    ]
    for name in ("one.png", "two.png"):
        save_figure(training_curves_figure(history), tmp_path / name)
        save_figure(
            confusion_matrix_figure(np.eye(3, dtype=int), ["a", "b", "c"], "title"), tmp_path / f"m{name}"
        )
    for prefix in ("", "m"):
        content = (tmp_path / f"{prefix}one.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert content == (tmp_path / f"{prefix}two.png").read_bytes()


@pytest.mark.parametrize("found", [{}, {"found": ["AVX2"]}])
def test_the_environment_is_known_on_a_processor_without_further_extensions(monkeypatch, found):
    config = {"SIMD Extensions": {"baseline": ["SSE"]} | found}  # NumPy leaves out empty lists
    monkeypatch.setattr(np, "show_config", lambda mode: config)
    assert train.environment("cpu").numpy_simd.split() == ["SSE", *found.get("found", [])]


@pytest.mark.parametrize(
    ("loss", "accuracy", "images", "warned"),
    [
        (2.3026, 0.1, 2200, True),
        (2.28, 0.12, 2200, True),
        (2.1, 0.1, 2200, False),
        (2.3, 0.4, 2200, False),
        (14.0, 0.1, 2200, True),
        (2.3026, 0.1, 2000, False),  # 3 epochs of 32 steps: too early to tell
    ],
)
def test_a_network_that_learns_nothing_draws_a_warning(capsys, loss, accuracy, images, warned):
    params = load_params(SHIPPED / "params.yaml")
    report = EpochReport(3, 0.1, loss, accuracy, loss, accuracy)
    about = describe(class_names=list("0123456789"), examples={"train": images, "validation": 1, "test": 1})
    train._warn_if_nothing_is_learnt(report, params, about, Console(width=1000))
    said = capsys.readouterr().out
    assert said.startswith("warning: After epoch 3 the loss is ") == warned
    assert ("ln(10) = 2.3026" in said) == warned


def test_images_that_are_all_alike_are_not_standardised(tmp_path, monkeypatch):
    labels = np.repeat(np.arange(10, dtype=np.uint8), 3)
    images = np.full((30, 28, 28), 7, np.uint8)
    raw = RawData(images, labels, images, labels)
    monkeypatch.chdir(tmp_path)
    dataset = SimpleNamespace(read=lambda folder: raw, class_names=list("0123456789"))
    monkeypatch.setattr(preprocess_stage, "choose_dataset", lambda data: dataset)
    for standardize, found in (("global", "pixels are equal"), ("channel", "pixels of channel 0 are equal")):
        with pytest.raises(UserError, match=rf"all their {found}.*(.|\n)*data\.standardize"):
            preprocess_stage.preprocess(data(validation_size=10, standardize=standardize), 0)
        assert not Description.path.exists()


def test_of_more_than_ten_classes_the_accuracy_among_the_five_likeliest_is_measured(rng):
    for classes, is_measured in ((10, False), (11, True)):
        logits = rng.normal(size=(200, classes)).astype(np.float32)
        labels = rng.integers(0, classes, 200)
        examples = Examples(logits, np.eye(classes, dtype=np.float32)[labels])
        measures, _, _ = measure(logits, examples, softmax_cross_entropy, list("abcdefghijk")[:classes], 0.95)
        assert ("top_5_accuracy" in measures.model_dump()) == is_measured
    expected = top_k_accuracy_score(labels, logits, k=5, labels=range(classes))
    assert measures.top_5_accuracy == pytest.approx(expected, abs=1e-6)
    assert top_accuracy(logits, labels, 1) == pytest.approx(measures.accuracy, abs=1e-6)


def test_of_equal_outputs_the_first_five_are_the_likeliest():
    assert top_accuracy(np.zeros((8, 8)), np.arange(8), 5) == 5 / 8
