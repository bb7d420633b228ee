"""The report shows what the results say, contains everything that it shows, and sends no request."""

import base64
import copy
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from projects import SHIPPED, set_params
from ruamel.yaml import YAML
from scipy.stats import binomtest

from cnn import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    ReLU,
    Residual,
    Sequential,
    Softmax,
    Tanh,
    checkpoint,
    softmax_cross_entropy,
)
from cnn.gradient_check import numeric_gradient
from cnn.inspection import Occlusion
from cnn.layers.trace import trace_forward
from cnn.ops.softmax import softmax
from cnn.views import mean_over_views
from pipeline import __main__ as program
from pipeline.apps.run import print_summary
from pipeline.artefacts.evaluate import ClassMeasures, Metrics, Prediction, Predictions, load_predictions
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.train import Environment, Epoch, Network, ParameterStatistics
from pipeline.artefacts.trained import load_trained
from pipeline.config.params import load_params
from pipeline.errors import UserError
from pipeline.report import diagram, figures
from pipeline.report.calibration import calibration_bins, expected_calibration_error, wilson_interval
from pipeline.report.diagram import network_svg
from pipeline.report.evidence import evidence, log_odds, times
from pipeline.report.facts import plain, scale_in_words, shape_in_words
from pipeline.report.images import NEGATIVE, POSITIVE, coloured, grey, marked, signed, to_address, visible
from pipeline.report.journey import journey, round_scale
from pipeline.report.page import Example, build, short_file
from pipeline.report.reference import REFERENCE_SOURCE
from pipeline.report.verdict import verdict
from pipeline.stages import report

ROOT = Path(__file__).parents[2]
NAME = "small_new-2"
SMALL = [
    {"type": "conv2d", "out_channels": 4, "kernel_size": 3, "stride": 2},
    {"type": "relu"},
    {
        "type": "residual",
        "layers": [{"type": "conv2d", "out_channels": 4, "kernel_size": 3, "padding": "same"}],
    },
    {"type": "flatten"},
    {"type": "dense", "out_features": 10},
]


def describe(**changes):
    channels = changes.get("image_shape", (2, 2, 1))[2]
    return Description(
        **{
            "dataset": "own",
            "title": "own images",
            "class_names": ["a", "b"],
            "image_shape": (2, 2, 1),
            "framing": "crop",
            "background": [0.0] * channels,
            "mean": [0.0] * channels,
            "deviation": [1.0] * channels,
            "examples": {"train": 1, "validation": 1, "test": 1},
        }
        | changes
    )


def run(stage, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pipeline", stage])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code in (0, None)


def make_project(folder, layers, epochs):
    """Train a network on the digits, evaluate and report."""
    yaml = YAML(typ="safe", pure=True)
    content = yaml.load(SHIPPED / "params.yaml")
    content["data"]["dataset"], content["model"]["architecture"] = "digits", NAME
    content["train"] |= {"epochs": epochs, "batch_size": 16}
    yaml.dump(content, folder / "params.yaml")
    yaml.dump({NAME: layers}, folder / "architectures.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in ("fetch", "preprocess", "train", "evaluate", "report"):
            run(stage, patch)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"), SMALL, epochs=2)


@pytest.fixture
def here(project, monkeypatch):
    monkeypatch.chdir(project)
    return project


class Page(HTMLParser):
    """Every tag of a page with its attributes, and its text."""

    VOID = ("meta", "img", "br", "input", "link", "path", "use", "rect", "image")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(project):
    return Page((project / "reports/report.html").read_text())


def test_the_page_is_well_formed_and_asks_for_nothing_outside_itself(page):
    assert page.open == []
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base", "form")
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert re.match(r"(#|data:image/png;base64,)", attributes.get(name) or "#"), attributes
        assert "url(" not in attributes.get("style", "").replace("url(#", "")
    policies = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_every_picture_has_a_text_and_every_section_a_heading(page):
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
    anchors = {a["href"] for tag, a in page.tags if tag == "a"}
    assert anchors == {f"#{a['id']}" for tag, a in page.tags if tag == "section"}
    assert [tag for tag, _ in page.tags].count("h2") == len(anchors)


def test_the_page_says_what_metrics_say(project, page):
    metrics = json.loads((project / "reports/metrics.json").read_text())
    for number in (
        f"{metrics['test']['accuracy']:.2%}",
        f"{metrics['model']['parameters']:,}",
        f"{metrics['test']['accuracy_low']:.2%} to {metrics['test']['accuracy_high']:.2%}",
        f"{metrics['per_class']['7']['f1']:.4f}",
        f"{NAME} on digits, from scikit-learn",
        "Residual:",
    ):
        assert number in page.text
    assert "85.40%" not in page.text  # which is for MNIST
    labels = [a["title"] for tag, a in page.tags if tag == "td" and "title" in a]
    times = [re.fullmatch(r"\d taken for \d: (once|(\d+) times)", label) for label in labels]
    assert sum(int(found[2] or 1) for found in times) == round(360 * (1 - metrics["test"]["accuracy"]))


def test_class_names_are_shown_as_text_and_mnist_beside_its_reference(project, tmp_path, monkeypatch):
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    name = '<b>"&'
    state, metadata = checkpoint.load(Network.path)
    metadata["data"] |= {"dataset": "mnist", "class_names": [*"012345678", name]}
    checkpoint.save(Network.path, state, metadata)
    Description.path.write_text(json.dumps(metadata["data"]))
    metrics = json.loads(Metrics.path.read_text())
    metrics["dataset"] = "mnist"
    metrics["per_class"][name] = metrics["per_class"].pop("9")
    Metrics.path.write_text(json.dumps(metrics))
    rows = [row.model_dump() for row in Prediction.load()]
    for row in rows:
        row |= {key: name for key in ("actual", "predicted") if row[key] == "9"}
    Prediction.save([Prediction(**row) for row in rows])
    report.report(load_params())
    text = Path("reports/report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert f"is {name} · no." in page.text
    assert any(name in attributes.get("alt", "") for _, attributes in page.tags)
    assert '<b>"' not in text
    assert REFERENCE_SOURCE in page.text


def test_equal_probabilities_come_in_the_order_of_classes():
    example = Example(0, np.zeros((1, 1, 1)), 4, np.array([0.1, 0.3, 0.2, 0.3, 0.1]), "")
    assert example.answers == [1, 3, 2, 0, 4]
    assert example.shown == [1, 3, 2, 4]


def test_all_figures_are_there_and_are_pictures(project):
    names = {path.name for path in (project / "reports/figures").iterdir()}
    described = (
        "calibration confusion_matrix feature_maps filters misclassified occlusion statistics training_curves"
    )
    assert names >= {f"{name}.png" for name in described.split()}
    assert "reports/figures" in YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["plots"]
    for name in names:
        assert (project / "reports/figures" / name).read_bytes().startswith(b"\x89PNG")


def test_the_card_has_the_figures_of_the_test(project):
    card = (project / "reports/model_card.md").read_text()
    metrics = json.loads((project / "reports/metrics.json").read_text())
    validation = f"{metrics['validation']['accuracy']:.2%}"
    assert f"| accuracy | {metrics['test']['accuracy']:.2%} | {validation} |" in card
    assert "- {type: relu}" in card


def test_the_page_and_the_card_say_why_the_weights_are_of_this_epoch(here, monkeypatch):
    epoch, validation = Metrics.load().model.epoch, Metrics.load().validation.examples
    page, card = (here / "reports" / name for name in ("report.html", "model_card.md"))
    before = [page.read_bytes(), card.read_bytes(), (here / "params.yaml").read_bytes()]
    assert f"of epoch {epoch}, chosen on {validation} validation images." in " ".join(
        Page(page.read_text()).text.split()
    )
    assert f"| chosen by | accuracy on {validation} validation images |" in card.read_text()
    set_params(here, {"train.keep": "last"})
    run("report", monkeypatch)
    text = " ".join(Page(page.read_text()).text.split())
    assert f"of the last epoch, {epoch}; {validation} validation images were kept out." in text
    assert (
        f"of the last epoch, {epoch} |\n| validated on | {validation} validation images |" in card.read_text()
    )
    (here / "params.yaml").write_bytes(before[2])
    run("report", monkeypatch)
    assert [page.read_bytes(), card.read_bytes()] == before[:2]


@pytest.mark.parametrize(
    ("mirror", "shift", "words"),
    [
        (True, 0, "the mean over each image and its mirror image"),
        (
            False,
            1,
            "the mean over each image, with half of the weight, and two copies of it, shifted by 1 pixel",
        ),
        (
            True,
            2,
            "the mean over each image, with half of the weight, and two copies of it, shifted by 2 pixels, "
            "all three also mirrored",
        ),
    ],
)
def test_test_time_augmentation_is_measured_and_every_result_says_so(
    here, tmp_path, monkeypatch, capsys, mirror, shift, words
):
    assert "test_time_augmentation" not in json.loads((here / "reports/metrics.json").read_text())
    for name in ("report.html", "model_card.md"):
        assert "test-time" not in (here / "reports" / name).read_text().lower()
    shutil.copytree(here, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    off = Metrics.load()
    key = "evaluate.test_time_augmentation"
    set_params(tmp_path, {f"{key}.mirror": mirror, f"{key}.shift": shift})
    run("evaluate", monkeypatch)
    assert f"images (outputs are {words}). Metrics are in" in capsys.readouterr().out.replace("\n", " ")
    shown = []
    monkeypatch.setattr(report, "build", lambda found: shown.append(found) or build(found))
    run("report", monkeypatch)

    metrics = json.loads(Metrics.path.read_text())
    assert metrics["test_time_augmentation"] == {"mirror": mirror, "shift": shift}
    model, network = load_trained()
    for part in ("validation", "test"):
        examples = load_examples(part, network.data)
        outputs = mean_over_views(model.predict, examples.images[:], mirror=mirror, shift=shift)
        loss, _ = softmax_cross_entropy(outputs, examples.targets)
        assert metrics[part]["loss"] == pytest.approx(loss, abs=2e-6)
        assert metrics[part]["loss"] != getattr(off, part).loss
    np.testing.assert_array_equal(
        load_predictions(network.data.class_names).predicted, outputs.argmax(axis=1)
    )
    for example in [*shown[0].wrong, *shown[0].hard, shown[0].followed]:
        expected = softmax(outputs[example.number])
        np.testing.assert_allclose(example.probabilities, expected, rtol=1e-4, atol=1e-6)
    text = " ".join(Page(Path("reports/report.html").read_text()).text.split())
    assert f"With test-time augmentation: the outputs are {words}." in text
    card = Path("reports/model_card.md").read_text()
    assert f"\n| test-time augmentation | the outputs measured below are {words} |\n\n## How good" in card
    print_summary()
    assert f"(outputs are {words})" in " ".join(re.sub("[│┃]", "", capsys.readouterr().out).split())


def test_the_page_shows_the_groups_instead_of_one_optimiser(here, monkeypatch):
    page, params = here / "reports/report.html", (here / "params.yaml").read_bytes()
    before = page.read_bytes()
    assert (
        "Optimiser sgd, batches of 16, learning rate constant at 0.1 in all epochs."
        in Page(before.decode()).text
    )
    set_params(here, {"train.groups": [{"parameters": "*.bias", "epochs": 1, "learning_rate": 0.5}]})
    run("report", monkeypatch)
    found = Page(page.read_text())
    assert found.open == []
    assert "Optimiser" not in found.text
    assert re.search(r"\*\.bias\s*sgd\(learning_rate=0\.5\)\s*constant\s*the first\s*\d", found.text)
    assert re.search(r"all others\s*sgd\(learning_rate=0\.1\)\s*constant\s*all\s*\d", found.text)
    (here / "params.yaml").write_bytes(params)
    run("report", monkeypatch)
    assert page.read_bytes() == before


def test_a_second_report_has_the_same_bytes(here, monkeypatch):
    before = {p: p.read_bytes() for p in here.glob("reports/**/*") if p.is_file()}
    run("report", monkeypatch)
    assert {p: p.read_bytes() for p in here.glob("reports/**/*") if p.is_file()} == before


@pytest.mark.parametrize(
    "layers",
    [
        [{"type": "flatten"}, {"type": "dense", "out_features": 10}],
        [{"type": "avg_pool2d", "kernel_size": [14, 5]}, {"type": "flatten"}, {"type": "layer_norm"}],
    ],
)
def test_a_network_without_convolutions_is_reported_as_well(tmp_path, layers):
    make_project(tmp_path, layers, epochs=1)
    page = Page((tmp_path / "reports/report.html").read_text())
    assert "There are none." in page.text
    assert (tmp_path / "reports/figures/filters.png").exists()


@pytest.mark.parametrize(
    ("load", "name", "stage"),
    [
        (Description.load, "data/processed/dataset.json", "preprocess"),
        (Epoch.load, "reports/history.csv", "train"),
        (ParameterStatistics.load, "reports/statistics.csv", "train"),
        (Environment.load, "reports/environment.json", "train"),
        (Metrics.load, "reports/metrics.json", "evaluate"),
        (lambda: load_predictions(list("0123456789")), "reports/predictions.csv", "evaluate"),
    ],
)
def test_a_result_that_is_missing_or_damaged_is_told(project, tmp_path, monkeypatch, load, name, stage):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"^{name} is missing.*: dvc repro {stage}$"):
        load()
    (tmp_path / name).parent.mkdir(parents=True)
    shutil.copy(project / name, tmp_path / name)
    load()
    whole = (tmp_path / name).read_text()
    damaged = whole.replace("0.", "x.").replace("1", "nan").replace("examples", "x").replace("numpy", "x")
    for content in (damaged, "", "\n", "[]", whole.partition("\n")[0]):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=rf"^{name} is damaged: .+: dvc repro --force {stage}$"):
            load()


@pytest.mark.parametrize(
    ("load", "name", "before", "after", "reason"),
    [
        (Description.load, "data/processed/dataset.json", r'"train": \d+,', "", "examples"),
        (Description.load, "data/processed/dataset.json", r'"test": \d+', '"test": 0', r"examples\.test"),
        (
            Description.load,
            "data/processed/dataset.json",
            r'"deviation": [^,]+',
            '"deviation": 0',
            "deviation",
        ),
        (Metrics.load, "reports/metrics.json", r'(?s)"per_class": .*', '"per_class": {}}', "per_class"),
        (Metrics.load, "reports/metrics.json", r"^{", '{"extra": 1,', "extra"),
        (Prediction.load, "reports/predictions.csv", r"(?m)^3,", f"3{'0' * 200_000},", "field larger than"),
    ],
)
def test_a_damaged_value_is_named(project, tmp_path, monkeypatch, load, name, before, after, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True)
    text, count = re.subn(before, after, (project / name).read_text())
    assert count == 1
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"^{name} is damaged: {reason}.+: dvc repro --force"):
        load()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"dataset": "digits"', '"dataset": "mnist"'),
        (f'"architecture": "{NAME}"', '"architecture": "baseline"'),
        (r'"parameters": \d+', '"parameters": 1'),
        (r'"epoch": \d+', '"epoch": 9'),
        ('"9": {', '"nine": {'),
    ],
)
def test_metrics_of_another_network_are_refused(project, tmp_path, monkeypatch, before, after):
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    text, count = re.subn(before, after, Metrics.path.read_text())
    assert count == 1
    Metrics.path.write_text(text)
    with pytest.raises(
        UserError, match=r"^reports/metrics\.json does not belong to models/model\.npz.*: dvc repro"
    ):
        report.report(load_params())


def test_predictions_of_other_data_are_refused(project, tmp_path, monkeypatch):
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    lines = Path("reports/predictions.csv").read_text().splitlines()
    Path("reports/predictions.csv").write_text("\n".join(lines[:100]))
    with pytest.raises(UserError, match=r"^reports/predictions\.csv does not belong to data/processed\."):
        report.report(load_params())


def test_wrong_answers_come_surest_first_and_right_ones_least_sure_first_unless_they_are_sure():
    predictions = Predictions(
        np.array([0, 0, 1, 1, 1, 1]),
        np.array([0, 1, 1, 0, 1, 1]),
        np.array([0.9, 0.6, 0.5, 0.8, 0.7, 0.9001]),
        ["", "", "", "three.png", "", ""],
    )

    class Test:
        images = np.zeros((6, 2, 2, 1), np.float32)

    wrong, hard = report.select(predictions, Test, lambda images: np.zeros((len(images), 2)))
    assert [example.number for example in wrong] == [3, 1]
    assert [example.number for example in hard] == [2, 4, 0]
    assert [example.actual for example in wrong] == [1, 0]
    assert [example.file for example in wrong] == ["three.png", ""]


def test_calibration_has_its_definition():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.6, 1.0])
    right = np.array([True, True, True, False, True, False, True])
    bins = calibration_bins(confidence, right)
    assert [(b["count"], round(b["accuracy"], 3)) for b in bins] == [(2, 0.5), (5, 0.8)]
    expected = 2 / 7 * abs(0.5 - 0.575) + 5 / 7 * abs(0.8 - 0.96)
    assert expected_calibration_error(bins) == pytest.approx(expected)


def test_the_best_calibrated_answers_have_no_error(rng):
    confidence = rng.uniform(0.1, 1, 200_000)
    right = rng.random(200_000) < confidence
    assert expected_calibration_error(calibration_bins(confidence, right)) < 0.01


def test_drawing_leaves_the_settings_of_matplotlib_alone(tmp_path):
    program = f"""
import matplotlib
before, maps = dict(matplotlib.rcParams), set(matplotlib.colormaps)
from pipeline.report import figures
from pipeline.report.calibration import calibration_bins
figure = figures.calibration_figure(calibration_bins(figures.np.ones(20), figures.np.ones(20, bool)))
figures.save_figure(figure, figures.Path({str(tmp_path)!r}) / "figure.png")
figures.to_svg(figure, "")
assert dict(matplotlib.rcParams) == before
assert set(matplotlib.colormaps) == maps
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def history_of(*rates):
    return [
        {"epoch": epoch, "learning_rate": rate}
        | {f"{part}_{what}": 0.1 * epoch for part in ("train", "validation") for what in ("loss", "accuracy")}
        for epoch, rate in enumerate(rates, 1)
    ]


def test_svgs_take_the_colour_and_width_of_their_place():
    history = history_of(0.1, 0.1)
    svg = figures.to_svg(figures.training_curves_figure(history), "two & two")
    assert svg == figures.to_svg(figures.training_curves_figure(history), "two & two")
    assert svg.startswith('<svg role="img" aria-label="two &amp; two"')
    assert figures.INK not in svg
    assert "currentColor" in svg
    assert not re.search(r'<svg[^>]* width="', svg)
    assert ">epoch</text>" in svg


def test_only_a_learning_rate_that_changes_is_drawn():
    assert len(figures.training_curves_figure(history_of(0.1, 0.1)).axes) == 2
    assert len(figures.training_curves_figure(history_of(0.1, 0.05)).axes) == 3


def test_gradients_of_parameters_of_all_sizes_are_comparable():
    spread = dict.fromkeys(("q5", "q25", "q50", "q75", "q95"), 0.0)
    rows = [
        {"epoch": 1, "parameter": "0.kernel", "gradient_norm": 6.0} | spread,
        {"epoch": 1, "parameter": "1.weight", "gradient_norm": 0.6} | spread,
    ]
    axes = figures.statistics_figure(rows, {"0.kernel": 9, "1.weight": 100}).axes[0]
    assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx([2.0, 0.06])


def test_calibration_has_no_point_for_a_few_answers_and_no_line_between_points():
    confidence = np.array([0.5] * 9 + [0.7] * 10)
    upper = figures.calibration_figure(calibration_bins(confidence, confidence > 0.6)).axes[0]
    points, *caps = upper.lines[1:]  # after the diagonal
    assert points.get_xdata().tolist() == pytest.approx([0.7])
    assert points.get_linestyle() == "None"
    assert len(caps) == 2


def test_intervals_are_those_of_scipy():
    for right, count in ((0, 1), (3, 10), (10, 10), (81, 263)):
        expected = binomtest(right, count).proportion_ci(0.95, "wilson")
        assert wilson_interval(right / count, count) == pytest.approx(tuple(expected), abs=1e-9)


def test_images_are_shown_in_their_colours():
    image = np.zeros((2, 3, 3))
    image[0, 1] = (1, 0.5, 0)
    assert visible(image)[0, 1].tolist() == [255, 128, 0]
    assert visible(np.full((2, 3, 1), 0.2))[1, 2].tolist() == [51, 51, 51]
    assert visible(np.zeros((224, 56, 3))).shape == (96, 24, 3)
    assert visible(np.zeros((500, 1, 1))).shape == (96, 1, 3)


def test_signed_numbers_are_orange_below_0_and_blue_above_it():
    pixels = signed(np.array([[-2.0, 0.0, 2.0, 1.0]]), 2.0)[0]
    assert pixels.tolist()[:3] == [list(NEGATIVE), [255] * 3, list(POSITIVE)]
    assert pixels[3, 2] > pixels[3, 0] > POSITIVE[0]
    assert grey(np.array([[0.0, 1.0, 2.0]]), 2.0)[0, :, 0].tolist() == [0, 128, 255]
    assert (signed(np.zeros((1, 1)), 0.0) == 255).all()


def test_a_kernel_in_colour_lies_around_mid_grey():
    kernel = np.array([[[2.0, 0.0, -2.0], [1.0, 1.0, 1.0]]])
    assert coloured(kernel)[0].tolist() == [[255, 128, 0], [191, 191, 191]]


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 2, 3)])
def test_an_image_in_an_address_is_a_png_of_the_same_pixels(rng, shape):
    pixels = rng.integers(0, 256, shape, np.uint8)
    for image in (pixels, np.repeat(pixels[..., :1], 3, axis=2)):
        content = base64.b64decode(to_address(image).removeprefix("data:image/png;base64,"))
        read = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(read, image)


def test_only_the_first_convolution_on_a_colour_image_has_kernels_in_colour(rng):
    model = Sequential([Conv2D(3, 3, 3, rng=rng), Conv2D(3, 2, 3, rng=rng), Conv2D(2, 2, 1, rng=rng)])
    rows = report.kernel_rows(model, describe(image_shape=(9, 9, 3)))
    largest = np.abs(model.layers[1].kernel.value[:, :, 0]).max()
    assert [row.title for row in rows] == [
        "layer 0, in colour",
        f"layer 1, in 0: ±{largest:.2g}",
        *(row.title for row in rows[2:]),
    ]
    assert [len(row.tiles) for row in rows] == [3, 2, 2, 2]
    np.testing.assert_array_equal(rows[0].tiles[1][1], coloured(model.layers[0].kernel.value[..., 1]))


def network_with_branches(rng):
    """Two residual blocks, batch norm that has seen data, and dropout; for images (9, 8, 3) and 2 classes."""
    norm = BatchNorm(4)
    norm.running_mean[...], norm.running_var[...] = rng.standard_normal(4), rng.uniform(0.5, 2, 4)
    return Sequential(
        [
            *(Conv2D(3, 4, 3, rng=rng), norm, ReLU(), Dropout(0.5)),
            Residual([Conv2D(4, 4, 3, padding="same", rng=rng), Tanh()]),
            Residual(
                [Conv2D(4, 8, 3, stride=2, padding="same", rng=rng)], [Conv2D(4, 8, 1, stride=2, rng=rng)]
            ),
            Sequential([Flatten(), Dense(8 * 4 * 3, 2, rng=rng)]),
        ]
    )


def travel(rng, label=1):
    model = network_with_branches(rng)
    image = rng.random((9, 8, 3)).astype(np.float32)
    return model, image, journey(model, image, label, describe(image_shape=(9, 8, 3)))


def test_a_journey_shows_each_layer_that_changes_numbers_once_its_output_exists(rng):
    _, _, found = travel(rng)
    assert [step.name for step in found.steps] == [
        *("", "0", "1", "2", "4.layers.0", "4.layers.1", "4", "5.layers.0", "5.shortcut.0", "5", "6.1"),
    ]
    kinds = [step.kind for step in found.steps]
    assert kinds[:4] == ["image", "Conv2D", "BatchNorm", "ReLU"]
    assert [strip.what for strip in found.steps[1].strips] == ["kernel, for red", "output"]
    assert [strip.what for strip in found.steps[4].strips] == ["kernel, input channel 0", "output"]
    assert [strip.what for strip in found.steps[-1].strips] == ["weights for b, by input channel"]
    assert [len(strip.pairs) for strip in found.steps[-1].strips] == [8]
    assert found.steps[1].size == "6 x 7 x 4"


def test_maps_of_a_journey_are_the_outputs_on_one_scale_on_which_0_is_visible(rng):
    model, image, found = travel(rng)
    picture, *_, relu = found.steps[:4]
    np.testing.assert_array_equal(picture.strips[0].pairs[2].forward, visible(image[..., 2:]))
    outputs = {name: y[0].astype(np.float64) for name, _, y in trace_forward(model, image[None])}
    (before,) = found.steps[2].strips
    limit = np.abs(outputs["1"]).max()
    assert before.scale == f"±{plain(limit)}"
    np.testing.assert_allclose(before.pairs[1].forward, signed(outputs["1"][..., 1], limit), atol=1)
    (after,) = relu.strips
    assert after.scale == f"0 to {plain(outputs['2'].max())}"
    np.testing.assert_allclose(after.pairs[0].forward, grey(outputs["2"][..., 0], outputs["2"].max()), atol=1)
    rows = report.feature_maps(found)
    assert rows[0].title == "image\n0 to 1"
    assert rows[2].title == f"1 BatchNorm\n{before.scale}"
    np.testing.assert_array_equal(rows[2].tiles[1][1], before.pairs[1].forward)


def test_gradients_of_a_journey_are_those_of_the_answer_of_the_network(rng):
    """By nudging pixels, weights and outputs of the network in evaluation."""
    model, image, found = travel(rng)
    exact = copy.deepcopy(model)
    for parameter in exact.parameters().values():
        parameter.value = parameter.value.astype(np.float64)
    x, target = image[None].astype(np.float64), np.array([[0.0, 1.0]])

    def loss():
        return softmax_cross_entropy(exact.forward(x), target)[0]

    assert found.loss == pytest.approx(loss())
    (pixels,) = found.steps[0].strips
    expected = numeric_gradient(loss, x)[0]
    limit = round_scale(np.abs(expected).max())
    assert pixels.gradient_scale == f"±{plain(limit)}"
    for k, pair in enumerate(pixels.pairs):
        np.testing.assert_allclose(pair.backward, signed(expected[..., k], limit), atol=1)
    kernels, maps = found.steps[1].strips
    expected = numeric_gradient(loss, exact[0].kernel.value)[:, :, 0]
    limit = round_scale(np.abs(expected).max())
    np.testing.assert_allclose(kernels.pairs[2].backward, marked(expected[..., 2], limit), atol=1)
    bias = exact[0].bias.value
    expected = numeric_gradient(loss, bias)  # the sum of dL/d(output) over all pixels
    for k, pair in enumerate(maps.pairs):
        blue, orange = (float((255.0 - pair.backward[..., channel]).sum()) for channel in (0, 2))
        if abs(expected[k]) > 0.5 * np.abs(expected).max():
            assert (blue > orange) == (expected[k] > 0)
    assert found.weight.formula == pytest.approx(found.weight.nudged, rel=1e-5)
    gradient = np.abs(numeric_gradient(loss, exact[0].kernel.value))
    assert abs(found.weight.formula) == pytest.approx(gradient.max(), rel=1e-5)
    index = tuple(int(i) for i in found.weight.place.split(", "))
    assert found.weight.value == exact[0].kernel.value[index]


def test_a_step_of_a_journey_changes_the_loss_about_as_the_slope_promises_and_no_weight(rng):
    model = network_with_branches(rng)
    before = copy.deepcopy(model.state_dict())
    found = journey(model, rng.random((9, 8, 3)).astype(np.float32), 1, describe(image_shape=(9, 8, 3)))
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert found.change == pytest.approx(found.promised, rel=0.1)
    assert found.change < 0
    assert [row.parameter for row in found.updates] == list(model.parameters())
    row = found.updates[0]
    assert row.value == pytest.approx(np.sqrt(np.square(model[0].kernel.value).mean()))
    assert row.ratio == pytest.approx(found.rate * row.gradient / row.value)


@pytest.mark.parametrize("ends_in_softmax", [False, True])
def test_a_journey_ends_with_the_difference_of_probability_and_target(rng, ends_in_softmax):
    layers = [Flatten(), Dense(12, 12, rng=rng)]
    model = Sequential([*layers, Softmax()] if ends_in_softmax else layers)
    names = [f"class {k}" for k in range(12)]
    image = 200 * rng.random((2, 2, 3)).astype(np.float32)  # very sure
    p = softmax(layers[1].forward(layers[0].forward(image[None].astype(np.float64))))[0]
    label = int(p.argmin())
    found = journey(model, image, label, describe(image_shape=(2, 2, 3), class_names=names))
    assert not found.all_classes
    assert [row.k for row in found.outcomes] == [*np.argsort(-p)[:10], label]
    for row in found.outcomes:
        assert row.target == (row.k == label)
        assert row.difference == pytest.approx(p[row.k] - row.target, abs=1e-6)
        assert np.isnan(row.logit) == ends_in_softmax
    assert found.loss == pytest.approx(-np.log(p[label]), rel=1e-5)


def test_scales_of_gradients_are_1_2_or_5_times_a_power_of_ten():
    limits = [0, 1e-9, 0.00011, 0.2, 0.21, 0.51, 1, 49]
    assert [round_scale(limit) for limit in limits] == pytest.approx([0, 1e-9, 0.0002, 0.2, 0.5, 1, 1, 50])


def test_numbers_are_written_plainly():
    numbers = [0, 0.6, -0.000123, 123456, -1.256e-7, 3e8]
    assert [plain(number) for number in numbers] == [
        "0",
        "0.6",
        "−0.000123",
        "123,000",
        "−1.26 · 10⁻⁷",
        "3 · 10⁸",
    ]


def test_small_kernels_have_signs_that_need_no_colours():
    values = np.array([[1.0, -1.0, 0.1, -0.3]])
    pixels = marked(values, 1.0)
    assert pixels.shape == (9, 36, 3)
    plus, minus, none, pale = (pixels[:, 9 * k : 9 * k + 9] for k in range(4))
    for cell, value, mark, count in ((plus, 1.0, 255, 9), (minus, -1.0, 255, 5), (pale, -0.3, 0, 5)):
        np.testing.assert_array_equal(cell[0, 0], signed(np.array([[value]]), 1.0)[0, 0])
        assert (cell == mark).all(axis=2).sum() == count
    assert (none == none[0, 0]).all()
    assert marked(np.ones((8, 2)), 1.0).shape == (8, 2, 3)
    assert (marked(np.zeros((2, 2)), 0.0) == 255).all()


def drawing_of(model, shape):
    return ElementTree.fromstring(str(network_svg(model, shape)))


def test_the_network_is_drawn_to_scale_with_its_branches(rng):
    model = network_with_branches(rng)
    svg = drawing_of(model, (9, 8, 3))
    fronts = [polygon for polygon in svg.iter("polygon") if polygon.get("class") == "front"]
    corners = [np.array([p.split(",") for p in front.get("points").split()], float) for front in fronts]
    sizes = [np.ptp(points, axis=0) for points in corners]
    shapes = [(9, 8, 3), (7, 6, 4), (7, 6, 4), (4, 3, 8), (4, 3, 8), (1, 1, 96), (1, 1, 2)]
    for size, (height, width, _) in zip(sizes[:5], shapes, strict=False):
        np.testing.assert_allclose(size, np.array([width, height]) * diagram.LARGEST / 9, atol=0.11)
    assert len(sizes) == len(shapes)
    tops = [
        np.ptp([float(point.split(",")[1]) for point in p.get("points").split()])
        for p in svg.iter("polygon")
        if p.get("class") == "top"
    ]
    np.testing.assert_allclose(tops, diagram.DOUBLING * np.log2([c for *_, c in shapes]), atol=0.11)
    middles = [points[:, 0].mean() for points in corners]
    assert [round((middle - middles[0]) / diagram.LANE) for middle in middles] == [0, 0, 0, 0, 1, 0, 0]
    assert [circle.get("class") for circle in svg.iter("circle")] == ["dot", "plus"] * 2
    texts = ["".join(text.itertext()) for text in svg.iter("text")]
    for text in ("9 x 8 x 3", "8 x 9 x 3"):
        assert (text in texts) == (text == "8 x 9 x 3")  # width x height
    for text in (
        "0 Conv2D: 4 kernels 3x3",
        "1 BatchNorm",
        "5.shortcut.0 Conv2D:",
        "6.1 Dense: 96 to 2",
        "194",
    ):
        assert text in texts
    words = svg.find("desc").text
    assert svg.get("aria-describedby") == svg.find("desc").get("id")
    assert words.startswith(
        "From the image to the classes: image: 8 x 9 x 3; 0 Conv2D: 4 kernels 3x3, 1 Batch"
    )
    assert "4 Residual, where the way parts; 4.layers.0" in words
    assert "the other way leaves the numbers as they are; both are added, 6 x 7 x 4; 5 Residual" in words
    assert "on the other way; 5.shortcut.0" in words


def test_texts_of_the_drawing_lie_within_it_and_apart_from_each_other(rng):
    inner = Residual([Residual([Conv2D(2, 2, 3, padding="same", rng=rng)]), ReLU()])
    wide = Conv2D(2, 1000, 3, stride=(1, 2), rng=rng)
    model = Sequential(
        [Residual([inner]), Residual([ReLU()]), wide, ReLU(), Flatten(), Dense(2000, 2, rng=rng)]
    )
    svg = drawing_of(model, (3, 6, 2))
    _, _, width, height = map(float, svg.get("viewBox").split())
    lines = {}
    for text in svg.iter("text"):
        start, end = (float(text.get("x")), text.get("text-anchor"))
        room = lines.setdefault(float(text.get("y")), [])
        reach = 6.2 * len(text.text)
        room.append((start - reach, start) if end else (start, start + reach))
        assert 0 <= room[-1][0] < room[-1][1] <= width + 6
    for room in lines.values():
        room.sort()
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(room))
    ys = sorted(lines)
    assert min(b - a for a, b in itertools.pairwise(ys)) >= 11
    assert ys[-1] < height
    assert "".join(svg.itertext()).count("two ways") == 4


def test_the_page_shows_the_way_there_and_back(here, page):
    model, network = load_trained()
    test = load_examples("test", network.data)
    found = journey(model, test.images[0], int(test.targets[0].argmax()), network.data)
    sources = {a["src"] for tag, a in page.tags if tag == "img"}
    text = " ".join(page.text.split())
    for step in found.steps:
        assert f"{step.name} {step.kind} {step.size}".strip() in text
        for strip in step.strips:
            assert f"{strip.what} {strip.scale} | {strip.symbol} {strip.gradient_scale}" in text
            for pair in strip.pairs:
                assert {to_address(pair.forward), to_address(pair.backward)} <= sources
    for row in found.outcomes:
        assert plain(row.difference) in text
    assert f"= {plain(found.loss)}. Its gradient" in text
    assert f"changes by {plain(found.change)}; if the slope" in text
    assert [step.kind for step in found.steps].count("Residual") == 1


def test_what_scrolls_can_be_reached_by_keyboard_and_has_a_name(page):
    scrolled = [a for tag, a in page.tags if tag == "pre" or "scroll" in (a.get("class") or "")]
    assert len(scrolled) >= 8
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in scrolled)


def test_the_page_tells_a_story_in_order(page):
    sections = [a["id"] for tag, a in page.tags if tag == "section"]
    assert sections == [
        *(
            "network",
            "image",
            "training",
            "step",
            "confusion",
            "mistakes",
            "arguments",
            "calibration",
            "next",
        ),
        *("classes", "filters", "gradients", "glossary", "made"),
    ]
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert links == [f"#{section}" for section in sections]


def test_layers_are_explained_by_the_code(page):
    text = " ".join(page.text.split())
    assert (
        "Conv2D(in_channels, out_channels, kernel_size)Slides small kernels over the image;"
        in text.replace(") Slides", ")Slides")
    )


def test_signs_have_the_same_colours_in_pictures_and_tables():
    css = (ROOT / "pipeline/report/templates/report.css").read_text()
    colours = (f"#{bytes(colour).hex()}" for colour in (NEGATIVE, POSITIVE))
    assert css.count("--minus: {}; --plus: {};".format(*colours)) == 2  # on screen, and in print


def test_names_that_are_too_long_or_cannot_be_drawn_have_numbers():
    names = ["7", "an awfully long name of a class", "日本", "Größe $x_1$"]
    assert figures.labels(names) == ["7", "1 an awfully long n…", "class 2", "Größe $x_1$"]


@pytest.mark.parametrize("classes", [2, 30, 31, 1000])
def test_the_confusion_matrix_is_drawn_for_any_number_of_classes_without_a_warning(tmp_path, rng, classes):
    names = ["日本", "$\\frac{$", "a & <b>", "%_^", *map(str, range(996))][:classes]
    matrix = rng.integers(0, 3, (classes, classes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = figures.confusion_matrix_figure(matrix, names, "日本: $\\x{$")
        figures.name_figure(figure, "日本: $\\x{$")
        figures.save_figure(figure, tmp_path / "figure.png")
    assert max(Image.open(tmp_path / "figure.png").size) < 2500
    assert len(figure.axes[0].patches) == (figures.BARS if classes > 30 else 0)


def test_the_matrix_has_the_same_colours_in_figures_and_on_the_page():
    css = (ROOT / "pipeline/report/templates/report.css").read_text()
    assert css.count(f"--wrong: {figures.WRONG}; --hit: {figures.RIGHT};") == 2  # on screen, and in print


@pytest.mark.parametrize(
    ("matrix", "sentence"),
    [
        ([[5, 0], [0, 5]], "Right on all 10 test images."),
        ([[0, 5], [5, 0]], "Wrong on all 10 test images."),
        (
            [[50, 0], [1, 49]],
            "Wrong on 1 in 100 test images; worst at “the dog”, of which it finds 98.0%; most often “the dog” "
            "is taken for cat (once).",
        ),
        (
            [[1, 6], [0, 3]],
            "Right on 4 of 10 test images; no better than always answering cat; worst at cat, of which it "
            "finds 14.3%; most often cat is taken for “the dog” (6 times).",
        ),
        (
            [[700, 300], [0, 1000]],
            "Wrong on 300 of 2,000 test images; worst at cat, of which it finds 70.0%; most often cat is taken "
            "for “the dog” (300 times).",
        ),
        (
            [[1, 4], [3, 3]],
            "Right on 4 of 11 test images; no better than always answering “the dog”; worst at cat, of which it "
            "finds 20.0%; most often cat is taken for “the dog” (4 times).",
        ),
        (
            [[95, 0], [5, 0]],
            "Right on 95 of 100 test images; no better than always answering cat; worst at “the dog”, of which "
            "it finds 0.0%; most often “the dog” is taken for cat (5 times).",
        ),
        (
            [[3, 4], [3, 5]],
            "Right on 8 of 15 test images; no better than always answering “the dog”; worst at cat, of which it "
            "finds 42.9%; most often cat is taken for “the dog” (4 times).",
        ),
    ],
)
def test_the_verdict_is_one_sentence(matrix, sentence):
    names, matrix = ["cat", "the dog"], np.array(matrix)
    per_class = {
        name: ClassMeasures(precision=0.0, recall=row[k] / sum(row), f1=0.0, support=sum(row))
        for k, (name, row) in enumerate(zip(names, matrix.tolist(), strict=True))
    }
    per_class["never tested"] = ClassMeasures(precision=0.0, recall=0.0, f1=0.0, support=0)
    assert verdict(matrix, names, per_class) == sentence


def test_log_odds_have_their_definition_and_do_not_saturate(rng):
    logits = rng.standard_normal((4, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(log_odds(logits, 1), np.log(p[:, 1] / (1 - p[:, 1])))
    np.testing.assert_allclose(log_odds(np.array([[100.0, 0.0, 0.0]], np.float32), 0), 100 - np.log(2))


def test_what_argued_for_an_answer_is_a_factor_of_its_odds():
    description = describe(image_shape=(4, 4, 1), background=[0.5])
    image = np.zeros((4, 4, 1), np.float32)
    image[0, 0] = 1
    found = evidence(
        lambda images: np.stack([images[:, 0, 0, 0] * 4, 0 * images[:, 0, 0, 0]], 1), image, 0, description
    )
    assert found.strongest == (slice(0, 1), slice(0, 1), 2.0)  # background instead of 1
    assert times(found) == f"{np.exp(2):.2f}"


@pytest.mark.parametrize(
    ("gain", "text"),
    [(-1, ""), (0, ""), (np.log(1.004), ""), (np.log(1234), "1,230"), (1000, "over 1,000,000")],
)
def test_the_factor_of_the_odds_is_given_only_if_it_is_above_1(gain, text):
    assert times(Occlusion(2, np.array([[gain]], float), np.zeros((1, 1)))) == text


def test_the_numbers_that_a_network_receives_are_described():
    assert scale_in_words(describe()) == "numbers from 0 (black) to 1"
    three = describe(image_shape=(2, 5, 3), background=[0, 0, 0], mean=[0.1, 0.2, 0.3], deviation=[0.5] * 3)
    assert "less 0.1000, 0.2000, 0.3000 (training images' mean), over 0.5000 " in scale_in_words(three)
    assert shape_in_words(three) == "5x2 pixels (width x height), colour (red, green, blue)"


ODD_NAMES = ["a very long name, with commas & <b>", "accuracy", "$x_1$ 100% | _a_ `b`", "日本語の名前", "اسم"]


@pytest.fixture(
    params=[((6, 9, 3), ODD_NAMES), ((1, 1, 1), ["0", "1", "never tested"]), ((4, 4, 3), None)],
    scope="module",
)
def own(request, tmp_path_factory):
    """A project with images of its own: (folder, names of the classes). None: 40 classes."""
    shape, names = request.param
    names = names or [f"class <{k}>" for k in range(40)]
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(len(names)), 12)
    images = rng.integers(0, 256, (len(names), *shape))[labels] + rng.integers(0, 60, (len(labels), *shape))
    np.savez(
        folder / "own.npz",
        train_images=np.minimum(images, 255).astype(np.uint8),
        train_labels=labels,
        class_names=np.array(names),
        **(
            {"test_images": images[:2].astype(np.uint8), "test_labels": labels[:2]}
            if "never tested" in names
            else {}
        ),
    )
    yaml = YAML(typ="safe", pure=True)
    content = yaml.load(SHIPPED / "params.yaml")
    content["data"] |= {"dataset": "own", "path": "own.npz", "validation_size": 0.2, "test_size": 0.4}
    content["data"] |= {"allow_duplicates": True, "standardize": "channel"}
    content["model"]["architecture"] = NAME
    content["train"] |= {"epochs": 1, "batch_size": 16}
    yaml.dump(content, folder / "params.yaml")
    layers = [{"type": "conv2d", "out_channels": 4, "kernel_size": 3, "padding": "same"}, *SMALL[3:]]
    yaml.dump(
        {NAME: [*layers[:-1], {"type": "dense", "out_features": "classes"}]}, folder / "architectures.yaml"
    )
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # as matplotlib's about glyphs that a font lacks
        patch.chdir(folder)
        for stage in ("preprocess", "train", "evaluate", "report"):
            run(stage, patch)
    return folder, names


def test_images_of_any_shape_colour_and_classes_are_reported(own):
    folder, names = own
    text = (folder / "reports/report.html").read_text()
    page = Page(text)
    assert page.open == []
    for name in names:
        assert name in page.text
    assert "& <b>" not in text
    assert "<0>" not in text
    for word in ("digit", "MNIST", "28x28"):
        assert word not in page.text
    assert len(text) < 500_000
    assert ("matrix" in {a.get("class", "").split(" ")[0] for _, a in page.tags}) == (len(names) <= 30)


def test_the_page_shows_what_the_images_look_like(own, monkeypatch):
    folder, _ = own
    monkeypatch.chdir(folder)
    description = Description.load()
    pixels = np.load("data/processed/test_images.npy")
    page = Page(Path("reports/report.html").read_text())
    sources = {a["src"] for tag, a in page.tags if tag == "img"}
    numbers = re.findall(r"no\. (\d+)", page.text)
    assert numbers
    for number in numbers:
        image = np.broadcast_to(pixels[int(number)], (*description.image_shape[:2], 3))
        assert to_address(image) in sources


def test_the_card_describes_the_data_in_tables_without_broken_cells(own):
    folder, names = own
    card = (folder / "reports/model_card.md").read_text()
    assert "digit" not in card
    table = [line for line in card.split("## How good")[0].splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table] == [3] * 9
    assert "and 10 more |" in card or len(names) < 40
    height, width, _ = Description.model_validate_json((folder / Description.path).read_bytes()).image_shape
    assert f"{width}x{height} pixels" in card


def test_predictions_and_metrics_have_all_class_names(own, monkeypatch):
    folder, names = own
    monkeypatch.chdir(folder)
    assert list(Metrics.load().per_class) == names
    page, card = (Path("reports", name).read_text() for name in ("report.html", "model_card.md"))
    assert ("the five likeliest" in page, "the five likeliest" in card) == (len(names) > 10,) * 2
    assert load_predictions(names).matrix(len(names)).sum() == Metrics.load().test.examples


def test_cards_show_the_names_of_pictures_as_text(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "own" / name).mkdir(parents=True)
        for number in range(9):
            file = f"<u>{number} & {number}" + f" a name that is longer than a card {number:02}" * (
                number % 2
            )
            pixels = rng.integers(0, 256, (6, 9, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "own" / name / f"{file}.png")
    yaml = YAML(typ="safe", pure=True)
    content = yaml.load(SHIPPED / "params.yaml")
    content["data"] |= {"dataset": "own", "path": "own", "validation_size": 2, "test_size": 12}
    content["model"]["architecture"], content["train"]["epochs"] = NAME, 1
    yaml.dump(content, tmp_path / "params.yaml")
    layers = [{"type": "flatten"}, {"type": "dense", "out_features": "classes"}]
    yaml.dump({NAME: layers}, tmp_path / "architectures.yaml")
    monkeypatch.chdir(tmp_path)
    for stage in ("preprocess", "train", "evaluate", "report"):
        run(stage, monkeypatch)
    files = [row.file for row in Prediction.load()]
    assert all((tmp_path / "own" / file).exists() for file in files)
    text = Path("reports/report.html").read_text()
    page = Page(text)
    assert "<u>" not in text
    titles = [a["title"] for tag, a in page.tags if a.get("class") == "file"]
    numbers = [int(number) for number in re.findall(r"no\. (\d+)", page.text)]
    assert titles == [files[number] for number in numbers]
    for title in titles:
        assert short_file(title) in page.text
        assert len(short_file(title)) <= 32
        assert short_file(title).endswith(title[-10:])


def test_a_page_about_images_that_are_no_files_names_none(page):
    assert not [a for _, a in page.tags if a.get("class") == "file"]


def test_sizes_are_width_by_height(own):
    folder, _ = own
    height, width, channels = Description.model_validate_json(
        (folder / Description.path).read_bytes()
    ).image_shape
    page = Page((folder / "reports/report.html").read_text())
    assert f"input{width} x {height} x {channels}" in page.text


def test_the_network_is_a_table_with_the_names_of_its_columns(page):
    assert "layeroutput (width x height x channels)parameters" in page.text
