import numpy as np
import pytest

from cnn.moving_average import Lookahead, MovingAverage
from cnn.parameter import Parameter

SHAPES = {"0.kernel": (2, 2, 1, 3), "0.bias": (3,)}


def make_parameters(rng, dtype=np.float64):
    return {name: Parameter(rng.standard_normal(shape).astype(dtype), name) for name, shape in SHAPES.items()}


def walk(average, rng, updates):
    """Change the weights at random and update the average, repeatedly."""
    for _ in range(updates):
        for parameter in average.parameters.values():
            parameter.value += rng.standard_normal(parameter.value.shape).astype(parameter.value.dtype)
        average.update()


def averages_of(average):
    return {
        name.removeprefix("average."): array for name, array in average.state_dict().items() if "." in name
    }


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])  # 0.3 is soon the minimum, 0.999 not within 20 updates
def test_the_average_follows_its_recursion(rng, decay):
    parameters = make_parameters(rng)
    expected = {name: parameter.value.copy() for name, parameter in parameters.items()}
    average = MovingAverage(parameters, decay)
    for t in range(20):
        walk(average, rng, 1)
        decay_t = min(decay, (1 + t) / (10 + t))
        for name, parameter in parameters.items():
            for index in np.ndindex(parameter.value.shape):
                old, new = expected[name][index], parameter.value[index]
                expected[name][index] = decay_t * old + (1 - decay_t) * new
                assert averages_of(average)[name][index] == pytest.approx(expected[name][index], rel=1e-12)


def test_the_first_average_is_the_first_weights_and_the_first_update_keeps_a_tenth_of_it():
    parameter = Parameter(np.full(2, 10.0), "bias")
    average = MovingAverage({"bias": parameter}, 0.999)
    np.testing.assert_array_equal(average.state_dict()["average.bias"], 10.0)
    parameter.value[...] = 20.0
    np.testing.assert_array_equal(average.state_dict()["average.bias"], 10.0)  # a copy
    average.update()
    np.testing.assert_allclose(average.state_dict()["average.bias"], 19.0, rtol=1e-12)


def test_the_average_of_weights_that_rest_is_these_weights(rng):
    parameters = make_parameters(rng)
    average = MovingAverage(parameters, 0.9)
    walk(average, rng, 3)
    for _ in range(400):
        average.update()
    for name, array in averages_of(average).items():
        np.testing.assert_allclose(array, parameters[name].value, rtol=1e-12)


def test_updates_leave_the_weights_alone_and_keep_the_dtype(rng):
    parameters = make_parameters(rng, np.float32)
    average = MovingAverage(parameters, np.float64(0.99))
    walk(average, rng, 2)
    before = {name: (parameter.value, parameter.value.copy()) for name, parameter in parameters.items()}
    average.update()
    for name, (array, copy) in before.items():
        assert parameters[name].value is array
        np.testing.assert_array_equal(array, copy)
        assert averages_of(average)[name].dtype == np.float32


def test_averages_stand_in_for_the_values_only_inside_the_with(rng):
    parameters = make_parameters(rng)
    average = MovingAverage(parameters, 0.9)
    walk(average, rng, 5)
    before = {name: (parameter.value, parameter.value.copy()) for name, parameter in parameters.items()}
    state = average.state_dict()
    with average.applied():
        for name, parameter in parameters.items():
            np.testing.assert_array_equal(parameter.value, state[f"average.{name}"])
            assert not np.array_equal(parameter.value, before[name][1])
        with average.applied():  # applied only once
            pass
        np.testing.assert_array_equal(parameters["0.bias"].value, state["average.0.bias"])
    for name, (array, copy) in before.items():
        assert parameters[name].value is array
        np.testing.assert_array_equal(array, copy)
    for name, array in average.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


def test_the_weights_come_back_after_an_error_inside_the_with(rng):
    parameters = make_parameters(rng)
    average = MovingAverage(parameters, 0.9)
    walk(average, rng, 2)
    arrays = {name: parameter.value for name, parameter in parameters.items()}
    with pytest.raises(KeyboardInterrupt), average.applied():
        raise KeyboardInterrupt
    assert all(parameters[name].value is array for name, array in arrays.items())
    average.update()


def test_an_update_inside_the_with_is_refused(rng):
    average = MovingAverage(make_parameters(rng), 0.9)
    walk(average, rng, 2)
    before = average.state_dict()
    with average.applied(), pytest.raises(RuntimeError) as error:
        average.update()
    assert str(error.value) == (
        "MovingAverage.update() was called inside applied(), where the values are the averages themselves. "
        "Call it outside of the with block."
    )
    for name, array in average.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_an_average_that_is_resumed_from_a_state_goes_on_with_the_same_bytes(rng):
    average = MovingAverage(make_parameters(rng, np.float32), 0.9)
    walk(average, rng, 4)
    state = average.state_dict()
    assert list(state) == ["updates", "average.0.kernel", "average.0.bias"]
    copies = {name: Parameter(p.value.copy(), name) for name, p in average.parameters.items()}
    resumed = MovingAverage(copies, 0.9)
    resumed.load_state_dict(state)
    results = []
    for each in (average, resumed):
        walk(each, np.random.default_rng(7), 4)
        results.append({name: array.tobytes() for name, array in each.state_dict().items()})
    assert results[0] == results[1]
    np.testing.assert_array_equal(state["updates"], 4)  # the state is a copy


def test_a_state_that_does_not_fit_is_refused_whole(rng):
    average = MovingAverage(make_parameters(rng), 0.9)
    before = average.state_dict()
    with pytest.raises(ValueError) as error:
        average.load_state_dict({"updates": np.array(1), "average.0.bias": np.zeros(4), "step": np.array(1)})
    assert str(error.value) == (
        "The state does not fit this MovingAverage: missing: average.0.kernel; unexpected: step; "
        "average.0.bias has shape (4,), not (3,)."
    )
    for name, array in average.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("decay", [1, -0.1, float("nan"), None])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError) as error:
        MovingAverage({}, decay)
    assert str(error.value) == f"decay must be in [0, 1); received {decay!r}."


@pytest.mark.parametrize(("every", "decay"), [(1, 0.9), (3, 0.8), (3, 0.0), (20, 0.9)])
def test_lookahead_follows_its_recursion_and_ends_on_the_slow_weights(rng, every, decay):
    parameters = make_parameters(rng)
    slow = {name: parameter.value.copy() for name, parameter in parameters.items()}
    average = Lookahead(parameters, 20, every=every, decay=decay)
    for t in range(1, 21):
        change = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
        fast = {name: parameters[name].value + change[name] for name in SHAPES}
        for name, parameter in parameters.items():
            parameter.value += change[name]
        average.update()
        if t % every == 0:
            d = decay**every * (t / 20) ** 3
            slow = {name: d * slow[name] + (1 - d) * fast[name] for name in SHAPES}
        expected = slow if t % every == 0 or t == 20 else fast
        for name, parameter in parameters.items():
            np.testing.assert_allclose(averages_of(average)[name], slow[name], rtol=1e-12)
            np.testing.assert_allclose(parameter.value, expected[name], rtol=1e-12)
    for name, parameter in parameters.items():
        np.testing.assert_array_equal(parameter.value, averages_of(average)[name])


def test_lookahead_changes_the_weights_in_place_and_keeps_their_dtype(rng):
    parameters = make_parameters(rng, np.float32)
    arrays = {name: parameter.value for name, parameter in parameters.items()}
    average = Lookahead(parameters, 4, every=2, decay=np.float64(0.9))
    walk(average, rng, 4)
    for name, array in arrays.items():
        assert parameters[name].value is array
        assert averages_of(average)[name].dtype == np.float32
        assert not np.shares_memory(averages_of(average)[name], array)


def test_lookahead_stands_in_for_the_values_inside_the_with_and_refuses_an_update_there(rng):
    average = Lookahead(make_parameters(rng), 100, every=3)
    walk(average, rng, 5)
    fast, slow = average.parameters["0.bias"].value.copy(), averages_of(average)["0.bias"]
    assert not np.array_equal(fast, slow)
    with average.applied():
        np.testing.assert_array_equal(average.parameters["0.bias"].value, slow)
        with pytest.raises(RuntimeError, match=r"^Lookahead\.update\(\) was called inside applied"):
            average.update()
    np.testing.assert_array_equal(average.parameters["0.bias"].value, fast)


@pytest.mark.parametrize("before", [1, 2, 4, 6])
def test_a_lookahead_that_is_resumed_from_a_state_goes_on_with_the_same_bytes(rng, before):
    average = Lookahead(make_parameters(rng, np.float32), 7, every=2, decay=0.9)
    walk(average, rng, before)
    state = average.state_dict()
    assert list(state) == ["updates", "average.0.kernel", "average.0.bias"]
    copies = {name: Parameter(p.value.copy(), name) for name, p in average.parameters.items()}
    resumed = Lookahead(copies, 7, every=2, decay=0.9)
    resumed.load_state_dict(state)
    results = []
    for each in (average, resumed):
        walk(each, np.random.default_rng(7), 7 - before)
        values = {name: parameter.value for name, parameter in each.parameters.items()}
        results.append({name: array.tobytes() for name, array in (each.state_dict() | values).items()})
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be a whole number >= 1; received 0."),
        ({"every": 0}, "every must be a whole number >= 1; received 0."),
        ({"decay": 1.0}, "decay must be in [0, 1); received 1.0."),
        (
            {"every": 11},
            "every must be at most the number of steps, 10, since θ returns to a after the last one; received 11.",
        ),
    ],
)
def test_arguments_of_lookahead_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        Lookahead({}, **{"steps": 10} | arguments)
    assert str(error.value) == message
