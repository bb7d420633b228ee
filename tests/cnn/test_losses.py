from math import exp, log

import numpy as np
import pytest

from cnn import Softmax, cross_entropy, mean_squared_error, softmax_cross_entropy
from cnn.gradient_check import numeric_gradient, relative_error
from cnn.registry import LOSSES


def random_batch(rng, examples=5, classes=4):
    logits = rng.standard_normal((examples, classes))
    targets = np.eye(classes)[rng.integers(0, classes, examples)]
    return logits, targets


VALUES = {  # name -> (outputs, targets, loss, gradient), by hand
    "softmax_cross_entropy": ([[0, log(3)]], [[0, 1]], log(4 / 3), [[1 / 4, -1 / 4]]),
    "cross_entropy": ([[1 / 4, 3 / 4]], [[0, 1]], log(4 / 3), [[0, -4 / 3]]),
    "mean_squared_error": ([[1, 3], [0, 1]], [[0, 1], [0, 0]], 6 / 4, [[1 / 2, 1], [0, 1 / 2]]),
}


def test_every_registered_loss_has_its_values():
    assert set(VALUES) == set(LOSSES)
    for name, (outputs, targets, loss, gradient) in VALUES.items():
        value, grad_outputs = LOSSES[name](np.array(outputs, float), np.array(targets, float))
        assert value == pytest.approx(loss, rel=1e-13), name
        np.testing.assert_allclose(grad_outputs, gradient, rtol=1e-13, err_msg=name)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_every_registered_loss_matches_finite_differences(rng, name):
    outputs, targets = rng.uniform(0.1, 1, (5, 4)), rng.dirichlet(np.ones(4), size=5)
    numeric = numeric_gradient(lambda: LOSSES[name](outputs, targets)[0], outputs)
    assert relative_error(LOSSES[name](outputs, targets)[1], numeric) < 1e-7


def test_the_loss_equals_its_definition(rng):
    logits, targets = random_batch(rng)
    expected = 0.0
    for z, t in zip(logits, targets, strict=True):
        denominator = sum(exp(value) for value in z)
        expected -= sum(t[k] * log(exp(z[k]) / denominator) for k in range(len(z))) / len(logits)
    assert softmax_cross_entropy(logits, targets)[0] == pytest.approx(expected, rel=1e-13)


def test_the_gradient_is_prediction_minus_target_over_n(rng):
    logits, targets = random_batch(rng)
    predicted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        softmax_cross_entropy(logits, targets)[1], (predicted - targets) / 5, rtol=1e-12
    )


@pytest.mark.parametrize("soft", [False, True])
def test_the_gradient_matches_finite_differences(rng, soft):
    logits, targets = random_batch(rng)
    if soft:
        targets = rng.dirichlet(np.ones(4), size=5)
    numeric = numeric_gradient(lambda: softmax_cross_entropy(logits, targets)[0], logits)
    assert relative_error(softmax_cross_entropy(logits, targets)[1], numeric) < 1e-7


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes():
    loss, _ = softmax_cross_entropy(np.zeros((3, 10)), np.eye(10)[:3])
    assert loss == pytest.approx(log(10))


def test_huge_logits_give_finite_figures():
    logits = np.array([[1e4, -1e4], [1e4, -1e4]], np.float32)
    loss, gradient = softmax_cross_entropy(logits, np.eye(2, dtype=np.float32))
    assert loss == 1e4
    np.testing.assert_array_equal(gradient, [[0, 0], [0.5, -0.5]])


def test_float32_stays_float32():
    assert (
        softmax_cross_entropy(np.zeros((2, 3), np.float32), np.eye(3, dtype=np.float32)[:2])[1].dtype
        == np.float32
    )


@pytest.mark.parametrize(("logits", "targets"), [((2, 3), (2, 4)), ((2, 3), (2,)), ((0, 3), (0, 3))])
def test_shapes_that_do_not_match_are_refused(logits, targets):
    with pytest.raises(ValueError) as error:
        softmax_cross_entropy(np.zeros(logits), np.zeros(targets))
    assert str(error.value) == (
        "Logits and one-hot targets must both have shape (examples, classes), with at least one example; "
        f"received logits {logits} and targets {targets}."
    )


def test_smoothed_and_weighted_targets_enter_the_loss_as_written(rng):
    logits, targets = random_batch(rng)
    weights = np.array([0.5, 1.0, 2.0, 0.0])
    options = {"label_smoothing": 0.2, "class_weights": weights}
    expected = 0.0
    for z, t in zip(logits, targets, strict=True):
        denominator = sum(exp(value) for value in z)
        for k in range(4):
            expected -= weights[k] * (0.8 * t[k] + 0.2 / 4) * log(exp(z[k]) / denominator) / len(logits)
    assert softmax_cross_entropy(logits, targets, **options)[0] == pytest.approx(expected, rel=1e-13)
    numeric = numeric_gradient(lambda: softmax_cross_entropy(logits, targets, **options)[0], logits)
    assert relative_error(softmax_cross_entropy(logits, targets, **options)[1], numeric) < 1e-7


def test_smoothing_alone_is_that_of_the_weights_one(rng):
    logits, targets = random_batch(rng)
    smooth, gradient = softmax_cross_entropy(logits, targets, label_smoothing=0.1)
    weighted, same = softmax_cross_entropy(logits, 0.9 * targets + 0.1 / 4, class_weights=np.ones(4))
    assert smooth == weighted
    np.testing.assert_array_equal(gradient, same)


def test_options_keep_float32():
    logits, targets = np.zeros((2, 3), np.float32), np.eye(3, dtype=np.float32)[:2]
    weights = np.array([1.0, 2.0, 3.0])
    gradient = softmax_cross_entropy(logits, targets, label_smoothing=0.1, class_weights=weights)[1]
    assert gradient.dtype == np.float32


def test_an_option_out_of_its_range_is_refused():
    logits, targets = np.zeros((2, 3)), np.eye(3)[:2]
    with pytest.raises(ValueError, match=r"^label_smoothing must be in \[0, 1\]; received 1.5.$"):
        softmax_cross_entropy(logits, targets, label_smoothing=1.5)
    for weights in ([1.0, 2.0], [1.0, -1.0, 0.0], [1.0, float("nan"), 0.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match=r"^class_weights must be .*>= 0.*; received "):
            softmax_cross_entropy(logits, targets, class_weights=np.array(weights))


def test_cross_entropy_of_probabilities_equals_its_definition(rng):
    logits, targets = random_batch(rng)
    p = Softmax().forward(logits)
    loss, gradient = cross_entropy(p, targets)
    expected = -sum(log(p[n, k]) for n, k in zip(*targets.nonzero(), strict=True)) / len(p)
    assert loss == pytest.approx(expected, rel=1e-13)
    assert relative_error(gradient, numeric_gradient(lambda: cross_entropy(p, targets)[0], p)) < 1e-7


def test_softmax_and_then_cross_entropy_are_the_loss_on_logits(rng):
    logits, targets = random_batch(rng)
    softmax = Softmax()
    loss, grad_p = cross_entropy(softmax.forward(logits, training=True), targets)
    expected, grad_logits = softmax_cross_entropy(logits, targets)
    assert loss == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(softmax.backward(grad_p), grad_logits, rtol=1e-12, atol=1e-15)


def test_a_probability_of_zero_costs_much_but_stays_finite():
    p, targets = np.array([[0, 1]], np.float32), np.array([[1, 0]], np.float32)
    loss, gradient = cross_entropy(p, targets)
    assert loss == pytest.approx(-log(np.finfo(np.float32).tiny), rel=1e-6)
    assert np.isfinite(gradient).all()
    assert gradient.dtype == np.float32


def test_negative_probabilities_are_refused():
    with pytest.raises(ValueError) as error:
        cross_entropy(np.array([[-0.5, 1.5]]), np.array([[1.0, 0.0]]))
    assert str(error.value) == "Probabilities must be >= 0; received -0.5. Does the network end in Softmax?"


def test_mean_squared_error_equals_its_definition(rng):
    outputs, targets = random_batch(rng)
    loss, gradient = mean_squared_error(outputs, targets)
    expected = sum((outputs[i] - targets[i]) ** 2 for i in np.ndindex(outputs.shape)) / outputs.size
    assert loss == pytest.approx(expected, rel=1e-13)
    assert (
        relative_error(gradient, numeric_gradient(lambda: mean_squared_error(outputs, targets)[0], outputs))
        < 1e-7
    )
    assert mean_squared_error(outputs.astype(np.float32), targets.astype(np.float32))[1].dtype == np.float32


@pytest.mark.parametrize(
    ("loss", "name"), [(cross_entropy, "Probabilities"), (mean_squared_error, "Outputs")]
)
def test_other_losses_refuse_shapes_that_do_not_match(loss, name):
    with pytest.raises(ValueError, match=f"^{name} and one-hot targets must both have shape"):
        loss(np.ones((2, 3)), np.ones((3, 2)))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("dtype", [int, np.float64])
def test_the_targets_dtype_does_not_matter(loss, dtype):
    outputs = np.full((2, 3), 0.25, np.float32)
    targets = np.eye(3, dtype=np.float32)[:2]
    expected = loss(outputs, targets)
    value, gradient = loss(outputs, targets.astype(dtype))
    assert value == expected[0]
    assert gradient.dtype == np.float32
    np.testing.assert_array_equal(gradient, expected[1])


def test_weights_may_be_a_list_and_targets_whole_numbers():
    logits = np.zeros((2, 2), np.float32)
    loss, _ = softmax_cross_entropy(logits, np.eye(2, dtype=int), class_weights=[0.5, 0.5])
    assert loss == pytest.approx(log(2) / 2)
