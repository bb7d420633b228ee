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
)
from cnn.clipping import gradient_squares
from cnn.inspection import EpochStatistics, kernels, occlusion
from cnn.layers.trace import trace_forward, trace_shapes


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


def test_kernels_of_all_convolutions_are_found(model):
    assert {name: kernel.shape for name, kernel in kernels(model)} == {
        "0": (3, 3, 1, 2),
        "1.layers.0": (3, 3, 2, 2),
        "1.shortcut.0": (1, 1, 2, 2),
    }


def test_occlusion_of_a_sum_is_the_sum_of_what_is_covered(rng):
    image = rng.random((6, 7, 1))
    heat = occlusion(lambda images: images.sum(axis=(1, 2, 3)), image, patch=3)
    for row, column in np.ndindex(6, 7):
        covered = image[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].sum()
        assert heat[row, column] == pytest.approx(covered)


def test_occlusion_covers_with_the_background_and_leaves_the_image_alone():
    image = np.ones((4, 4, 1))
    heat = occlusion(lambda images: images.sum(axis=(1, 2, 3)), image, patch=1, background=-2.0)
    np.testing.assert_array_equal(heat, 3.0)
    np.testing.assert_array_equal(image, 1.0)


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
