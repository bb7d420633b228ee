"""train.groups of params.yaml: how it is checked, what it makes, and how it is shown."""

import re
import sys

import pytest
from dvc.utils.hydra import apply_overrides
from projects import SHIPPED, set_params
from ruamel.yaml import YAML

from cnn import SGD, Adam
from pipeline import __main__ as program
from pipeline.apps import recipe, runs, summary
from pipeline.apps.run import check_network
from pipeline.config.architectures import build_chosen
from pipeline.config.groups import group_rows, group_table, make_optimizer
from pipeline.config.params import load_params
from pipeline.errors import UserError

GROUPS = [
    {"parameters": ["0.*", "dense.bias"], "epochs": 2, "learning_rate": 0.5},
    {"parameters": "*.bias", "epochs": 0},
    {
        "parameters": "dense.*",
        "optimizer": {"name": "adam"},
        "weight_decay": 0.25,
        "schedule": {"name": "constant"},
    },
]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """load(groups, key=value, …): the params, checked, with these groups."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "architectures.yaml").write_text((SHIPPED / "architectures.yaml").read_text())

    def load(groups, **changes):
        keys = {key.replace("__", "."): value for key, value in changes.items()}
        set_params(tmp_path, {"train.groups": groups, **keys}, SHIPPED)
        return load_params(tmp_path / "params.yaml")

    return load


def network(params):
    return build_chosen(params, (28, 28, 1), 10)[0]


def test_each_item_takes_what_matches_it_first_and_the_rest_is_as_before(load):
    changes = {"train__optimizer__learning_rate": 0.2, "train__schedule__name": "cosine", "train__epochs": 4}
    params = load(GROUPS, model__architecture="sample", **changes)
    made = make_optimizer(params.train, network(params)).groups
    names = [list(group.optimizer.parameters) for group in made]
    every = list(network(params).parameters())
    first, *others = [name for name in every if name.endswith("kernel")]
    *_, hidden, last = dense = [name for name in every if name.endswith("weight")]
    biases = {name.replace("weight", "bias") for name in dense}
    assert names[0] == others
    assert set(names[1]) == {first, "0.bias", *biases}
    assert names[2] == [name for name in every if name.endswith(".bias") and name not in names[1]]
    assert names[3] == [hidden, last]
    assert [type(group.optimizer) for group in made] == [SGD, SGD, SGD, Adam]
    assert [group.epochs for group in made] == [None, 2, 0, None]
    assert [group.optimizer.weight_decay for group in made] == [0, 0, 0, 0.25]
    assert [made[0].learning_rate(t) for t in (0, 2, 4)] == pytest.approx([0.2, 0.1, 0])
    assert [made[1].learning_rate(t) for t in (0, 1, 2)] == pytest.approx(
        [0.5, 0.25, 0]
    )  # ends with its epochs
    assert [made[3].learning_rate(t) for t in (0, 4)] == [0.001, 0.001]


def test_without_groups_there_is_one_of_all_parameters_and_nothing_is_shown(load):
    params = load([], train__optimizer__name="adam")
    model = network(params)
    (group,) = make_optimizer(params.train, model).groups
    assert list(group.optimizer.parameters) == list(model.parameters())
    assert group_rows(params.train, model) == []


def test_groups_that_take_all_parameters_leave_none_for_the_rest(load):
    params = load([{"parameters": "0.*", "epochs": 0}, {"parameters": "*", "learning_rate": 0.3}])
    made = make_optimizer(params.train, network(params))
    assert [group.epochs for group in made.groups] == [0, None]
    assert made.main.learning_rate(0) == 0.3
    assert [row[0] for row in group_rows(params.train, network(params))] == ["0.*", "*"]


def test_an_optimiser_of_a_group_is_written_as_the_one_of_the_rest(load):
    keys = {"learning_rate": 0.7, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0}
    optimizer = {"name": "sgd", "learning_rate": 0.6, "sgd": keys}
    for more, rate in [({}, 0.6), ({"learning_rate": 0.5}, 0.5)]:
        params = load([{"parameters": "0.*", "optimizer": optimizer, **more}])
        _, group = make_optimizer(params.train, network(params)).groups
        assert repr(group.optimizer) == f"SGD({rate}, momentum=0.9, nesterov=True)"


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {},
            "train.groups must be the parameters that are trained differently from the rest: a list, each item",
        ),
        ("", "{parameters: PATTERN, …}; received ''."),
        ([3], "train.groups[0] must be the parameters that are trained differently"),
        ([{}], "train.groups[0].parameters is missing: a pattern of names, such as"),
        (
            [{"parameters": "*"}, {"parameters": 3}],
            "train.groups[1].parameters must be a pattern of names, such as 0.kernel, *.bias or conv2d.*, or a "
            "list of patterns; received 3.",
        ),
        ([{"parameters": []}], "or a list of patterns; received []."),
        ([{"parameters": ["*", 3]}], "train.groups[0].parameters"),
        (
            [{"parameters": "*", "epoch": 3}],
            "train.groups[0].epoch is not a known key. Did you mean 'train.groups[0].epochs'?",
        ),
        (
            [{"parameters": "*", "epochs": -1}],
            "train.groups[0].epochs must be the number of epochs, from the first on, in which they are trained: a "
            "whole number from 0 (never) to 10^9, or null for all; received -1.",
        ),
        ([{"parameters": "*", "epochs": 1.5}], "or null for all; received 1.5."),
        (
            [{"parameters": "*", "learning_rate": 0}],
            "a number > 0, or null for the one of their optimiser; rec",
        ),
        (
            [{"parameters": "*", "weight_decay": -1}],
            "a number >= 0, or null for the one of their optimiser; re",
        ),
        (
            [{"parameters": "*", "optimizer": "adam"}],
            "train.groups[0].optimizer must be the keys of their opt",
        ),
        (
            [{"parameters": "*", "optimizer": {"name": "adamm"}}],
            "train.groups[0].optimizer.name: Unknown optimizer 'adamm'. Did you mean 'adam'?",
        ),
        (
            [{"parameters": "*", "optimizer": {"name": "adam", "adam": {"beta1": 0.5}}}],
            "train.groups[0].optimizer.adam.learning_rate is missing: the step size",
        ),
        (
            [{"parameters": "*", "schedule": {"name": "cosine", "cosine": {"final_factor": 2}}}],
            "train.groups[0].schedule.cosine.final_factor must be ",
        ),
        (
            [{"parameters": "*", "schedule": {"warm_up": 1}}],
            "train.groups[0].schedule.name is missing: the name",
        ),
    ],
)
def test_an_item_that_is_wrong_is_refused_with_its_place(load, groups, message):
    with pytest.raises(UserError) as error:
        load(groups)
    assert message in str(error.value)
    assert all(line.startswith("- train.groups") for line in str(error.value).splitlines()[1:])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            [{"parameters": "0.*"}, {"parameters": ["*.bias", "*.gamma"]}],
            r"^No parameter matches '\*\.gamma'\. The parameters are 0\.kernel \(conv2d\.kernel\), .*\.\n"
            r"In params\.yaml: train\.groups\[1\]\.parameters\.$",
        ),
        (
            [{"parameters": "*.bias"}, {"parameters": "0.bias"}],
            r"^All parameters that match '0\.bias' are in other groups already: 0\.bias\.\n"
            r"In params\.yaml: train\.groups\[1\]\.parameters\.$",
        ),
        (
            [{"parameters": "*", "epochs": 0}],
            r"^At least one group must be trained; .*\nIn params\.yaml: train\.groups\.$",
        ),
        (
            [{"parameters": "*.bias", "epochs": 2}, {"parameters": "*", "epochs": 3}],
            r"^Something must be trained in each of the 10 epochs \(train\.epochs\); the groups end with epoch "
            r"3\.\nIn params\.yaml: train\.groups\.$",
        ),
        (
            [{"parameters": "*.bias", "weight_decay": 0.1}],
            r"^weight_decay acts on parameters with two axes or more, .* received it for 0\.bias, 4\.bias\. Leave it out\.\nIn params\.yaml: "
            r"train\.groups\[0\]\.weight_decay\.$",
        ),
    ],
)
def test_what_does_not_fit_the_network_is_refused_before_any_stage_runs(load, groups, message):
    with pytest.raises(UserError, match=message):
        check_network(load(groups))


def test_the_table_has_each_group_with_its_optimiser_schedule_epochs_and_sizes(load):
    changes = {"train__schedule__name": "cosine", "train__schedule__warm_up": 1.0}
    params = load(GROUPS, model__architecture="sample", **changes)
    text = group_table(group_rows(params.train, network(params)))
    falls = "cosine(warm_up=1.0, final_factor=0.0)"
    assert [re.split(r"  +", line) for line in text.splitlines()] == [
        ["parameters", "optimiser", "schedule", "epochs", "arrays", "numbers"],
        ["all others", "sgd(learning_rate=0.1)", falls, "all", "1", "18,432"],
        ["0.*, dense.bias", "sgd(learning_rate=0.5)", falls, "the first 2", "4", "458"],
        ["*.bias", "frozen", "1", "64"],
        ["dense.*", "adam(learning_rate=0.001, weight_decay=0.25)", "constant", "all", "2", "206,080"],
    ]
    assert len({len(line) for line in text.splitlines()}) == 1


def test_summary_shows_the_groups_and_counts_their_state(load, monkeypatch, capsys):
    params = load(GROUPS, model__architecture="sample")
    monkeypatch.setattr(summary, "SECONDS", 0)
    monkeypatch.setattr(sys, "argv", ["pipeline", "summary"])
    monkeypatch.setenv("COLUMNS", "150")
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "Groups of parameters" in printed
    for row in group_rows(params.train, network(params)):
        assert any(all(cell in line for cell in row) for line in printed.splitlines()), row
    dense = sum(p.value.size for n, p in network(params).parameters().items() if n.endswith("weight"))
    (size,) = re.findall(r"state of the optimiser, sgd, adam +([\d.]+)", printed)
    assert float(size) == pytest.approx(2 * 4 * dense / 1e6, abs=0.01)


def test_steps_that_summary_measures_change_no_weight_of_any_group(load, monkeypatch):
    params = load(GROUPS, model__architecture="sample", train__batch_size=4)
    model = network(params)
    before = {name: parameter.value.tobytes() for name, parameter in model.parameters().items()}
    monkeypatch.setattr(summary, "SECONDS", 0)
    summary.TrainingStep(params, model, (28, 28, 1), 10).measure_seconds()
    assert {name: parameter.value.tobytes() for name, parameter in model.parameters().items()} == before


def test_groups_on_the_command_line_are_understood_by_dvc(load, tmp_path):
    wanted = load(GROUPS)
    (shown,) = re.findall(r"-S '(train\.groups=.*)'$", (SHIPPED / "params.yaml").read_text(), re.MULTILINE)
    for setting in (shown, f"train.groups={recipe.in_hydras_grammar(GROUPS)}"):
        set_params(tmp_path, {}, SHIPPED)
        apply_overrides(tmp_path / "params.yaml", [setting])
        found = load_params(tmp_path / "params.yaml")
        if setting == shown:
            (item,) = found.train.groups
            assert (item.parameters, item.learning_rate, item.epochs) == ("*.bias", 0.5, None)
    assert found == wanted


def test_the_example_in_params_yaml_is_what_it_says(load):
    """Its comment shows items as they are written in the file."""
    (shown,) = re.findall(
        r"^  #   (\[\{parameters: .*\])$", (SHIPPED / "params.yaml").read_text(), re.MULTILINE
    )
    first, second = load(YAML(typ="safe", pure=True).load(shown)).train.groups
    assert (first.parameters, first.epochs, first.learning_rate) == (["*.bias", "0.*"], 3, 0.5)
    assert (second.parameters, second.epochs) == ("batch_norm.gamma", 0)


def test_the_table_of_runs_shows_groups_and_shortens_networks():
    assert runs._shown([{"parameters": "*", "epochs": 0}]) == '[{"parameters": "*", "epochs": 0}]'
    assert runs._shown([{"type": "relu"}]) == "…"
