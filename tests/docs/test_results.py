"""docs/results.md is true: its table holds what reports/repeat recorded of each recipe."""

import json
import re
from statistics import fmean, stdev

import numpy as np
import pytest
from documents import README, ROOT
from ruamel.yaml import YAML

from cnn.inspection import multiply_adds
from pipeline.config.architectures import build_model
from pipeline.data.catalogue import DATASETS

PAGE = (ROOT / "docs/results.md").read_text(encoding="utf-8")
YAMLS = {name: YAML(typ="safe").load(ROOT / f"{name}.yaml") for name in ("recipes", "architectures")}
ALL = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "reports/repeat").glob("*.json"))}
RECORDS = {name: record for name, record in ALL.items() if name in YAMLS["recipes"]}
CHANGED = [name for name in ALL if name.partition("-")[0] in RECORDS and "-" in name]


def percent(accuracy):
    return f"{100 * accuracy:.2f}"


@pytest.mark.parametrize("name", RECORDS)
def test_the_row_of_a_recipe_is_what_was_recorded(name):
    record, params = RECORDS[name], YAMLS["recipes"][name]["params"]
    dataset = DATASETS[params["data"]["dataset"]]
    layers = YAMLS["architectures"][params["model"]["architecture"]]
    shape, rng = dataset.image_shape, np.random.default_rng(0)
    model = build_model(layers, name, shape, len(dataset.class_names), rng)
    assert record["parameters"] == model.count_parameters()
    cells = [
        f"[`{name}`](../reports/repeat/{name}.md)",
        f"{model.count_parameters():,}",
        f"{multiply_adds(model, shape, training=False) / 1e6:.1f} M",
        str(params["train"]["epochs"]),
        f"{fmean(seed['training_seconds'] for seed in record['seeds']):.0f} s",
        "views" if "evaluate" in params else "",
        f"**{percent(record['test_accuracy']['mean'])} %** "
        f"± {percent(record['test_accuracy']['standard_deviation'])}",
        ", ".join(percent(seed["test_accuracy"]) for seed in record["seeds"]),
    ]
    assert f"| {' | '.join(cells)} |\n" in PAGE
    seeds = [seed["seed"] for seed in record["seeds"]]
    assert seeds == list(range(5 if params["data"]["dataset"] == "mnist" else 3))
    assert {seed["epoch"] for seed in record["seeds"]} == {params["train"]["epochs"]}


@pytest.mark.parametrize("name", RECORDS)
def test_recipes_and_readme_say_the_same(name):
    mean = f"{percent(RECORDS[name]['test_accuracy']['mean'])} %"
    assert YAMLS["recipes"][name]["accuracy"].startswith(mean)
    for line in README.splitlines():
        if line.startswith(f"| `{name}`"):
            assert mean in line


def test_recipes_without_a_record_claim_no_accuracy():
    assert {name for name, recipe in YAMLS["recipes"].items() if "accuracy" in recipe} == set(RECORDS)


def difference(name, key):
    """Mean and standard deviation over the seeds that a changed recipe and the recipe share, in points."""
    of_recipe = {seed["seed"]: seed[key] for seed in RECORDS[name.partition("-")[0]]["seeds"]}
    found = [100 * (seed[key] - of_recipe[seed["seed"]]) for seed in ALL[name]["seeds"]]
    return f"{fmean(found):+.2f} ± {stdev(found):.2f}".replace("-", "−")


@pytest.mark.parametrize("name", CHANGED)
def test_the_line_of_a_changed_recipe_is_what_was_recorded_and_changes_what_it_says(name):
    recipe = name.partition("-")[0]
    (line,) = (line for line in PAGE.splitlines() if f"](../reports/repeat/{name}.json)" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[0] == f"`{recipe}`"
    assert cells[3:] == [
        str(len(ALL[name]["seeds"])),
        difference(name, "validation_accuracy"),
        difference(name, "test_accuracy"),
    ]
    settings, changed = (
        dict(setting.split("=", 1) for setting in record["settings"])
        for record in (RECORDS[recipe], ALL[name])
    )
    wanted = dict(re.findall(r"-S (\S+?)=([^\s`]+)", cells[2]))
    assert wanted
    for key in {*settings, *changed}:
        if key not in wanted:
            assert changed.get(key) == settings.get(key), key
    for key, value in wanted.items():
        assert changed.get(key, value) == value  # one that is the default is not recorded
    assert changed != settings
