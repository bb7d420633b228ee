"""The real thing: DVC runs the pipeline on the digits, in a clone of its own."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cnn import checkpoint

ROOT = Path(__file__).parents[2]
QUICK = ["-S", "data.dataset=digits", "-S", "train.epochs=2", "-S", "train.batch_size=16"]
CODE = [
    "cnn",
    "pipeline",
    "params.yaml",
    "architectures.yaml",
    "dvc.yaml",
    ".dvcignore",
    ".gitignore",
    ".dvc/config",
]


STAGES = ["fetch", "preprocess", "train", "evaluate", "report"]
FIGURES = [
    *("calibration", "confusion_matrix", "feature_maps", "filters", "misclassified", "occlusion"),
    *("statistics", "training_curves"),
]


def run(folder, *command, **variables):
    """Run `python -m COMMAND` in `folder`, with this Python first on the path and no public mirror reachable."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "https_proxy": "http://127.0.0.1:9",  # nothing listens there
        "http_proxy": "http://127.0.0.1:9",
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "100",
        **variables,
    }
    environment.pop("DATASET_MIRROR", None)
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True
    )


def make_project(folder):
    """The project as it stands in the working tree, in a Git repository of its own."""
    for name in CODE:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "start"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project in which the pipeline has run on the digits for two epochs."""
    folder = make_project(tmp_path_factory.mktemp("clone") / "project")
    result = run(folder, "dvc", "exp", "run", *QUICK)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def results(folder):
    files = [*folder.glob("models/*"), *folder.glob("reports/**/*")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.is_file()}


def stages_run(output):
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def test_the_results_are_whole_and_agree_with_one_another(project):
    assert set(results(project)) == {
        "models/architecture.yaml",
        "models/environment.json",
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


def test_another_clone_gives_the_same_bytes(project, tmp_path):
    other = make_project(tmp_path / "other")
    assert run(other, "dvc", "exp", "run", *QUICK, OPENBLAS_NUM_THREADS="1").returncode == 0
    assert results(other) == results(project)
    assert (other / "dvc.lock").read_text() == (project / "dvc.lock").read_text()


def test_a_change_reruns_only_what_depends_on_it_and_going_back_reruns_nothing(project):
    before = results(project)
    result = run(project, "dvc", "exp", "run", "-S", "evaluate.confidence_level=0.9")
    assert stages_run(result.stdout) == ["evaluate", "report"]
    result = run(project, "dvc", "exp", "run", "-S", "train.optimizer.learning_rate=0.05")
    assert stages_run(result.stdout) == ["train", "evaluate", "report"]
    result = run(project, "dvc", "exp", "run", "-S", "architectures.yaml:sample.0.out_channels=16")
    assert stages_run(result.stdout) == [], "another architecture than the chosen one"
    back = ["-S", "evaluate.confidence_level=0.95", "-S", "train.optimizer.learning_rate=null"]
    result = run(project, "dvc", "exp", "run", *back)
    assert stages_run(result.stdout) == []
    assert results(project) == before
    figures = project / "pipeline/report/figures.py"
    text = figures.read_text()
    figures.write_text(text.replace('"#2f7fd1"', '"#2f7fd0"'))
    assert stages_run(run(project, "dvc", "repro").stdout) == ["report"]
    assert results(project) != before
    figures.write_text(text)
    assert stages_run(run(project, "dvc", "repro").stdout) == []
    assert results(project) == before


EVERYTHING = {
    "data.dataset": "digits",
    "data.standardize": "true",
    "model.architecture": "batch_norm",
    "train.epochs": 3,
    "train.batch_size": 32,
    "train.shard_size": 8,
    "train.patience": 3,
    "train.clip_norm": 5.0,
    "train.clip_value": 1.0,
    "train.moving_average": 0.9,
    "train.loss.softmax_cross_entropy.label_smoothing": 0.1,
    "train.loss.softmax_cross_entropy.class_weights": "[1,1,1,1,1,1,1,1,2,1]",
    "train.optimizer.name": "adamw",
    "train.optimizer.learning_rate": 0.003,
    "train.schedule.name": "one_cycle",
    "train.schedule.warm_up": 0.5,
    "train.augmentation.random_shift": 1.0,
    "train.augmentation.random_rotation": 5.0,
    "train.augmentation.random_zoom": 0.05,
    "train.augmentation.random_shear": 5.0,
    "train.augmentation.elastic_distortion.strength": 0.5,
    "train.augmentation.cutout": 3,
}


def test_everything_together_learns_and_gives_the_same_bytes_each_time(tmp_path):
    """Batch norm, dropout, AdamW, one-cycle, warm-up, clipping, averages, smoothing, weights, augmentation."""
    other = make_project(tmp_path / "other")
    options = [word for key, value in EVERYTHING.items() for word in ("-S", f"{key}={value}")]
    result = run(other, "dvc", "exp", "run", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    first = results(other)
    metrics = json.loads(first["reports/metrics.json"])
    assert metrics["test"]["accuracy"] > 0.8
    history = list(csv.DictReader(first["reports/history.csv"].decode().splitlines()))
    assert metrics["validation"]["accuracy"] == max(float(row["validation_accuracy"]) for row in history)
    assert run(other, "pipeline", "train").returncode == 0
    assert run(other, "pipeline", "evaluate").returncode == 0
    assert results(other) == first


def test_a_network_that_ends_in_softmax_is_trained_and_evaluated_on_probabilities(tmp_path):
    other = make_project(tmp_path / "other")
    with (other / "architectures.yaml").open("a") as file:
        file.write("small:\n- {type: flatten}\n- {type: dense, out_features: 10}\n- {type: softmax}\n")
    options = ["data.dataset=digits", "model.architecture=small", "train.loss.name=cross_entropy"]
    result = run(other, "dvc", "exp", "run", *(word for option in options for word in ("-S", option)))
    assert result.returncode == 0, result.stdout + result.stderr
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
    project, stage, damage, message, missing
):
    path = project / damage
    whole, before = path.read_bytes(), results(project)
    try:
        path.unlink() if missing else path.write_bytes(b"")
        damaged = results(project)
        result = run(project, "pipeline", stage)
        assert results(project) == damaged
    finally:
        path.write_bytes(whole)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    if missing:
        assert path.name in result.stderr
    else:
        assert message in result.stderr
    assert results(project) == before


def test_evaluation_asks_models_and_never_architectures_yaml(project):
    path = project / "architectures.yaml"
    whole, before = path.read_text(), results(project)
    try:
        path.write_text("baseline: []\n")
        assert run(project, "pipeline", "evaluate").returncode == 0
    finally:
        path.write_text(whole)
    assert results(project) == before


def test_a_loss_that_is_not_finite_stops_with_advice(project):
    path = project / "params.yaml"
    whole, before = path.read_text(), results(project)
    try:
        path.write_text(whole.replace("learning_rate: 0.1", "learning_rate: 1e30"))
        result = run(project, "pipeline", "train")
    finally:
        path.write_text(whole)
    assert result.returncode == 1
    assert "error: The loss became " in result.stderr
    assert "Try: dvc exp run -S train.optimizer.learning_rate=0.1\n" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr
    assert results(project) == before


def test_run_falls_back_to_digits_and_says_why(tmp_path):
    project = make_project(tmp_path / "project")
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("epochs: 10", "epochs: 1"))
    result = run(project, "pipeline", "run")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No source has train-images-idx3-ubyte.gz of mnist. Tried:" in result.stderr
    assert "MNIST could not be fetched" in result.stdout
    assert "digits, from scikit-learn" in result.stdout
    assert "test accuracy" in result.stdout
    assert "reports/report.html" in result.stdout


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [("data", "", "data"), ("dvc.yaml", "stages: 3", "'./dvc.yaml' validation failed.")],
)
def test_run_falls_back_only_where_no_source_has_the_files(tmp_path, path, content, reason):
    project = make_project(tmp_path / "project")
    (project / path).write_text(content)
    result = run(project, "pipeline", "run")
    assert result.returncode == 1
    assert reason in result.stderr
    assert result.stderr.endswith("error: The pipeline stopped; the reason stands above.\n")
    assert "MNIST could not be fetched" not in result.stdout
    assert (project / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


@pytest.mark.parametrize("stage", [*STAGES, "explain", "playground", "predict", "run", "verify"])
def test_every_command_explains_itself(stage):
    result = run(ROOT, "pipeline", stage, "--help")
    assert result.returncode == 0
    assert f"Usage: python -m pipeline {stage}" in result.stdout
    assert len(result.stdout) > 150
