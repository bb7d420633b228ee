from math import sqrt

import numpy as np
import pytest
from reference import convolution

from cnn import Conv2D, gradient_check
from cnn.initializers import he_normal

ONE = (1, 1)
GEOMETRIES = [
    # (height, width), in, out, kernel, stride, padding, that padding on four sides, dilation, groups
    ((5, 6), 1, 1, 3, 1, 0, ((0, 0), (0, 0)), 1, 1),
    ((6, 5), 2, 3, (2, 3), 1, "valid", ((0, 0), (0, 0)), 1, 1),
    ((7, 8), 3, 2, 3, 2, 1, ((1, 1), (1, 1)), 1, 1),
    ((7, 5), 2, 2, (3, 2), (2, 1), (2, 1), ((2, 2), (1, 1)), 1, 1),
    ((5, 5), 2, 2, 2, 2, ((0, 1), (2, 0)), ((0, 1), (2, 0)), 1, 1),
    ((6, 7), 1, 2, 3, 1, "same", ((1, 1), (1, 1)), 1, 1),
    ((6, 7), 1, 2, 2, 1, "same", ((0, 1), (0, 1)), 1, 1),
    ((7, 7), 2, 1, 3, 2, "same", ((1, 1), (1, 1)), 1, 1),
    ((8, 8), 2, 1, 3, 2, "same", ((0, 1), (0, 1)), 1, 1),
    ((3, 3), 1, 4, 3, 1, 0, ((0, 0), (0, 0)), 1, 1),
    ((4, 4), 2, 3, 1, 3, 0, ((0, 0), (0, 0)), 1, 1),
    ((7, 6), 2, 2, 3, 1, 0, ((0, 0), (0, 0)), 2, 1),
    ((5, 9), 1, 2, (2, 3), (1, 2), (0, 1), ((0, 0), (1, 1)), (3, 2), 1),
    ((6, 5), 1, 1, 3, 2, "same", ((1, 2), (2, 2)), 2, 1),
    ((5, 5), 4, 6, 3, 1, 1, ((1, 1), (1, 1)), 1, 2),
    ((4, 5), 3, 3, 2, 1, 0, ((0, 0), (0, 0)), 1, 3),  # depthwise
    ((4, 4), 2, 6, (2, 1), 2, "same", ((0, 0), (0, 0)), 1, 2),  # depthwise, three kernels for each channel
    ((7, 5), 4, 2, (3, 2), (2, 1), ((1, 0), (0, 2)), ((1, 0), (0, 2)), (2, 1), 2),
    ((2, 2), 1, 1, 1, 1, 2, ((2, 2), (2, 2)), 1, 1),  # windows that lie entirely in the padding
]
each_geometry = pytest.mark.parametrize(
    ("size", "inputs", "outputs", "kernel_size", "stride", "padding", "pads", "dilation", "groups"),
    GEOMETRIES,
)


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


@each_geometry
def test_forward_equals_the_definition(
    rng, size, inputs, outputs, kernel_size, stride, padding, pads, dilation, groups
):
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    layer = Conv2D(inputs, outputs, kernel_size, **options, rng=rng, dtype=np.float64)
    assert layer.kernel.value.shape == (*pair(kernel_size), inputs // groups, outputs)
    layer.bias.value[:] = rng.standard_normal(outputs)
    x = rng.standard_normal((2, *size, inputs))
    expected = convolution(
        x, layer.kernel.value, layer.bias.value, pair(stride), pads, pair(dilation), groups
    )
    assert layer.output_shape(x.shape[1:]) == expected.shape[1:]
    np.testing.assert_allclose(layer.forward(x), expected, rtol=0, atol=1e-12)


@each_geometry
def test_gradients_match_finite_differences(
    rng, size, inputs, outputs, kernel_size, stride, padding, pads, dilation, groups
):
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    layer = Conv2D(inputs, outputs, kernel_size, **options, rng=rng, dtype=np.float64)
    errors = gradient_check(layer, rng.standard_normal((2, *size, inputs)), rng=rng)
    assert set(errors) == {"x", "kernel", "bias"}
    assert max(errors.values()) < 1e-7, errors


def test_the_kernel_is_not_flipped():
    layer = Conv2D(1, 1, 2, bias=False, rng=np.random.default_rng(0))
    layer.kernel.value[..., 0, 0] = [[1, 2], [3, 4]]
    x = np.array([[1, 10], [100, 1000]], np.float32).reshape(1, 2, 2, 1)
    assert layer.forward(x).item() == 1 + 20 + 300 + 4000


def test_a_depthwise_convolution_is_one_convolution_for_each_channel(rng):
    layer = Conv2D(3, 3, 3, padding=1, groups=3, rng=rng, dtype=np.float64)
    x = rng.standard_normal((2, 4, 5, 3))
    y = layer.forward(x)
    for c in range(3):
        alone = Conv2D(1, 1, 3, padding=1, rng=rng, dtype=np.float64)
        alone.kernel.value[:] = layer.kernel.value[..., c : c + 1]
        np.testing.assert_allclose(y[..., c : c + 1], alone.forward(x[..., c : c + 1]), rtol=0, atol=1e-14)


def test_outputs_of_one_group_do_not_see_the_channels_of_another(rng):
    layer, x = Conv2D(4, 6, 3, groups=2, rng=rng, dtype=np.float64), rng.standard_normal((1, 5, 5, 4))
    y = layer.forward(x)
    changed = x + np.array([0, 0, 1, 1])
    difference = np.abs(layer.forward(changed) - y).max(axis=(0, 1, 2))
    np.testing.assert_array_equal(difference > 0, [False] * 3 + [True] * 3)


def test_dilation_reads_every_other_pixel():
    layer = Conv2D(1, 1, 2, dilation=2, bias=False, rng=np.random.default_rng(0))
    layer.kernel.value[:] = 1
    x = np.array([[1, 0, 20], [0, 0, 0], [300, 0, 4000]], np.float32).reshape(1, 3, 3, 1)
    assert layer.forward(x).item() == 4321


def test_without_bias_there_is_none(rng):
    layer = Conv2D(2, 3, 3, bias=False, rng=rng, dtype=np.float64)
    assert layer.bias is None
    assert list(layer.parameters()) == ["kernel"]
    assert max(gradient_check(layer, rng.standard_normal((1, 4, 4, 2)), rng=rng).values()) < 1e-7
    assert not layer.forward(np.zeros((1, 4, 4, 2))).any()


@pytest.mark.parametrize("groups", [1, 4])
def test_the_kernel_starts_fan_in_uniform_and_the_bias_at_zero(groups):
    layer = Conv2D(16, 64, 5, groups=groups, rng=np.random.default_rng(0))
    limit = 1 / sqrt(5 * 5 * 16 / groups)
    kernel = layer.kernel.value
    assert limit * 0.999 < np.abs(kernel).max() <= np.float32(limit)
    assert kernel.std() == pytest.approx(limit / sqrt(3), rel=0.02)
    assert abs(kernel.mean()) < 1e-3
    assert not layer.bias.value.any()


def test_another_initializer_can_be_chosen():
    layer = Conv2D(2, 3, 3, initializer=he_normal, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(
        layer.kernel.value, he_normal((3, 3, 2, 3), np.random.default_rng(5), np.float32)
    )


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        (
            {"kernel_size": 9},
            (8, 8, 1),
            "A 9x9 kernel with padding 0 does not fit an input of 8x8 pixels. "
            "Use a smaller kernel, more padding or one pooling layer fewer.",
        ),
        (
            {"kernel_size": (2, 9), "padding": (0, 1)},
            (8, 6, 1),
            "A 2x9 kernel with padding ((0, 0), (1, 1)) does not fit an input of 8x6 pixels. "
            "Use a smaller kernel, more padding or one pooling layer fewer.",
        ),
        (
            {"kernel_size": 3, "padding": 1, "dilation": (1, 4)},
            (6, 6, 1),
            "A 3x3 kernel with padding 1, dilation (1, 4) does not fit an input of 6x6 pixels. "
            "Use a smaller kernel, more padding or one pooling layer fewer.",
        ),
    ],
)
def test_a_kernel_that_does_not_fit_is_refused(rng, arguments, shape, message):
    with pytest.raises(ValueError) as error:
        Conv2D(1, 1, **arguments, rng=rng).output_shape(shape)
    assert str(error.value) == message


@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_a_kernel_as_large_as_the_padded_image_fits(rng, padding):
    layer = Conv2D(1, 1, 3 + 2 * padding, padding=padding, rng=rng)
    assert layer.output_shape((3, 3, 1)) == (1, 1, 1)
    with pytest.raises(ValueError, match="does not fit an input of 3x2 pixels"):
        layer.output_shape((3, 2, 1))


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8), (2, 8, 8, 3), (0, 8, 3), ()])
def test_an_input_of_another_shape_is_refused(rng, shape):
    layer = Conv2D(3, 1, 3, stride=2, rng=rng)
    with pytest.raises(ValueError) as error:
        layer.forward(np.zeros((2, *shape), np.float32))
    assert str(error.value) == (
        f"Conv2D(3, 1, 3, stride=2) needs images of shape (height, width, 3); received {shape}."
    )


PADDING = (
    'padding must be "same", "valid", a whole number >= 0, a pair (height, width) '
    "or four sides ((top, bottom), (left, right)); received "
)
PAIR = "must be a whole number >= 1 or a pair (height, width) of them; received"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be a whole number >= 1; received 0."),
        ({"in_channels": "3"}, "in_channels must be a whole number >= 1; received '3'."),
        ({"out_channels": 1.5}, "out_channels must be a whole number >= 1; received 1.5."),
        ({"out_channels": True}, "out_channels must be a whole number >= 1; received True."),
        ({"kernel_size": (3, 0)}, f"kernel_size {PAIR} (3, 0)."),
        ({"kernel_size": (3, 3, 3)}, f"kernel_size {PAIR} (3, 3, 3)."),
        ({"kernel_size": None}, f"kernel_size {PAIR} None."),
        ({"stride": True}, f"stride {PAIR} True."),
        ({"stride": 0}, f"stride {PAIR} 0."),
        ({"stride": "2"}, f"stride {PAIR} '2'."),
        ({"dilation": (1, -1)}, f"dilation {PAIR} (1, -1)."),
        ({"dilation": 1.0}, f"dilation {PAIR} 1.0."),
        ({"groups": 0}, "groups must be a whole number >= 1; received 0."),
        (
            {"groups": 2, "in_channels": 3, "out_channels": 4},
            "groups must divide in_channels and out_channels; "
            "received groups 2, in_channels 3 and out_channels 4.",
        ),
        (
            {"groups": 2, "in_channels": 4, "out_channels": 3},
            "groups must divide in_channels and out_channels; "
            "received groups 2, in_channels 4 and out_channels 3.",
        ),
        ({"padding": -1}, f"{PADDING}-1."),
        ({"padding": "full"}, f"{PADDING}'full'."),
        ({"padding": None}, f"{PADDING}None."),
        ({"padding": 0.5}, f"{PADDING}0.5."),
        ({"padding": (1, 2, 3)}, f"{PADDING}(1, 2, 3)."),
        ({"padding": ((0, 1), (0, -1))}, f"{PADDING}((0, 1), (0, -1))."),
        ({"padding": ((0, 1), (0, 1, 2))}, f"{PADDING}((0, 1), (0, 1, 2))."),
        ({"bias": "no"}, "bias must be True or False; received 'no'."),
        ({"bias": 1}, "bias must be True or False; received 1."),
    ],
)
def test_arguments_without_meaning_are_refused(rng, arguments, message):
    with pytest.raises(ValueError) as error:
        Conv2D(**{"in_channels": 1, "out_channels": 1, "kernel_size": 3, "rng": rng} | arguments)
    assert str(error.value) == message
