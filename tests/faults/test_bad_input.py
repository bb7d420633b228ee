"""Params and architectures that cannot work give a message that names the key, and nothing is written."""

import copy
import shutil
import sys
from pathlib import Path

import pytest
from projects import SHIPPED
from ruamel.yaml import YAML

from pipeline import __main__ as program

YAML_FILE = YAML(typ="safe", pure=True)
PARAMS = YAML_FILE.load(SHIPPED / "params.yaml")


def leaves(section, parents=()):
    for key, value in section.items():
        if isinstance(value, dict):
            yield from leaves(value, (*parents, key))
        else:
            yield (*parents, key), value


def bad_params():
    """(key, value) for every key of params.yaml: a value of another type, one far out of range, no value."""
    for keys, value in leaves(PARAMS):
        key = ".".join(keys)
        yield key, ["a", "list"] if not isinstance(value, list) else 3
        yield key, float("nan") if isinstance(value, int | float) else {"a": "mapping"}
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield key, -1
        if isinstance(value, int) and not isinstance(value, bool):
            yield key, 10**400
    yield "train.epoch", 3
    yield "train.optimizer.sgd.momentun", 0.9
    yield "evaluate.confidence", 0.9
    yield "sed", 1
    yield "model.architecture", "sampel"
    yield "data.dataset", "cifar"
    yield "train.optimizer.sgd.nesterov", True
    for weight in (0.0, 1e300):  # all of them; the latter is infinite in float32
        yield "train.loss.softmax_cross_entropy.class_weights", [weight] * 10
    yield "data.train_size", 10**9  # more than there are
    yield "data.validation_size", 1437
    yield "data.train_size", 1437  # leaves none for validation


CONV = {"type": "conv2d", "out_channels": 4, "kernel_size": 3}
DENSE = {"type": "dense", "out_features": 10}
FLAT = {"type": "flatten"}
BAD_NETWORKS = {
    "nothing": [],
    "no list": {"type": "flatten"},
    "a text": "baseline",
    "no layer": [3],
    "no type": [{"out_features": 10}],
    "an unknown type": [FLAT, {"type": "dens", "out_features": 10}],
    "an unknown option": [FLAT, DENSE | {"units": 3}],
    "a missing option": [FLAT, {"type": "dense"}],
    "an option of another type": [FLAT, {"type": "dense", "out_features": "ten"}],
    "an option out of range": [CONV | {"out_channels": 0}, FLAT, DENSE],
    "a rate of one": [FLAT, {"type": "dropout", "rate": 1.0}, DENSE],
    "a negative padding": [CONV | {"padding": -1}, FLAT, DENSE],
    "an unknown padding": [CONV | {"padding": "full"}, FLAT, DENSE],
    "a kernel that does not fit": [CONV | {"kernel_size": 29}, FLAT, DENSE],
    "pooling until nothing is left": [*[{"type": "max_pool2d", "kernel_size": 2}] * 5, FLAT, DENSE],
    "groups that do not divide": [CONV, CONV | {"groups": 3}, FLAT, DENSE],
    "images into dense": [CONV, DENSE],
    "vectors into convolution": [FLAT, CONV, DENSE],
    "too few outputs": [FLAT, {"type": "dense", "out_features": 9}],
    "images as outputs": [CONV],
    "a residual of other shape": [{"type": "residual", "layers": [CONV]}, FLAT, DENSE],
    "a residual of nothing": [{"type": "residual", "layers": "x"}, FLAT, DENSE],
    "an unknown initializer": [FLAT, DENSE | {"initializer": "he_norm"}],
    "a stride of zero": [CONV | {"stride": 0}, FLAT, DENSE],
    "three strides": [CONV | {"stride": [1, 1, 1]}, FLAT, DENSE],
    "huge padding": [CONV | {"padding": 10**6}, FLAT, DENSE],
    "nothing to learn": [{"type": "conv2d", "out_channels": 4}],
    "a number for a flag": [FLAT, DENSE | {"bias": 2}],
}
BAD_FILES = {
    "empty": b"",
    "a bool that is none": b"seed: !!bool x\n",
    "a number that is none": b"seed: !!int ''\n",
    "a list": b"- 1\n",
    "no YAML": b"baseline: [",
    "a tab": b"\tbaseline: 1",
    "no text": b"\xff\xfe\x00",
    "a tag": b"baseline: !!python/object:os.system x",
    "an alias bomb": b"a0: &a0 [x]\n"
    + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40))
    + b"baseline: *a39\n",
    "an alias of itself": b"baseline: &a [*a]\n",
    "nested too deeply": b"[" * 2000,
    "a key twice": b"seed: 1\nseed: 2\n",
}


@pytest.fixture(scope="module")
def processed(tmp_path_factory):
    """A project folder with the digits ready to train on."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("params.yaml", "architectures.yaml"):
        shutil.copy(SHIPPED / name, folder)
    content = copy.deepcopy(PARAMS)
    content["data"]["dataset"] = "digits"
    YAML_FILE.dump(content, folder / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in ("fetch", "preprocess"):
            patch.setattr(sys, "argv", ["pipeline", stage])
            with pytest.raises(SystemExit) as ended:
                program.main()
            assert ended.value.code in (0, None)
    return folder


@pytest.fixture
def refuse(processed, monkeypatch, capsys):
    """refuse(stage): run it, require that it refuses and writes nothing, and return its message."""
    monkeypatch.chdir(processed)

    def listing():
        return {str(p): p.read_bytes() for p in processed.rglob("*") if p.is_file()}

    kept = {name: (processed / name).read_bytes() for name in ("params.yaml", "architectures.yaml")}

    def run(stage):
        monkeypatch.setattr(sys, "argv", ["pipeline", stage])
        before = listing()
        with pytest.raises(SystemExit) as ended:
            program.main()
        assert listing() == before
        message = str(ended.value.code)
        assert message.startswith("error: "), message
        assert "Traceback" not in message
        return message

    yield run
    for name, content in kept.items():
        (processed / name).write_bytes(content)


@pytest.mark.parametrize(("key", "value"), list(bad_params()), ids=lambda value: str(value)[:30])
def test_a_param_that_cannot_work_is_named_and_nothing_is_written(refuse, key, value):
    content = YAML_FILE.load(Path("params.yaml"))
    section = content
    *parents, last = key.split(".")
    for parent in parents:
        section = section[parent]
    section[last] = value
    YAML_FILE.dump(content, Path("params.yaml"))
    in_data = key.startswith("data.") and isinstance(value, int) and value > 0
    message = refuse("preprocess" if in_data else "train")
    named_otherwise = {
        "model.architecture": "sampel",
        "data.dataset": "cifar",
        "train.optimizer.sgd.nesterov": "train.optimizer.sgd: nesterov",
        "train.loss.softmax_cross_entropy.class_weights": "In params.yaml: train.loss.softmax_cross_entropy.",
    }
    assert key in message or named_otherwise[key] in message, message


@pytest.mark.parametrize("name", BAD_NETWORKS)
def test_a_network_that_cannot_work_is_named_and_nothing_is_written(refuse, name):
    content = YAML_FILE.load(Path("architectures.yaml"))
    content["baseline"] = BAD_NETWORKS[name]
    YAML_FILE.dump(content, Path("architectures.yaml"))
    message = refuse("train")
    assert "architectures.yaml: baseline" in message or "baseline must be" in message, message


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("file", ["params.yaml", "architectures.yaml"])
def test_a_file_that_is_no_yaml_of_ours_is_named_and_nothing_is_written(refuse, file, name):
    Path(file).write_bytes(BAD_FILES[name])
    message = refuse("train")
    assert file in message, message
