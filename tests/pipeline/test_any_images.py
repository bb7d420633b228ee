"""Images of any shape, channels and number of classes go through the whole pipeline and onto the pages."""

import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from projects import SHIPPED, set_params

from pipeline.apps.playground import playground
from pipeline.artefacts.evaluate import Metrics, load_predictions
from pipeline.artefacts.trained import load_trained
from pipeline.config.params import load_params
from pipeline.paths import MODEL_CARD, REPORT, REPORTS
from pipeline.stages.evaluate import evaluate
from pipeline.stages.preprocess import preprocess
from pipeline.stages.report import report
from pipeline.stages.train import train

NETWORK = """
tiny:
- {type: conv2d, out_channels: 4, kernel_size: 1}
- {type: relu}
- {type: global_avg_pool2d}
- {type: dense, out_features: classes}
"""
STRANGE = (
    "accuracy",
    "macro avg",
    "<b>&amp;",
    "$x_1$",
    "a, b",
    'say "7"',
    "| --- |",
    "{{ names }}",
    "ключ",
    "猫",
    "🐈",
)


@st.composite
def own_images(draw):
    """(arrays of an .npz file, params): few images of one shape, with names of any kind."""
    height, width = draw(st.integers(1, 64)), draw(st.integers(1, 64))
    channels, classes = draw(st.sampled_from([1, 3])), draw(st.integers(2, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = [*rng.permutation(STRANGE)[:classes].tolist(), *(f"class number {k}" for k in range(classes))][
        :classes
    ]
    labels = np.tile(np.arange(classes), 2)
    shape = (len(labels), height, width, channels)
    arrays = {"train_images": rng.integers(0, 256, shape, np.uint8), "train_labels": labels}
    if channels == 1 and draw(st.booleans()):
        arrays["train_images"] = arrays["train_images"][..., 0]
    test = rng.integers(0, len(labels), draw(st.integers(1, 12)))
    arrays |= {"test_images": arrays["train_images"][test], "test_labels": labels[test]}
    arrays["class_names"] = np.array(names)
    params = {
        "data.image_size": draw(st.sampled_from([None, 9, [5, 12]])),
        "data.channels": draw(st.sampled_from([None, 1, 3])),
        "data.fit": draw(st.sampled_from(["crop", "pad", "stretch"])),
        "data.standardize": draw(st.sampled_from(["none", "global", "channel"])),
        "evaluate.test_time_augmentation.mirror": draw(st.booleans()),
        "evaluate.test_time_augmentation.shift": draw(st.sampled_from([0, 1, 7])),
    }
    return arrays, params


@pytest.mark.walk
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(drawn=own_images())
def test_any_images_go_through_all_stages(tmp_path_factory, drawn):
    arrays, changes = drawn
    folder = tmp_path_factory.mktemp("any")
    classes = len(arrays["class_names"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        np.savez("own.npz", **arrays)
        (folder / "architectures.yaml").write_text(NETWORK)
        fixed = {
            "data.dataset": "own",
            "data.path": "own.npz",
            "data.allow_duplicates": True,  # images of one pixel are often equal
            "data.validation_size": classes,
            "model.architecture": "tiny",
            "train.epochs": 1,
        }
        set_params(folder, fixed | changes, SHIPPED)
        params = load_params()
        preprocess(params.data, params.seed)
        train(params)
        evaluate(params.evaluate)
        report(params)
        playground()

        _, network = load_trained()
        names = arrays["class_names"].tolist()
        assert network.data.class_names == names
        own = arrays["train_images"].shape
        own_channels = own[3] if len(own) == 4 else 1
        height, width = params.data.size or own[1:3]
        assert network.data.image_shape == (height, width, params.data.channels or own_channels)
        metrics = Metrics.load()
        assert list(metrics.per_class) == names
        assert sum(measures.support for measures in metrics.per_class.values()) == len(arrays["test_labels"])
        np.testing.assert_array_equal(load_predictions(names).actual, arrays["test_labels"])
        page = REPORT.read_text()
        assert "<b>&amp;" not in page
        assert len(page) < 5_000_000
        assert MODEL_CARD.exists()
        content = re.search(r'id="content">(.*?)</script>', (REPORTS / "playground.html").read_text())[1]
        assert json.loads(content)["data"]["class_names"] == names
