import inspect
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from projects import SHIPPED
from rich.console import Console
from ruamel.yaml import YAML

import cnn
import cnn.inspection
from cnn.registry import (
    AUGMENTATIONS,
    INITIALIZERS,
    LAYERS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    Option,
    written_options,
)
from pipeline.artefacts.preprocess import Description
from pipeline.config import architectures, sections
from pipeline.config.architectures import build_chosen, build_model, load_layers
from pipeline.config.params import load_params
from pipeline.data.catalogue import DATASETS
from pipeline.errors import UserError
from pipeline.stages import train as train_stage

ROOT = Path(__file__).parents[2]
HEAD = "cannot be used:"
ZERO, ONE = np.zeros(1, np.float32), np.ones(1, np.float32)


def write(tmp_path, changes):
    """params.yaml with some keys, "a.b.c", changed, or removed if the value is ..."""
    content = YAML(typ="safe", pure=True).load(SHIPPED / "params.yaml")
    for key, value in changes.items():
        if not isinstance(key, str):
            content[key] = value
            continue
        section = content
        *parents, last = key.split(".")
        for parent in parents:
            section = section[parent]
        if value is ...:
            del section[last]
        else:
            section[last] = value
    path = tmp_path / "params.yaml"
    YAML(typ="safe", pure=True).dump(content, path)
    return path


def test_the_params_that_come_with_the_project_are_the_references():
    params = load_params(SHIPPED / "params.yaml")
    assert (params.data.dataset, params.model.architecture, params.train.epochs) == ("mnist", "baseline", 10)
    assert (params.train.batch_size, params.train.loss.name) == (64, "softmax_cross_entropy")
    plain = {"learning_rate": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    assert (params.train.optimizer.name, params.train.optimizer.options()) == ("sgd", plain)
    assert params.train.schedule.make(0.1, 10)(9.5) == 0.1
    assert params.train.augmentation.make(ZERO, ZERO, ONE) is None


def test_a_learning_rate_beside_the_optimisers_name_counts_for_any_of_them(tmp_path):
    for name in OPTIMIZERS:
        keys = {"train.optimizer.name": name, "train.optimizer.learning_rate": 0.25}
        assert load_params(write(tmp_path, keys)).train.optimizer.options()["learning_rate"] == 0.25
    adam = load_params(write(tmp_path, {"train.optimizer.name": "adam"})).train.optimizer.options()
    assert adam["learning_rate"] == 0.001


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "train.epochs",
            ...,
            "train.epochs is missing: how many passes over the training set: a whole number from 1 to 10^9.",
        ),
        ("train", ..., "train is missing: the keys of training."),
        ("train.epoch", 3, "train.epoch is not a known key. Did you mean 'train.epochs'?"),
        ("zzz", 3, "zzz is not a known key. Known: seed, device, data, model, train, evaluate, export."),
        (
            "train.epochs",
            0,
            "train.epochs must be how many passes over the training set: a whole number from 1 to 10^9; received 0.",
        ),
        ("train.epochs", "ten", "a whole number from 1 to 10^9; received 'ten'."),
        ("train.epochs", 2.0, "a whole number from 1 to 10^9; received 2.0."),
        ("train.epochs", True, "a whole number from 1 to 10^9; received True."),
        ("train.epochs", None, "a whole number from 1 to 10^9; received null."),
        ("train", [1], "train must be the keys of training; received [1]."),
        (
            "train.optimizer.learning_rate",
            0,
            "train.optimizer.learning_rate must be the step size: a number > 0, or null for the one of the chosen "
            "optimiser's section; received 0.",
        ),
        ("train.optimizer.sgd.learning_rate", float("nan"), "a number > 0; received nan."),
        ("train.optimizer.sgd.learning_rate", float("inf"), "a number > 0; received inf."),
        ("train.optimizer.learning_rate", "0.1", "optimiser's section; received '0.1'."),
        ("train.optimizer.sgd.momentum", 1, "in [0, 1); received 1."),
        (
            "train.optimizer.sgd.nesterov",
            True,
            "so it needs momentum > 0; received 0.",
        ),
        ("train.optimizer.sgd.nesterov", "yes", "true or false; received 'yes'."),
        (
            "train.optimizer.name",
            "sdg",
            f"Unknown optimizer 'sdg'. Did you mean 'sgd'? Known: {', '.join(sorted(OPTIMIZERS))}.",
        ),
        (
            "train.schedule.name",
            "const",
            f"Unknown schedule 'const'. Did you mean 'constant'? Known: {', '.join(sorted(SCHEDULES))}.",
        ),
        (
            "data.dataset",
            "minst",
            f"Unknown dataset 'minst'. Did you mean 'mnist'? Known: {', '.join(sorted([*DATASETS, 'own']))}.",
        ),
        ("data.validation_size", 1.5, "or a whole number of images >= 1; received 1.5."),
        ("data.validation_size", 0, "or a whole number of images >= 1; received 0."),
        ("data.validation_size", "all", "or a whole number of images >= 1; received 'all'."),
        ("data.train_size", -1, "a whole number from 1 to 10^9, or null; received -1."),
        ("train.loss.name", "mse", f"Known: {', '.join(sorted(LOSSES))}."),
        ("train.loss.softmax_cross_entropy.label_smoothing", 1.5, "in [0, 1]; received 1.5."),
        ("train.loss.softmax_cross_entropy.class_weights", [1, -1], "a number >= 0, or null; received -1."),
        (
            "train.keep",
            "first",
            "train.keep must be the epoch whose weights are kept: best (the highest validation accuracy) or last; received 'first'.",
        ),
        ("train.patience", 0, "a whole number from 1 to 10^9, or null; received 0."),
        ("train.minimum_accuracy", [2], "in [0, 1]; received 2."),
        ("train.clip_norm", 0, "a number > 0, or null; received 0."),
        ("train.moving_average", 1, "in [0, 1), or null; received 1."),
        ("train.lookahead.every", -1, "a whole number from 0 (never) to 10^9; received -1."),
        ("train.lookahead.decay", 1, "in [0, 1); received 1."),
        ("train.schedule.one_cycle.rise", 1, "in (0, 1); received 1."),
        ("train.augmentation.random_zoom", 1, "in [0, 1); received 1."),
        ("train.augmentation.cutout", 2.5, "a whole number from 0 to 1000; received 2.5."),
        ("train.augmentation.elastic_distortion.smoothness", 0, "in (0, 1000]; received 0."),
        ("train.augmentation.alternating_flip", 0.5, "whether to flip: true or false; received 0.5."),
        (
            "train.augmentation.random_crop.mode",
            "wrap",
            "train.augmentation.random_crop.mode must be what the padding holds: reflect or constant; received 'wrap'.",
        ),
        (
            "train.augmentation.random_erasing.largest_area",
            0.01,
            "smallest_area must be at most largest_area; received 0.02 and 0.01.",
        ),
        (
            "train.optimizer.adagrad.zzz",
            1,
            "is not a known key. Known: learning_rate, epsilon, weight_decay.",
        ),
        ("train.optimizer.adam.beta3", 1, "Did you mean 'train.optimizer.adam.beta2'?"),
        ("evaluate.confidence_level", 1.0, "a fraction between 0 and 1; received 1.0."),
        ("evaluate.test_time_augmentation.shift", -1, "a whole number from 0 to 1000; received -1."),
        ("evaluate.test_time_augmentation.shift", 1.5, "a whole number from 0 to 1000; received 1.5."),
        ("evaluate.test_time_augmentation.mirror", 1, "true or false; received 1."),
        ("export.formats", ["onnx", "onx"], "and safetensors; [] for none; received 'onx'."),
        ("export.formats", "onnx", "and safetensors; [] for none; received 'onnx'."),
        (3, 4, "3 is not a known key: keys are words."),
        ("seed", -1, "seed must be the seed: a whole number from 0 to 4294967295; received -1."),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_meaning(tmp_path, key, value, message):
    path = write(tmp_path, {key: value})
    with pytest.raises(UserError) as error:
        load_params(path)
    first, *problems = str(error.value).splitlines()
    assert first == f"{path} {HEAD}"
    assert len(problems) == 1
    assert problems[0].startswith(f"- {str(key).rpartition('.')[0]}")
    assert problems[0].endswith(message)


@pytest.mark.parametrize(
    "key",
    [
        "data.image_size",
        "data.channels",
        "data.train_size",
        "train.patience",
        "train.clip_norm",
        "train.clip_value",
        "train.moving_average",
        "train.optimizer.learning_rate",
        "train.loss.softmax_cross_entropy.class_weights",
    ],
)
def test_an_empty_text_is_null_for_a_key_that_may_be_null(tmp_path, key):
    value = load_params(write(tmp_path, {key: ""}))
    for name in key.split("."):
        value = getattr(value, name)
    assert value is None
    with pytest.raises(UserError, match="received ' '"):
        load_params(write(tmp_path, {key: " "}))


@pytest.mark.parametrize("key", ["data.path", "data.fit", "train.epochs", "train"])
def test_an_empty_text_is_not_null_for_another_key(tmp_path, key):
    with pytest.raises(UserError, match="received ''"):
        load_params(write(tmp_path, {key: ""}))


def test_a_path_from_the_home_folder_is_refused_since_dvc_would_not_find_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    with pytest.raises(UserError) as error:
        load_params(write(tmp_path, {"data.path": "~/cats"}))
    assert str(error.value).endswith(
        "- data.path: DVC does not expand ~; received '~/cats'. Write the whole path: /home/me/cats"
    )
    assert load_params(write(tmp_path, {"data.path": "cats~"})).data.path == "cats~"


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    with pytest.raises(UserError) as error:
        load_params(write(tmp_path, {"train.epochs": 0, "seed": "x", "data.extra": 1}))
    assert len(str(error.value).splitlines()) == 4


def test_a_learning_rate_as_dvc_writes_it_is_a_number(tmp_path):
    path = write(tmp_path, {})
    path.write_text(path.read_text().replace("learning_rate: 0.1", "learning_rate: 1e-05"))
    assert load_params(path).train.optimizer.options()["learning_rate"] == 1e-5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must hold keys with values, `key: value`; it holds nothing."),
        (b"- 1\n", "must hold keys with values, `key: value`; it holds a list."),
        (b"a: [1\n", r"is not valid YAML: .* in line 2, column 1\."),
        (b"a: 1\na: 2\n", r"is not valid YAML: found duplicate key"),
        (b"\xff\xfe\x00", "is not text in UTF-8: invalid start byte at byte 0."),
        (b"a: \x00", "is not valid YAML: "),
        (b"a: " + b"[" * 5000, "is nested too deeply."),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{re.escape(str(path))} {message}"):
        load_params(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match="Run the command from the project's folder"):
        load_params(tmp_path / "params.yaml")


@pytest.fixture
def build(rng):
    return lambda layers, shape=(8, 8, 1): build_model(layers, "architectures.yaml: mine", shape, 10, rng)


@pytest.mark.parametrize("name", ["baseline", "sample", "batch_norm", "residual"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_the_architectures_that_come_with_the_project_fit_every_dataset(rng, name, dataset):
    layers = load_layers(name, SHIPPED / "architectures.yaml")
    shape = DATASETS[dataset].image_shape
    assert build_model(layers, name, shape, 10, rng).output_shape(shape) == (10,)


def test_a_layers_options_reach_its_constructor(build):
    layers = [
        {
            "type": "conv2d",
            "out_channels": 2,
            "kernel_size": [3, 1],
            "padding": [[1, 2], [0, 0]],
            "bias": False,
        },
        {"type": "avg_pool2d", "kernel_size": 2, "stride": [1, 2]},
        {"type": "flatten"},
        {"type": "dense", "out_features": 10},
    ]
    model = build(layers)
    assert repr(model.layers[0]) == ("Conv2D(1, 2, (3, 1), padding=((1, 2), (0, 0)), bias=False)")
    assert repr(model.layers[1]) == "AvgPool2D(2, stride=(1, 2))"


FLAT = [{"type": "flatten"}]
PLACE = "In architectures.yaml: mine[0]"
INPUT = "whose input has shape (8, 8, 1)."
CONV2D = ["bias", "dilation", "groups", "initializer", "kernel_size", "out_channels", "padding", "stride"]


@pytest.mark.parametrize(
    ("layers", "parts"),
    [
        (["relu"], ["{type: NAME, …}; received 'relu'.", f"{PLACE}."]),
        ([{"type": "conv"}], ["'conv'. Did you mean 'conv2d'?", *LAYERS, f"{PLACE}."]),
        (
            [{"type": "conv2d", "out_channels": 8, "kernel_size": 9}],
            ["9x9 kernel", "does not fit", "8x8 pixels", f"\n{PLACE} (conv2d), {INPUT}"],
        ),
        (
            [{"type": "conv2d", "out_channel": 8, "kernel_size": 3}],
            ["'out_channel'. Did you mean 'out_channels'?", *CONV2D, f"\n{PLACE} (conv2d), {INPUT}"],
        ),
        ([{"type": "relu", 1: 2}], ["{type: NAME, …}; received {'type': 'relu', 1: 2}.", f"{PLACE}."]),
        (
            [{"type": "conv2d", "out_channels": 8}],
            ["conv2d needs kernel_size.", f"\n{PLACE} (conv2d), {INPUT}"],
        ),
        (
            [{"type": "conv2d", "out_channels": 8, "kernel": 3, "kernel_size": 3}],
            ["'kernel'. Did you mean 'kernel_size'?", *CONV2D, f"\n{PLACE} (conv2d), {INPUT}"],
        ),
        (
            [{"type": "conv2d", "out_channels": 8, "kernel_size": "3"}],
            ["kernel_size must be", "received '3'.", f"\n{PLACE} (conv2d), {INPUT}"],
        ),
        (
            [{"type": "relu", "slope": 1}],
            ["relu takes no options; received slope.", f"\n{PLACE} (relu), {INPUT}"],
        ),
        (
            FLAT,
            [
                "10 classes",
                "(10,)",
                "(64,)",
                "{type: dense, out_features: classes}",
                "\nIn architectures.yaml: mine.",
            ],
        ),
        (
            [{"type": "residual", "layers": {"type": "relu"}}],
            ["must be written as a list; received {'type': 'relu'}.", f"{PLACE}.layers."],
        ),
        (
            [{"type": "residual", "layers": [{"type": "conv2d", "out_channels": 2, "kernel_size": 9}]}],
            ["9x9 kernel", "does not fit", "8x8 pixels", f"\n{PLACE}.layers[0] (conv2d), {INPUT}"],
        ),
        (
            [{"type": "residual", "layers": [{"type": "conv2d", "out_channels": 2, "kernel_size": 1}]}],
            ["same shape", "(8, 8, 2)", "shortcut (8, 8, 1)", "1x1 Conv2D", f"\n{PLACE} (residual), {INPUT}"],
        ),
        (
            [*FLAT, {"type": "dense", "out_features": 10, "initializer": "he_norm"}],
            [
                "'he_norm'. Did you mean 'he_normal'?",
                *INITIALIZERS,
                "\nIn architectures.yaml: mine[1] (dense), whose input has shape (64,).",
            ],
        ),
        (
            [{"type": "dropout", "rate": 1}],
            ["rate must be in [0, 1); received 1.", f"\n{PLACE} (dropout), {INPUT}"],
        ),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(build, layers, parts):
    with pytest.raises(UserError) as error:
        build(layers)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["a.b", "a b", "[a](b)", "*a*", "a\x85", "<b>"])
def test_an_architectures_name_is_plain(tmp_path, name):
    (tmp_path / "a.yaml").write_text(f"{json.dumps(name)}:\n- {{type: relu}}\nbreit-2_ä:\n- {{type: relu}}\n")
    with pytest.raises(UserError, match="must consist of letters, digits, _ and -; received"):
        load_layers(name, tmp_path / "a.yaml")
    assert load_layers("breit-2_ä", tmp_path / "a.yaml")


@pytest.mark.parametrize("content", ["mine: {}\n", "mine: []\n", "mine: relu\n"])
def test_an_architecture_that_is_no_list_is_refused(tmp_path, content):
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(UserError, match="mine must be a list of at least one layer; received"):
        load_layers("mine", tmp_path / "a.yaml")


def test_an_unknown_architecture_gets_the_nearest_name():
    path = SHIPPED / "architectures.yaml"
    with pytest.raises(UserError) as error:
        load_layers("basline", path)
    assert str(error.value).startswith(
        "Unknown architecture 'basline'. Did you mean 'baseline'? Known: baseline, batch_norm, fashion_mnist, mnist, mnist_quick, residual, sample."
    )
    assert str(path) in str(error.value)


LOGITS = [*FLAT, {"type": "dense", "out_features": 10}]
TWICE = r"^The loss softmax_cross_entropy needs logits, .*set train.loss.name to cross_entropy\.\nIn {path}: mine\.$"
WITHOUT = (
    r"^The loss cross_entropy needs probabilities: .*{{type: softmax}}, or .*softmax_cross_entropy\."
    r"\nIn {path}: mine, and in params\.yaml: train\.loss\.name\.$"
)


@pytest.mark.parametrize(
    ("loss", "end", "message"),
    [
        ("softmax_cross_entropy", [{"type": "softmax"}], TWICE),
        ("softmax_cross_entropy", [{"type": "softmax"}, {"type": "relu"}], TWICE),
        (
            "softmax_cross_entropy",
            [{"type": "sequential", "layers": [{"type": "softmax"}, {"type": "relu"}]}],
            TWICE,
        ),
        ("softmax_cross_entropy", [{"type": "softmax"}, {"type": "dense", "out_features": 10}], None),
        ("softmax_cross_entropy", [{"type": "log_softmax"}], None),
        ("cross_entropy", [], WITHOUT),
        ("cross_entropy", [{"type": "softmax"}], None),
        ("mean_squared_error", [], None),
        ("mean_squared_error", [{"type": "softmax"}], None),
    ],
)
def test_the_networks_end_must_suit_the_loss(tmp_path, monkeypatch, loss, end, message):
    path = tmp_path / "architectures.yaml"
    YAML(typ="safe", pure=True).dump({"mine": [*LOGITS, *end]}, path)
    monkeypatch.setattr(architectures, "ARCHITECTURES", path)
    monkeypatch.setattr(architectures, "load_layers", lambda name: load_layers(name, path))
    chosen = load_params(write(tmp_path, {"model.architecture": "mine", "train.loss.name": loss}))
    if message is None:
        build_chosen(chosen, (8, 8, 1), 10)
        return
    with pytest.raises(UserError, match=message.format(path=path)):
        build_chosen(chosen, (8, 8, 1), 10)


@pytest.mark.parametrize(
    ("registry", "path"),
    [
        (OPTIMIZERS, "optimizer"),
        (SCHEDULES, "schedule"),
        (LOSSES, "loss"),
        (AUGMENTATIONS, "augmentation"),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_the_sections_that_come_with_the_project_are_complete_and_have_the_defaults_of_the_code(
    registry, path
):
    content = YAML(typ="safe", pure=True).load(SHIPPED / "params.yaml")["train"][path]
    for name, bearer in registry.items():
        options = written_options(bearer)
        section = content.get(name)
        if section is None:  # a method without a section has the defaults
            continue
        section = section if isinstance(section, dict) else {next(iter(options)): section}
        assert set(section) == set(options), name
        for key, option in options.items():
            assert option.default in (inspect.Parameter.empty, section[key]), (name, key)


@pytest.mark.parametrize("key", ["optimizer.sgd", "optimizer.adam", "schedule.cosine", "augmentation.cutout"])
def test_a_method_without_a_section_has_the_defaults_of_the_code(tmp_path, key):
    assert load_params(write(tmp_path, {f"train.{key}": ...})) == load_params(SHIPPED / "params.yaml")


def test_a_new_method_is_known_by_its_name_and_its_keys_follow_from_its_signature(tmp_path):
    program = """
import sys
from typing import Annotated
import cnn
from cnn.checks import Given, Positive, Range
from cnn.optimizers import Optimizer, Parameters
from cnn.registry import OPTIMIZERS

@OPTIMIZERS.register
class SlowDown(Optimizer):
    \"\"\"Steps that are slowed down.

    Args:
        brake: how much slower.
    \"\"\"

    def __init__(self, parameters: Annotated[Parameters, Given], learning_rate: Positive = 0.5, *,
                 brake: Annotated[float, Range("[0, 2]")] = 1.0) -> None:
        self.brake = brake
        super().__init__(parameters, learning_rate, weight_decay=0.0)

    def _update(self, value, gradient, learning_rate, *memory):
        value -= gradient

from pathlib import Path
from pipeline.config.params import load_params
from pipeline.errors import UserError
for path in sys.argv[1:]:
    try:
        made = load_params(Path(path)).train.optimizer.make({})
        print(type(made).__name__, made.learning_rate, made.brake)
    except UserError as error:
        print(error)
"""
    paths = []
    for number, section in enumerate(
        [..., {"learning_rate": 0.1, "brake": 2}, {"learning_rate": 0.1, "brake": 3}]
    ):
        changes = {"train.optimizer.name": "slow_down"}
        path = write(
            tmp_path, changes if section is ... else changes | {"train.optimizer.slow_down": section}
        )
        paths.append(str(path.rename(tmp_path / f"{number}.yaml")))
    result = subprocess.run(
        [sys.executable, "-c", program, *paths], cwd=ROOT, capture_output=True, text=True, check=True
    )
    missing, given, *refused = result.stdout.splitlines()
    assert (missing, given) == ("SlowDown 0.5 1.0", "SlowDown 0.1 2.0")
    assert "train.optimizer.slow_down.brake must be how much slower: in [0, 2]; received 3." in refused[-1]


@pytest.mark.parametrize(
    ("documented", "shown"),
    [
        ("the step size.", "the step size: true or false"),
        ("the step size; may be assigned.", "the step size: true or false"),
        ("the step size. None is 1. See `cnn`.", "the step size: true or false"),
        (
            "the size (width; height. Or both), e.g. 3; or 4",
            "the size (width; height. Or both), e.g. 3: true or false",
        ),
        ("a part in [0, 1); 1 is all", "a part in [0, 1): true or false"),
        ("", "true or false"),
    ],
)
def test_a_message_has_the_first_clause_of_a_meaning(documented, shown):
    option = Option("key", bool, True, documented, given=False, keyword_only=False)
    assert sections._field(option)[1] == shown


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_augmentation_acts_by_its_key(tmp_path, rng, name):
    key, amount = {
        "elastic_distortion": ("elastic_distortion.strength", 1.0),
        "horizontal_flip": (name, 1.0),
        "random_zoom": (name, 0.5),
        "random_aspect": (name, 0.5),
        "random_stroke": (name, 0.5),
        "random_blur": (name, 0.5),
        "cutout": (name, 3),
        "random_crop": ("random_crop.padding", 3),
        "alternating_flip": (name, True),
        "random_brightness": (name, 0.5),
        "random_contrast": (name, 0.5),
        "random_erasing": ("random_erasing.probability", 1.0),
    }.get(name, (name, 5.0))
    changes = {f"train.augmentation.{key}": amount, "train.augmentation.random_crop.mode": "constant"}
    options = load_params(write(tmp_path, changes)).train.augmentation
    background, black, white = np.float32([-3, 0, 2]), np.float32([-4, -5, -6]), np.float32([1, 2, 3])
    augment = options.make(background, black, white)
    images, place = rng.random((4, 12, 12, 3)), {"examples": np.arange(4), "epoch": 1, "seed": 2}
    given = {"fill": background, "black": black, "white": white, "mode": "constant", **place}
    function = getattr(cnn.augmentation, name)
    keys = {key: value for key, value in given.items() if key in inspect.signature(function).parameters}
    expected = function(images, np.random.default_rng(1), amount, **keys)
    assert not np.array_equal(expected, images)
    np.testing.assert_array_equal(augment(images, np.random.default_rng(1), **place), expected)


def test_augmentations_follow_one_another_in_the_order_of_params(tmp_path, rng):
    keys = {"train.augmentation.random_shift": 2, "train.augmentation.cutout": 3}
    augment = load_params(write(tmp_path, keys)).train.augmentation.make(ZERO, ZERO, ONE)
    images, one = rng.random((4, 12, 12, 1)), np.random.default_rng(1)
    expected = cnn.augmentation.cutout(cnn.augmentation.random_shift(images, one, 2), one, 3)
    np.testing.assert_array_equal(augment(images, np.random.default_rng(1)), expected)


def test_affine_maps_that_are_on_together_are_one_sampling(tmp_path, rng):
    names = {
        "random_shift": "pixels",
        "random_rotation": "degrees",
        "random_zoom": "fraction",
        "random_aspect": "fraction",
        "random_shear": "degrees",
    }
    keys = {f"train.augmentation.{name}": 0.5 for name in names}
    augment = load_params(write(tmp_path, keys)).train.augmentation.make(ZERO - 1, ZERO, ONE)
    images = rng.random((4, 12, 12, 1))
    steps = [partial(getattr(cnn.augmentation, name), fill=-1.0, **{key: 0.5}) for name, key in names.items()]
    expected = cnn.augmentation.compose(*steps)(images, np.random.default_rng(1))
    np.testing.assert_array_equal(augment(images, np.random.default_rng(1)), expected)


def test_both_flips_at_once_are_refused(tmp_path):
    keys = {"train.augmentation.horizontal_flip": 0.5, "train.augmentation.alternating_flip": True}
    with pytest.raises(UserError) as error:
        load_params(write(tmp_path, keys))
    assert str(error.value).splitlines()[1:] == [
        "- train.augmentation: horizontal_flip and alternating_flip are both on, and would undo each other. "
        "Turn one off."
    ]


def test_two_averages_of_the_weights_at_once_are_refused(tmp_path):
    keys = {"train.moving_average": 0.9, "train.lookahead.every": 5}
    with pytest.raises(UserError) as error:
        load_params(write(tmp_path, keys))
    assert str(error.value).splitlines()[1:] == [
        "- train: moving_average (0.9) and lookahead.every (5) are both on, but the weights to keep are one "
        "average. Turn one off: moving_average: null, or lookahead.every: 0."
    ]


def test_lookahead_is_made_for_all_steps_of_the_run(tmp_path):
    keys = {"train.epochs": 7, "train.batch_size": 11, "train.lookahead": {"every": 3, "decay": 0.5}}
    average = load_params(write(tmp_path, keys)).train.make_average({}, 23)
    assert type(average) is cnn.Lookahead
    assert (average.steps, average.every, average.decay) == (21, 3, 0.5)  # three batches in an epoch
    assert load_params(write(tmp_path, {})).train.make_average({}, 23) is None
    keys["train.lookahead"]["every"] = 22
    with pytest.raises(UserError, match=r"at most the number of steps, 21, .*\n.*train\.lookahead\.every\."):
        load_params(write(tmp_path, keys)).train.make_average({}, 23)


def test_warm_up_holds_the_chosen_schedule_back(tmp_path):
    keys = {"train.schedule.name": "cosine", "train.schedule.warm_up": 2}
    schedule = load_params(write(tmp_path, keys)).train.schedule.make(0.4, 8)
    assert schedule(0.0) == pytest.approx(0.04)
    assert schedule(4.0) == pytest.approx(0.2)
    assert schedule(8.0) == 0


def test_class_weights_must_be_one_for_each_class(tmp_path):
    keys = {"train.loss.softmax_cross_entropy.class_weights": [1, 2]}
    options = load_params(write(tmp_path, keys)).train.loss
    with pytest.raises(UserError) as error:
        options.make(10)
    assert str(error.value) == (
        "class_weights must be 10 finite numbers >= 0, one for each class and not all 0; "
        "received [1.0, 2.0].\nIn params.yaml: train.loss.softmax_cross_entropy."
    )
    loss, gradient = options.make(2)(np.zeros((1, 2), np.float32), np.array([[0, 1]], np.float32))
    assert loss == pytest.approx(2 * np.log(2))
    assert gradient.dtype == np.float32


def test_initial_values_do_not_depend_on_pythons_hash_seed():
    code = (
        "import numpy as np, hashlib; from pipeline.config.architectures import build_model; "
        "from pipeline.config.architectures import load_layers; "
        "model = build_model(load_layers('residual'), 'x', (28, 28, 1), 10, np.random.default_rng(0)); "
        "print(hashlib.md5(b''.join(a.tobytes() for a in model.state_dict().values())).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(4)
    }
    assert len(digests) == 1


def test_what_follows_from_the_layers_place_must_be_left_out(build):
    with pytest.raises(UserError, match=r"^in_channels follows from the layer's place: leave it out."):
        build([{"type": "conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": 3}])


def test_a_network_that_cannot_learn_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "architectures.yaml"
    path.write_text("mine:\n- {type: avg_pool2d, kernel_size: [5, 14]}\n- {type: flatten}\n")
    monkeypatch.setattr(architectures, "ARCHITECTURES", path)
    monkeypatch.setattr(architectures, "load_layers", lambda name: load_layers(name, path))
    chosen = load_params(write(tmp_path, {"model.architecture": "mine"}))
    with pytest.raises(UserError, match=r"^A network without parameters cannot learn\."):
        build_chosen(chosen, (28, 28, 1), 10)


@pytest.mark.parametrize("text", ["seed: 2024-13-45\n", "seed: !!int abc\n"])
def test_a_value_that_yaml_cannot_read_is_told(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"holds a value that cannot be read|is not valid YAML"):
        load_params(tmp_path / "params.yaml")


def test_every_key_of_training_reaches_fit(tmp_path, monkeypatch):
    keys = {
        "train.epochs": 7,
        "train.batch_size": 11,
        "train.shard_size": 3,
        "train.patience": 5,
        "train.clip_norm": 1.5,
        "train.clip_value": 2.5,
        "train.moving_average": 0.75,
        "train.augmentation.random_shift": 2,
        "train.optimizer.name": "adam",
        "train.groups": [{"parameters": "*.bias", "epochs": 2, "learning_rate": 0.5}],
        "seed": 3,
    }
    received = {}

    def record(model, train, validation, **options):
        received.update(options)
        options["progress"].best_epoch[...] = 1
        return (cnn.EpochReport(epoch, 0.1, 0.0, 1.0, 0.0, 1.0) for epoch in (1,))

    monkeypatch.setattr(train_stage, "fit_by_epoch", record)
    monkeypatch.setattr(train_stage.RunCheckpoint, "save", lambda run: None)
    monkeypatch.setattr(cnn.inspection.EpochStatistics, "finish_epoch", lambda statistics: [])
    monkeypatch.setattr(train_stage, "fingerprint", lambda settings: "0")
    monkeypatch.setattr(train_stage, "load_examples", lambda part, description: None)
    description = Description(
        dataset="mnist",
        title="MNIST",
        class_names=["0"] * 10,
        image_shape=(28, 28, 1),
        framing="digit",
        background=[0.0],
        mean=[0.5],
        deviation=[0.25],
        examples={"train": 5, "validation": 5, "test": 5},
    )
    chosen = load_params(write(tmp_path, keys))
    model, _ = build_chosen(chosen, (28, 28, 1), 10)
    monkeypatch.chdir(tmp_path)
    loss = chosen.train.loss.make(10)
    executor = cnn.Serial()
    train_stage._fit(model, [], loss, chosen, description, executor, Console())
    wanted = {
        "epochs": 7,
        "batch_size": 11,
        "shard_size": 3,
        "patience": 5,
        "clip_norm": 1.5,
        "clip_value": 2.5,
        "seed": 3,
    }
    assert {key: received[key] for key in wanted} == wanted
    assert received["executor"] is executor
    assert received["moving_average"].decay == 0.75
    main, biases = received["optimizer"].groups
    assert isinstance(main.optimizer, cnn.Adam)
    assert isinstance(biases.optimizer, cnn.Adam)
    assert (main.learning_rate(0.0), main.epochs) == (0.001, None)
    assert (biases.learning_rate(0.0), biases.epochs) == (0.5, 2)
    images = np.zeros((1, 4, 4, 1), np.float32)
    shifted = received["augment"](images, np.random.default_rng(0))
    assert -2.0 <= shifted.min() < -1.0  # black, (0 − 0.5) / 0.25, came in


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_that_is_left_out_is_off(tmp_path, name):
    assert (
        load_params(write(tmp_path, {f"train.augmentation.{name}": ...})).train.augmentation.make(
            ZERO, ZERO, ONE
        )
        is None
    )
