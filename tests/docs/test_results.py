"""docs/results.md is true: its table holds what reports/repeat recorded of each recipe."""

import json
from statistics import fmean

import numpy as np
import pytest
from documents import README, ROOT
from ruamel.yaml import YAML

from cnn.inspection import multiply_adds
from pipeline.config.architectures import build_model
from pipeline.data.catalogue import DATASETS

PAGE = (ROOT / "docs/results.md").read_text(encoding="utf-8")
YAMLS = {name: YAML(typ="safe").load(ROOT / f"{name}.yaml") for name in ("recipes", "architectures")}
RECORDS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((ROOT / "reports/repeat").glob("*.json"))
    if path.stem in YAMLS["recipes"]
}


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
