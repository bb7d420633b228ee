"""device: cuda in the train and evaluate stages, with the device double in CuPy's place."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from projects import ROOT, SHIPPED, set_params
from ruamel.yaml import YAML

from cnn import checkpoint
from pipeline import cores, ranks
from pipeline.artefacts.evaluate import Metrics
from pipeline.artefacts.train import Environment
from pipeline.config.params import load_params
from pipeline.errors import UserError
from pipeline.stages import evaluate, fetch, preprocess, train
from pipeline.stages.resume import RunCheckpoint

LAYERS = [
    {"type": "conv2d", "out_channels": 8, "kernel_size": 3, "padding": "same", "initializer": "whitening"},
    {"type": "gelu"},
    {"type": "conv2d", "out_channels": 16, "kernel_size": 3, "padding": "same", "bias": False},
    {"type": "max_pool2d", "kernel_size": 2},
    {"type": "batch_norm"},
    {"type": "relu"},
    {"type": "flatten"},
    {"type": "dropout", "rate": 0.1},
    {"type": "dense", "out_features": "classes"},
]


@pytest.fixture
def double(monkeypatch):
    """The device double as the module cupy."""
    monkeypatch.syspath_prepend(ROOT / "tests/cnn")
    module = importlib.import_module("device_double")
    monkeypatch.setitem(sys.modules, "cupy", module.as_cupy())
    return module


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Some of the small digits, and params that use most of what training has."""
    yaml = YAML(typ="safe", pure=True)
    yaml.dump({"small": LAYERS}, tmp_path / "architectures.yaml")
    changes = {
        "device": "cuda",
        "data.dataset": "digits",
        "data.train_size": 60,
        "data.validation_size": 20,
        "model.architecture": "small",
        "train.epochs": 3,
        "train.batch_size": 16,
        "train.shard_size": 8,
        "train.moving_average": 0.5,
        "train.optimizer.name": "muon",
        "train.augmentation.random_rotation": 10,
        "train.augmentation.random_crop": {"padding": 1, "mode": "reflect"},
        "evaluate.test_time_augmentation.shift": 1,
    }
    set_params(tmp_path, changes, SHIPPED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cores, "count_cores", lambda: 1)
    params = load_params()
    fetch.fetch(params.data)
    preprocess.preprocess(params.data, params.seed)
    return tmp_path


def run():
    """The weights, and what evaluation says of them, after the two stages."""
    params = load_params()
    train.train(params)
    evaluate.evaluate(params.evaluate, params.device)
    return checkpoint.load(Path("models/model.npz"))[0], Metrics.load().test


def test_a_run_on_the_device_is_that_of_the_processor_and_says_where_it_was_computed(
    project, double, monkeypatch, capsys
):
    weights, metrics = run()
    assert Environment.load().blas == "CuPy 14.2.0 on device double"
    assert not Environment.load().is_portable
    assert "note: This run is computed by CuPy 14.2.0 on device double." in capsys.readouterr().out
    assert {"matmul", "ndarray.get"} <= double.used
    set_params(project, {"device": "cpu"})
    expected, metrics_on_cpu = run()
    assert weights.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)
    assert metrics == metrics_on_cpu


def test_an_interrupted_run_on_the_device_goes_on_with_the_same_bytes(project, double, monkeypatch):
    run()
    whole = Path("models/model.npz").read_bytes()
    save, count = RunCheckpoint.save, 0

    def save_and_fail(checkpoint):
        nonlocal count
        save(checkpoint)
        count += 1
        if count == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoint, "save", save_and_fail)
        patch.setattr(RunCheckpoint, "is_due", lambda run: True)
        with pytest.raises(KeyboardInterrupt):
            run()
    run()
    assert Path("models/model.npz").read_bytes() == whole


def test_without_cupy_or_without_a_gpu_it_says_what_to_do(project, double, monkeypatch):
    def no_gpu(shape):
        raise RuntimeError("cudaErrorInsufficientDriver")

    monkeypatch.setattr(sys.modules["cupy"], "ones", no_gpu)
    with pytest.raises(
        UserError, match=r"cannot compute on a GPU here: cudaErrorInsufficientDriver\. Or compute"
    ):
        train.train(load_params())
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(
        UserError, match=r"needs CuPy .*pip install .cupy-cuda12x\[ctk\].*in params\.yaml: device"
    ):
        train.train(load_params())
    assert not Path("models").exists()


def test_a_gpu_is_not_shared_by_ranks(project, double, monkeypatch):
    monkeypatch.setattr(ranks, "_communicator", lambda: object())
    with pytest.raises(UserError, match="a GPU is used by one process"):
        ranks.make_executor("cuda")
