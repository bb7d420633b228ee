import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from projects import SHIPPED
from typer.testing import CliRunner

from cnn import SGD, BatchNorm, Dense, checkpoint, cross_entropy, softmax_cross_entropy
from cnn.layers.trace import trace_shapes
from cnn.ops.softmax import softmax
from pipeline.__main__ import app
from pipeline.apps.explain import compare, draw, shrink
from pipeline.artefacts.preprocess import Description
from pipeline.config.architectures import build_model, gives_probabilities, load_layers
from pipeline.errors import UserError

COUNT, SIZE, CLASSES = 10, 12, 3
DEEP = {"type": "conv2d", "out_channels": 1, "kernel_size": 3, "padding": "same"}
for _ in range(4):
    DEEP = {"type": "residual", "layers": [DEEP]}
OTHERS = {
    "small": [{"type": "global_avg_pool2d"}, {"type": "dense", "out_features": "classes"}],
    "softmax": [{"type": "flatten"}, {"type": "dense", "out_features": "classes"}, {"type": "softmax"}],
    "deep": [DEEP, {"type": "flatten"}, {"type": "dense", "out_features": "classes"}],
    "nested": [
        {"type": "residual", "layers": [{"type": "sequential", "layers": [{"type": "tanh"}]}]},
        {"type": "conv2d", "out_channels": 2, "kernel_size": 3},
        {"type": "relu"},
        {"type": "max_pool2d", "kernel_size": 2},
        {"type": "dropout", "rate": 0.5},
        {"type": "flatten"},
        {"type": "dense", "out_features": "classes"},
    ],
}
NAMES = ["baseline", "sample", "batch_norm", "residual", *OTHERS]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """project(name): a folder with that network, untrained, and ten test images with blank borders.

    They have `shape`, and there are `classes`, the first of which are cat, dog and owl.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def make(name="baseline", mean=0.0, deviation=1.0, shape=(SIZE, SIZE, 1), classes=CLASSES):
        for file in ("params.yaml", "architectures.yaml"):
            shutil.copy(SHIPPED / file, file)
        rng = np.random.default_rng(0)
        height, width, channels = shape
        pixels = np.zeros((COUNT, *shape), np.uint8)
        pixels[:, 3:-3, 3:-3] = rng.integers(0, 256, (COUNT, height - 6, width - 6, channels), np.uint8)
        targets = np.eye(classes, dtype=np.uint8)[np.arange(COUNT) % 3]
        description = Description(
            dataset="mnist",
            title="MNIST",
            class_names=["cat", "dog", "owl", *(f"class {k}" for k in range(3, classes))],
            image_shape=shape,
            framing="crop",
            background=[0.0] * channels,
            mean=[mean] * channels,
            deviation=[deviation] * channels,
            examples={"train": COUNT, "validation": COUNT, "test": COUNT},
        )
        description.save()
        np.save("data/processed/test_images.npy", pixels)
        np.save("data/processed/test_targets.npy", targets)
        images, targets = description.normalise(pixels), targets.astype(np.float32)
        layers = OTHERS.get(name) or load_layers(name)
        model = build_model(layers, name, shape, classes, rng)
        for parameter in model.parameters().values():  # biases start at 0, where ReLU has a kink
            parameter.value += 0.1 * rng.standard_normal(parameter.value.shape, np.float32)
        metadata = {"architecture": name, "layers": layers, "data": description.model_dump(), "epoch": 1}
        metadata["environment"] = {"machine": "", "numpy": "", "numpy_simd": "", "pillow": "", "blas": ""}
        checkpoint.save(Path("models/model.npz"), model.state_dict(), metadata)
        return model, images, targets

    return make


def explain(*arguments):
    result = CliRunner().invoke(app, ["explain", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def table(text, title):
    """The rows of a table, each a list of its non-empty cells."""
    lines = text[text.index(f"\n{title}\n") :].split("\n")[4:]
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines]
    return rows[: next(i for i, row in enumerate(rows) if len(row) < 2)]


def with_float64(model):
    for parameter in model.parameters().values():
        parameter.value = parameter.value.astype(np.float64)
    return model


def batch_of(model, index):
    """The images of the training step."""
    alone = not any(isinstance(layer, BatchNorm) for _, layer in model.walk())
    return [index] if alone else [(index + i) % COUNT for i in range(8)]


@pytest.mark.parametrize("name", NAMES)
def test_every_gradient_agrees_with_finite_differences(project, name):
    model, _, _ = project(name)
    rows = table(explain(), "Backward")
    assert max(float(row[-1]) for row in rows) < 1e-5
    for _, _, norm, analytic, numeric, _ in rows:
        assert float(norm) > 0
        assert float(analytic) == pytest.approx(float(numeric), rel=2e-4, abs=1e-9)
    names = [f"{row[0].split()[0]}.{row[1].removeprefix('dL/d')}" for row in rows]
    assert sorted(n for n in names if not n.endswith((".x", ".y"))) == sorted(model.parameters())
    layers = [name for name, _, _, _ in trace_shapes(model, (SIZE, SIZE, 1))]
    assert [n for n in names if n.endswith(".x")] == [f"{name}.x" for name in reversed(layers)]


def test_no_name_is_cut_off_in_a_narrow_terminal(project, monkeypatch):
    model, _, _ = project("deep")
    monkeypatch.setenv("COLUMNS", "80")
    text = explain()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    first_column = "".join(line.split("  ")[0] for line in text.partition("One step of SGD")[2].splitlines())
    assert all(name in first_column for name in model.parameters())


@pytest.mark.parametrize("shape", [(12, 16, 3), (14, 10, 3)])
def test_a_network_for_colours_and_many_classes_is_explained(project, shape):
    model, images, _ = project("sample", mean=0.4, deviation=0.3, shape=shape, classes=100)
    text = explain("--index", "2")
    assert "Its label: owl\n" in text
    probabilities = softmax(model.predict(images[2:3])[0])
    best = np.argsort(-probabilities)[:5]
    names = ["cat", "dog", "owl", *(f"class {k}" for k in range(3, 100))]
    assert table(text, "Prediction") == [[names[k], f"{probabilities[k]:.4%}"] for k in best]
    assert f"image  {' x '.join(map(str, shape))}  " in re.sub(" {2,}", "  ", text)
    rows = table(text, "Backward")
    assert max(float(row[-1]) for row in rows) < 1e-5
    picture = [line[2:-2] for line in text.splitlines() if line.startswith("│")]
    assert picture == draw(images[2] * 0.3 + 0.4).splitlines()


@pytest.mark.parametrize(("columns", "cells"), [("200", 64), ("0", 64), ("40", 36), ("20", 16)])
def test_a_large_image_is_drawn_as_wide_as_fits(project, monkeypatch, columns, cells):
    project("small", shape=(64, 128, 3))
    monkeypatch.setenv("COLUMNS", columns)
    picture = [line for line in explain().splitlines() if line.startswith("│")]
    assert {len(line) for line in picture} == {cells + 4}
    assert len(picture) == cells // 4  # two characters a pixel, and half as high as wide


@pytest.mark.parametrize("columns", ["0", "1", "20", "40"])
def test_numbers_are_whole_in_a_narrow_terminal(project, monkeypatch, columns):
    project("sample")
    wide = explain()
    monkeypatch.setenv("COLUMNS", columns)
    narrow = explain()
    assert "…" not in narrow
    assert max(map(len, narrow.splitlines())) <= {"0": 80, "1": 20}.get(columns, int(columns))
    joined = re.sub(r"\s+", "", narrow)
    for title in ("Forward", "Backward", "One step of SGD"):
        for row in table(wide, title):
            assert all(re.sub(r"\s+", "", cell) in joined for cell in row)


def test_an_image_shrinks_by_averaging(rng):
    pixels = rng.random((8, 12, 3))
    means = pixels.reshape(4, 2, 6, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(shrink(pixels, 6), means, atol=1e-6)
    np.testing.assert_allclose(shrink(pixels, 12), pixels, atol=1e-6)
    assert shrink(rng.random((1, 500, 1)), 10).shape == (1, 10, 1)
    np.testing.assert_allclose(shrink(np.full((97, 55, 1), 0.3), 32), 0.3, atol=1e-6)


def test_a_wrong_gradient_shows(project, monkeypatch):
    project("sample")
    right = Dense.backward

    def wrong(self, grad_y):
        grad_x = right(self, grad_y)
        self.bias.grad = self.bias.grad * 1.01
        return grad_x

    monkeypatch.setattr(Dense, "backward", wrong)
    rows = table(explain(), "Backward")
    assert {tuple(row[:2]) for row in rows if float(row[-1]) > 1e-5} == {
        ("9 Dense", "dL/dbias"),
        ("7 Dense", "dL/dbias"),
    }


@pytest.mark.parametrize("name", ["baseline", "batch_norm", "residual", "softmax"])
def test_what_it_prints_is_what_the_library_computes(project, name):
    model, images, targets = project(name)
    index = 4
    text = explain("--index", str(index))
    assert f"Its label: {['cat', 'dog', 'owl'][index % 3]}\n" in text
    outputs = model.predict(images[index : index + 1])[0]
    probabilities = outputs if gives_probabilities(model) else softmax(outputs)
    order = np.argsort(-probabilities)
    assert table(text, "Prediction") == [
        [["cat", "dog", "owl"][i], f"{probabilities[i]:.4%}"] for i in order
    ]  # evaluation, without dropout and with running statistics

    if name == "batch_norm":  # its dropout draws numbers that only the command knows
        return
    batch = batch_of(model, index)
    model = with_float64(model)
    x = images[batch].astype(np.float64)
    forward = table(text, "Forward")
    assert forward[0][-3:] == [f"{v:.4g}" for v in (x[0].min(), x[0].mean(), x[0].max())]
    rows = {row[0].split()[0]: row for row in forward}
    outputs = x
    for number, layer in enumerate(model.layers):
        outputs = layer.forward(outputs, training=True)
        row = rows[str(number)]
        assert row[1] == " x ".join(map(str, outputs.shape[1:]))
        assert row[-3:] == [f"{v:.4g}" for v in (outputs[0].min(), outputs[0].mean(), outputs[0].max())]
    loss = cross_entropy if gives_probabilities(model) else softmax_cross_entropy
    before, grad = loss(outputs, targets[batch])
    assert f"loss {before:.6g}\n" in text
    backward = {(row[0].split()[0], row[1]): row for row in table(text, "Backward")}
    assert backward["loss", "dL/dy"][2] == f"{np.linalg.norm(grad[0]):.2e}"
    for number, layer in reversed(list(enumerate(model.layers))):
        grad = layer.backward(grad)
        assert backward[str(number), "dL/dx"][2] == f"{np.linalg.norm(grad[0]):.2e}"
    for full_name, parameter in model.parameters().items():
        layer, part = full_name.rsplit(".", 1)
        assert backward[layer, f"dL/d{part}"][2] == f"{np.linalg.norm(parameter.grad):.2e}"

    changes = {
        name: (np.linalg.norm(p.value), 0.1 * np.linalg.norm(p.grad), 0.1 * np.abs(p.grad).max())
        for name, p in model.parameters().items()
    }
    step = {row[0]: row[2:] for row in table(text, "One step of SGD")}
    assert step == {name: [f"{v:.3g}" for v in norms] for name, norms in changes.items()}
    squares = sum(float((p.grad**2).sum()) for p in model.parameters().values())
    SGD(model.parameters(), 0.1).step()
    after, _ = loss(model.forward(x, training=True), targets[batch])
    assert f"from {before:.6g} to {after:.6g}; " in text
    assert f" = {-0.1 * squares:.3g}." in text


def test_a_difference_that_rounding_has_swallowed_is_no_agreement():
    assert compare(lambda t: 1.0 + 1e-14 * t, 1e-14) == (1e-14, 0.0, 1.0)


def test_the_step_width_that_meets_no_kink_is_taken():
    analytic, numeric, error = compare(lambda t: 2 * t + max(0.0, t - 1e-5), 2.0)
    assert (analytic, error < 1e-8) == (2.0, True)
    assert numeric == pytest.approx(2)


def test_the_learning_rate_is_that_of_sgd_in_params_yaml(project):
    project()
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("learning_rate: 0.1", "learning_rate: 0.025"))
    assert "θ = θ − 0.025 · dL/dθ" in explain()


def test_batch_normalisation_gets_a_batch_that_goes_round_and_others_one_image(
    project, tmp_path, monkeypatch
):
    project("batch_norm")
    assert "on this image and the 7 after it (for batch normalisation): loss" in explain("--index", "9")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    project("sample")
    assert "on this image: loss" in explain("--index", "9")


def test_random_layers_draw_the_same_each_time(project):
    project("nested")
    assert explain() == explain()


def test_each_pixel_is_two_characters_dark_to_bright():
    pixels = np.array([[0.0, 0.34, 1.0], [-0.1, 0.5, 1.2]])[:, :, None]
    assert draw(pixels) == "  --@@\n  ==@@"


def test_colours_are_averaged():
    assert draw(np.array([[[0.0, 1.0, 0.5]]])) == "=="


def test_a_standardized_image_looks_as_before(project, tmp_path, monkeypatch):
    def picture():
        return [line for line in explain().splitlines() if line.startswith("│")]

    project()
    before = picture()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    project(mean=0.13, deviation=0.31)
    assert picture() == before
    assert any("@" in line for line in before)


@pytest.mark.parametrize("index", [-1, 10, 1000])
def test_an_image_that_is_not_there_is_refused(project, index):
    project()
    with pytest.raises(UserError) as error:
        explain("--index", str(index))
    assert str(error.value) == f"--index must be that of a test image, from 0 to 9; received {index}."


def test_without_a_model_it_says_how_to_make_one(project):
    project()
    Path("models/model.npz").unlink()
    with pytest.raises(UserError, match=r"^models/model.npz is missing. Make it with: dvc repro train$"):
        explain()


def test_a_model_of_other_data_is_refused(project):
    project()
    path = Path("data/processed/dataset.json")
    path.write_text(path.read_text().replace('"owl"', '"fox"'))
    with pytest.raises(UserError) as error:
        explain()
    assert str(error.value).startswith(
        "models/model.npz was not trained on what data/processed holds now (mnist)"
    )
    assert str(error.value).endswith(": dvc repro")
