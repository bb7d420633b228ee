"""`python -m pipeline search`: which settings trials get, when they stop, how a search goes on, what is refused."""

import json
import math
import re
import sys
from pathlib import Path

import pytest
from projects import ROOT, make_project
from ruamel.yaml import YAML

from cnn.atomic import write_text
from pipeline.apps import search as command
from pipeline.apps.search import Search, Trial, list_searches, minimum_accuracy, search, suggest
from pipeline.artefacts.train import Epoch
from pipeline.errors import UserError
from pipeline.stages.train import too_low

SPACE = {
    "train.optimizer.learning_rate": {"low": 0.01, "high": 1.0, "log": True},
    "train.batch_size": {"low": 8, "high": 64},
    "train.clip_norm": [None, 1.0, 5.0],
}
TINY = {"title": "tiny", "trials": 6, "seed": 0, "params": {"train": {"epochs": 3}}, "space": SPACE}


class Experiments:
    """In place of DVC: an experiment's accuracy follows from its learning rate; it stops as `train` would."""

    def __init__(self, monkeypatch):
        self.params, self.histories, self.run_names = {}, {}, []
        for name in ("find_run", "run_experiment", "epochs_of", "_params_of", "training_seconds"):
            monkeypatch.setattr(command, name, getattr(self, name.lstrip("_")))
        monkeypatch.setattr(command, "repair_dvc", lambda: None)

    def find_run(self, experiment, message):
        return experiment if experiment in self.params else None

    def run_experiment(self, experiment, message, options, **variables):
        self.run_names.append(experiment)
        assert options[-1] == "train"
        yaml, params = YAML(typ="safe"), {"train.minimum_accuracy": []}
        for setting in options[1:-1:2]:
            key, _, value = setting.partition("=")
            params[key] = yaml.load(value)
        rate = params["train.optimizer.learning_rate"]
        if rate > 0.6:
            (note,) = variables.values()
            write_text(Path(note), "nan\n")
            raise UserError("The loss became nan.")
        rows = []
        for epoch in (1, 2, 3):
            accuracy = round(0.3 * epoch - 0.1 * abs(math.log10(rate) + 1), 6)
            values = {"epoch": epoch, "validation_accuracy": accuracy}
            rows.append(Epoch.model_validate(dict.fromkeys(Epoch.model_fields, 0.1) | values))
            if too_low(rows, params["train.minimum_accuracy"]):
                break
        self.params[experiment], self.histories[experiment] = params, rows
        return experiment

    def epochs_of(self, revision):
        return self.histories[revision]

    def params_of(self, revision):
        found = {}
        for key, value in self.params[revision].items():
            section = found
            *parents, last = key.split(".")
            for parent in parents:
                section = section.setdefault(parent, {})
            section[last] = value
        return found

    def training_seconds(self, revision):
        return 1.5


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the project's kind, in which `write` writes search.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return make_project(tmp_path)


def write(folder, **changes):
    with (folder / "search.yaml").open("w") as file:
        YAML(typ="safe").dump({"tiny": TINY | changes}, file)


def results(folder):
    return json.loads((folder / "reports/search/tiny.json").read_text())["trials"]


def test_a_stopped_search_goes_on_as_if_it_had_not_been(folder, monkeypatch):
    write(folder)
    whole = Experiments(monkeypatch)
    search("tiny", 12)
    expected = results(folder)
    in_parts = Experiments(monkeypatch)
    for path in (folder / ".scratch").rglob("diverged/*"):
        path.unlink()
    for trials in (1, 5, 12, 12):
        search("tiny", trials)
    assert results(folder) == expected
    assert in_parts.run_names == whole.run_names == [f"tiny-trial{number}" for number in range(12)]
    by_accuracy = [trial["validation_accuracy"] or 0 for trial in expected]
    assert by_accuracy == sorted(by_accuracy, reverse=True)


def test_trials_stop_diverge_or_finish_and_the_page_says_which(folder, monkeypatch, capsys):
    write(folder)
    Experiments(monkeypatch)
    search("tiny", 14)
    found = results(folder)
    diverged = [trial for trial in found if trial["validation_accuracy"] is None]
    stopped = [trial for trial in found if trial not in diverged and not trial["is_finished"]]
    finished = [trial for trial in found if trial["is_finished"]]
    assert diverged
    assert stopped
    assert finished
    assert all(trial["settings"]["train.optimizer.learning_rate"] > 0.6 for trial in diverged)
    assert all(len(trial["by_epoch"]) < 3 for trial in stopped)
    assert all(len(trial["by_epoch"]) == 3 for trial in finished)
    page = (folder / "reports/search/tiny.md").read_text()
    assert page.count("stopped |") == len(stopped)
    assert page.count("| diverged |") == len(diverged)
    assert (folder / "reports/search/tiny.png").stat().st_size > 10_000
    assert f"dvc exp apply {found[0]['experiment']} && dvc repro" in " ".join(capsys.readouterr().out.split())


def test_another_failure_than_divergence_stops_the_search(folder, monkeypatch):
    write(folder)
    Experiments(monkeypatch)

    def fail(*arguments, **variables):
        raise UserError("no data")

    monkeypatch.setattr(command, "run_experiment", fail)
    with pytest.raises(UserError, match="no data"):
        search("tiny")


def trial(number, by_epoch, finished=True, rate=0.1):
    settings = {"train.optimizer.learning_rate": rate, "train.batch_size": 8, "train.clip_norm": None}
    return Trial(
        number=number,
        experiment=f"tiny-trial{number}",
        settings=settings,
        validation_accuracy=by_epoch[-1],
        by_epoch=by_epoch,
        is_finished=finished,
        training_seconds=None,
    )


def test_the_minimum_is_the_median_of_what_finished_trials_had_reached():
    found = [trial(0, [0.1, 0.5, 0.6]), trial(1, [0.33339, 0.4, 0.9]), trial(2, [0.9], finished=False)]
    assert minimum_accuracy(found, 3) == []  # two that finished are too few
    assert minimum_accuracy([*found, trial(3, [0.5, 0.6, 0.7])], 3) == [0.3333, 0.5]
    assert minimum_accuracy([trial(k, [0.5, 0.6]) for k in range(3)], 4) == [0.5, 0.6, 0.6]  # by patience


def test_a_trial_gets_settings_of_the_space_that_follow_from_seed_and_number():
    chosen = Search.model_validate(TINY)
    found = [suggest(chosen, [], number) for number in range(20)]
    assert found == [suggest(chosen, [], number) for number in range(20)]
    assert len({json.dumps(settings) for settings in found}) == 20
    for settings in found:
        assert 0.01 <= settings["train.optimizer.learning_rate"] <= 1
        assert (
            float(f"{settings['train.optimizer.learning_rate']:.3g}")
            == settings["train.optimizer.learning_rate"]
        )
        assert type(settings["train.batch_size"]) is int
    assert {settings["train.clip_norm"] for settings in found} == {None, 1.0, 5.0}
    assert found != [suggest(chosen.model_copy(update={"seed": 1}), [], number) for number in range(20)]


def test_after_ten_trials_good_settings_are_tried_more_often():
    chosen = Search.model_validate(TINY)
    rates = [10 ** (k / 8 - 2) for k in range(16)]
    found = [trial(k, [1 - abs(math.log10(rate) + 1)], rate=rate) for k, rate in enumerate(rates)]
    tried = [suggest(chosen, found, number)["train.optimizer.learning_rate"] for number in range(16, 36)]
    assert sum(0.03 < rate < 0.3 for rate in tried) > 14  # of 20; by chance it would be 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"train.batchsize": [1, 2]}}, "Did you mean 'train.batch_size'"),
        ({"space": {"train.batch_size": [1]}}, "search.yaml: tiny cannot be used:"),
        (
            {"space": {"train.batch_size": [8, 0]}},
            "search.yaml: tiny, with train.batch_size=0 cannot be used:",
        ),
        ({"space": {"train.clip_norm": {"low": 2, "high": 1}}}, "needs low < high"),
        ({"space": {"train.clip_norm": {"low": 0, "high": 1, "log": True}}}, "with log low > 0"),
        ({"space": {"seed": [1, 2]}}, "seed is set by the command itself"),
        ({"params": {"train": {"minimum_accuracy": [0.5]}}}, "It stops trials that lag behind."),
        ({"trials": 0}, "trials must be how many trials"),
        ({"spaces": {}}, "spaces"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(folder, monkeypatch, changes, message):
    monkeypatch.setattr(command, "run_experiment", None)
    write(folder, **changes)
    with pytest.raises(UserError, match=re.escape(message)):
        search("tiny")


def test_an_unknown_search_is_refused_and_a_missing_optuna_says_how_to_get_it(folder, monkeypatch):
    write(folder)
    with pytest.raises(UserError, match=r"'tine'.*Did you mean 'tiny'"):
        search("tine")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=re.escape('python -m pip install "optuna>=5,<6"')):
        search("tiny")


def test_the_searches_that_come_with_the_project_can_be_used(folder, monkeypatch, capsys):
    (folder / "search.yaml").write_text((ROOT / "search.yaml").read_text())
    list_searches()
    names = list(YAML(typ="safe").load(folder / "search.yaml"))
    printed = capsys.readouterr().out
    for name in names:
        assert f"{name}: " in printed
        experiments = Experiments(monkeypatch)
        search(name, 2)
        assert len(experiments.run_names) == 2
