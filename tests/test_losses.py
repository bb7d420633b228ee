from math import exp, log

import numpy as np
import pytest

from cnn import softmax_cross_entropy
from cnn.gradient_check import numeric_gradient, relative_error


def random_batch(rng, examples=5, classes=4):
    logits = rng.standard_normal((examples, classes))
    targets = np.eye(classes)[rng.integers(0, classes, examples)]
    return logits, targets


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
