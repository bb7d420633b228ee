import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import params, train
from pipeline.architectures import LAYERS, build_model
from pipeline.datasets import DATASETS
from pipeline.errors import UserError
from pipeline.params import load_layers, load_params

ROOT = Path(__file__).parents[1]
HEAD = "cannot be used:"


def write(tmp_path, changes):
    """params.yaml with some keys, "a.b.c", changed, or removed where the value is ..."""
    content = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
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
    params = load_params(ROOT / "params.yaml")
    assert (params.data.dataset, params.model.architecture, params.train.epochs) == ("mnist", "baseline", 10)
    assert (params.train.batch_size, params.train.optimizer.learning_rate) == (64, 0.1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "train.epochs",
            ...,
            "train.epochs is missing: how many passes over the training set: a whole number >= 1.",
        ),
        ("train", ..., "train is missing: the keys of training."),
        ("train.epoch", 3, "train.epoch is no known key. Did you mean 'train.epochs'?"),
        ("zzz", 3, "zzz is no known key. Remove it."),
        (
            "train.epochs",
            0,
            "train.epochs must be how many passes over the training set: a whole number >= 1; received 0.",
        ),
        ("train.epochs", "ten", "a whole number >= 1; received 'ten'."),
        ("train.epochs", 2.0, "a whole number >= 1; received 2.0."),
        ("train.epochs", True, "a whole number >= 1; received True."),
        ("train.epochs", None, "a whole number >= 1; received None."),
        ("train", [1], "train must be the keys of training; received [1]."),
        (
            "train.optimizer.learning_rate",
            0,
            "train.optimizer.learning_rate must be the step size: a number > 0; received 0.",
        ),
        ("train.optimizer.learning_rate", float("nan"), "a number > 0; received nan."),
        ("train.optimizer.learning_rate", float("inf"), "a number > 0; received inf."),
        ("train.optimizer.learning_rate", "0.1", "a number > 0; received '0.1'."),
        ("train.optimizer.momentum", 1, "in [0, 1); received 1."),
        (
            "train.optimizer.nesterov",
            True,
            "train.optimizer: nesterov: true needs momentum > 0; received 0.0.",
        ),
        ("train.optimizer.nesterov", "yes", "true or false; received 'yes'."),
        ("train.optimizer.name", "sdg", "Unknown optimizer 'sdg'. Did you mean 'sgd'? Known: sgd."),
        (
            "train.schedule.name",
            "const",
            "Unknown schedule 'const'. Did you mean 'constant'? Known: constant.",
        ),
        (
            "data.dataset",
            "minst",
            "Unknown dataset 'minst'. Did you mean 'mnist'? Known: digits, fashion_mnist, mnist.",
        ),
        ("data.validation_size", 1.5, "or a whole number of images >= 1; received 1.5."),
        ("data.validation_size", 0, "or a whole number of images >= 1; received 0."),
        ("data.validation_size", "all", "or a whole number of images >= 1; received 'all'."),
        ("data.train_size", -1, "a whole number >= 1, or null; received -1."),
        ("evaluate.confidence_level", 1.0, "a fraction between 0 and 1; received 1.0."),
        (3, 4, "3 is no known key: keys are words."),
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


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    with pytest.raises(UserError) as error:
        load_params(write(tmp_path, {"train.epochs": 0, "seed": "x", "data.extra": 1}))
    assert len(str(error.value).splitlines()) == 4


def test_a_learning_rate_as_dvc_writes_it_is_a_number(tmp_path):
    path = write(tmp_path, {})
    path.write_text(path.read_text().replace("learning_rate: 0.1", "learning_rate: 1e-05"))
    assert load_params(path).train.optimizer.learning_rate == 1e-5


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


@pytest.mark.parametrize("name", ["baseline", "sample"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_the_architectures_that_come_with_the_project_fit_every_dataset(rng, name, dataset):
    layers = load_layers(name, ROOT / "architectures.yaml")
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
    assert repr(model.layers[0]) == (
        "Conv2D(1, 2, (3, 1), stride=(1, 1), padding=((1, 2), (0, 0)), bias=False)"
    )
    assert repr(model.layers[1]) == "AvgPool2D((2, 2), stride=(1, 2))"


FLAT = [{"type": "flatten"}]
PLACE = "In architectures.yaml: mine[0]"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["relu"], f"A layer is written {{type: NAME, …}}; received 'relu'. {PLACE}."),
        (
            [{"type": "conv"}],
            f"Unknown layer type 'conv'. Did you mean 'conv2d'? Known: {', '.join(sorted(LAYERS))}. {PLACE}.",
        ),
        (
            [{"type": "conv2d", "out_channels": 8, "kernel_size": 9}],
            "A 9x9 kernel with padding 0 does not fit an input of 8x8 pixels. Use a smaller kernel, more padding "
            f"or one pooling layer fewer.\n{PLACE} (conv2d), whose input has shape (8, 8, 1).",
        ),
        (
            [*FLAT, {"type": "dense", "out_features": 10}, {"type": "softmax"}, {"type": "relu"}],
            "A network must end in logits: the loss applies softmax itself, and twice would be wrong. "
            "Remove this softmax.\nIn architectures.yaml: mine[2].",
        ),
        (
            [{"type": "conv2d", "out_channel": 8, "kernel_size": 3}],
            "Unknown option of conv2d 'out_channel'. Did you mean 'out_channels'? Known: bias, kernel_size, "
            f"out_channels, padding, stride.\n{PLACE} (conv2d), whose input has shape (8, 8, 1).",
        ),
        (
            [{"type": "relu", 1: 2}],
            f"A layer is written {{type: NAME, …}}; received {{'type': 'relu', 1: 2}}. {PLACE}.",
        ),
        (
            [{"type": "conv2d", "out_channels": 8}],
            f"conv2d needs kernel_size.\n{PLACE} (conv2d), whose input has shape (8, 8, 1).",
        ),
        (
            [{"type": "conv2d", "out_channels": 8, "kernel": 3, "kernel_size": 3}],
            "Unknown option of conv2d 'kernel'. Did you mean 'kernel_size'? Known: bias, kernel_size, "
            f"out_channels, padding, stride.\n{PLACE} (conv2d), whose input has shape (8, 8, 1).",
        ),
        (
            [{"type": "conv2d", "out_channels": 8, "kernel_size": "3"}],
            "kernel_size must be of type int or tuple[int, int]; received '3'.\n"
            f"{PLACE} (conv2d), whose input has shape (8, 8, 1).",
        ),
        (
            [{"type": "relu", "slope": 1}],
            f"relu takes no options; received slope.\n{PLACE} (relu), whose input has shape (8, 8, 1).",
        ),
        (
            FLAT,
            "A network must end with one number for each of the 10 classes, in shape (10,); this one ends in shape "
            "(64,). Let it end with flatten and {type: dense, out_features: 10}.\nIn architectures.yaml: mine.",
        ),
        (
            [*FLAT, {"type": "dense", "out_features": 10}, {"type": "softmax"}],
            "A network must end in logits: the loss applies softmax itself, and twice would be wrong. "
            "Remove this softmax.\nIn architectures.yaml: mine[2].",
        ),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(build, layers, message):
    with pytest.raises(UserError) as error:
        build(layers)
    assert str(error.value) == message


def test_an_architectures_name_may_not_hold_a_dot(tmp_path):
    (tmp_path / "a.yaml").write_text("a.b:\n- {type: relu}\n")
    with pytest.raises(UserError, match="must not contain a dot"):
        load_layers("a.b", tmp_path / "a.yaml")


@pytest.mark.parametrize("content", ["mine: {}\n", "mine: []\n", "mine: relu\n"])
def test_an_architecture_that_is_no_list_is_refused(tmp_path, content):
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(UserError, match="mine must be a list of at least one layer; received"):
        load_layers("mine", tmp_path / "a.yaml")


def test_an_unknown_architecture_gets_the_nearest_name():
    path = ROOT / "architectures.yaml"
    with pytest.raises(UserError) as error:
        load_layers("basline", path)
    assert str(error.value) == (
        f"Unknown architecture 'basline'. Did you mean 'baseline'? Known: baseline, sample. They stand in {path}."
    )


def test_optimizers_and_schedules_that_params_know_exist():
    assert params.OPTIMIZERS == ("sgd",)
    assert params.SCHEDULES == ("constant",)
    assert train.SGD.__name__.lower() in params.OPTIMIZERS
    assert train.constant.__name__ in params.SCHEDULES
