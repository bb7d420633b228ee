from itertools import product

import numpy as np
import pytest
from reference import convolution

from cnn.gradient_check import numeric_gradient, relative_error
from cnn.ops import winograd
from cnn.ops.winograd import (
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

each_tile = pytest.mark.parametrize("tile", [2, 4])
SHAPES = [  # n, h, w, in_channels, out_channels; h and w with padding
    (2, 6, 6, 3, 2),
    (1, 10, 14, 2, 3),  # whole tiles, one image
    (2, 9, 8, 1, 4),  # tiles of 4 and of 2 both reach beyond the image, one channel
    (3, 3, 12, 4, 1),  # one row of outputs, one kernel
    (1, 3, 3, 1, 1),
    (2, 7, 5, 2, 2),
]
each_shape = pytest.mark.parametrize("shape", SHAPES)


def inner(u, v):
    return float((u * v).sum())


def assert_close(arrays, expected):
    for array, e in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(array, e, rtol=0, atol=1e-12 * np.abs(e).max())


def draw(rng, shape, dtype=np.float64):
    """Padded images, kernels and gradients of the outputs."""
    n, h, w, c, o = shape
    shapes = (n, h, w, c), (3, 3, c, o), (n, h - 2, w - 2, o)
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


@each_tile
def test_the_matrices_filter_exactly(tile):
    a, b, g = minimal_filter(tile)
    assert (len(a), len(b), len(g)) == (tile + 2,) * 3
    for i, j, pixel in product(range(tile), range(3), range(tile + 2)):
        total = sum(a[k][i] * b[pixel][k] * g[k][j] for k in range(tile + 2))
        assert total == (pixel == i + j)  # fractions: no rounding


@each_tile
@each_shape
def test_forward_equals_the_definition(rng, shape, tile):
    padded, kernel, _ = draw(rng, shape)
    y, _ = winograd_forward(padded, kernel, tile)
    assert_close([y], [convolution(padded, kernel, np.zeros(shape[4]))])


def test_a_known_image_gives_known_outputs():
    padded = np.arange(16.0).reshape(1, 4, 4, 1)
    kernel = np.zeros((3, 3, 1, 1))
    kernel[0, 2], kernel[1, 0] = 1, 10  # the pixel two to the right, and ten times the one below: no flip
    for tile in (2, 4):
        y, _ = winograd_forward(padded, kernel, tile)
        np.testing.assert_allclose(y[0, :, :, 0], [[2 + 40, 3 + 50], [6 + 80, 7 + 90]], rtol=1e-13)


@each_tile
@each_shape
def test_gradients_match_finite_differences(rng, shape, tile):
    padded, kernel, v = draw(rng, shape)
    grad_kernel, grad_padded = winograd_backward(v, winograd_forward(padded, kernel, tile)[1], tile)

    def loss():
        return inner(winograd_forward(padded, kernel, tile)[0], v)

    assert relative_error(grad_kernel, numeric_gradient(loss, kernel)) < 1e-7
    assert relative_error(grad_padded, numeric_gradient(loss, padded)) < 1e-7


@each_tile
@each_shape
def test_gradients_are_the_adjoints_of_the_definition(rng, shape, tile):
    padded, kernel, v = draw(rng, shape)
    other, _, _ = draw(rng, shape)
    grad_kernel, grad_padded = winograd_backward(v, winograd_forward(padded, kernel, tile)[1], tile)
    zeros = np.zeros(shape[4])
    assert inner(grad_kernel, kernel) == pytest.approx(
        inner(convolution(padded, kernel, zeros), v), rel=1e-11
    )
    assert inner(grad_padded, other) == pytest.approx(inner(convolution(other, kernel, zeros), v), rel=1e-11)


@each_tile
@each_shape
def test_each_transform_has_the_adjoint_it_claims(rng, shape, tile):
    padded, kernel, grad_y = draw(rng, shape)
    v, u = transform_input(padded, tile), transform_kernel(kernel, tile)
    pairs = [
        (padded, v, lambda grad: transform_input_adjoint(grad, padded.shape, tile)),
        (kernel, u, lambda grad: transform_kernel_adjoint(grad, tile)),
    ]
    m = rng.standard_normal((*v.shape[:2], shape[4]))
    pairs.append(
        (m, transform_output(m, grad_y.shape, tile), lambda grad: transform_output_adjoint(grad, tile))
    )
    for x, y, adjoint in pairs:
        grad = rng.standard_normal(y.shape)
        assert adjoint(grad).shape == x.shape
        assert inner(y, grad) == pytest.approx(inner(x, adjoint(grad)), rel=1e-11)


@each_tile
def test_blocks_of_images_change_nothing_but_the_last_bits(rng, tile, monkeypatch):
    padded, kernel, grad_y = draw(rng, (5, 9, 8, 3, 2))
    y, saved = winograd_forward(padded, kernel, tile)
    expected = y, *winograd_backward(grad_y, saved, tile)
    assert len(saved.v) == 1
    size = saved.v[0].nbytes // 5
    for images, blocks in [(1, 5), (2, 3), (5, 1)]:
        monkeypatch.setattr(winograd, "BLOCK_BYTES", images * size)
        y, saved = winograd_forward(padded, kernel, tile)
        assert len(saved.v) == blocks
        assert_close((y, *winograd_backward(grad_y, saved, tile)), expected)


@each_tile
def test_the_gradient_of_the_images_is_left_out_where_nobody_needs_it(rng, tile):
    padded, kernel, grad_y = draw(rng, SHAPES[0])
    _, saved = winograd_forward(padded, kernel, tile)
    grad_kernel, grad_padded = winograd_backward(grad_y, saved, tile, need_grad_x=False)
    assert grad_padded is None
    np.testing.assert_array_equal(grad_kernel, winograd_backward(grad_y, saved, tile)[0])


@pytest.mark.parametrize(("tile", "bound"), [(2, 2e-6), (4, 6e-6)])  # twice the docstring's
@pytest.mark.parametrize("mean", [0, 5])
@pytest.mark.parametrize(
    "shape", [(4, 18, 18, 64, 64), (8, 10, 10, 128, 64), (2, 13, 13, 32, 64), (3, 8, 9, 3, 5)]
)
def test_float32_errors_are_small(rng, shape, mean, tile, bound):
    arrays = draw(rng, shape, np.float32)
    arrays[0] += mean
    results = []
    for dtype in (np.float32, np.float64):
        padded, kernel, grad_y = (array.astype(dtype) for array in arrays)
        y, saved = winograd_forward(padded, kernel, tile)
        results.append((y, *winograd_backward(grad_y, saved, tile)))
        assert all(array.dtype == dtype for array in (*results[-1], *saved.v, saved.u))
    for single, double in zip(*results, strict=True):
        assert np.abs(single - double).max() < bound * np.abs(double).max()


def test_arguments_stay_as_they_are(rng):
    padded, kernel, grad_y = draw(rng, SHAPES[2])
    copies = [array.copy() for array in (padded, kernel, grad_y)]
    winograd_backward(grad_y, winograd_forward(padded, kernel, 4)[1], 4)
    for array, copy in zip((padded, kernel, grad_y), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@each_tile
def test_arrays_may_be_views(rng, tile):
    padded, kernel, grad_y = draw(rng, SHAPES[1])
    views = [np.asfortranarray(array) for array in (padded, kernel, grad_y)]
    y, saved = winograd_forward(padded, kernel, tile)
    expected = y, *winograd_backward(grad_y, saved, tile)
    y, saved = winograd_forward(views[0], views[1], tile)
    assert_close((y, *winograd_backward(views[2], saved, tile)), expected)


@pytest.mark.parametrize(
    ("out_h", "out_w", "in_channels", "out_channels", "n", "tile"),
    [
        (32, 32, 64, 64, 8, 4),
        (16, 16, 128, 128, 8, 4),
        (8, 8, 256, 256, 8, 4),
        (4, 4, 256, 256, 8, 0),  # 8 tiles for 65,536 kernels
        (11, 11, 32, 64, 16, 4),
        (6, 6, 64, 64, 32, 2),  # tiles of 4 would compute 8 x 8
        (5, 5, 64, 64, 32, 0),
        (28, 28, 1, 32, 64, 0),
        (32, 32, 3, 64, 64, 0),
        (1, 1, 64, 64, 64, 0),
        (32, 32, winograd.MIN_IN_CHANNELS, winograd.MIN_OUT_CHANNELS, 64, 4),
        (32, 32, winograd.MIN_IN_CHANNELS - 1, 512, 64, 0),
        (32, 32, 512, winograd.MIN_OUT_CHANNELS - 1, 64, 0),
    ],
)
def test_the_best_tile_follows_the_products_saved(out_h, out_w, in_channels, out_channels, n, tile):
    assert best_tile(out_h, out_w, in_channels, out_channels, n) == tile
