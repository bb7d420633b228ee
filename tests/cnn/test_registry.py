"""The registries: names, meanings and ranges, each read from its only declaration."""

import subprocess
import sys
from math import inf, nan
from typing import Annotated

import numpy as np
import pytest

from cnn import registry
from cnn.checks import Flag, Given, Range, Whole, checked
from cnn.registry import (
    AUGMENTATIONS,
    INITIALIZERS,
    LAYERS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    Registry,
    did_you_mean,
    name_of,
    options,
    summary,
    written_options,
)

KINDS = (LAYERS, LOSSES, OPTIMIZERS, SCHEDULES, INITIALIZERS, AUGMENTATIONS)
EVERYTHING = [(kind, name) for kind in KINDS for name in kind]
OPTIONS = [
    pytest.param(bearer, option, id=f"{name}.{option.name}")
    for kind in KINDS
    for name, bearer in kind.items()
    for option in written_options(bearer).values()
]
each_option = pytest.mark.parametrize(("bearer", "option"), OPTIONS)


def test_layers_have_the_names_that_architectures_are_written_with():
    assert set(LAYERS) >= {
        *("conv2d", "dense", "flatten", "sequential", "residual"),
        *("max_pool2d", "avg_pool2d", "global_max_pool2d", "global_avg_pool2d"),
        *("batch_norm", "layer_norm", "dropout", "spatial_dropout"),
        *("relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "softmax", "log_softmax"),
    }


def test_optimizers_and_losses_have_the_names_that_params_are_written_with():
    assert set(OPTIMIZERS) >= {"sgd", "adagrad", "rmsprop", "adam", "adamw", "muon"}
    assert set(LOSSES) == {"softmax_cross_entropy", "cross_entropy", "mean_squared_error"}


@pytest.mark.parametrize(
    ("written", "name"),
    [
        *(("Conv2D", "conv2d"), ("MaxPool2D", "max_pool2d"), ("ReLU", "relu"), ("LeakyReLU", "leaky_relu")),
        *(("GlobalAvgPool2D", "global_avg_pool2d"), ("SGD", "sgd"), ("AdamW", "adamw"), ("SiLU", "silu")),
        *(("LogSoftmax", "log_softmax"), ("he_normal", "he_normal"), ("RMSProp", "rmsprop")),
    ],
)
def test_a_name_is_that_of_the_class_in_small_letters_with_words_apart(written, name):
    assert name_of(type(written, (), {})) == name


@pytest.mark.parametrize(("kind", "name"), EVERYTHING)
def test_everything_says_in_a_sentence_what_it_is(kind, name):
    assert name_of(kind[name]) == name
    assert summary(kind[name]).rstrip().endswith((".", ":", '"', "?"))


@each_option
def test_every_option_that_a_file_may_hold_has_a_meaning(bearer, option):
    assert len(option.meaning.split()) >= 2, option.name
    assert option.meaning.endswith((".", ")"))


def values_against(rule):
    """Values that `rule` must refuse: of the wrong type, next to its bounds and beyond them."""
    yield from ("1", None) if not isinstance(rule, Flag) else ("True", 1, 0, None)
    if isinstance(rule, Whole):
        yield from (rule.low - 1, rule.low + 0.5, float(rule.low), True, nan)
        if rule.high is not None:
            yield rule.high + 1
    if isinstance(rule, Range):
        low, high = rule.bounds
        yield from (nan, inf, -inf, True, low - 1e-9, *([low] if rule.interval[0] == "(" else []))
        yield from [] if high == inf else [high + 1e-9, *([high] if rule.interval[-1] == ")" else [])]


@pytest.mark.parametrize(("bearer", "option"), [case for case in OPTIONS if case.values[1].rule is not None])
def test_a_value_out_of_its_range_is_refused_with_option_rule_and_value(bearer, option):
    for value in values_against(option.rule):
        if value is None and option.default is None:
            continue
        with pytest.raises(ValueError) as error:
            bearer(**{option.name: value})  # before the other arguments are missed
        assert str(error.value) == f"{option.name} must be {option.rule.describe()}; received {value!r}."


@pytest.mark.parametrize(
    ("bearer", "option"), [case for case in OPTIONS if case.values[1].default is not registry.REQUIRED]
)
def test_defaults_follow_their_own_rules(bearer, option):
    if option.rule is not None and option.default is not None:
        assert option.rule.holds(option.default)


@pytest.mark.parametrize(
    ("rule", "inside", "words"),
    [
        (Range("[0, 1)"), [0, 0.999, np.float32(0.5)], "in [0, 1)"),
        (Range("(0, 1]"), [1e-300, 1, np.int64(1)], "in (0, 1]"),
        (Range("(0, ∞)"), [1e-300, 1e300], "a finite number > 0"),
        (Range("[-2, ∞)"), [-2, 0], "a finite number >= -2"),
        (Whole(), [1, np.int8(3), 10**30], "a whole number >= 1"),
        (Whole(0, 2), [0, 1, 2], "a whole number from 0 to 2"),
        (Flag(), [True, False], "True or False"),
    ],
)
def test_a_rule_takes_its_bounds_at_its_word_and_gives_plain_numbers(rule, inside, words):
    assert rule.describe() == words
    for value in inside:
        plain = rule.check("x", value)
        assert plain == value
        assert type(plain) in (int, float, bool)
    for value in values_against(rule):
        assert not rule.holds(value)
        with pytest.raises(ValueError, match=r"^x must be"):
            rule.check("x", value)


def test_arguments_are_checked_by_place_and_by_name_before_the_body_runs():
    calls = []

    @checked
    def scale(x, factor: Annotated[float, Range("(0, ∞)")], *, times: Annotated[int, Whole()] | None = None):
        calls.append((x, factor, times))

    scale("a", 2)
    scale("a", factor=np.float32(2), times=None)
    scale("a", 2, times=np.int64(3))
    assert calls == [("a", 2.0, None), ("a", 2.0, None), ("a", 2.0, 3)]
    assert {type(factor) for _, factor, _ in calls} == {float}
    for arguments, named in [(("a", 0), {}), (("a",), {"factor": 0}), (("a", 1), {"times": 0})]:
        with pytest.raises(ValueError, match=r"; received 0\.$"):
            scale(*arguments, **named)
    assert len(calls) == 3


def test_what_follows_from_the_place_is_not_written():
    assert [option.name for option in options(LAYERS["dense"]).values() if option.given] == [
        *("in_features", "rng", "dtype")
    ]
    assert list(written_options(LAYERS["dense"])) == ["out_features", "bias", "initializer"]
    assert list(written_options(SCHEDULES["one_cycle"])) == ["rise", "start_factor", "final_factor"]
    assert "parameters" not in written_options(OPTIMIZERS["sgd"])


def test_a_class_that_says_nothing_of_an_argument_takes_over_what_its_base_says():
    assert options(LAYERS["max_pool2d"])["stride"].meaning == options(LAYERS["avg_pool2d"])["stride"].meaning
    assert "kept" in options(OPTIMIZERS["adamw"])["beta1"].meaning
    assert "learning_rate" in options(OPTIMIZERS["adamw"])


def test_a_new_thing_is_registered_by_its_name_and_its_arguments_are_checked():
    things = Registry("thing")

    @things.register
    class TallTree:
        """A tree.

        Args:
            height: of it, and so on
                over two lines.
            width: the other one.
        """

        def __init__(self, height: Annotated[int, Whole()], width: Annotated[float, Given] = 1.0) -> None:
            self.height = height

    @things.register
    def wood(area: Annotated[float, Range("[0, 9]")]) -> float:
        """A wood."""
        return area

    assert dict(things) == {"tall_tree": TallTree, "wood": things.find("wood")}
    assert options(TallTree)["height"].meaning == "of it, and so on over two lines."
    assert list(written_options(TallTree)) == ["height"]
    for make in (lambda: TallTree(0), lambda: things["wood"](10)):
        with pytest.raises(ValueError, match="must be"):
            make()
    things.register(TallTree)  # a notebook's cell, run again

    class Wood:
        """Another wood."""

    with pytest.raises(ValueError, match=r"There is a thing 'wood' already"):
        things.register(Wood)
    with pytest.raises(ValueError, match=r"^Unknown thing 'talltree'\. Did you mean 'tall_tree'\? Known: "):
        things.find("talltree")


def test_the_command_lists_everything_with_ranges_and_defaults():
    run = subprocess.run(
        [sys.executable, "-m", "cnn"], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    for _, name in EVERYTHING:
        assert f"\n  {name}: " in run.stdout
    assert "(in [0, 1), default 0.9)" in run.stdout
    assert "rate: the fraction of numbers that become zero. (in [0, 1))" in run.stdout
    assert "initializer: " in run.stdout
    assert "default fan_in_uniform)" in run.stdout
    assert "in_features" not in run.stdout


@pytest.mark.parametrize(("name", "nearest"), [("Nadam", "nadam"), ("Mynet", "MyNet"), ("sdg", "sgd")])
def test_the_nearest_name_is_found_whatever_its_case(name, nearest):
    assert did_you_mean(name, ["adam", "nadam", "sgd", "MyNet"]) == f" Did you mean '{nearest}'?"
