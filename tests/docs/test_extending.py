"""docs/extending.md is true: each example, put together from the page's own blocks in a copy of the project, works."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from gzip import compress
from struct import pack
from typing import NamedTuple

import numpy as np
import pytest
from documents import ROOT
from projects import build_once, make_project, run, stages_run
from ruamel.yaml import YAML

pytestmark = pytest.mark.walk

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
QUICK = ["-S", "data.dataset=digits", "-S", "train.epochs=2", "-S", "train.batch_size=16"]


class Block(NamedTuple):
    """A block of code: a new file, what comes at the end of a file or before a function, or changes of lines."""

    file: str
    place: str  # "new", "at the end", "before `NAME`" or "", for changes
    code: str


def blocks(text):
    start = r"^`([^`\n]+)`(?:, (new|at the end|before `\w+`))?:"
    return [
        Block(*parts)
        for parts in re.findall(rf"{start}\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def insert(block, folder):
    path = folder / block.file
    if block.place == "new":
        assert not path.exists(), path
        path.write_text(block.code, encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    if block.place == "at the end":
        text += ("\n\n" if path.suffix == ".py" else "\n") + block.code
    elif block.place:
        function = f"def {block.place.split('`')[1]}("
        assert text.count(f"\n{function}") == 1, f"{block.file} does not have once: {function}"
        text = text.replace(f"\n{function}", f"\n{block.code}\n\n{function}")
    else:
        for hunk in block.code.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] in " -")
            after = "".join(line[1:] for line in lines if line[0] in " +")
            assert f"\n{text}".count(f"\n{before}") == 1, f"{block.file} does not have once:\n{before}"
            text = f"\n{text}".replace(f"\n{before}", f"\n{after}")[1:]
    path.write_text(text, encoding="utf-8")


def typed(section, start):
    """The commands of a section that begin so, in words."""
    lines = re.findall(rf"^{re.escape(start)}.*$", SECTIONS[section], re.MULTILINE)
    assert lines, (section, start)
    return [shlex.split(line) for line in lines]


def typed_options(*sections):
    """What the `dvc exp run` of each section is told."""
    return [word for section in sections for command in typed(section, "dvc exp run") for word in command[3:]]


def write_stripes(folder):
    """IDX files of images with one stripe: that is what the example's dataset is made of."""
    folder.mkdir(parents=True)
    for name, count in (("train", 240), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 2
        images = np.zeros((count, 28, 28), np.uint8)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            (image.T if label else image)[5 + number % 18] = 255
        header = pack(">4B3I", 0, 0, 8, 3, *images.shape)
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(compress(header + images.tobytes()))
        header = pack(">4BI", 0, 0, 8, 1, count)
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(compress(header + labels.tobytes()))


def filled(code, folder):
    """`code` with what each $(COMMAND) prints in `folder`; of that, the first word, the hash."""

    def printed(match):
        shown = subprocess.run(match[1], shell=True, cwd=folder, check=True, capture_output=True, text=True)
        return shown.stdout.split()[0]

    return re.sub(r"\$\((.+?)\)", printed, code)


@pytest.fixture(scope="session")
def extended(tmp_path_factory):
    """A copy of the project with all that the page adds, and run with it; not to be changed."""

    def build(folder):
        make_project(folder)
        shutil.copy(ROOT / "pyproject.toml", folder)
        shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        write_stripes(folder / "datasets/stripes")
        for block in blocks(PAGE):
            insert(block._replace(code=filled(block.code, folder / "datasets/stripes")), folder)
        chosen = typed_options("A layer", "An optimiser")
        result = run(folder, "dvc", "exp", "run", *QUICK, *chosen)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "mistakes" in stages_run(result.stdout)

    return build_once(tmp_path_factory, "extended", build)


@pytest.fixture
def other(extended, tmp_path):
    """A copy of it to run another experiment in."""
    return shutil.copytree(extended, tmp_path / "other")


def history(folder):
    with (folder / "reports/history.csv").open() as file:
        return list(csv.DictReader(file))


def test_each_block_of_code_has_a_place_and_each_thing_to_add_has_blocks():
    assert (
        len(blocks(PAGE)) == len(re.findall(r"^```\w+$", PAGE, re.MULTILINE)) - 1
    )  # but the keys in params.yaml
    assert all(blocks(text) for text in SECTIONS.values())


def test_the_table_counts_the_files_that_the_examples_touch():
    rows = re.findall(r"^\| (\[.*?) \| (.*?) \|", PAGE, re.MULTILINE)
    touched = {re.search(r"#([\w-]+)", name)[1]: cell for name, cell in rows}
    code = {"cnn", "pipeline", "dvc.yaml"}
    for title, text in SECTIONS.items():
        files = {block.file for block in blocks(text) if block.file.split("/")[0] in code}
        own = {block.file for block in blocks(text) if block.place == "new"}
        optional = {f"pipeline/apps/page/{name}.js" for name in ("network", "backward")}
        optional.add("pipeline/report/templates/report.html")
        cell = touched.get(title.lower().replace(" ", "-"), touched["a-layer"])
        assert set(re.findall(r"`([\w/.]+)`", cell)) - {"fit"} == files - own - optional, title
        assert ("its own" in cell) == bool(own & files), title


@pytest.mark.parametrize("section", ["A layer", "A layer with layers inside", "An optimiser", "A stage"])
def test_what_is_added_passes_the_tests_that_the_page_names(extended, section):
    (command,) = typed(section, "python -m pytest")
    result = run(extended, *command[2:], "-q", "-p", "no:cacheprovider")
    assert result.returncode == 0, result.stdout
    assert re.search(r"\d+ passed", result.stdout)


def test_the_code_on_the_page_is_in_the_projects_style(extended):
    files = {block.file for block in blocks(PAGE) if block.file.endswith(".py")}
    for check in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        result = run(extended, "ruff", *check, *files)
        assert result.returncode == 0, result.stdout


def test_the_layer_and_the_optimiser_are_chosen_by_name_and_train(extended):
    assert "Softplus(4.0)" in (extended / "reports/report.html").read_text(encoding="utf-8")
    params = YAML(typ="safe", pure=True).load(extended / "params.yaml")
    assert params["train"]["optimizer"]["name"] == "lion"
    metrics = json.loads((extended / "reports/metrics.json").read_text())
    assert (metrics["dataset"], metrics["model"]["architecture"]) == ("digits", "smooth")
    assert metrics["test"]["accuracy"] > 0.7  # guessing: 0.1


def test_all_that_is_added_is_listed_with_its_keys(extended):
    shown = run(extended, "cnn").stdout
    assert (
        "  softplus: A rectifier without a kink: y = ln(1 + exp(beta·x)) / beta.\n    beta: sharpness"
        in shown
    )
    assert "  concatenate: " in shown
    assert "  lion: " in shown


def test_the_section_of_params_sets_the_optimisers_keys_and_their_ranges_are_those_of_the_signature(other):
    (section,) = re.findall(r"^```yaml\n(    lion:\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (option,) = re.findall(r"-S '(\+train\.optimizer\.lion=[^']+)'", PAGE)
    path = other / "params.yaml"
    text = path.read_text()
    result = run(other, "dvc", "exp", "run", "train", "-S", option)
    assert result.returncode == 0, result.stdout + result.stderr
    yaml = YAML(typ="safe", pure=True)
    assert yaml.load(path)["train"]["optimizer"]["lion"] == yaml.load(section)["lion"]
    path.write_text(text.replace("    adamw:\n", f"{section}    adamw:\n"))
    look = (
        "from pipeline.config.params import load_params; print(load_params().train.optimizer.make({}).beta2)"
    )
    assert (
        subprocess.run([sys.executable, "-c", look], cwd=other, capture_output=True, text=True).stdout
        == "0.98\n"
    )
    path.write_text(path.read_text().replace("beta1: 0.95", "beta1: 1.5"))
    result = run(other, "pipeline", "train")
    assert result.returncode == 1
    assert "train.optimizer.lion.beta1" in result.stderr
    assert "[0, 1)" in result.stderr


def test_the_playground_computes_the_layer(other):
    result = run(other, "pipeline", "playground")
    assert result.returncode == 0, result.stderr
    test = "tests/pipeline/test_playground.py"
    result = run(other, "pytest", test, "-k", "activations or these_networks", "-q", "-p", "no:cacheprovider")
    assert result.returncode == 0, result.stdout


def test_the_layer_with_layers_inside_trains_and_the_playground_refuses_it(other):
    options = ["-S", "data.dataset=digits", *typed_options("A layer with layers inside")]
    result = run(other, "dvc", "exp", "run", "train", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert stages_run(result.stdout) == ["train"]
    assert float(history(other)[-1]["validation_accuracy"]) > 0.7
    result = run(other, "pipeline", "playground")
    assert result.returncode == 1
    assert "concatenate" in result.stderr
    assert "network.js" in result.stderr


def test_the_dataset_is_fetched_from_a_folder_prepared_and_learnt(other):
    (export,) = typed("A dataset", "export")
    name, _, value = export[1].partition("=")
    variables = {name: value.replace("$PWD", str(other))}
    train = "train.epochs=8", "train.optimizer.name=sgd", "train.optimizer.learning_rate=0.1"
    others = *train, "model.architecture=baseline", "data.validation_size=0.2"
    options = [*typed_options("A dataset"), *(word for change in others for word in ("-S", change))]
    result = run(other, "dvc", "exp", "run", "train", *options, **variables)
    assert result.returncode == 0, result.stdout + result.stderr
    assert stages_run(result.stdout) == ["fetch", "preprocess", "train"]
    assert sorted(path.name for path in (other / "data/raw/stripes").iterdir()) == sorted(
        path.name for path in (other / "datasets/stripes").iterdir()
    )
    description = json.loads((other / "data/processed/dataset.json").read_text())
    assert description["class_names"] == ["lying", "standing"]
    assert float(history(other)[-1]["validation_accuracy"]) == 1.0


def test_the_stage_writes_how_often_which_classes_are_confused(extended):
    metrics = json.loads((extended / "reports/metrics.json").read_text())["test"]
    counts = [int(line.split()[0]) for line in (extended / "reports/mistakes.txt").read_text().splitlines()]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == round(metrics["examples"] * (1 - metrics["accuracy"]))


def test_the_figure_is_a_picture_and_on_the_page(extended):
    assert (extended / "reports/figures/recall.png").read_bytes().startswith(b"\x89PNG")
    assert (
        'aria-label="The recognised fraction of each class"' in (extended / "reports/report.html").read_text()
    )


def test_the_executor_gives_the_same_bytes(extended):
    (command,) = typed("An executor", "python fit_on")
    result = subprocess.run([sys.executable, *command[1:]], cwd=extended, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("the same bytes\n", "")
