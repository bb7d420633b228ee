import numpy as np
import pytest

from cnn import (
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    Parameter,
    ReLU,
    Residual,
    Sequential,
    softmax_cross_entropy,
)
from cnn.clipping import gradient_squares
from cnn.inspection import EpochStatistics, kernels, multiply_adds, occlusion
from cnn.layers.trace import trace_backward, trace_forward, trace_shapes
from cnn.ops.softmax import softmax


@pytest.fixture
def model(rng):
    inner = [Conv2D(2, 2, 3, padding="same", rng=rng), Sequential([BatchNorm(2), ReLU()])]
    shortcut = [Conv2D(2, 2, 1, rng=rng)]
    layers = [Conv2D(1, 2, 3, rng=rng), Residual(inner, shortcut), Flatten(), Dense(32, 3, rng=rng)]
    return Sequential(layers)


def test_traced_outputs_are_those_of_each_layer_in_the_order_of_traced_shapes(model, rng):
    x = rng.standard_normal((2, 6, 6, 1)).astype(np.float32)
    found = list(trace_forward(model, x))
    assert [(name, type(layer), y.shape[1:]) for name, layer, y in found] == [
        (name, type(layer), shape) for name, layer, _, shape in trace_shapes(model, (6, 6, 1))
    ]
    outputs = {name: y for name, _, y in found}
    np.testing.assert_array_equal(outputs["3"], model.predict(x))
    np.testing.assert_array_equal(outputs["1"], outputs["1.layers.1"] + outputs["1.shortcut.0"])
    np.testing.assert_array_equal(outputs["1.layers.1"], outputs["1.layers.1.1"])


def test_a_traced_backward_shows_the_gradients_of_each_layer_in_evaluation(model, rng):
    for norm in (layer for _, layer in model.walk() if isinstance(layer, BatchNorm)):
        norm.running_mean[...], norm.running_var[...] = [0.3, -0.2], [2.0, 0.5]
    x = rng.standard_normal((2, 6, 6, 1)).astype(np.float32)
    targets = np.eye(3, dtype=np.float32)[:2]
    loss, trace = trace_backward(model, x, lambda outputs: softmax_cross_entropy(outputs, targets))
    assert loss == softmax_cross_entropy(model.predict(x), targets)[0]
    found = {layer.name: layer for layer in trace.layers}
    assert list(found) == [name for name, _, _ in trace_forward(model, x)]
    for name, _, y in trace_forward(model, x):
        np.testing.assert_array_equal(found[name].y, y)
        assert found[name].grad_y.shape == y.shape
    np.testing.assert_array_equal(found["3"].grad_y, softmax(found["3"].y) / 2 - targets / 2)
    np.testing.assert_array_equal(found["1.layers.0"].grad_y, found["1.layers.1"].grad_x)
    np.testing.assert_array_equal(found["1.layers.1"].grad_y, found["1"].grad_y)  # a sum hands it on
    np.testing.assert_array_equal(found["1.shortcut.0"].grad_y, found["1"].grad_y)
    np.testing.assert_array_equal(trace.network.grad_x, found["0"].grad_x)
    assert model[0].kernel.grad.shape == model[0].kernel.value.shape


def test_kernels_of_all_convolutions_are_found(model):
    assert {name: kernel.shape for name, kernel in kernels(model)} == {
        "0": (3, 3, 1, 2),
        "1.layers.0": (3, 3, 2, 2),
        "1.shortcut.0": (1, 1, 2, 2),
    }


def total(images):
    return images.sum(axis=(1, 2, 3))


def squares(length, step):
    """The places of squares of two steps that start a step before the axis and overlap by half."""
    return [slice(max(start, 0), start + 2 * step) for start in range(-step, length, step)]


@pytest.mark.parametrize(
    ("shape", "side"),
    [((1, 1, 1), 2), ((6, 7, 1), 2), ((28, 28, 3), 4), ((35, 40, 1), 6), ((5, 64, 3), 2), ((60, 45, 2), 6)],
)
def test_occlusion_of_a_sum_is_the_sum_of_what_is_covered(rng, shape, side):
    image = rng.random(shape)
    found = occlusion(total, image)
    assert found.side == side
    rows, columns = squares(shape[0], side // 2), squares(shape[1], side // 2)
    expected = np.array([[image[row, column].sum() for column in columns] for row in rows])
    np.testing.assert_allclose(found.falls, expected)
    per_pixel = np.zeros(shape[:2])
    for row, falls in zip(rows, expected, strict=True):
        for column, fall in zip(columns, falls, strict=True):
            per_pixel[row, column] += fall / 4
    np.testing.assert_allclose(found.per_pixel, per_pixel)
    *place, fall = found.strongest
    assert image[tuple(place)].sum() == pytest.approx(fall)
    assert fall == pytest.approx(expected.max())


def test_occlusion_covers_with_the_background_of_each_channel_and_leaves_the_image_alone():
    image = np.ones((4, 4, 2))
    found = occlusion(total, image, background=np.array([-2.0, 0.0]))
    assert found.falls[1, 1] == 4 * 3 + 4 * 1
    np.testing.assert_array_equal(image, 1.0)


def test_occlusion_asks_only_about_squares_that_change_the_image_and_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr("cnn.inspection.LARGEST_CHUNK", 3 * 64)
    asked = []

    def score(images):
        asked.append(len(images))
        return total(images)

    image = np.zeros((8, 8, 1))
    image[2:4, 2:4] = 1
    found = occlusion(score, image)
    assert asked == [1, 3, 3, 3]  # the image, then nine squares
    assert found.strongest == (slice(2, 4), slice(2, 4), 4.0)


def test_statistics_of_an_epoch_are_those_of_its_steps_and_of_the_values_at_its_end():
    parameter = Parameter(np.arange(101, dtype=np.float32), "weight")
    statistics = EpochStatistics({"0.weight": parameter})
    for _ in range(2):
        for length in (3.0, 4.0):
            parameter.grad = np.zeros(101, np.float32)
            parameter.grad[7] = length
            statistics.add_step(gradient_squares(statistics.parameters))
        (row,) = statistics.finish_epoch()
        assert row.pop("parameter") == "0.weight"
        assert row == pytest.approx(
            {"gradient_norm": 12.5**0.5, "q5": 5.0, "q25": 25.0, "q50": 50.0, "q75": 75.0, "q95": 95.0}
        )


def test_long_gradients_do_not_overflow():
    parameter = Parameter(np.zeros(2, np.float32), "weight")
    parameter.grad = np.full(2, 3e30, np.float32)
    statistics = EpochStatistics({"weight": parameter})
    statistics.add_step(gradient_squares(statistics.parameters))
    assert statistics.finish_epoch()[0]["gradient_norm"] == pytest.approx(3e30 * 2**0.5)


def test_statistics_go_on_from_a_copy_of_their_state():
    parameter = Parameter(np.zeros(2, np.float32), "weight")
    parameter.grad = np.ones(2, np.float32)
    one, other = (EpochStatistics({"weight": parameter}) for _ in range(2))
    one.add_step(gradient_squares(one.parameters))
    other.load_state_dict(one.state_dict())
    one.add_step(gradient_squares(one.parameters))
    other.add_step(gradient_squares(other.parameters))
    assert one.finish_epoch() == other.finish_epoch()


def test_multiply_adds_are_counted_at_all_depths(rng):
    inner = [Conv2D(2, 2, 3, padding="same", groups=2, rng=rng)]
    shortcut = [Conv2D(2, 2, (1, 3), padding="same", bias=False, rng=rng)]
    model = Sequential(
        [
            Sequential([Conv2D(1, 2, 3, stride=2, rng=rng), ReLU()]),
            Residual(inner, shortcut),
            Flatten(),
            Dense(18, 4, rng=rng),
        ]
    )
    first, rest = 3 * 3 * 9 * 2, 3 * 3 * 9 * 2 + 3 * 3 * 3 * 2 * 2 + 18 * 4
    assert multiply_adds(model, (7, 7, 1), training=False) == first + rest
    assert multiply_adds(model, (7, 7, 1), training=True) == 2 * first + 3 * rest
    branches = Sequential(model.layers[1:])
    assert multiply_adds(branches, (3, 3, 2), training=True) == 3 * rest  # a branch's dL/dx is needed
