"""Folders, repositories, terminals and settings that differ from what is usual: they work, or say why not."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from projects import SHIPPED, make_project

from pipeline import __main__ as program
from pipeline.apps import run, runs, verify
from pipeline.config.yaml_files import read_mapping
from pipeline.errors import UserError

COMMANDS = [
    *("fetch", "preprocess", "train", "evaluate", "report", "run", "verify", "runs", "summary"),
    *("check-data", "playground", "explain", "predict a.png"),
]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a commit, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "a commit"], check=True)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_in_another_folder_every_command_asks_for_the_project_s_folder(
    repository, monkeypatch, capsys, command
):
    monkeypatch.setattr(sys, "argv", ["pipeline", *command.split()])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == (
        "error: There is no params.yaml in this folder. Run the command from the project's folder."
    )


def test_a_repository_of_another_user_is_refused_in_git_s_own_words(repository, monkeypatch):
    run.check_git()
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # a switch of Git's own tests
    if subprocess.run(["git", "rev-parse"], check=False).returncode == 0:
        pytest.skip("this Git does not check the owner")
    with pytest.raises(UserError, match=r"--add safe\.directory") as error:
        run.check_git()
    assert "git init" not in str(error.value)


def test_a_configuration_that_git_cannot_read_is_told(repository, monkeypatch):
    (repository / ".git/config").write_text("[core")
    with pytest.raises(UserError, match="bad config line"):
        run.check_git()


def test_a_folder_without_a_repository_or_without_a_commit_gets_advice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(UserError, match=r"this folder is not in one\. Clone the project .* git init"):
        run.check_git()
    subprocess.run(["git", "init", "-q"], check=True)
    with pytest.raises(UserError, match=r"If there is none yet: git add \. && git commit -m start"):
        run.check_git()


def test_a_computer_without_git_is_told(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="Git is not installed"):
        run.check_git()


def test_a_clone_that_fails_ends_verify_with_git_s_words(tmp_path, monkeypatch):
    project = make_project(tmp_path / "project")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "post-checkout").write_text("#!/bin/sh\necho the hook refuses >&2\nexit 3\n")
    (hooks / "post-checkout").chmod(0o755)
    (tmp_path / "gitconfig").write_text(f"[core]\n\thooksPath = {hooks}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.chdir(project)
    with pytest.raises(UserError, match=r"(?s)git clone .*failed with exit code 3.*the hook refuses"):
        verify.verify()


@pytest.mark.parametrize("content", [b"", b"{", b"<<<<<<< HEAD\n", b"[]", b"{}"])
def test_a_damaged_record_of_the_environment_counts_as_none(tmp_path, content):
    path = tmp_path / "reports/environment.json"
    path.parent.mkdir()
    path.write_bytes(content)
    assert verify.read_environment(tmp_path) == {}


@pytest.mark.parametrize("stage", ["3", "{outs: [{path: models}]}", "{deps: [3]}", "{outs: {a: b}}"])
def test_a_damaged_dvc_lock_is_told(tmp_path, stage):
    (tmp_path / "dvc.lock").write_text(f"stages:\n  train: {stage}\n")
    with pytest.raises(UserError, match="Make a new one, and commit it"):
        verify.read_lock(tmp_path)


@pytest.mark.parametrize("name", ["proj {a}", "proj }", "${a}"])
def test_a_path_that_dvc_takes_for_a_template_is_refused_before_dvc_starts(tmp_path, capfd, name):
    folder = tmp_path / name / "project"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=r"DVC cannot work in a folder whose path holds \{ or \}: .*\n"):
        run.dvc("repro", folder=folder)
    assert capfd.readouterr() == ("", "")


def test_data_that_somebody_packed_again_are_named_as_the_reason():
    recorded, rerun = ({"fetch": {"outs": [{"path": "data/raw", "md5": 4 * text}]}} for text in ("ab", "cd"))
    problems = verify.compare(recorded, rerun, Path(), Path(), ({}, {}))
    assert [problem[:55] for problem in problems] == [
        "- The files in data/raw have the published content, but"
    ]


ROWS = [
    ("dataset", "digits, from scikit-learn"),
    ("test accuracy", "83.33% of 360 images"),
    ("numbers", "reports/metrics.json\nreports/classification_report.txt"),
]


@pytest.mark.parametrize("columns", [0, 1, 20, 40, 80, 200])
def test_a_table_loses_nothing_in_a_narrow_terminal(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    run._print_rows("Result", ROWS)
    outs = [{"path": f"reports/{name}", "md5": 4 * name} for name in ("abcdefgh", "ijklmnop")]
    lock = {"evaluate": {"outs": outs}}
    assert verify.compare(lock, lock, tmp := Path(), tmp, ({}, {})) == []
    shown = re.sub(r"[\s│]", "", capsys.readouterr().out)
    assert "…" not in shown
    wanted = [text for row in ROWS for part in row for text in part.split("\n")]
    for text in [*wanted, "reports/abcdefgh", "ijklmnop", "same"]:
        assert text.replace(" ", "") in shown


@pytest.mark.parametrize(
    ("before", "after", "hint"),
    [
        ("  epochs:", "\tepochs:", "A tab is in its indentation: use spaces."),
        ("  epochs:", "   epochs:", "Check the indentation of this line and of the one before"),
        ("  epochs:", "<<<<<<< HEAD\n  epochs:", "is a mark of a merge conflict: keep one of the versions"),
        ("seed: 0", "=======\nseed: 0", "Line 1 is a mark"),
    ],
)
def test_what_is_probably_wrong_in_yaml_is_told(tmp_path, before, after, hint):
    text = (SHIPPED / "params.yaml").read_text()
    text = text[text.index("seed: 0") :]
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match=r"is not valid YAML: ") as error:
        read_mapping(path)
    assert hint in str(error.value)


def entry(name, epochs, accuracy, **more):
    params = {"params.yaml": {"data": {"seed": 0, "train": {"epochs": epochs, "loss": {"name": "a"}}}}}
    metrics = {"reports/metrics.json": {"data": {"test": {"accuracy": accuracy}}}}
    data = {"timestamp": "2026-01-02T03:04:05", "params": params, "metrics": metrics}
    return {"rev": "1234567890", "name": name, "data": data, "error": None} | more


def test_the_table_of_runs_holds_what_differs_from_the_last_commit():
    queued = {"revs": [entry("quick-fox", 3, None)], "executor": {"state": "queued"}}
    failed = {"revs": [entry("sad-cow", 4, None, data=None, error={"msg": "x"})], "executor": None}
    wrong = {"revs": [entry("red-fox", 4, None, error={"msg": "x"})], "executor": {"state": "failed"}}
    good = {"revs": [entry("old-owl", 2, 0.5)], "executor": None}
    shown = [
        entry(None, 5, 0.25, rev="workspace"),
        entry("main", 10, 1, experiments=[queued, failed, wrong, good]),
    ]
    assert [(run.name, run.state, run.test, run.changes) for run in runs.read_runs(shown)] == [
        ("(these files)", "", 0.25, ["train.epochs=5"]),
        ("main", "", 1, []),
        ("quick-fox", "queued", None, ["train.epochs=3"]),
        ("sad-cow", "failed", None, []),
        ("red-fox", "failed", None, ["train.epochs=4", "why: dvc queue logs red-fox"]),
        ("old-owl", "", 0.5, ["train.epochs=2"]),
    ]


@pytest.mark.parametrize("columns", ["0", "20", "40", "80"])
def test_the_table_of_runs_fits_the_terminal(repository, monkeypatch, capsys, columns):
    shown = [entry(None, 5, 0.25, rev="workspace"), entry("a-long-name-of-a-branch" * 4, 10, 1)]
    monkeypatch.setattr(runs, "_show", lambda: json.loads(json.dumps(shown)))
    monkeypatch.setenv("COLUMNS", columns)
    runs.runs()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= (int(columns) or 80)
    assert "…" not in "".join(lines)
