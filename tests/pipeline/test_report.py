"""The report shows what the results say, contains everything that it shows, and sends no request."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from projects import SHIPPED
from ruamel.yaml import YAML

from cnn import checkpoint
from pipeline import __main__ as program
from pipeline.artefacts.evaluate import Metrics, Prediction, Predictions, load_predictions
from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.train import Environment, Epoch, Network, ParameterStatistics
from pipeline.config.params import load_params
from pipeline.errors import UserError
from pipeline.report import figures
from pipeline.report.calibration import calibration_bins, expected_calibration_error
from pipeline.report.reference import REFERENCE_SOURCE
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
            assert "alt" in attributes
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
    labels = [a["aria-label"] for tag, a in page.tags if tag == "td" and "aria-label" in a]
    times = [re.fullmatch(r"\d taken for \d (once|(\d+) times)", label) for label in labels]
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
        (Environment.load, "models/environment.json", "train"),
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


def test_wrong_answers_come_surest_first_and_right_ones_least_sure_first():
    predictions = Predictions(
        np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 0, 1]), np.array([0.9, 0.6, 0.5, 0.8, 0.7])
    )

    class Test:
        images = np.zeros((5, 2, 2, 1), np.float32)

    wrong, hard = report.select(predictions, Test, lambda images: np.zeros((len(images), 2)))
    assert [example.number for example in wrong] == [3, 1]
    assert [example.number for example in hard] == [2, 4, 0]
    assert [example.actual for example in wrong] == [1, 0]


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
figure = figures.calibration_figure([{{"low": 0, "high": 1, "count": 1, "confidence": 0.5, "accuracy": 1}}])
figures.save_figure(figure, figures.Path({str(tmp_path)!r}) / "figure.png")
figures.to_svg(figure, "")
assert dict(matplotlib.rcParams) == before
assert set(matplotlib.colormaps) == maps
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_svgs_take_the_colour_and_width_of_their_place():
    history = [
        {"epoch": epoch, "learning_rate": 0.1}
        | {f"{part}_{what}": 0.1 * epoch for part in ("train", "validation") for what in ("loss", "accuracy")}
        for epoch in (1, 2)
    ]
    svg = figures.to_svg(figures.training_curves_figure(history), "two & two")
    assert svg == figures.to_svg(figures.training_curves_figure(history), "two & two")
    assert svg.startswith('<svg role="img" aria-label="two &amp; two"')
    assert figures.INK not in svg
    assert "currentColor" in svg
    assert not re.search(r'<svg[^>]* width="', svg)
    assert ">epoch</text>" in svg
