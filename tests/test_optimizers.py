import numpy as np
import pytest

from cnn import SGD, Parameter
from cnn.schedules import constant

LEARNING_RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.01


def run(options, steps=5):
    """θ after each step on given gradients: from SGD, and from its equations, one number at a time."""
    rng = np.random.default_rng(0)
    parameters = {
        "weight": Parameter(rng.standard_normal((2, 3)), "weight"),
        "bias": Parameter(rng.standard_normal(3), "bias"),
    }
    expected = {name: p.value.copy() for name, p in parameters.items()}
    velocity = {name: np.zeros_like(p.value) for name, p in parameters.items()}
    momentum, decay = options.get("momentum", 0.0), options.get("weight_decay", 0.0)
    optimizer = SGD(parameters, LEARNING_RATE, **options)
    for _ in range(steps):
        for name, parameter in parameters.items():
            parameter.grad = rng.standard_normal(parameter.value.shape)
            for index in np.ndindex(parameter.value.shape):
                g = parameter.grad[index] + (decay * expected[name][index] if name == "weight" else 0)
                v = momentum * velocity[name][index] + g
                velocity[name][index] = v
                expected[name][index] -= LEARNING_RATE * (g + momentum * v if options.get("nesterov") else v)
        optimizer.step()
    return parameters, expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": MOMENTUM},
        {"momentum": MOMENTUM, "nesterov": True},
        {"weight_decay": DECAY},
        {"momentum": MOMENTUM, "nesterov": True, "weight_decay": DECAY},
    ],
)
def test_sgd_follows_its_equations(options):
    parameters, expected = run(options)
    for name, parameter in parameters.items():
        np.testing.assert_allclose(parameter.value, expected[name], rtol=1e-12)


def test_a_step_leaves_the_gradient_as_it_was_and_changes_the_array_in_place():
    parameter = Parameter(np.ones((2, 2), np.float32), "weight")
    array, gradient = parameter.value, np.full((2, 2), 0.5, np.float32)
    parameter.grad = gradient
    optimizer = SGD({"weight": parameter}, 0.1, momentum=0.9, weight_decay=0.1)
    optimizer.step()
    optimizer.step()
    assert parameter.value is array
    assert array.dtype == np.float32
    np.testing.assert_array_equal(gradient, 0.5)


def test_a_step_before_any_backward_is_refused():
    with pytest.raises(RuntimeError) as error:
        SGD({"0.kernel": Parameter(np.ones(1), "kernel")}, 0.1).step()
    assert str(error.value) == "Parameter 0.kernel has no gradient: call backward before step."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": 0}, "learning_rate must be a finite number > 0; received 0."),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number > 0; received nan."),
        ({"momentum": 1}, "momentum must be in [0, 1); received 1."),
        ({"weight_decay": -1}, "weight_decay must be a finite number >= 0; received -1."),
        (
            {"nesterov": True},
            "nesterov looks ahead along the momentum, so it needs momentum > 0; received 0.",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        SGD({}, **{"learning_rate": 0.1} | arguments)
    assert str(error.value) == message


def test_the_constant_schedule_never_changes():
    assert {constant(0.3)(step) for step in (0, 1, 10**6)} == {0.3}
