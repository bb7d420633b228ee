"""The report shows what the results say, contains everything that it shows, and sends no request."""

import json
import re
import shutil
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from barriers import barriers
from PIL import Image
from projects import SHIPPED, set_params
from ruamel.yaml import YAML
from test_playground import browser as browser

from cnn import checkpoint, softmax_cross_entropy
from cnn.ops.softmax import softmax
from cnn.views import mean_over_views
from pipeline import __main__ as program
from pipeline.apps.run import print_summary
from pipeline.artefacts.evaluate import Metrics, Prediction, load_predictions
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.train import Environment, Epoch, Network, ParameterStatistics
from pipeline.artefacts.trained import load_trained
from pipeline.config.params import load_params
from pipeline.errors import UserError
from pipeline.report.facts import plain
from pipeline.report.images import to_address
from pipeline.report.journey import journey
from pipeline.report.page import build, short_file
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


def test_the_page_shows_the_way_there_and_back(here, page):
    model, network = load_trained()
    test = load_examples("test", network.data)
    predictions = load_predictions(network.data.class_names)
    right = np.flatnonzero(predictions.actual == predictions.predicted)
    number = int(right[predictions.probability[right].argmin()])  # the right answer that is least sure
    found = journey(model, test.images[number], int(test.targets[number].argmax()), network.data)
    sources = {a["src"] for tag, a in page.tags if tag == "img"}
    text = " ".join(page.text.split())
    assert f"Test image {number}, which shows" in text
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


def test_the_report_has_no_barriers_in_light_and_dark_on_a_desktop_and_a_phone(browser, project):
    assert barriers(browser, project / "reports/report.html") == []


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
