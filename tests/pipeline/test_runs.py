"""`python -m pipeline runs`: whose accuracies it shows, in which order, and the page with all curves."""

import re

import pytest
from browsers import opened

from pipeline.apps import runs as command
from pipeline.apps.runs import Run, Sort, read_runs, render, sorted_runs
from pipeline.artefacts.train import Epoch, seconds_note

HISTORY = (
    "epoch,learning_rate,train_loss,train_accuracy,validation_loss,validation_accuracy\n"
    "1,0.1,2.0,0.3,1.9,0.5\n2,0.1,1.5,0.5,1.4,0.7\n3,0.1,1.2,0.6,1.3,0.6\n"
)


def entry(name, keep="best", evaluated=True, **more):
    models = {kind: {"models": {"hash": "a.dir"}} for kind in ("deps", "outs")}
    if not evaluated:
        models["deps"] = {"models": {"hash": "that of the last commit"}}
    metrics = {"test": {"accuracy": 0.9}, "validation": {"accuracy": 0.8}}
    data = {
        "timestamp": "2026-01-02T03:04:05",
        "params": {"params.yaml": {"data": {"train": {"keep": keep}}}},
        "metrics": {"reports/metrics.json": {"data": metrics}},
        **models,
    }
    return {"rev": name, "name": name, "data": data, "error": None} | more


@pytest.fixture
def read(tmp_path, monkeypatch):
    """read(entry): the run, in a folder where each commit has the same history."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "git", lambda *_: HISTORY.strip())
    return lambda found: list(read_runs([entry("workspace"), found]))[1]


def test_a_run_up_to_train_has_the_validation_accuracy_of_its_history_and_not_the_commits_metrics(read):
    found = read(entry("a"))
    assert (found.validation, found.test) == (0.8, 0.9)
    found = read(entry("a", evaluated=False))
    assert (found.validation, found.test) == (0.7, None)
    assert read(entry("a", keep="last", evaluated=False)).validation == 0.6


def test_seconds_are_those_noted_for_the_history(read):
    assert read(entry("a")).seconds is None
    seconds_note(HISTORY.encode()).parent.mkdir(parents=True)
    seconds_note(HISTORY.encode()).write_text("12.5\n")
    assert read(entry("a")).seconds == 12.5


def test_a_queued_run_has_nothing_of_the_last_commit(read):
    queued = {"revs": [entry("b")], "executor": {"state": "queued"}}
    _, _, found = read_runs([entry("workspace"), entry("a", experiments=[queued])])
    assert (found.state, found.validation, found.test, found.history) == ("queued", None, None, [])


def test_another_programs_history_has_no_curve(read, monkeypatch):
    for text in ("epoch,loss\n1,2\n", "", "\0"):
        monkeypatch.setattr(command, "git", lambda *_, text=text: text)
        assert read(entry("a")).history == []


def make(name, validation=None, test=None, seconds=None, created="", state="", changes=()):
    epochs = [
        Epoch.model_validate(dict(zip(Epoch.model_fields, range(k, k + 6), strict=True))) for k in (1, 2)
    ]
    return Run(name, created, state, validation, test, seconds, [*changes], [] if state else epochs)


RUNS = [
    make("slow", 0.7, 0.9, 20.0, "2026-01-01 00:00"),
    make("waiting", state="queued"),
    make("good", 0.9, None, 10.0, "2026-01-03 00:00", changes=["a=<b>", "c=1"]),
    make("quick", 0.8, 0.8, 3.0, "2026-01-02 00:00"),
]


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        (None, ["slow", "waiting", "good", "quick"]),
        (Sort.VALIDATION, ["good", "quick", "slow", "waiting"]),
        (Sort.TEST, ["slow", "quick", "waiting", "good"]),
        (Sort.SECONDS, ["quick", "good", "slow", "waiting"]),
        (Sort.CREATED, ["good", "quick", "slow", "waiting"]),
    ],
)
def test_sorting_puts_what_is_not_known_last(sort, names):
    assert [run.name for run in sorted_runs(RUNS, sort)] == names


def test_the_page_sorts_by_any_column_and_shows_a_runs_curves_alone(tmp_path):
    file = tmp_path / "runs.html"
    file.write_text(render(RUNS), encoding="utf-8")
    with opened(file, viewport={"width": 360, "height": 700}, color_scheme="dark") as page:

        def names():
            return page.locator("tbody tr td:first-child").all_inner_texts()

        assert names() == ["slow", "waiting", "good", "quick"]
        for title, down in (
            ("validation", ["good", "quick", "slow", "waiting"]),
            ("seconds", ["slow", "good", "quick", "waiting"]),
            ("run", ["waiting", "slow", "quick", "good"]),
        ):
            page.click(f"th button:text-is('{title}')")
            assert names() == down
        page.click("th button:text-is('seconds')")
        page.click("th button:text-is('seconds')")
        assert names() == ["quick", "good", "slow", "waiting"]
        page.focus("tr:has-text('good')")
        assert page.locator(".charts.one polyline.chosen title").all_text_contents() == ["good"] * 2
        assert page.locator(".charts polyline").count() == 6
        assert "a=<b>" in page.inner_text("tbody")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"


def test_the_page_is_the_same_each_time():
    assert render(RUNS) == render(RUNS)
    assert not re.search(r"https?://|<script src|<link rel=\"stylesheet", render(RUNS))
