"""DVC runs the real pipeline on the digits, in temporary projects."""

import csv
import json
import shutil
import sys

import pytest
from projects import STAGES, make_project, results, run, set_params, stages_run, trained_project

from cnn import checkpoint
from pipeline import __main__ as program

FIGURES = [
    *("calibration", "confusion_matrix", "feature_maps", "filters", "misclassified", "occlusion"),
    *("statistics", "training_curves"),
]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    return trained_project(tmp_path_factory)


@pytest.fixture(scope="module")
def project(trained, tmp_path_factory):
    """A copy of `trained` for all tests that do not change it."""
    return shutil.copytree(trained, tmp_path_factory.mktemp("copy") / "project")


@pytest.fixture
def other(trained, tmp_path):
    """A copy of `trained` that a test may change."""
    return shutil.copytree(trained, tmp_path / "other")


@pytest.fixture
def command(monkeypatch):
    """command(folder, name): the message with which `python -m pipeline NAME` fails there, or None."""

    def call(folder, *arguments):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
        with pytest.raises(SystemExit) as ended:
            program.main()
        return None if ended.value.code in (0, None) else str(ended.value.code)

    return call


def test_the_results_are_whole_and_agree_with_one_another(project):
    assert set(results(project)) == {
        "models/architecture.yaml",
        "reports/environment.json",
        "models/model.npz",
        "reports/classification_report.txt",
        *(f"reports/figures/{name}.png" for name in FIGURES),
        "reports/history.csv",
        "reports/metrics.json",
        "reports/model_card.md",
        "reports/predictions.csv",
        "reports/report.html",
        "reports/statistics.csv",
    }
    metrics = json.loads((project / "reports/metrics.json").read_text())
    assert metrics["dataset"] == "digits"
    assert metrics["model"]["parameters"] == 3 * 3 * 8 + 8 + 13 * 13 * 8 * 10 + 10
    assert metrics["test"]["accuracy"] > 0.8
    with (project / "reports/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    right = sum(row["actual"] == row["predicted"] for row in rows)
    assert metrics["test"]["accuracy"] == pytest.approx(right / len(rows), abs=1e-6)
    with (project / "reports/history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == ["1", "2"]
    _, metadata = checkpoint.load(project / "models/model.npz")
    best = max(history, key=lambda row: float(row["validation_accuracy"]))
    assert metadata["epoch"] == int(best["epoch"]) == metrics["model"]["epoch"]
    assert metrics["validation"]["accuracy"] == pytest.approx(float(best["validation_accuracy"]), abs=1e-6)


def test_a_second_run_does_nothing(project):
    result = run(project, "dvc", "repro")
    assert "Data and pipelines are up to date." in result.stdout
    assert stages_run(result.stdout) == []


def test_files_that_systems_and_editors_leave_behind_rerun_nothing(other):
    for folder in ("cnn/layers", "data/raw/digits", "data/processed", "models", "reports/figures"):
        for name in (".DS_Store", "Thumbs.db", ".a.py.swp", "a.py~", "#a.py#", ".ipynb_checkpoints/a.py"):
            path = other / folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("stray")
    assert run(other, "dvc", "status").stdout == "Data and pipelines are up to date.\n"


def test_a_change_reruns_only_what_depends_on_it_and_going_back_reruns_nothing(other):
    before = results(other)
    until_evaluate = [other, "dvc", "exp", "run", "evaluate"]  # without figures, which take longest
    result = run(*until_evaluate, "-S", "evaluate.confidence_level=0.9")
    assert stages_run(result.stdout) == ["evaluate"]
    result = run(*until_evaluate, "-S", "train.optimizer.learning_rate=0.05")
    assert stages_run(result.stdout) == ["train", "evaluate"]
    back = ["-S", "evaluate.confidence_level=0.95", "-S", "train.optimizer.learning_rate=null"]
    unused = ["-S", "architectures.yaml:sample.0.out_channels=16"]
    result = run(other, "dvc", "exp", "run", *back, *unused)
    assert (result.returncode, stages_run(result.stdout)) == (0, []), (
        "only a network that is not used has changed"
    )
    assert results(other) == before
    figures = other / "pipeline/report/figures.py"
    text = figures.read_text()
    figures.write_text(text.replace('"#12908a"', '"#12908b"'))
    assert stages_run(run(other, "dvc", "repro").stdout) == ["report"]
    assert results(other) != before
    figures.write_text(text)
    assert stages_run(run(other, "dvc", "repro").stdout) == []
    assert results(other) == before


EVERYTHING = {
    "data.standardize": "channel",
    "model.architecture": "batch_norm",
    "train.epochs": 3,
    "train.batch_size": 32,
    "train.shard_size": 8,
    "train.patience": 3,
    "train.clip_norm": 5.0,
    "train.clip_value": 1.0,
    "train.moving_average": 0.9,
    "train.loss.softmax_cross_entropy.label_smoothing": 0.1,
    "train.loss.softmax_cross_entropy.class_weights": [1, 1, 1, 1, 1, 1, 1, 1, 2, 1],
    "train.optimizer.name": "adamw",
    "train.optimizer.learning_rate": 0.003,
    "train.schedule.name": "one_cycle",
    "train.schedule.warm_up": 0.5,
    "train.augmentation.random_shift": 1.0,
    "train.augmentation.random_rotation": 5.0,
    "train.augmentation.random_zoom": 0.05,
    "train.augmentation.random_aspect": 0.05,
    "train.augmentation.random_shear": 5.0,
    "train.augmentation.elastic_distortion.strength": 0.5,
    "train.augmentation.random_crop.padding": 1,
    "train.augmentation.random_stroke": 0.1,
    "train.augmentation.random_blur": 0.1,
    "train.augmentation.random_gamma": 0.1,
    "train.augmentation.random_brightness": 0.1,
    "train.augmentation.random_contrast": 0.1,
    "train.augmentation.cutout": 3,
    "train.augmentation.random_erasing.probability": 0.1,
}


def test_everything_together_learns_and_gives_the_same_bytes_each_time(other, command):
    """Batch norm, dropout, AdamW, one-cycle, warm-up, clipping, averages, smoothing, weights, augmentation."""
    set_params(other, EVERYTHING)
    for stage in ("preprocess", "train", "evaluate", "report"):
        assert command(other, stage) is None
    first = results(other)
    metrics = json.loads(first["reports/metrics.json"])
    assert metrics["test"]["accuracy"] > 0.8
    history = list(csv.DictReader(first["reports/history.csv"].decode().splitlines()))
    assert metrics["validation"]["accuracy"] == max(float(row["validation_accuracy"]) for row in history)
    for stage in ("train", "evaluate"):
        assert command(other, stage) is None
    assert results(other) == first


def test_a_network_that_ends_in_softmax_is_trained_and_evaluated_on_probabilities(other, command):
    with (other / "architectures.yaml").open("a") as file:
        file.write("small:\n- {type: flatten}\n- {type: dense, out_features: 10}\n- {type: softmax}\n")
    set_params(
        other,
        {"model.architecture": "small", "train.loss.name": "cross_entropy", "train.epochs": 5},
    )
    for stage in ("train", "evaluate"):
        assert command(other, stage) is None
    found = results(other)
    metrics = json.loads(found["reports/metrics.json"])
    assert metrics["test"]["accuracy"] > 0.85
    history = list(csv.DictReader(found["reports/history.csv"].decode().splitlines()))
    best = history[metrics["model"]["epoch"] - 1]
    assert metrics["validation"]["loss"] == pytest.approx(float(best["validation_loss"]), abs=2e-6)
    rows = list(csv.DictReader(found["reports/predictions.csv"].decode().splitlines()))
    assert max(float(row["probability"]) for row in rows) > 0.9  # softmax twice would stay below 0.24


@pytest.mark.parametrize(
    ("stage", "damage", "message"),
    [
        ("train", "data/processed/train_images.npy", "data/processed/train_images.npy is damaged"),
        ("train", "data/processed/dataset.json", "data/processed/dataset.json is damaged"),
        ("evaluate", "models/model.npz", "The checkpoint models/model.npz is damaged"),
        ("report", "reports/history.csv", "reports/history.csv is damaged"),
        ("preprocess", "data/raw/digits/images.npy", "data/raw/digits/images.npy is damaged"),
        ("train", "params.yaml", "params.yaml must hold keys with values"),
        ("train", "architectures.yaml", "architectures.yaml must hold keys with values"),
        ("run", "params.yaml", "params.yaml must hold keys with values"),
    ],
)
@pytest.mark.parametrize("missing", [False, True])
def test_damaged_or_missing_files_give_one_message_and_change_nothing(
    project, command, stage, damage, message, missing
):
    path = project / damage
    whole, before = path.read_bytes(), results(project)
    try:
        path.unlink() if missing else path.write_bytes(b"")
        damaged = results(project)
        answer = command(project, stage)
        assert results(project) == damaged
    finally:
        path.write_bytes(whole)
    assert answer.startswith("error: ")
    assert (path.name if missing else message) in answer
    assert results(project) == before


def test_evaluation_asks_models_and_never_architectures_yaml(project, command):
    path = project / "architectures.yaml"
    whole, before = path.read_text(), results(project)
    try:
        path.write_text("baseline: []\n")
        assert command(project, "evaluate") is None
    finally:
        path.write_text(whole)
    assert results(project) == before


def test_a_loss_that_is_not_finite_stops_with_advice(other):
    before = results(other)
    set_params(other, {"train.optimizer.sgd.learning_rate": 1e30})
    result = run(other, "pipeline", "train")
    assert result.returncode == 1
    assert "error: The loss became " in result.stderr
    assert "Try: dvc exp run -S train.optimizer.learning_rate=0.1\n" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr
    assert results(other) == before


def test_a_refused_value_is_told_with_how_to_go_back(other, command):
    set_params(other, {"model.architecture": "baselin"})
    message = command(other, "run")
    assert "Did you mean 'baseline'?" in message
    assert message.endswith(
        "To go back to those of the last commit: git checkout params.yaml architectures.yaml"
    )


def test_all_runs_are_in_a_table_with_what_was_changed(project):
    result = run(project, "pipeline", "runs", COLUMNS="80")
    assert result.returncode == 0, result.stderr
    assert "data.dataset=digits" in result.stdout
    assert "train.epochs=2" in result.stdout
    assert (
        f"{json.loads((project / 'reports/metrics.json').read_text())['test']['accuracy']:.2%}"
        in result.stdout
    )
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_log_has_no_codes_of_a_terminal_and_no_home_folder_is_needed(other):
    for stage in ("train", "report"):
        result = run(other, "pipeline", stage, FORCE_COLOR="1", HOME="/dev/null")
        assert (result.returncode, result.stderr) == (0, "")
        assert "\x1b[2K" not in result.stdout
        assert "\x1b[?25" not in result.stdout


def test_run_falls_back_to_digits_and_says_why(other):
    set_params(other, {"data.dataset": "mnist"})
    result = run(other, "pipeline", "run")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No source has train-images-idx3-ubyte.gz of mnist. Tried:" in result.stderr
    assert "MNIST could not be fetched" in result.stdout
    assert "digits, from scikit-learn" in result.stdout
    assert "test accuracy" in result.stdout
    assert "reports/report.html" in result.stdout


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("pipeline/stages/fetch.py", "raise SystemExit('broken')", "broken"),
        ("dvc.yaml", "stages: 3", "'./dvc.yaml' validation failed."),
    ],
)
def test_run_falls_back_only_if_no_source_has_the_files(tmp_path, path, content, reason):
    project = make_project(tmp_path / "project")
    (project / path).write_text(content)
    before = (project / "params.yaml").read_text()
    result = run(project, "pipeline", "run")
    assert result.returncode == 1
    assert reason in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: The pipeline stopped")
    assert "MNIST could not be fetched" not in result.stdout
    assert (project / "params.yaml").read_text() == before


@pytest.mark.parametrize(
    "name",
    [
        *STAGES,
        "explain",
        "export",
        "import-weights",
        "playground",
        "predict",
        "repeat",
        "run",
        "runs",
        "verify",
    ],
)
def test_every_command_explains_itself(tmp_path, command, capsys, name):
    assert command(tmp_path, name, "--help") is None
    shown = capsys.readouterr().out
    assert f"Usage: python -m pipeline {name}" in shown
    assert len(shown) > 150
