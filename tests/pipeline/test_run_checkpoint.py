"""The train stage and its checkpoints, in one process, on a few of the small digits."""

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from projects import SHIPPED, set_params
from ruamel.yaml import YAML

from cnn import checkpoint
from cnn.checkpoint import CheckpointError
from pipeline import __main__ as program
from pipeline import cores
from pipeline.artefacts.evaluate import Metrics
from pipeline.artefacts.train import noted_seconds
from pipeline.config.architectures import build_chosen
from pipeline.config.params import load_params
from pipeline.errors import UserError
from pipeline.stages import evaluate, fetch, preprocess, resume, train
from pipeline.stages.resume import RunCheckpoint, fingerprint

SMALL = [{"type": "flatten"}, {"type": "batch_norm"}, {"type": "dense", "out_features": 10}]
RESULTS = ("models/model.npz", "reports/history.csv", "reports/statistics.csv")


class CutOffError(Exception):
    pass


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with 80 of the digits, and params with which patience ends the run early."""
    folder = tmp_path_factory.mktemp("prepared")
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load(SHIPPED / "params.yaml")
    params["data"] |= {"dataset": "digits", "train_size": 60, "validation_size": 20}
    params["model"]["architecture"] = "small"
    params["train"] |= {"epochs": 9, "batch_size": 16, "patience": 2, "moving_average": 0.5}
    params["train"]["optimizer"] |= {"name": "adam", "learning_rate": 0.1}
    yaml.dump(params, folder / "params.yaml")
    yaml.dump({"small": SMALL}, folder / "architectures.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        checked = load_params()
        fetch.fetch(checked.data)
        preprocess.preprocess(checked.data, checked.seed)
    return folder


@pytest.fixture
def project(prepared, tmp_path, monkeypatch):
    """A copy of `prepared`, in which the test runs."""
    shutil.copytree(prepared, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(cores, "count_cores", lambda: 1)
    return tmp_path / "project"


def bytes_of_results():
    return [hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in RESULTS]


def network_loss():
    """The loss on the validation images of the network in models/."""
    evaluate.evaluate(load_params().evaluate)
    return Metrics.load().validation.loss


def train_until(monkeypatch, saves):
    """Train, but stop like a killed process after this many `saves` of checkpoints; whether it finished."""
    count = 0
    save = RunCheckpoint.save

    def save_and_count(run):
        nonlocal count
        save(run)
        count += 1
        if count == saves:
            raise CutOffError

    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoint, "save", save_and_count)
        patch.setattr(RunCheckpoint, "is_due", lambda run: True)
        try:
            train.train(load_params())
        except CutOffError:
            return False
    return True


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_run_cut_off_at_any_checkpoint_ends_with_the_same_files(project, monkeypatch, capsys, keep):
    set_params(project, {"train.keep": keep})
    train.train(load_params())
    whole = bytes_of_results()
    history = Path("reports/history.csv").read_text().splitlines()
    printed = capsys.readouterr().out
    kept = int(printed.partition(f"{keep.capitalize()} epoch: ")[2].partition(",")[0])
    assert len(history) - 1 < 9  # so patience ended it
    assert kept < len(history) - 1 if keep == "best" else kept == len(history) - 1
    assert network_loss() == pytest.approx(float(history[kept].split(",")[4]), abs=1e-5)  # of the average
    saves = 1
    while not train_until(monkeypatch, saves):
        shutil.rmtree("models", ignore_errors=True)
        train.train(load_params())
        assert "Continuing from" in capsys.readouterr().out
        assert bytes_of_results() == whole, saves
        saves += 1
    assert saves == (len(history) - 1) * 5 + 1  # after each of the four steps and at the end of each epoch


def test_a_run_with_groups_that_is_cut_off_ends_with_the_same_files_and_frozen_weights_stay(
    project, monkeypatch, capsys
):
    """Neither training nor the moving average changes a frozen parameter."""
    groups = [
        {"parameters": ["batch_norm.gamma", "dense.weight"], "epochs": 0},
        {"parameters": "*.bias", "epochs": 1, "optimizer": {"name": "sgd"}, "learning_rate": 0.2},
    ]
    set_params(project, {"train.groups": groups, "train.epochs": 2, "train.schedule.name": "cosine"})
    train.train(load_params())
    whole = bytes_of_results()
    printed = capsys.readouterr().out
    assert re.search(r"^batch_norm\.gamma, dense\.weight +frozen +2 +8,624$", printed, re.MULTILINE)
    biases = r"^\*\.bias +sgd\(learning_rate=0\.2\) +cosine\(.*\) +the first +1 +10$"
    assert re.search(biases, printed, re.MULTILINE)
    state, _ = checkpoint.load(project / "models/model.npz")
    initial, _ = build_chosen(load_params(), (28, 28, 1), 10)
    for name in ("1.gamma", "2.weight"):
        assert state[name].tobytes() == initial.state_dict()[name].tobytes()
    assert (state["1.beta"] != 0).any()
    for saves in (1, 3, 5, 6, 8):
        assert not train_until(monkeypatch, saves)
        train.train(load_params())
        assert "Continuing from" in capsys.readouterr().out
        assert bytes_of_results() == whole, saves


def test_a_training_beside_another_is_refused(project, monkeypatch):
    monkeypatch.setattr(resume, "SECONDS_TO_WAIT", 0.1)
    (project / ".scratch").mkdir()
    with FileLock(project / ".scratch/lock"), pytest.raises(UserError, match="Another training is still"):
        train.train(load_params())
    assert not Path("models").exists()
    train.train(load_params())


def test_a_run_keeps_its_own_checkpoint_whatever_the_clock_says(project, monkeypatch):
    for name in "abcd":
        other = project / ".scratch" / name / "training.npz"
        other.parent.mkdir(parents=True)
        other.touch()
        os.utime(other, (4e9, 4e9))  # in the future
    train_until(monkeypatch, 2)
    kept = {path.parent.name for path in project.glob(".scratch/*/training.npz")}
    assert len(kept) == resume.KEPT
    assert len(kept - set("abcd")) == 1


def test_an_empty_checkpoint_and_one_that_cannot_be_read_are_reported(project):
    for content, told in ((b"", "is damaged"), (None, "cannot be read")):
        run = RunCheckpoint("0" * 16, {}, 0.0)
        shutil.rmtree(run.path.parent, ignore_errors=True)
        run.path.parent.mkdir(parents=True)
        if content is None:
            run.path.mkdir()  # a folder, which nobody can read as a file, even as root
        else:
            run.path.write_bytes(content)
        with pytest.raises(CheckpointError, match=told):
            run.restore()


def test_the_checkpoint_of_another_run_is_refused_though_it_would_fit(project, monkeypatch, capsys):
    train.train(load_params())
    whole = bytes_of_results()
    params = Path("params.yaml").read_text()
    Path("params.yaml").write_text(params.replace("seed: 0", "seed: 1"))
    train_until(monkeypatch, 3)
    (other,) = project.glob(".scratch/*/training.npz")
    Path("params.yaml").write_text(params)
    train_until(monkeypatch, 1)
    (mine,) = set(project.glob(".scratch/*/training.npz")) - {other}
    shutil.copy(other, mine)
    capsys.readouterr()
    train.train(load_params())
    said = capsys.readouterr().out
    assert "does not fit this run: it belongs to another run" in said
    assert "Training starts from scratch" in said
    assert bytes_of_results() == whole


def test_of_a_checkpoint_that_fits_in_part_nothing_is_taken_over(project, monkeypatch):
    def parts():
        rng = np.random.default_rng(3)
        return {name: Numbers(rng) for name in ("model", "progress")}

    run = RunCheckpoint("key", parts(), 30)
    run.parts["model"].values += 1
    run.save()
    arrays, metadata = checkpoint.load(run.path)
    checkpoint.save(run.path, {k: v for k, v in arrays.items() if k.startswith("model.")}, metadata)
    again = RunCheckpoint("key", parts(), 30)
    with pytest.raises(CheckpointError, match="does not fit this run"):
        again.restore()
    for name, part in parts().items():
        np.testing.assert_array_equal(again.parts[name].values, part.values)


class Numbers(resume.Stateful):
    """An object with a state."""

    def __init__(self, rng):
        self.values = rng.random(5)

    def _state(self):
        return {"values": self.values}


def test_a_run_is_told_from_others_by_settings_and_data_and_environment(project, monkeypatch):
    first = fingerprint({"seed": 0})
    assert fingerprint({"seed": 0}) == first
    assert fingerprint({"seed": 1}) != first
    seen = []
    monkeypatch.setattr(train, "fingerprint", lambda settings: seen.append(settings) or fingerprint(settings))
    train.train(load_params())
    assert seen[0]["environment"] == train.environment("cpu").model_dump()
    for path in [
        *Path("data/processed").glob("train_*.npy"),
        *Path("data/processed").glob("validation_*.npy"),
    ]:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert fingerprint({"seed": 0}) != first, path
        path.write_bytes(content)
    assert fingerprint({"seed": 0}) == first


@pytest.mark.parametrize(
    ("stage", "again"), [("evaluate", "dvc repro\nDVC removes"), (None, "run the same command again\n")]
)
def test_ctrl_c_in_a_stage_that_keeps_nothing_says_how_to_go_on(monkeypatch, capsys, stage, again):
    def interrupt(options, device):
        raise KeyboardInterrupt

    monkeypatch.chdir(SHIPPED)
    monkeypatch.setattr(evaluate, "evaluate", interrupt)
    monkeypatch.setattr(sys, "argv", ["pipeline", "evaluate"])
    monkeypatch.delenv("DVC_STAGE", raising=False)
    if stage:
        monkeypatch.setenv("DVC_STAGE", stage)
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith(f"Stopped. To continue: {again}")


def test_an_experiment_in_a_temporary_folder_goes_on_from_the_checkpoint_in_the_checkout(
    project, monkeypatch, capsys
):
    elsewhere = project / ".dvc/tmp/exps"
    monkeypatch.setenv("DVC_ROOT", str(project))
    for folder, saves in (("a", 3), ("b", 1_000_000)):
        shutil.copytree(project, elsewhere / folder, ignore=shutil.ignore_patterns(".*"))
        monkeypatch.chdir(elsewhere / folder)
        train_until(monkeypatch, saves)
    assert f"Continuing from {project}/.scratch/" in capsys.readouterr().out
    assert Path("models/model.npz").exists()
    assert not list(elsewhere.glob("*/.scratch/*/training.npz"))


def test_training_seconds_go_on_from_a_checkpoint_and_are_noted_outside_the_results(project, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(resume.time, "monotonic", lambda: now)
    save = RunCheckpoint.save

    def save_later(run):
        nonlocal now
        now += 5
        save(run)
        if now == 1010:
            raise CutOffError

    monkeypatch.setattr(RunCheckpoint, "save", save_later)
    with pytest.raises(CutOffError):
        train.train(load_params())
    assert not (project / ".scratch/seconds").exists()
    now = 5000.0
    train.train(load_params())
    history = Path("reports/history.csv").read_bytes()
    assert noted_seconds(history) == 5 * (len(history.splitlines()) - 1)
    assert noted_seconds(history[:-3]) is None
