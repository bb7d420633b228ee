import numpy as np
import pytest
from conftest import spread
from reference import max_pooling_gradient, pooling

from cnn import AvgPool2D, MaxPool2D, gradient_check

GEOMETRIES = [
    # (height, width), kernel, stride
    ((4, 6), (2, 2), (2, 2)),
    ((5, 7), (2, 2), (2, 2)),  # a row and a column are left over
    ((6, 6), (3, 3), (2, 2)),  # windows overlap
    ((7, 5), (2, 3), (1, 2)),
    ((8, 8), (2, 2), (3, 3)),  # pixels between windows belong to none
    ((3, 3), (3, 3), (1, 1)),
]


@pytest.mark.parametrize(("size", "kernel_size", "stride"), GEOMETRIES)
@pytest.mark.parametrize(("layer_type", "reduce"), [(MaxPool2D, max), (AvgPool2D, lambda v: sum(v) / len(v))])
def test_forward_equals_the_definition(rng, size, kernel_size, stride, layer_type, reduce):
    x = rng.standard_normal((2, *size, 3))
    layer = layer_type(kernel_size, stride=stride)
    expected = pooling(x, kernel_size, stride, reduce)
    assert layer.output_shape(x.shape[1:]) == expected.shape[1:]
    np.testing.assert_allclose(layer.forward(x), expected, rtol=1e-14)


@pytest.mark.parametrize(("size", "kernel_size", "stride"), GEOMETRIES)
@pytest.mark.parametrize("layer_type", [MaxPool2D, AvgPool2D])
def test_gradients_match_finite_differences(rng, size, kernel_size, stride, layer_type):
    errors = gradient_check(layer_type(kernel_size, stride=stride), spread(rng, (2, *size, 3)), rng=rng)
    assert errors["x"] < 1e-7


@pytest.mark.parametrize(("size", "kernel_size", "stride"), GEOMETRIES)
def test_in_a_tie_the_first_maximum_gets_the_whole_gradient(rng, size, kernel_size, stride):
    x = rng.integers(0, 2, (2, *size, 3)).astype(np.float64)  # full of ties
    layer = MaxPool2D(kernel_size, stride=stride)
    grad_y = rng.standard_normal(layer.forward(x).shape)
    np.testing.assert_allclose(layer.backward(grad_y), max_pooling_gradient(x, grad_y, kernel_size, stride))


def test_the_stride_is_the_kernel_size_unless_given():
    assert MaxPool2D((2, 3)).output_shape((6, 6, 1)) == (3, 2, 1)
    assert AvgPool2D((2, 3)).output_shape((6, 6, 1)) == (3, 2, 1)


def test_a_window_of_one_pixel_gives_back_its_input(rng):
    x = rng.standard_normal((2, 3, 3, 2))
    np.testing.assert_array_equal(MaxPool2D(1).forward(x), x)
    np.testing.assert_array_equal(AvgPool2D(1).forward(x), x)


@pytest.mark.parametrize("place", range(4))
def test_a_nan_is_not_hidden_by_the_maximum(place):
    x = np.zeros((1, 2, 2, 1), np.float32)
    x.flat[place] = np.nan
    assert np.isnan(MaxPool2D(2).forward(x)).all()


def test_a_window_of_more_than_127_pixels_remembers_its_winner():
    x = np.zeros((1, 20, 20, 1))
    x[0, 19, 19, 0] = 1
    layer = MaxPool2D(20)
    layer.forward(x)
    np.testing.assert_array_equal(layer.backward(np.ones((1, 1, 1, 1))), x)


@pytest.mark.parametrize("layer_type", [MaxPool2D, AvgPool2D])
def test_a_window_that_does_not_fit_is_refused(layer_type):
    with pytest.raises(ValueError, match="A 3x3 kernel with padding 0 does not fit an input of 2x5 pixels"):
        layer_type(3).forward(np.zeros((1, 2, 5, 1)))
