from math import isinf, isnan, sqrt

import numpy as np
import pytest

from cnn.clipping import clip_by_norm, clip_by_value, gradient_squares
from cnn.parameter import Parameter


def with_gradients(*gradients, dtype=np.float64):
    parameters = {}
    for index, gradient in enumerate(gradients):
        array = np.array(gradient, dtype)
        parameters[f"{index}.weight"] = Parameter(np.zeros_like(array), "weight")
        parameters[f"{index}.weight"].grad = array
    return parameters


def gradients_of(parameters):
    return [parameter.grad for parameter in parameters.values()]


def test_a_long_gradient_is_scaled_to_the_greatest_norm_as_one_vector():
    parameters = with_gradients([[2.0, 3.0]], [6.0])  # 4 + 9 + 36 = 49
    assert clip_by_norm(parameters, 3.5) == 7.0
    np.testing.assert_array_equal(gradients_of(parameters)[0], [[1.0, 1.5]])
    np.testing.assert_array_equal(gradients_of(parameters)[1], [3.0])
    assert clip_by_norm(parameters, 99.0) == 3.5


@pytest.mark.parametrize("max_norm", [7.0, 7.1])
def test_a_gradient_that_is_short_enough_stays_the_same_array(max_norm):
    parameters = with_gradients([[2.0, 3.0]], [6.0])
    before = gradients_of(parameters)
    assert clip_by_norm(parameters, max_norm) == 7.0
    assert all(a is b for a, b in zip(gradients_of(parameters), before, strict=True))
    np.testing.assert_array_equal(before[0], [[2.0, 3.0]])


def test_gradients_of_zero_have_norm_zero_and_stay():
    parameters = with_gradients([0.0, 0.0])
    assert clip_by_norm(parameters, 1.0) == 0.0
    np.testing.assert_array_equal(gradients_of(parameters)[0], 0.0)


def test_the_norm_is_summed_in_float64():
    parameters = with_gradients(
        [1e30, 0.0], np.ones(3), dtype=np.float32
    )  # its square is infinite in float32
    assert clip_by_norm(parameters, 1e38) == float(np.float32(1e30))
    parameters = with_gradients([4096.0], np.full(1000, 0.5), dtype=np.float32)
    assert clip_by_norm(parameters, 1e9) == sqrt(4096.0**2 + 250)  # 2^24 + 1/4 is 2^24 in float32


@pytest.mark.parametrize(("bad", "is_so"), [(np.nan, isnan), (np.inf, isinf)])
def test_a_norm_that_is_not_finite_changes_nothing(bad, is_so):
    parameters = with_gradients([1.0, bad], [2.0])
    assert is_so(clip_by_norm(parameters, 0.1))
    np.testing.assert_array_equal(gradients_of(parameters)[0], [1.0, bad])
    np.testing.assert_array_equal(gradients_of(parameters)[1], [2.0])


def test_each_entry_is_brought_to_within_the_limit():
    parameters = with_gradients([[0.1, -0.1, 7.0]], [-7.0, 0.5, np.inf, np.nan])
    assert clip_by_value(parameters, 0.5) is None
    np.testing.assert_array_equal(gradients_of(parameters)[0], [[0.1, -0.1, 0.5]])
    np.testing.assert_array_equal(gradients_of(parameters)[1], [-0.5, 0.5, 0.5, np.nan])


@pytest.mark.parametrize("clip", [clip_by_norm, clip_by_value])
def test_arrays_that_others_hold_stay_as_they_are_and_dtypes_are_kept(clip):
    parameters = with_gradients([[2.0, 3.0]], [6.0], dtype=np.float32)
    shared = np.array([5.0, 5.0], np.float32)
    shared.flags.writeable = False
    for name in ("a", "b"):
        parameters[name] = Parameter(np.zeros(2, np.float32), name)
        parameters[name].grad = shared
    held = gradients_of(parameters)
    copies = [array.copy() for array in held]
    clip(parameters, np.float64(1.0))
    for array, copy, parameter in zip(held, copies, parameters.values(), strict=True):
        np.testing.assert_array_equal(array, copy)
        assert parameter.grad is not array
        assert parameter.grad.dtype == np.float32
        assert not parameter.value.any()
    np.testing.assert_array_equal(parameters["a"].grad, parameters["b"].grad)


@pytest.mark.parametrize(
    ("clip", "limit", "message"),
    [
        (clip_by_norm, 0, "max_norm must be a finite number > 0; received 0."),
        (clip_by_norm, float("nan"), "max_norm must be a finite number > 0; received nan."),
        (clip_by_value, -1.0, "limit must be a finite number > 0; received -1.0."),
    ],
)
def test_limits_out_of_range_are_refused(clip, limit, message):
    with pytest.raises(ValueError) as error:
        clip(with_gradients([1.0]), limit)
    assert str(error.value) == message


@pytest.mark.parametrize("clip", [clip_by_norm, clip_by_value])
def test_a_parameter_without_a_gradient_is_refused_before_anything_changes(clip):
    parameters = with_gradients([100.0], [1.0])
    parameters["1.weight"].grad = None
    with pytest.raises(RuntimeError) as error:
        clip(parameters, 1.0)
    assert str(error.value) == (f"Parameter 1.weight has no gradient: call backward before {clip.__name__}.")
    np.testing.assert_array_equal(parameters["0.weight"].grad, 100.0)


def test_squares_are_those_of_each_parameter_and_known_ones_save_the_work():
    parameters = with_gradients([[2.0, 3.0]], [6.0])
    squares = gradient_squares(parameters)
    assert squares == {"0.weight": 13.0, "1.weight": 36.0}
    assert clip_by_norm(parameters, 3.5, squares) == 7.0
    np.testing.assert_array_equal(gradients_of(parameters)[1], [3.0])
    assert (
        clip_by_norm(parameters, 1.0, {"0.weight": 4.0, "1.weight": 0.0}) == 2.0
    )  # it uses the given squares
    np.testing.assert_array_equal(gradients_of(parameters)[1], [1.5])


def test_squares_of_long_float32_gradients_do_not_overflow():
    parameters = with_gradients([3e30, 4e30], [np.inf], [np.nan], dtype=np.float32)
    squares = gradient_squares(parameters)
    assert squares["0.weight"] == pytest.approx(25e60, rel=1e-6)
    assert isinf(squares["1.weight"])
    assert isnan(squares["2.weight"])
    parameters["1.weight"].grad = None
    with pytest.raises(RuntimeError, match=r"Parameter 1\.weight has no gradient"):
        gradient_squares(parameters)
