from itertools import product

import numpy as np
import pytest
from reference import convolution

from cnn import Conv2D, MaxPool2D, Sequential
from cnn.gradient_check import numeric_gradient, relative_error
from cnn.ops import winograd
from cnn.ops.winograd import (
    POINTS,
    best_tile,
    minimal_filter,
    transform_input,
    transform_input_adjoint,
    transform_kernel,
    transform_kernel_adjoint,
    transform_output,
    transform_output_adjoint,
    winograd_backward,
    winograd_forward,
)

each_tile = pytest.mark.parametrize("m", sorted(POINTS))
SHAPES = [  # n, h, w, in_channels, out_channels; h and w with padding
    (2, 6, 6, 3, 2),
    (1, 10, 14, 2, 3),  # whole tiles, one image
    (2, 9, 8, 1, 4),  # tiles reach beyond the image, one channel
    (3, 3, 12, 4, 1),  # one row of outputs, one kernel
    (1, 3, 3, 1, 1),
    (2, 7, 5, 2, 2),
]
each_shape = pytest.mark.parametrize("shape", SHAPES)


def inner(u, v):
    return float((u * v).sum())


def assert_close(arrays, expected):
    for array, e in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(array, e, rtol=0, atol=1e-11 * np.abs(e).max())


def draw(rng, shape, dtype=np.float64):
    """Padded images, kernels and gradients of the outputs."""
    n, h, w, c, o = shape
    shapes = (n, h, w, c), (3, 3, c, o), (n, h - 2, w - 2, o)
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def forward(padded, kernel, m, **options):
    return winograd_forward(padded, transform_kernel(kernel, m), **options)


def gradients(padded, kernel, grad_y, m, **options):
    u = transform_kernel(kernel, m)
    return winograd_backward(grad_y, winograd_forward(padded, u)[1], u, **options)


@each_tile
def test_the_matrices_filter_exactly(m):
    a, b, g = minimal_filter(m)
    assert (len(a), len(b), len(g)) == (m + 2,) * 3
    for i, j, pixel in product(range(m), range(3), range(m + 2)):
        total = sum(a[k][i] * b[pixel][k] * g[k][j] for k in range(m + 2))
        assert total == (pixel == i + j)  # fractions: no rounding


@each_tile
@each_shape
def test_forward_equals_the_definition(rng, shape, m):
    padded, kernel, _ = draw(rng, shape)
    y, _ = forward(padded, kernel, m)
    assert_close([y], [convolution(padded, kernel, np.zeros(shape[4]))])


def test_a_known_image_gives_known_outputs():
    padded = np.arange(16.0).reshape(1, 4, 4, 1)
    kernel = np.zeros((3, 3, 1, 1))
    kernel[0, 2], kernel[1, 0] = 1, 10  # the pixel two to the right, and ten times the one below: no flip
    for m in POINTS:
        y, _ = forward(padded, kernel, m)
        np.testing.assert_allclose(y[0, :, :, 0], [[2 + 40, 3 + 50], [6 + 80, 7 + 90]], rtol=1e-11)


@each_tile
@each_shape
def test_gradients_match_finite_differences(rng, shape, m):
    padded, kernel, v = draw(rng, shape)
    grad_kernel, grad_padded = gradients(padded, kernel, v, m)

    def loss():
        return inner(forward(padded, kernel, m)[0], v)

    assert relative_error(grad_kernel, numeric_gradient(loss, kernel)) < 1e-7
    assert relative_error(grad_padded, numeric_gradient(loss, padded)) < 1e-7


@each_tile
@each_shape
def test_gradients_are_the_adjoints_of_the_definition(rng, shape, m):
    padded, kernel, v = draw(rng, shape)
    other, _, _ = draw(rng, shape)
    grad_kernel, grad_padded = gradients(padded, kernel, v, m)
    zeros = np.zeros(shape[4])
    assert inner(grad_kernel, kernel) == pytest.approx(
        inner(convolution(padded, kernel, zeros), v), rel=1e-11
    )
    assert inner(grad_padded, other) == pytest.approx(inner(convolution(other, kernel, zeros), v), rel=1e-11)


@each_tile
@pytest.mark.parametrize(
    ("rows", "columns", "n", "c", "o"), [(1, 1, 1, 1, 1), (2, 3, 2, 3, 4), (1, 2, 3, 4, 1)]
)
def test_each_transform_has_the_adjoint_it_claims(rng, m, rows, columns, n, c, o):
    padded, kernel = (
        rng.standard_normal((rows * m + 2, columns * m + 2, n, c)),
        rng.standard_normal((3, 3, c, o)),
    )
    v, u = transform_input(padded, m), transform_kernel(kernel, m)
    assert v.shape[1] == rows * columns * n
    product = rng.standard_normal((*v.shape[:2], o))
    pairs = [
        (padded, v, lambda grad: transform_input_adjoint(grad, rows, columns)),
        (kernel, u, transform_kernel_adjoint),
        (
            product,
            transform_output(product, rows, columns),
            lambda grad: transform_output_adjoint(grad, m),
        ),
    ]
    for x, y, adjoint in pairs:
        grad = rng.standard_normal(y.shape)
        assert adjoint(grad).shape == x.shape
        assert inner(y, grad) == pytest.approx(inner(x, adjoint(grad)), rel=1e-10, abs=1e-10)


@each_tile
@pytest.mark.parametrize(
    ("size", "pads", "pool"),
    [
        ((9, 8), ((1, 1), (1, 1)), (1, 1)),
        ((9, 8), ((1, 1), (1, 1)), (2, 2)),  # the pool drops the last row
        ((7, 11), ((0, 2), (1, 0)), (2, 3)),
        ((4, 5), ((3, 0), (0, 1)), (5, 2)),
        ((13, 13), ((0, 0), (0, 0)), (3, 3)),
    ],
)
def test_padding_and_pooling_are_those_of_the_layers(rng, m, size, pads, pool):
    x, kernel = rng.standard_normal((3, *size, 4)), rng.standard_normal((3, 3, 4, 5))
    conv = Conv2D(4, 5, 3, padding=pads, bias=False, rng=rng, dtype=np.float64)
    conv.kernel.value[...] = kernel
    layers = Sequential([conv, *([] if pool == (1, 1) else [MaxPool2D(pool)])])
    expected = layers.forward(x, training=True)
    grad_y = rng.standard_normal(expected.shape)
    u = transform_kernel(kernel, m)
    y, saved = winograd_forward(x, u, pads, pool)
    assert_close([y, winograd_forward(x, u, pads, pool, training=False)[0]], [expected] * 2)
    assert_close(
        winograd_backward(grad_y, saved, u, pads, pool)[::-1], [layers.backward(grad_y), conv.kernel.grad]
    )


@each_tile
def test_blocks_of_images_change_nothing_but_the_last_bits(rng, m, monkeypatch):
    padded, kernel, grad_y = draw(rng, (5, 9, 8, 3, 1))
    expected = forward(padded, kernel, m)[0], *gradients(padded, kernel, grad_y, m)
    saved = forward(padded, kernel, m)[1]
    assert len(saved.v) == 1
    size = saved.v[0].nbytes // 5
    for images, blocks in [(1, 5), (2, 3), (5, 1)]:
        monkeypatch.setattr(winograd, "BLOCK_BYTES", images * size)
        y, saved = forward(padded, kernel, m)
        assert len(saved.v) == blocks
        assert_close((y, *gradients(padded, kernel, grad_y, m)), expected)


def test_evaluation_saves_nothing(rng):
    padded, kernel, _ = draw(rng, SHAPES[0])
    y, saved = forward(padded, kernel, 4, training=False)
    assert (saved.v, saved.winners) == ([], [])
    np.testing.assert_array_equal(y, forward(padded, kernel, 4)[0])


@each_tile
def test_the_gradient_of_the_images_is_left_out_where_nobody_needs_it(rng, m):
    padded, kernel, grad_y = draw(rng, SHAPES[0])
    grad_kernel, grad_padded = gradients(padded, kernel, grad_y, m, need_grad_x=False)
    assert grad_padded is None
    np.testing.assert_array_equal(grad_kernel, gradients(padded, kernel, grad_y, m)[0])


@pytest.mark.parametrize(("m", "bound"), [(2, 2e-6), (3, 6e-6), (4, 6e-6), (5, 2e-5), (6, 4e-5), (7, 2e-4)])
@pytest.mark.parametrize("mean", [0, 5])
@pytest.mark.parametrize(
    "shape", [(4, 18, 18, 64, 64), (8, 10, 10, 128, 64), (2, 13, 13, 32, 64), (3, 8, 9, 3, 5)]
)
def test_float32_errors_are_small(rng, shape, mean, m, bound):
    """The bounds are twice those of the docstring."""
    arrays = draw(rng, shape, np.float32)
    arrays[0] += mean
    results = []
    for dtype in (np.float32, np.float64):
        padded, kernel, grad_y = (array.astype(dtype) for array in arrays)
        y, saved = forward(padded, kernel, m)
        results.append((y, *gradients(padded, kernel, grad_y, m)))
        assert all(array.dtype == dtype for array in (*results[-1], *saved.v))
    for single, double in zip(*results, strict=True):
        assert np.abs(single - double).max() < bound * np.abs(double).max()


def test_arguments_stay_as_they_are(rng):
    padded, kernel, grad_y = draw(rng, SHAPES[2])
    copies = [array.copy() for array in (padded, kernel, grad_y)]
    gradients(padded, kernel, grad_y, 4)
    for array, copy in zip((padded, kernel, grad_y), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@each_tile
def test_arrays_may_be_views(rng, m):
    arrays = draw(rng, SHAPES[1])
    views = [np.asfortranarray(array) for array in arrays]
    for function in (
        lambda padded, kernel, _: forward(padded, kernel, m)[:1],
        lambda *three: gradients(*three, m),
    ):
        assert_close(function(*views), function(*arrays))


@pytest.mark.parametrize(
    ("out_h", "out_w", "in_channels", "out_channels", "n", "m"),
    [
        (32, 32, 64, 64, 8, 4),
        (16, 16, 128, 128, 8, 4),
        (8, 8, 256, 256, 8, 4),
        (4, 4, 256, 256, 8, 0),  # 8 tiles for 65,536 kernels
        (11, 11, 32, 64, 16, 6),
        (10, 10, 32, 64, 32, 5),  # tiles of 4 would compute 12 x 12
        (6, 6, 64, 64, 32, 6),
        (7, 7, 256, 256, 64, 7),
        (7, 7, 256, 256, 16, 4),
        (3, 3, 64, 64, 64, 3),
        (2, 2, 64, 128, 128, 2),
        (28, 28, 1, 32, 64, 0),
        (32, 32, 3, 64, 64, 0),
        (1, 1, 64, 64, 64, 0),
        (32, 32, winograd.MIN_IN_CHANNELS, winograd.MIN_OUT_CHANNELS, 64, 4),
        (32, 32, winograd.MIN_IN_CHANNELS - 1, 512, 64, 0),
        (32, 32, 512, winograd.MIN_OUT_CHANNELS - 1, 64, 0),
    ],
)
def test_the_best_tile_follows_the_products_saved(out_h, out_w, in_channels, out_channels, n, m):
    assert best_tile(out_h, out_w, in_channels, out_channels, n) == m
