import numpy as np
import pytest
from conftest import spread
from reference import ZERO, avg_pooling, max_pooling, max_pooling_gradient

from cnn import AvgPool2D, GlobalAvgPool2D, GlobalMaxPool2D, MaxPool2D, gradient_check
from cnn.ops import pooling
from cnn.ops.blocks import BLOCK
from cnn.ops.pooling import avg_pool_adjoint, max_pool, max_pool_adjoint, max_pool_with_winner
from cnn.ops.windows import Window

GEOMETRIES = [
    # (height, width), kernel, stride, padding on four sides, dilation, ceil_mode
    ((4, 6), (2, 2), (2, 2), ZERO, (1, 1), False),
    ((5, 7), (2, 2), (2, 2), ZERO, (1, 1), False),  # a row and a column are left over
    ((5, 7), (2, 2), (2, 2), ZERO, (1, 1), True),  # they get their own windows
    ((6, 6), (3, 3), (2, 2), ZERO, (1, 1), False),  # windows overlap
    ((7, 5), (2, 3), (1, 2), ZERO, (1, 1), False),
    ((8, 8), (2, 2), (3, 3), ZERO, (1, 1), False),  # pixels between windows belong to none
    ((3, 3), (3, 3), (1, 1), ZERO, (1, 1), False),
    ((5, 4), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), False),
    ((5, 6), (2, 3), (2, 2), ((1, 0), (0, 2)), (1, 1), False),
    ((6, 7), (2, 2), (1, 2), ZERO, (3, 2), False),
    ((6, 6), (2, 3), (2, 1), ((1, 1), (2, 2)), (2, 2), True),
    ((6, 5), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), True),  # a window reaches beyond the padding
    ((5, 5), (2, 2), (3, 3), ((1, 1), (1, 1)), (1, 1), True),  # no window starts in the padding at the end
    ((4, 4), (1, 1), (3, 2), ZERO, (1, 1), True),
]
each_geometry = pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "pads", "dilation", "ceil_mode"), GEOMETRIES
)
both_layers = pytest.mark.parametrize("layer_type", [MaxPool2D, AvgPool2D])


@each_geometry
def test_max_pooling_equals_the_definition(rng, size, kernel_size, stride, pads, dilation, ceil_mode):
    x = rng.standard_normal((2, *size, 3)) - 5  # all negative: zero padding would win
    layer = MaxPool2D(kernel_size, stride=stride, padding=pads, dilation=dilation, ceil_mode=ceil_mode)
    expected = max_pooling(x, kernel_size, stride, pads, dilation, ceil_mode)
    assert layer.output_shape(x.shape[1:]) == expected.shape[1:]
    np.testing.assert_array_equal(layer.forward(x), expected)


@pytest.mark.parametrize("count_include_pad", [True, False])
@each_geometry
def test_average_pooling_equals_the_definition(
    rng, size, kernel_size, stride, pads, dilation, ceil_mode, count_include_pad
):
    x = rng.standard_normal((2, *size, 3))
    options = {"padding": pads, "dilation": dilation, "ceil_mode": ceil_mode}
    layer = AvgPool2D(kernel_size, stride=stride, **options, count_include_pad=count_include_pad)
    expected = avg_pooling(x, kernel_size, stride, pads, dilation, ceil_mode, count_include_pad)
    assert layer.output_shape(x.shape[1:]) == expected.shape[1:]
    np.testing.assert_allclose(layer.forward(x), expected, rtol=0, atol=1e-14)


@each_geometry
@pytest.mark.parametrize(
    ("layer_type", "options"),
    [(MaxPool2D, {}), (AvgPool2D, {}), (AvgPool2D, {"count_include_pad": False})],
)
def test_gradients_match_finite_differences(
    rng, size, kernel_size, stride, pads, dilation, ceil_mode, layer_type, options
):
    options = options | {"padding": pads, "dilation": dilation, "ceil_mode": ceil_mode}
    layer = layer_type(kernel_size, stride=stride, **options)
    errors = gradient_check(layer, spread(rng, (2, *size, 2)), rng=rng)
    assert errors["x"] < 1e-7


@each_geometry
def test_in_a_tie_the_first_maximum_gets_the_whole_gradient(
    rng, size, kernel_size, stride, pads, dilation, ceil_mode
):
    x = rng.integers(0, 2, (2, *size, 3)).astype(np.float64)  # full of ties
    layer = MaxPool2D(kernel_size, stride=stride, padding=pads, dilation=dilation, ceil_mode=ceil_mode)
    grad_y = rng.standard_normal(layer.forward(x, training=True).shape)
    expected = max_pooling_gradient(x, grad_y, kernel_size, stride, pads, dilation, ceil_mode)
    np.testing.assert_allclose(layer.backward(grad_y), expected, rtol=0, atol=1e-14)


@both_layers
def test_the_stride_is_the_kernel_size_unless_given(layer_type):
    assert layer_type((2, 3)).output_shape((6, 6, 1)) == (3, 2, 1)
    assert layer_type((2, 3), stride=1).output_shape((6, 6, 1)) == (5, 4, 1)


@both_layers
def test_padding_the_same_gives_the_size_divided_by_the_stride_rounded_up(layer_type):
    layer = layer_type(3, stride=2, padding="same")
    assert [layer.output_shape((size, size, 1))[0] for size in (1, 2, 3, 4, 5, 6)] == [1, 1, 2, 2, 3, 3]


@both_layers
def test_ceil_mode_adds_a_window_only_for_pixels_left_over(layer_type):
    sizes = [
        (
            layer_type(2, ceil_mode=mode).output_shape((4, 5, 1)),
            layer_type(3, ceil_mode=mode).output_shape((7, 8, 1)),
        )
        for mode in (False, True)
    ]
    assert sizes == [((2, 2, 1), (2, 2, 1)), ((2, 3, 1), (3, 3, 1))]


def test_what_only_ceil_mode_adds_never_counts_in_the_mean():
    x = np.full((1, 3, 3, 1), 6.0)
    for include in (True, False):
        layer = AvgPool2D(2, ceil_mode=True, count_include_pad=include)
        np.testing.assert_array_equal(layer.forward(x)[0, :, :, 0], [[6, 6], [6, 6]])


def test_padding_counts_in_the_mean_unless_told_otherwise():
    x = np.full((1, 2, 2, 1), 8.0)
    with_padding = AvgPool2D(2, padding=1).forward(x)[0, :, :, 0]
    without = AvgPool2D(2, padding=1, count_include_pad=False).forward(x)[0, :, :, 0]
    np.testing.assert_array_equal(with_padding, [[2, 2], [2, 2]])
    np.testing.assert_array_equal(without, [[8, 8], [8, 8]])


def test_a_window_of_one_pixel_gives_back_its_input(rng):
    x = rng.standard_normal((2, 3, 3, 2))
    np.testing.assert_array_equal(MaxPool2D(1).forward(x), x)
    np.testing.assert_array_equal(AvgPool2D(1).forward(x), x)


@pytest.mark.parametrize("place", range(4))
def test_a_nan_is_not_hidden_by_the_maximum(place):
    x = np.zeros((1, 2, 2, 1), np.float32)
    x.flat[place] = np.nan
    assert np.isnan(MaxPool2D(2).forward(x)).all()
    assert np.isnan(GlobalMaxPool2D().forward(x)).all()


@pytest.mark.parametrize("size", [(8, 16), (3, 43), (16, 16), (1, 257)])  # 128 and 256: the limits of 8 bits
def test_a_window_of_many_pixels_remembers_its_winner(size):
    x = np.zeros((1, *size, 1))
    x[0, -1, -1, 0] = 1
    layer = MaxPool2D(size)
    layer.forward(x, training=True)
    np.testing.assert_array_equal(layer.backward(np.ones((1, 1, 1, 1))), x)


@pytest.mark.parametrize("layer_type", [GlobalAvgPool2D, GlobalMaxPool2D])
def test_global_pooling_is_pooling_with_a_window_as_large_as_the_image(rng, layer_type):
    x, grad_y = rng.standard_normal((2, 4, 5, 3)), rng.standard_normal((2, 3))
    window = {GlobalAvgPool2D: AvgPool2D, GlobalMaxPool2D: MaxPool2D}[layer_type]((4, 5))
    layer = layer_type()
    np.testing.assert_allclose(
        layer.forward(x, training=True), window.forward(x, training=True)[:, 0, 0], rtol=1e-14
    )
    np.testing.assert_allclose(layer.backward(grad_y), window.backward(grad_y[:, None, None]), rtol=1e-14)


def test_a_tie_over_the_whole_image_goes_to_the_first_pixel():
    x = np.zeros((1, 2, 3, 2))
    x[0, 0, 2, 0] = x[0, 1, 0, 0] = 1  # channel 0: the third pixel comes before the fourth
    layer = GlobalMaxPool2D()
    layer.forward(x, training=True)
    grad_x = layer.backward(np.array([[5.0, 7.0]]))
    np.testing.assert_array_equal(grad_x[0, :, :, 0], [[0, 0, 5], [0, 0, 0]])
    np.testing.assert_array_equal(grad_x[0, :, :, 1], [[7, 0, 0], [0, 0, 0]])


@both_layers
@pytest.mark.parametrize(
    ("arguments", "shape", "parts"),
    [
        (
            {"kernel_size": 3},
            (2, 5, 1),
            ["3x3 kernel", "padding 0", "2x5 pixels", "Use a smaller kernel, more padding"],
        ),
        (
            {"kernel_size": 2, "dilation": 5, "padding": (0, 1), "ceil_mode": True},
            (9, 3, 1),
            [
                "2x2 kernel",
                "padding ((0, 0), (1, 1))",
                "dilation (5, 5)",
                "9x3 pixels",
                "Use a smaller kernel",
            ],
        ),
        (
            {"kernel_size": 2, "padding": 2},
            (4, 4, 1),
            ["padding 2", "LAYER(2, padding=2)", "in the padding of 4x4 pixels", "Use less padding."],
        ),
        (
            {"kernel_size": 2, "stride": 1, "padding": ((0, 0), (1, 1)), "dilation": (1, 3)},
            (2, 2, 1),
            [
                "padding ((0, 0), (1, 1))",
                "LAYER(2, stride=1, padding=((0, 0), (1, 1)), dilation=(1, 3))",
                "in the padding of 2x2 pixels",
                "Use less padding.",
            ],
        ),
        (
            {"kernel_size": 2},
            (4, 4),
            ["LAYER(2) needs images of shape (height, width, channels); received (4, 4)."],
        ),
        (
            {"kernel_size": 1, "ceil_mode": True},
            (4, 0, 1),
            ["LAYER(1, ceil_mode=True) needs images of shape", "received (4, 0, 1)."],
        ),
    ],
)
def test_a_geometry_without_meaning_is_refused(layer_type, arguments, shape, parts):
    with pytest.raises(ValueError) as error:
        layer_type(**arguments).forward(np.zeros((1, *shape)))
    for part in parts:
        assert part.replace("LAYER", layer_type.__name__) in str(error.value)


PAIR = "must be a whole number >= 1 or a pair (height, width) of them; received"


@both_layers
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, f"kernel_size {PAIR} 0."),
        ({"stride": (2, 0)}, f"stride {PAIR} (2, 0)."),
        ({"dilation": 0}, f"dilation {PAIR} 0."),
        (
            {"padding": "full"},
            'padding must be "same", "valid", a whole number >= 0, a pair (height, width) '
            "or four sides ((top, bottom), (left, right)); received 'full'.",
        ),
        ({"ceil_mode": 1}, "ceil_mode must be True or False; received 1."),
    ],
)
def test_arguments_without_meaning_are_refused(layer_type, arguments, message):
    with pytest.raises(ValueError) as error:
        layer_type(**{"kernel_size": 2} | arguments)
    assert str(error.value) == message


def test_count_include_pad_is_a_flag():
    with pytest.raises(ValueError) as error:
        AvgPool2D(2, count_include_pad="yes")
    assert str(error.value) == "count_include_pad must be True or False; received 'yes'."


@pytest.mark.parametrize("layer_type", [GlobalAvgPool2D, GlobalMaxPool2D])
@pytest.mark.parametrize("shape", [(3,), (4, 4), (2, 2, 2, 2), (0, 4, 1)])
def test_global_pooling_takes_images_only(layer_type, shape):
    with pytest.raises(ValueError) as error:
        layer_type().forward(np.zeros((2, *shape)))
    assert str(error.value) == (
        f"{layer_type.__name__}() needs images of shape (height, width, channels); received {shape}."
    )


@pytest.mark.parametrize("window", [Window.of(2, 2), Window.of(3, 2, 1), Window.of(2, 3, ceil_mode=True)])
def test_pooling_in_blocks_is_pooling_image_by_image(rng, window):
    shape = (2 * BLOCK // (13 * 15 * 16 * 4) + 1, 13, 15, 16)  # more than two blocks, the last one shorter
    x = rng.integers(0, 3, shape).astype(np.float32)  # with ties
    y, winner = max_pool_with_winner(x, window)
    grad_y = rng.standard_normal(y.shape).astype(np.float32)
    grad_x = max_pool_adjoint(grad_y, winner, shape, window)
    np.testing.assert_array_equal(max_pool(x, window), y)
    for n in (0, len(x) // 2, len(x) - 1):
        one = slice(n, n + 1)
        for found, expected in zip(max_pool_with_winner(x[one], window), (y, winner), strict=True):
            np.testing.assert_array_equal(found, expected[one])
        back = max_pool_adjoint(grad_y[one], winner[one], (1, *shape[1:]), window)
        np.testing.assert_array_equal(back, grad_x[one])


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
@pytest.mark.parametrize("adjoint", ["max", "average"])
def test_windows_that_tile_the_image_write_every_pixel_and_the_others_are_zero(monkeypatch, size, adjoint):
    window, shape = Window.of(2, 2), (1, *size, 1)
    monkeypatch.setattr(pooling, "empty", lambda shape, like: np.full(shape, np.nan, like.dtype))
    grad_y = np.ones((1, 2, 3, 1))
    if adjoint == "max":
        grad_x = max_pool_adjoint(grad_y, np.full(grad_y.shape, 3, np.int8), shape, window)
        expected = np.tile([[0, 0], [0, 1.0]], (2, 3))
    else:
        grad_x, expected = avg_pool_adjoint(grad_y, shape, window), np.full((4, 6), 0.25)
    np.testing.assert_array_equal(grad_x[0, :4, :6, 0], expected)
    assert grad_x.sum() == expected.sum()
