"""`python -m pipeline recipe`: the recipes that come with the project, bad ones, and one run by DVC."""

import json
import shutil
import subprocess
import sys

import pytest
from projects import ROOT, SHIPPED, commit, make_project, run, set_params, stages_run
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline import __main__ as program
from pipeline.apps import recipe as recipes
from pipeline.apps import repeat as repetition
from pipeline.apps.run import known_images
from pipeline.config.architectures import build_chosen
from pipeline.config.params import Params, validate
from pipeline.errors import UserError

TINY = """
tiny:
  title: a few digits
  params:
    data: {dataset: digits, train_size: 300}
    model: {architecture: baseline}
    train:
      epochs: 2
      keep: last
      schedule: {name: one_cycle}
      augmentation: {random_shift: 1}
"""


def test_the_recipes_that_come_with_the_project_are_of_these_sizes():
    content = YAML(typ="safe", pure=True).load(ROOT / "recipes.yaml")
    base = YAML(typ="safe", pure=True).load(SHIPPED / "params.yaml")
    sizes = {}
    for name in content:
        recipe = validate(recipes.Recipe, content[name], name)
        params = validate(Params, recipes.overlay(base, recipe.params), name)
        model, _ = build_chosen(params, *known_images(params.data))
        sizes[name] = (params.data.dataset, model.count_parameters())
        assert recipes.changes(base, recipe.params).keys() >= {"train.epochs", "train.keep"}
    assert sizes["mnist_quick"] == ("mnist", 77_458)
    assert sizes["mnist"] == ("mnist", 99_178)
    assert sizes["fashion_mnist"][1] < 1_500_000


def test_a_recipe_repeats_no_value_of_params_yaml():
    content = YAML(typ="safe", pure=True).load(ROOT / "recipes.yaml")
    base = dict(recipes.flat(YAML(typ="safe", pure=True).load(SHIPPED / "params.yaml")))
    for name, recipe in content.items():
        same = {key for key, value in recipes.flat(recipe["params"]) if base[key] == value}
        assert same <= {"data.dataset", "model.architecture"}, name


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """call(recipes, *arguments): (what the command prints, its error), in a commit; DVC is not called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("params.yaml", "architectures.yaml"):
        shutil.copy(SHIPPED / name, tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    commit(tmp_path)
    called = []
    monkeypatch.setattr(recipes, "dvc", lambda *command: called.append(command) or 1)

    def run(text, *arguments):
        (tmp_path / "recipes.yaml").write_text(text)
        called.clear()
        monkeypatch.setattr(sys, "argv", ["pipeline", "recipe", *arguments])
        with pytest.raises(SystemExit) as ended:
            program.main()
        return capsys.readouterr().out, ended.value.code, [*called]

    return run


def options(called):
    (command,) = called
    assert command[:2] == ("exp", "run")
    return dict(part.split("=", 1) for part in command[3::2])


def test_the_list_says_what_each_trains_and_what_was_measured(call):
    measured = "  accuracy: 91.20 %\n  time: 3 s\n"
    printed, error, _ = call(TINY + TINY.replace("tiny", "known") + measured)
    assert not error
    (line,) = (line for line in printed.splitlines() if line.startswith("tiny: a few digits"))
    assert line.split()[-2:] == ["digits", "13,610"]
    (line,) = (line for line in printed.splitlines() if line.startswith("known: a few digits"))
    assert line.split()[-6:] == ["digits", "13,610", "91.20", "%", "3", "s"]


def test_what_dvc_is_asked_for_is_the_difference_to_the_params_that_are_there(call, tmp_path):
    asked = {
        "data.dataset": "digits",
        "data.train_size": "300",
        "train.epochs": "2",
        "train.keep": "last",
        "train.schedule.name": "one_cycle",
        "train.augmentation.random_shift": "1",
    }
    _, error, called = call(TINY, "tiny")
    assert error == "error: The pipeline stopped; the reason is above."
    assert options(called) == asked
    settings = [
        "train.epochs=3",
        "data.train_size=",
        "data.image_size=[8, 9]",
        "data.path=a b",
        "train.clip_norm=1e-3",
    ]
    _, _, called = call(TINY, "tiny", *(part for setting in settings for part in ("-S", setting)))
    changed = {
        "train.epochs": "3",
        "data.image_size": "[8, 9]",
        "data.path": '"a b"',
        "train.clip_norm": "0.001",
    }
    asked.pop("data.train_size")
    assert options(called) == asked | changed


def test_what_an_earlier_experiment_left_in_params_yaml_is_set_back(call, tmp_path):
    set_params(tmp_path, {"train.epochs": 2, "train.augmentation.cutout": 3, "seed": 7})
    printed, _, called = call(TINY, "tiny", "-S", "seed=7")
    assert "Set back to the last commit's value: train.augmentation.cutout\n" in printed
    assert options(called)["train.augmentation.cutout"] == "0"
    assert not {"train.epochs", "seed"} & set(options(called))


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (
            TINY,
            ["tinny"],
            "Unknown recipe 'tinny'. Did you mean 'tiny'? Known: tiny. They are in recipes.yaml.",
        ),
        (TINY, ["-S", "seed=1"], "Name the recipe, too"),
        (TINY, ["tiny", "-S", "seed"], "-S takes KEY=VALUE, such as train.epochs=3; received 'seed'."),
        (TINY, ["tiny", "-S", "=3"], " is not a known key."),
        (TINY, ["tiny", "-S", "train.epochs=[3"], "-S train.epochs=[3 is not valid YAML: "),
        (TINY, ["tiny", "-S", "train.epochs=a: b: c"], "-S train.epochs=a: b: c is not valid YAML: "),
        (
            TINY,
            ["tiny", "-S", "train.epoch=3"],
            "recipes.yaml: tiny -S train.epoch=3 cannot be used:\n"
            "- train.epoch is not a known key. Did you mean 'train.epochs'?",
        ),
        (TINY, ["tiny", "-S", "train.epochs=3,5"], "a whole number from 1 to 10^9; received '3,5'."),
        (TINY, ["tiny", "-S", "train.epochs.a=3"], "received {'a': 3}."),
        (
            TINY,
            ["tiny", "-S", "model.architecture=basline"],
            "Unknown architecture 'basline'. Did you mean 'baseline'?",
        ),
        (
            TINY.replace("epochs", "epoch"),
            ["tiny"],
            "recipes.yaml: tiny cannot be used:\n- train.epoch is not a known",
        ),
        (
            TINY.replace("epochs: 2", "epochs: 0"),
            [],
            "recipes.yaml: tiny cannot be used:\n- train.epochs must be how",
        ),
        (TINY.replace("title", "titel"), [], "- titel is not a known key. Did you mean 'title'?"),
        (
            TINY.replace("title: a few digits", "title: 3"),
            [],
            "- title must be what it is for, in a few words; received 3.",
        ),
        (TINY.replace("baseline", "[1]"), [], "model.architecture must be the name of a network"),
        (
            TINY.replace("model: {architecture: baseline}", ""),
            [],
            "- params: model.architecture is missing; a recipe says",
        ),
        ("tiny: 3\n", ["tiny"], "recipes.yaml: tiny cannot be used:\n"),
        ("tiny:\n  title: a\n  params: 3\n", [], "- params must be the keys of params.yaml that it changes"),
        ("1: {title: a, params: {1: 2}}\n", [], "recipes.yaml: 1 cannot be used:\n"),
        ("tiny: [\n", [], "recipes.yaml is not valid YAML: "),
        ("", [], "recipes.yaml must hold keys with values"),
    ],
)
def test_what_cannot_be_used_is_refused_before_dvc_starts(call, text, arguments, message):
    _, error, called = call(text, *arguments)
    assert str(error).startswith("error: ")
    assert message in error
    assert not called


def test_unknown_keys_in_params_yaml_are_refused_too(call, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(path.read_text() + "sead: 3\n")
    _, error, called = call(TINY, "tiny")
    assert error.startswith("error: params.yaml cannot be used:\n- sead is not a known key.")
    assert not called


@pytest.mark.walk
def test_a_recipe_runs_as_an_experiment_and_again_from_the_cache(tmp_path):
    folder = make_project(tmp_path)
    (folder / "recipes.yaml").write_text(TINY)
    result = run(folder, "pipeline", "recipe", "tiny", "-S", "data.image_size=8")
    assert result.returncode == 0, result.stderr
    assert "Last epoch: 2, with validation accuracy " in result.stdout
    assert "test accuracy" in result.stdout
    found = YAML(typ="safe", pure=True).load(folder / "params.yaml")
    assert (found["train"]["keep"], found["data"]["image_size"]) == ("last", 8)
    again = run(folder, "pipeline", "recipe", "tiny", "-S", "data.image_size=8")
    assert (again.returncode, stages_run(again.stdout)) == (0, []), again.stderr
    table = run(folder, "pipeline", "runs").stdout
    accuracy = json.loads((folder / "reports/metrics.json").read_text())["test"]["accuracy"]
    assert f"{accuracy:.2%}" in table
    assert "train.schedule.name=one_cycle" in table


def test_the_settings_of_a_recipe_are_those_that_dvc_takes():
    found = recipes.settings_of("mnist_quick", ["train.epochs=2"])
    assert {"model.architecture=mnist_quick", "train.epochs=2", "train.keep=last"} <= set(found)
    assert not any(setting.startswith(("seed=", "data.dataset=")) for setting in found)  # as they are


def test_repeat_refuses_a_recipe_that_there_is_not():
    result = CliRunner().invoke(program.app, ["repeat", "mnist_quik"])
    assert isinstance(result.exception, UserError)
    assert "mnist_quick" in str(result.exception)


def test_repeat_takes_a_recipe_whatever_seed_an_experiment_has_left_in_params(monkeypatch):
    found = []
    monkeypatch.setattr(repetition, "settings_of", lambda *arguments: ["seed=3", "train.epochs=2"])
    monkeypatch.setattr(
        repetition, "Configuration", lambda params, settings: found.append(settings) or stop()
    )
    with pytest.raises(StopIteration):
        repetition.repeat(range(2), [], "", "mnist_quick")
    assert found == [["train.epochs=2"]]


def stop():
    raise StopIteration


@pytest.mark.parametrize("more", [["mnist_quick"], ["-S", "train.epochs=2"], ["--name", "a"]])
def test_a_comparison_takes_nothing_that_it_would_ignore(more):
    result = CliRunner().invoke(program.app, ["repeat", *more, "--compare", "a", "b"])
    assert isinstance(result.exception, UserError)
    assert "takes no recipe, no -S and no --name" in str(result.exception)
