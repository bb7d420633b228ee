"""`python -m pipeline summary`: counts against counts by hand, which data it needs, what it leaves alone."""

import re
import sys

import numpy as np
import pytest
from PIL import Image
from projects import SHIPPED, set_params

from pipeline import __main__ as program
from pipeline.apps import summary

NETWORKS = """
nested:
- {type: conv2d, out_channels: 4, kernel_size: 3, padding: same}
- type: residual
  layers:
  - {type: conv2d, out_channels: 6, kernel_size: 3, padding: same, groups: 2, bias: false}
  shortcut:
  - {type: conv2d, out_channels: 6, kernel_size: 1}
- {type: global_avg_pool2d}
- {type: dense, out_features: classes}
vectors:
- {type: flatten}
- {type: dense, out_features: 8}
- {type: batch_norm}
- {type: dense, out_features: classes}
"""
FIRST, GROUPED, SHORTCUT = 28 * 28 * 9 * 4, 28 * 28 * 9 * 2 * 6, 28 * 28 * 4 * 6
PARAMETERS = (9 * 4 + 4) + 9 * 2 * 6 + (4 * 6 + 6) + (6 * 10 + 10)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """call(params, …): (what the command prints, its error), in a folder without data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(summary, "SECONDS", 0)
    monkeypatch.setattr(sys, "argv", ["pipeline", "summary"])
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "architectures.yaml").write_text((SHIPPED / "architectures.yaml").read_text() + NETWORKS)

    def run(**changes):
        set_params(tmp_path, {key.replace("__", "."): value for key, value in changes.items()}, SHIPPED)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(SystemExit) as ended:
            program.main()
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        return capsys.readouterr().out, ended.value.code

    return run


def numbers(printed, row):
    """The numbers at the end of the row that starts with `row`."""
    (line,) = re.findall(rf"^{re.escape(row)} .*$", printed, re.MULTILINE)
    return [float(word.replace(",", "")) for word in re.findall(r"(?<= )[\d.,]+(?= |$)", line)]


def test_layers_are_counted_at_all_depths_as_by_hand(call):
    printed, error = call(model__architecture="nested")
    assert not error
    assert numbers(printed, "0 Conv2D(1, 4, 3, padding='same')")[-2:] == [9 * 4 + 4, FIRST]
    assert numbers(printed, "1.layers.0 Conv2D(4, 6, 3, padding='same', groups=2, bias=False)")[-2:] == [
        9 * 2 * 6,
        GROUPED,
    ]
    assert numbers(printed, "1.shortcut.0 Conv2D(4, 6, 1)")[-2:] == [4 * 6 + 6, SHORTCUT]
    assert numbers(printed, "3 Dense(6, 10)")[-2:] == [70, 60]
    assert numbers(printed, "total") == [PARAMETERS, FIRST + GROUPED + SHORTCUT + 60]
    assert f"training takes {2 * FIRST + 3 * (GROUPED + SHORTCUT + 60):,}." in printed


def test_memory_holds_what_a_step_needs(call):
    changes = {"train__optimizer__name": "adam", "train__moving_average": 0.9, "train__batch_size": 32}
    printed, error = call(model__architecture="sample", **changes)
    assert not error
    weights = 4 * 225_034 / 1e6
    for row, times in (("parameters", 1), ("gradients", 1), ("state of the optimiser, adam", 2)):
        assert numbers(printed, row) == [pytest.approx(times * weights, abs=0.005)]
    assert numbers(printed, "moving average") == [pytest.approx(weights, abs=0.005)]
    outputs = 4 * 32 * (2 * 26 * 26 * 32 + 13 * 13 * 32 + 2 * 11 * 11 * 64 + 2 * 1600 + 2 * 128 + 10) / 1e6
    patches = 4 * 32 * (26 * 26 * 9 + 11 * 11 * 9 * 32) / 1e6
    assert outputs / 4 < numbers(printed, "activations of a shard of 32 images")[-1] < 2 * (outputs + patches)
    assert re.search(r"Training step: [\d.]+ m?s for 32 images in 1 shard, the median of 1 step ", printed)
    assert "processes" not in printed


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "28x28 pixels in grey, 10 classes (MNIST, handwritten digits; its files are not needed here)"),
        (
            {"data__dataset": "cifar10"},
            "32x32 pixels in colour, 10 classes (CIFAR-10, small photographs; its ",
        ),
        (
            {"data__dataset": "cifar10", "data__image_size": [20, 30], "data__channels": 1},
            "30x20 pixels in grey",
        ),
    ],
)
def test_a_dataset_need_not_be_there(call, changes, line):
    printed, error = call(**changes)
    assert not error
    assert f"Images: {line}" in printed


@pytest.mark.parametrize("size", [None, 9])
def test_own_images_are_looked_at_where_they_are(call, tmp_path, rng, size):
    for name in ("a", "b", "c"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number, pixels in enumerate(rng.integers(0, 256, (3, 8, 12), np.uint8)):
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    printed, error = call(
        data__dataset="own",
        data__path="pictures",
        data__image_size=size,
        data__channels=size and 1,
        model__architecture="vectors",
    )
    assert not error
    how = "with the size and channels of params.yaml" if size else "as they are"
    shape = "9x9" if size else "12x8"
    assert f"Images: {shape} pixels in grey, 3 classes (own images in pictures, {how})" in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__architecture": "baselin"}, "Unknown architecture 'baselin'. Did you mean 'baseline'?"),
        (
            {"data__image_size": 2},
            "In architectures.yaml: baseline[0] (conv2d), whose input has shape (2, 2, 1)",
        ),
        ({"data__dataset": "own", "data__path": "nowhere"}, "nowhere does not exist. Own images"),
        (
            {"model__architecture": "vectors", "train__shard_size": 1},
            "so that no shard holds a single one.\nIn params.yaml: train.batch_size and train.shard_size.",
        ),
        ({"train__loss__softmax_cross_entropy__class_weights": [1]}, "In params.yaml: train.loss."),
    ],
)
def test_what_cannot_work_is_told_as_training_tells_it(call, changes, message):
    _, error = call(**changes)
    assert error.startswith("error: ")
    assert message in error
