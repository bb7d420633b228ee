"""docs/experiments.md is true: remote, queue, search, registry and report, from a fresh project, with its commands."""

import os
import re
import shlex
import shutil
import subprocess
import urllib.request

import pytest
from documents import ROOT, commands, matches
from projects import environment, make_project
from ruamel.yaml import YAML

PAGE = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
WORKFLOW = YAML(typ="safe", pure=True).load(ROOT / ".github/workflows/report.yaml")
TINY = {
    "data.dataset": "digits",
    "data.train_size": 200,
    "data.validation_size": 100,
    "train.epochs": 1,
}


def shell(command, folder, **variables):
    """(what a command prints, its errors); into files, since a queue's worker would keep a pipe open."""
    streams = [folder.parent / f"{name}.txt" for name in ("out", "err")]
    with streams[0].open("w") as out, streams[1].open("w") as err:
        result = subprocess.run(
            command, shell=True, cwd=folder, env=environment(**variables), stdout=out, stderr=err, timeout=900
        )
    printed, errors = (path.read_text() for path in streams)
    assert result.returncode == 0, (command, printed, errors)
    return printed, errors


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose pipeline has run once, and is committed."""
    folder = make_project(tmp_path_factory.mktemp("experiments") / "project", TINY)
    shutil.copy(ROOT / "search.yaml", folder)
    shell("git add . && dvc repro --quiet && git add . && git commit -qm start", folder)
    return folder


@pytest.fixture(scope="module")
def endpoint():
    """The address of an S3-compatible server on this machine, with a bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        urllib.request.urlopen(urllib.request.Request(f"{address}/models", method="PUT"))
    yield address
    server.stop()


@pytest.mark.walk
def test_each_command_prints_what_the_page_shows(project, endpoint):
    found = list(commands(PAGE))
    assert len(found) > 25
    other = []  # what was printed, and does not match
    for command, shown in found:
        if command.startswith("git tag"):
            check_search(project)
        printed, _ = shell(command, project, ENDPOINT=endpoint)
        print(f"$ {command}\n{printed}", flush=True)  # shown if a test fails
        if not matches(shown, printed):
            other.append(command)
    assert not other
    check_workflow(project)


def check_search(project):
    """No trial of the page's search has evaluated anything: its metrics.json is the commit's."""
    trials = shell("git for-each-ref --format='%(refname)' 'refs/exps/*/*/quick-trial*'", project)[0].split()
    assert len(trials) == 4
    for trial in trials:
        assert shell(f"git diff --stat HEAD {trial} -- reports/metrics.json", project)[0] == ""
        assert shell(f"git diff --stat HEAD {trial} -- reports/history.csv", project)[0] != ""
    again, _ = shell("python -m pipeline search quick --trials 4", project)
    assert again.count(" is there\n") == 4


def check_workflow(project):
    """The workflow's commands, in a clone, as a Git host would run them."""
    shell("git clone -q . ../host", project)
    host, summary = project.parent / "host", project.parent / "summary.md"
    steps = {step.get("name"): step.get("run") for step in WORKFLOW["jobs"]["report"]["steps"]}
    for name in ("Report", "Plots"):
        shell(
            f"bash -euo pipefail -c {shlex.quote(steps[name])}",
            host,
            BASE="HEAD~1",
            GITHUB_STEP_SUMMARY=str(summary),
        )
    text = summary.read_text()
    assert re.search(r"^\| params\.yaml \| seed +\| 0 +\| 7 +\|$", text, re.MULTILINE)
    assert "test.accuracy" in text
    page = (host / "plots/index.html").read_text()
    assert "reports_history_csv" in page
    assert all(f'"rev": "{revision}"' in page for revision in ("HEAD~1", "HEAD"))


def test_the_workflow_needs_no_secret_and_may_only_read():
    text = (ROOT / ".github/workflows/report.yaml").read_text()
    assert "secrets" not in text
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert os.path.isfile(ROOT / "requirements.lock")
