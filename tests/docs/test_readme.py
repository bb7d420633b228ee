"""README.md is true: its figures are the recorded ones, its links lead somewhere, its example runs."""

import json
import os
import re
import subprocess
from hashlib import md5

import pytest
from documents import README, ROOT, names_in_readme
from projects import SHIPPED
from ruamel.yaml import YAML

import cnn
from cnn.registry import AUGMENTATIONS, INITIALIZERS, LAYERS, LOSSES, OPTIMIZERS, SCHEDULES, written_options

YAML_FILE = YAML(typ="safe", pure=True)


@pytest.fixture
def recorded_stages():
    """The stages of dvc.lock, if it and reports/ are of the run that README describes, as they are shipped.

    An experiment changes them, and so does `make run` on a processor that rounds otherwise. That is no fault.
    """
    stages = YAML_FILE.load(ROOT / "dvc.lock")["stages"]
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "dvc.lock", "reports"], cwd=ROOT)
    recorded = stages["report"]["params"]["params.yaml"] | stages["train"]["params"]["architectures.yaml"]
    shipped = YAML_FILE.load(SHIPPED / "params.yaml") | YAML_FILE.load(SHIPPED / "architectures.yaml")
    if changed.returncode == 1 or any(shipped.get(key) != value for key, value in recorded.items()):
        stand_aside = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        stand_aside(
            "dvc.lock and reports/ are of another run than README.md describes. "
            "Those of the last commit come back with: git checkout dvc.lock reports"
        )
    return stages


def test_the_accuracy_it_states_is_the_recorded_one(recorded_stages):
    metrics = json.loads((ROOT / "reports/metrics.json").read_text())
    assert (metrics["dataset"], metrics["model"]["architecture"]) == ("mnist", "baseline")
    assert metrics["test"]["accuracy"] >= 0.978
    text = " ".join(README.split())
    assert f"**{metrics['test']['accuracy']:.2%}**".replace("%", " %") in text
    assert f"{metrics['test']['examples']:,} test images" in text
    assert f"{metrics['validation']['examples']:,} validation images" in text


def test_the_recorded_results_are_those_in_dvc_lock(recorded_stages):
    outs = {out["path"]: out["md5"] for stage in recorded_stages.values() for out in stage["outs"]}
    for name in ("reports/metrics.json", "reports/history.csv", "reports/predictions.csv"):
        assert md5((ROOT / name).read_bytes()).hexdigest() == outs[name], name


def test_what_it_links_to_exists():
    for target in re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", README):
        assert (ROOT / "".join(target)).exists(), target


def test_its_examples_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first_use, by_hand = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(first_use.splitlines()) <= 20
    names = {}
    exec(compile(first_use, "README.md", "exec"), names)
    first, last, classes = capsys.readouterr().out.splitlines()
    assert first.startswith("EpochReport(epoch=2, ")
    assert last.startswith("EpochReport(epoch=4, ")
    assert float(re.search(r"train_accuracy=([\d.]+)", last)[1]) > 0.9
    predicted, actual = re.findall(r"\[([\d ]+)\]", classes)
    assert predicted == actual
    model, train = names["model"], names["train"]
    before, _ = cnn.softmax_cross_entropy(model.predict(train.images), train.targets)
    exec(compile(by_hand, "README.md", "exec"), names)
    assert cnn.softmax_cross_entropy(model.predict(train.images), train.targets)[0] < before
    errors = [float(text) for text in re.findall(r"\d\.\d+e-\d+", capsys.readouterr().out)]
    assert len(errors) == 3
    assert max(errors) < 1e-8


@pytest.mark.parametrize(
    ("row", "registry"),
    [
        ("layers", LAYERS),
        ("losses", LOSSES),
        ("optimisers", OPTIMIZERS),
        ("schedules", SCHEDULES),
        ("initialisers", INITIALIZERS),
        ("augmentation", AUGMENTATIONS),
    ],
)
def test_what_its_table_names_is_there(row, registry):
    """Whoever adds one need not add it here: `python -m cnn`, which stands beside the table, lists it."""
    assert set(names_in_readme(row)) <= set(registry)
    for name, options in re.findall(r"(\w+) \(([^)]+)\)", README):
        if name in registry:
            assert set(options.split(", ")) <= set(written_options(registry[name]))
