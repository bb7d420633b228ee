"""The contract: what holds for every layer. A layer that `cnn` exports and this file does not know fails."""

import inspect

import numpy as np
import pytest
from conftest import spread

import cnn
from cnn import AvgPool2D, Conv2D, Dense, Flatten, MaxPool2D, ReLU, Sequential, Softmax, gradient_check

# name -> (a function dtype -> layer, the shape of an input without batch axis)
CASES = {
    "AvgPool2D": (lambda dtype: AvgPool2D(2), (5, 6, 3)),
    "Conv2D": (lambda dtype: Conv2D(3, 4, 3, rng=np.random.default_rng(1), dtype=dtype), (5, 6, 3)),
    "Dense": (lambda dtype: Dense(7, 4, rng=np.random.default_rng(1), dtype=dtype), (7,)),
    "Flatten": (lambda dtype: Flatten(), (2, 3, 4)),
    "MaxPool2D": (lambda dtype: MaxPool2D(2), (5, 6, 3)),
    "ReLU": (lambda dtype: ReLU(), (4, 5)),
    "Sequential": (
        lambda dtype: Sequential(
            [
                Conv2D(1, 2, 3, rng=np.random.default_rng(1), dtype=dtype),
                ReLU(),
                Flatten(),
                Dense(8, 3, rng=np.random.default_rng(2), dtype=dtype),
            ]
        ),
        (4, 4, 1),
    ),
    "Softmax": (lambda dtype: Softmax(), (5,)),
}

each_layer = pytest.mark.parametrize("name", CASES)


def make(name, dtype=np.float64, batch=3):
    build, shape = CASES[name]
    return build(dtype), spread(np.random.default_rng(3), (batch, *shape), dtype)


def test_every_exported_layer_is_under_contract():
    exported = {
        name
        for name in cnn.__all__
        if inspect.isclass(getattr(cnn, name)) and issubclass(getattr(cnn, name), cnn.Layer)
    }
    assert exported - {"Layer"} == set(CASES)


@each_layer
def test_gradients_match_finite_differences(name):
    layer, x = make(name)
    errors = gradient_check(layer, x, rng=np.random.default_rng(4))
    assert set(errors) == {"x", *layer.parameters()}
    assert max(errors.values()) < 1e-7, errors


@each_layer
def test_output_shape_agrees_with_forward(name):
    layer, x = make(name)
    assert layer.forward(x).shape == (len(x), *layer.output_shape(x.shape[1:]))


@each_layer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_kept(name, dtype):
    layer, x = make(name, dtype)
    y = layer.forward(x)
    grad_x = layer.backward(np.ones_like(y))
    arrays = [y, grad_x, *(p.grad for p in layer.parameters().values()), *layer.state_dict().values()]
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}


@each_layer
def test_evaluation_gives_the_same_output_and_changes_nothing(name):
    layer, x = make(name)
    before, y = layer.state_dict(), layer.forward(x, training=True)
    grad_y = np.random.default_rng(5).standard_normal(y.shape)
    np.testing.assert_array_equal(layer.forward(x, training=False), y)
    grad_x = layer.backward(grad_y)  # of the training forward, not of the evaluation after it
    assert grad_x.shape == x.shape
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    layer.forward(x, training=False)
    with pytest.raises(RuntimeError):
        layer.backward(grad_y)


@each_layer
def test_neither_pass_changes_its_argument(name):
    layer, x = make(name)
    x.flags.writeable = False
    y = layer.forward(x)
    grad_y = np.ones_like(y)
    grad_y.flags.writeable = False
    layer.backward(grad_y)


@each_layer
def test_a_second_backward_is_refused(name):
    layer, x = make(name)
    grad_y = np.ones_like(layer.forward(x))
    layer.backward(grad_y)
    with pytest.raises(RuntimeError, match="Each backward uses up one training forward"):
        layer.backward(grad_y)


@each_layer
def test_a_gradient_of_another_shape_is_refused(name):
    layer, x = make(name)
    y = layer.forward(x)
    with pytest.raises(ValueError, match="needs a gradient of its output's shape"):
        layer.backward(np.ones((1, *y.shape)))


@each_layer
def test_nothing_is_kept_after_backward(name):
    layer, x = make(name)
    layer.backward(np.ones_like(layer.forward(x)))
    assert all(part._saved is None for part in getattr(layer, "layers", [layer]))


@each_layer
def test_backward_assigns_and_does_not_add(name):
    layer, x = make(name)
    first = []
    for _ in range(2):
        layer.backward(np.ones_like(layer.forward(x)))
        gradients = [parameter.grad.copy() for parameter in layer.parameters().values()]
        first = first or gradients
    for one, other in zip(first, gradients, strict=True):
        np.testing.assert_array_equal(one, other)


@each_layer
def test_the_state_makes_the_round_trip(name):
    layer, x = make(name)
    other, _ = make(name)
    for parameter in other.parameters().values():
        parameter.value += 1
    other.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(other.forward(x), layer.forward(x))


@each_layer
def test_the_state_is_a_copy(name):
    layer, _ = make(name)
    before = layer.state_dict()
    for parameter in layer.parameters().values():
        parameter.value += 1
    for key, value in layer.state_dict().items():
        assert not np.array_equal(before[key], value)


def test_a_state_that_does_not_fit_is_refused_whole():
    layer, _ = make("Dense")
    before = layer.state_dict()
    with pytest.raises(ValueError) as error:
        layer.load_state_dict({"weight": np.zeros((2, 2)), "scale": np.zeros(3)})
    assert str(error.value) == (
        "The state does not fit this Dense: missing: bias; unexpected: scale; "
        "weight has shape (2, 2), not (7, 4)."
    )
    np.testing.assert_array_equal(layer.state_dict()["weight"], before["weight"])


def test_relu_has_slope_zero_at_zero_and_below():
    layer = ReLU()
    np.testing.assert_array_equal(layer.forward(np.array([[-2.0, -0.0, 0.0, 3.0]])), [[0, 0, 0, 3]])
    np.testing.assert_array_equal(layer.backward(np.ones((1, 4))), [[0, 0, 0, 1]])


def test_softmax_equals_its_definition_and_survives_large_logits():
    y = Softmax().forward(np.array([[1.0, 2.0, 3.0], [1e4, 0.0, -1e4]]))
    exponentials = np.exp([1.0, 2.0, 3.0])
    np.testing.assert_allclose(y[0], exponentials / exponentials.sum(), rtol=1e-14)
    np.testing.assert_array_equal(y[1], [1, 0, 0])


def test_dense_equals_its_definition(rng):
    layer = Dense(3, 2, rng=rng, dtype=np.float64)
    layer.bias.value[:] = [10, 20]
    x = rng.standard_normal((4, 3))
    for n, o in np.ndindex(4, 2):
        expected = layer.bias.value[o] + sum(x[n, i] * layer.weight.value[i, o] for i in range(3))
        assert layer.forward(x)[n, o] == pytest.approx(expected, rel=1e-13)


def test_dense_says_that_images_must_be_flattened(rng):
    with pytest.raises(ValueError) as error:
        Dense(8, 10, rng=rng).output_shape((13, 13, 8))
    assert str(error.value) == (
        "Dense(8, 10, bias=True) needs vectors of shape (8,); received (13, 13, 8). "
        "Images are made vectors by Flatten."
    )
