"""`python -m pipeline repeat`: statistics by hand and by scipy; several seeds through DVC; what is refused."""

import json
import re
import subprocess

import pytest
from projects import ROOT, commit, make_project, run, set_params
from ruamel.yaml import YAML
from scipy import stats

from pipeline.apps import experiments
from pipeline.apps import repeat as command
from pipeline.apps import seeds as records
from pipeline.apps.repeat import _print, _write, compare, repeat
from pipeline.apps.seeds import Repetition, Seed, Summary, compare_paired
from pipeline.errors import UserError

QUICK = {
    "data.dataset": "digits",
    "data.train_size": 100,
    "data.validation_size": 50,
    "train.epochs": 1,
    "train.batch_size": 16,
}


def seed(number, accuracy, seconds=1.5):
    return Seed(
        seed=number,
        epoch=3,
        validation_accuracy=round(accuracy + 0.01, 6),
        test_accuracy=accuracy,
        test_loss=0.1,
        training_seconds=seconds,
    )


def repetition(name, accuracies, first=0, **changes):
    found = [seed(first + number, accuracy) for number, accuracy in enumerate(accuracies)]
    content = {
        "name": name,
        "settings": ["train.epochs=3"],
        "inputs": "0" * 16,
        "dataset": "digits",
        "architecture": "baseline",
        "parameters": 13610,
        "test_images": 360,
        "confidence_level": 0.95,
        "validation_accuracy": Summary.of([run.validation_accuracy for run in found]),
        "test_accuracy": Summary.of([run.test_accuracy for run in found]),
        "seeds": found,
    }
    return Repetition(**content | changes)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the project's kind, without DVC, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    set_params(make_project(tmp_path), {})
    return tmp_path


def test_mean_deviation_and_interval_are_those_by_hand():
    found = Summary.of([0.98, 0.96, 0.97])
    # s² = (1 + 1 + 0) / 2 · 0.01²; t(0.975, 2) = 4.302653; 4.302653 · 0.01 / √3 = 0.024841
    assert found == Summary(mean=0.97, standard_deviation=0.01, low=0.945159, high=0.994841)


def test_the_interval_is_that_of_scipy(rng):
    values = list(rng.normal(0.97, 0.01, 7))
    low, high = stats.ttest_1samp(values, 0).confidence_interval(records.CONFIDENCE_LEVEL)
    found = Summary.of(values)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


def test_the_paired_test_is_that_by_hand():
    found = compare_paired([0.90, 0.92, 0.94], [0.91, 0.94, 0.97])
    # differences .01, .02, .03: t = .02 √3 / .01 = 3.4641; with 2 degrees of freedom p = 1 − t / √(2 + t²)
    assert found.differences.mean == 0.02
    assert found.t == pytest.approx(3.464102)
    assert found.p == pytest.approx(1 - 3.464102 / (2 + 12) ** 0.5, abs=1e-6)


def test_the_paired_test_is_that_of_scipy(rng):
    first, second = rng.normal(0.97, 0.01, (2, 6))
    expected = stats.ttest_rel(second, first)
    found = compare_paired(list(first), list(second))
    assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_equal_differences_are_not_tested():
    found = compare_paired([0.9, 0.8, 0.7], [0.91, 0.81, 0.71])
    assert (found.differences.mean, found.t, found.p) == (0.01, None, None)


def test_the_files_hold_each_seed_and_the_same_bytes_each_time(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    found = repetition("mine", [0.98, 0.96, 0.97])
    contents = []
    for _ in range(2):
        _write(found)
        contents.append({path.name: path.read_bytes() for path in tmp_path.rglob("*.*")})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"mine.json", "mine.md", "mine.png"}
    assert Repetition.load("mine") == found
    assert "| 1 | 97.00% | 96.00% | 0.1000 | 3 | 1.5 s |\n" in contents[0]["mine.md"].decode()
    assert "| 95% interval | 95.52 to 100.48 | 94.52 to 99.48 |" in contents[0]["mine.md"].decode()
    _print(found)
    printed = capsys.readouterr().out
    assert re.search(r"^mean +98\.00% +97\.00%", printed, re.MULTILINE)
    assert max(map(len, printed.splitlines())) <= 80


def test_a_comparison_lists_the_differences_of_common_seeds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    repetition("a", [0.5, 0.90, 0.92, 0.94]).save()
    repetition("b", [0.91, 0.94, 0.97], first=1).save()
    compare("a", "b")
    printed = capsys.readouterr().out
    test = printed.partition("Test accuracy")[2]
    rows = {line.split()[0]: line.split()[1:] for line in test.splitlines() if line[:1].isdigit()}
    assert rows == {
        "1": ["90.00%", "91.00%", "+1.00"],
        "2": ["92.00%", "94.00%", "+2.00"],
        "3": ["94.00%", "97.00%", "+3.00"],
    }
    assert "Paired t test: t = 3.46 with 2 degrees of freedom, p = 0.0742." in " ".join(test.split())
    assert "too few" not in printed


def test_a_comparison_says_that_two_seeds_are_too_few(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    repetition("a", [0.90, 0.92]).save()
    repetition("b", [0.91, 0.94]).save()
    compare("a", "b")
    assert "note: 2 seeds are too few for the test to mean anything" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"first": 2}, "at least 2 seeds that both repetitions have; received a: 0, 1 and b: 2, 3"),
        ({"dataset": "mnist"}, "received a: digits, 360 test images and b: mnist, 360 test images"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, monkeypatch, other, message):
    monkeypatch.chdir(tmp_path)
    repetition("a", [0.90, 0.92]).save()
    repetition("b", [0.91, 0.94], **other).save()
    with pytest.raises(UserError, match=message):
        compare("a", "b")
    with pytest.raises(UserError, match=r"There is no repetition named 'c', .* There are: a, b"):
        compare("a", "c")
    records.REPETITIONS.joinpath("b.json").write_text("{}")
    with pytest.raises(UserError, match=r"b\.json is damaged: name: Field required"):
        compare("a", "b")


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        (["train.epochs"], "", "-S takes KEY=VALUE, as `dvc exp run` does; received 'train.epochs'"),
        (["train.epoch=3"], "", "received 'train.epoch', which is not there. Did you mean 'train.epochs'"),
        (["params.yaml:data.x.y=3"], "", "received 'data.x.y', which is not there"),
        (
            ["seed=3"],
            "",
            "seed is set by the command itself; received -S seed=3. Use --first-seed and --seeds",
        ),
        ([], "a/b", "--name must consist of letters, digits"),
        (["data.dataset=own", "data.path=.."], "", "needs own images inside the project"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(folder, monkeypatch, settings, name, message):
    monkeypatch.setattr(experiments, "dvc", None)
    with pytest.raises(UserError, match=re.escape(message)):
        repeat(range(2), settings, name)


def test_an_unfinished_merge_is_refused(folder, monkeypatch):
    monkeypatch.setattr(experiments, "dvc", None)
    subprocess.run(["git", "checkout", "-qb", "other"], check=True)
    for branch, epochs in (("other", 3), ("-", 4)):
        if branch == "-":
            subprocess.run(["git", "checkout", "-q", "-b", "third", "HEAD~"], check=True)
        set_params(folder, {"train.epochs": epochs})
        commit(folder)
    subprocess.run(["git", "merge", "-q", "other"], capture_output=True)
    with pytest.raises(UserError, match=r"conflicts of a merge; Git finds some in: params\.yaml"):
        repeat(range(2))


def test_a_change_of_the_code_between_seeds_stops(folder, monkeypatch):
    def run_one(experiment, message, options):
        (folder / "cnn/losses.py").write_text("")
        return "HEAD"

    monkeypatch.setattr(command, "run_experiment", run_one)
    monkeypatch.setattr(command, "training_seconds", lambda revision: 1.0)
    metrics = json.loads((ROOT / "reports/metrics.json").read_text())
    monkeypatch.setattr(command, "_read_metrics", lambda *_: command.Metrics.model_validate(metrics))
    with pytest.raises(UserError, match="these changed before seed 1"):
        repeat(range(2))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project of 100 digits, without the slow stage that nothing here reads, and an uncommitted change."""
    folder = make_project(tmp_path_factory.mktemp("repeat") / "project", QUICK)
    stages = YAML().load(folder / "dvc.yaml")
    del stages["stages"]["report"], stages["plots"]
    YAML().dump(stages, folder / "dvc.yaml")
    commit(folder)
    set_params(folder, {"train.optimizer.sgd.momentum": 0.5})
    return folder


def files(folder):
    """All files that Git knows or could know, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.relative_to(folder).parts[0] not in (".git", ".dvc", ".scratch")
        and "repeat" not in path.parts
    }


@pytest.mark.walk
def test_seeds_run_once_and_leave_the_folder_as_it_was(project, monkeypatch, capfd):
    before = files(project)
    options = ["repeat", "--seeds", "2", "--name", "quick", "-S", "train.epochs=2"]
    result = run(project, "pipeline", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert files(project) == before
    record = project / "reports/repeat/quick.json"
    found = Repetition.model_validate_json(record.read_bytes())
    assert [seed.seed for seed in found.seeds] == [0, 1]
    assert all(
        seed.training_seconds is not None for seed in found.seeds
    )  # a tenth of a second may be too short
    for seed in found.seeds:
        shown = run_git(project, "show", f"{revision(project, f'quick-seed{seed.seed}')}:params.yaml")
        assert f"\nseed: {seed.seed} " in shown
        assert "momentum: 0.5" in shown
        assert "epochs: 2 " in shown
    monkeypatch.chdir(project)
    monkeypatch.setattr(experiments, "dvc", None)
    repeat(range(2), ["train.epochs=2"], "quick")
    assert "Seed 1 (2 of 2): quick-seed1 is there" in capfd.readouterr().out
    assert Repetition.load("quick") == found
    with pytest.raises(UserError, match="Choose another --name, or: dvc exp remove quick-seed0"):
        repeat(range(2), [], "quick")
    assert files(project) == before


def test_a_seed_that_fails_stops_the_others_and_no_advice_undoes_changes(project):
    before = files(project)
    result = run(project, "pipeline", "repeat", "--name", "bad", "-S", "data.train_size=0")
    assert result.returncode == 1
    assert "data.train_size must be" in result.stderr
    assert "error: Every run has to reach its end, but bad-seed0 failed" in result.stderr
    assert "git checkout" not in result.stderr
    assert "bad-seed1" not in result.stdout
    assert files(project) == before


def test_a_stage_in_the_folder_of_an_experiment_does_not_tell_to_check_out(tmp_path):
    folder = tmp_path / ".dvc/tmp/exps/a"
    folder.mkdir(parents=True)
    for place, advised in ((folder, False), (tmp_path, True)):
        result = run(
            place, "pipeline", "train", DVC_STAGE="train", DVC_ROOT=str(tmp_path), PYTHONPATH=str(ROOT)
        )
        assert "error: There is no params.yaml in this folder" in result.stderr
        assert ("git checkout params.yaml" in result.stderr) == advised


def run_git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def revision(folder, experiment):
    (found,) = run_git(
        folder, "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{experiment}"
    ).split()
    return found
