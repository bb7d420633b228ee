import json
import re
from hashlib import md5
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
METRICS = json.loads((ROOT / "reports/metrics.json").read_text())


def test_the_accuracy_it_states_is_the_recorded_one():
    assert (METRICS["dataset"], METRICS["model"]["architecture"]) == ("mnist", "baseline")
    assert f"**{METRICS['test']['accuracy']:.2%}**".replace("%", " %") in README
    assert METRICS["test"]["accuracy"] >= 0.978
    assert f"{METRICS['test']['examples']:,} test images" in README
    assert f"{METRICS['validation']['examples']:,}\nvalidation images" in README


def test_the_recorded_results_are_those_in_dvc_lock():
    stages = YAML(typ="safe", pure=True).load(ROOT / "dvc.lock")["stages"]
    recorded = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    for name in ("reports/metrics.json", "reports/history.csv", "reports/predictions.csv"):
        assert md5((ROOT / name).read_bytes()).hexdigest() == recorded[name], name


def test_what_it_links_to_exists():
    for target in re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", README):
        assert (ROOT / "".join(target)).exists(), target


def test_its_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    losses = [float(line) for line in lines if re.fullmatch(r"\d\.\d+", line)]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    errors = [float(text) for text in re.findall(r"\d\.\d+e-\d+", lines[-1])]
    assert len(errors) == 3
    assert max(errors) < 1e-8
