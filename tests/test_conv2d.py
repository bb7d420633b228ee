import numpy as np
import pytest
from reference import convolution

from cnn import Conv2D, gradient_check

GEOMETRIES = [
    # (height, width), in, out, kernel, stride, padding, and that padding on four sides
    ((5, 6), 1, 1, 3, 1, 0, ((0, 0), (0, 0))),
    ((6, 5), 2, 3, (2, 3), 1, "valid", ((0, 0), (0, 0))),
    ((7, 8), 3, 2, 3, 2, 1, ((1, 1), (1, 1))),
    ((7, 5), 2, 2, (3, 2), (2, 1), (2, 1), ((2, 2), (1, 1))),
    ((5, 5), 2, 2, 2, 2, ((0, 1), (2, 0)), ((0, 1), (2, 0))),
    ((6, 7), 1, 2, 3, 1, "same", ((1, 1), (1, 1))),
    ((6, 7), 1, 2, 2, 1, "same", ((0, 1), (0, 1))),
    ((7, 7), 2, 1, 3, 2, "same", ((1, 1), (1, 1))),
    ((8, 8), 2, 1, 3, 2, "same", ((0, 1), (0, 1))),
    ((3, 3), 1, 4, 3, 1, 0, ((0, 0), (0, 0))),
    ((4, 4), 2, 3, 1, 3, 0, ((0, 0), (0, 0))),
]


@pytest.mark.parametrize(
    ("size", "inputs", "outputs", "kernel_size", "stride", "padding", "pads"), GEOMETRIES
)
def test_forward_equals_the_definition(rng, size, inputs, outputs, kernel_size, stride, padding, pads):
    layer = Conv2D(inputs, outputs, kernel_size, stride=stride, padding=padding, rng=rng, dtype=np.float64)
    layer.bias.value[:] = rng.standard_normal(outputs)
    x = rng.standard_normal((2, *size, inputs))
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    expected = convolution(x, layer.kernel.value, layer.bias.value, strides, pads)
    assert layer.output_shape(x.shape[1:]) == expected.shape[1:]
    np.testing.assert_allclose(layer.forward(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "inputs", "outputs", "kernel_size", "stride", "padding", "pads"), GEOMETRIES
)
def test_gradients_match_finite_differences(rng, size, inputs, outputs, kernel_size, stride, padding, pads):
    layer = Conv2D(inputs, outputs, kernel_size, stride=stride, padding=padding, rng=rng, dtype=np.float64)
    errors = gradient_check(layer, rng.standard_normal((2, *size, inputs)), rng=rng)
    assert set(errors) == {"x", "kernel", "bias"}
    assert max(errors.values()) < 1e-7, errors


def test_the_kernel_is_not_flipped():
    layer = Conv2D(1, 1, 2, bias=False, rng=np.random.default_rng(0))
    layer.kernel.value[..., 0, 0] = [[1, 2], [3, 4]]
    x = np.array([[1, 10], [100, 1000]], np.float32).reshape(1, 2, 2, 1)
    assert layer.forward(x).item() == 1 + 20 + 300 + 4000


def test_without_bias_there_is_none(rng):
    layer = Conv2D(2, 3, 3, bias=False, rng=rng, dtype=np.float64)
    assert list(layer.parameters()) == ["kernel"]
    assert max(gradient_check(layer, rng.standard_normal((1, 4, 4, 2)), rng=rng).values()) < 1e-7
    assert not layer.forward(np.zeros((1, 4, 4, 2))).any()


def test_the_kernel_starts_glorot_uniform():
    kernel = Conv2D(16, 64, 5, rng=np.random.default_rng(0)).kernel.value
    limit = (6 / (5 * 5 * 16 + 5 * 5 * 64)) ** 0.5
    assert limit * 0.999 < kernel.max() <= limit
    assert -limit <= kernel.min() < -limit * 0.999
    assert kernel.std() == pytest.approx(limit / 3**0.5, rel=0.02)


def test_a_kernel_that_does_not_fit_is_refused(rng):
    with pytest.raises(ValueError) as error:
        Conv2D(1, 1, 9, rng=rng).output_shape((8, 8, 1))
    assert str(error.value) == (
        "A 9x9 kernel with padding 0 does not fit an input of 8x8 pixels. "
        "Use a smaller kernel, more padding or one pooling layer fewer."
    )


def test_a_wrong_number_of_channels_is_refused(rng):
    layer = Conv2D(3, 1, 3, rng=rng)
    with pytest.raises(ValueError) as error:
        layer.forward(np.zeros((2, 8, 8, 1), np.float32))
    assert str(error.value) == (
        "Conv2D(3, 1, (3, 3), stride=(1, 1), padding=0, bias=True) "
        "needs images of shape (height, width, 3); received (8, 8, 1)."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be a whole number >= 1; received 0."),
        ({"out_channels": 1.5}, "out_channels must be a whole number >= 1; received 1.5."),
        (
            {"kernel_size": (3, 0)},
            "kernel_size must be a whole number >= 1 or a pair (height, width) of them; received (3, 0).",
        ),
        (
            {"stride": True},
            "stride must be a whole number >= 1 or a pair (height, width) of them; received True.",
        ),
        (
            {"padding": -1},
            'padding must be "same", "valid", a whole number >= 0, a pair (height, width) '
            "or four sides ((top, bottom), (left, right)); received -1.",
        ),
        (
            {"padding": "full"},
            'padding must be "same", "valid", a whole number >= 0, a pair (height, width) '
            "or four sides ((top, bottom), (left, right)); received 'full'.",
        ),
        ({"bias": "no"}, "bias must be True or False; received 'no'."),
    ],
)
def test_arguments_without_meaning_are_refused(rng, arguments, message):
    with pytest.raises(ValueError) as error:
        Conv2D(**{"in_channels": 1, "out_channels": 1, "kernel_size": 3, "rng": rng} | arguments)
    assert str(error.value) == message
