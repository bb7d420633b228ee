from math import erfc, exp, log, pi, sqrt

import numpy as np
import pytest
from conftest import spread
from reference import inside, layer_norm, same_pads, softmax, window_starts, windows

from cnn.gradient_check import numeric_gradient, relative_error
from cnn.ops.blocks import BLOCK, blocks
from cnn.ops.normal import normal_distribution
from cnn.ops.normalization import (
    batch_normalize_adjoint,
    batch_statistics,
    normalize,
    normalize_adjoint,
    scale_and_shift,
)
from cnn.ops.pooling import avg_pool, avg_pool_adjoint
from cnn.ops.reductions import dot_over_rows, sum_over_rows
from cnn.ops.sigmoid import sigmoid
from cnn.ops.softmax import log_softmax, softmax_adjoint
from cnn.ops.softmax import softmax as fast_softmax
from cnn.ops.windows import Window, as_pair, col2im, crop, im2col, pad

WINDOWS = [
    Window.of(2, 2),
    Window.of(3, 1),
    Window.of((2, 3), (2, 1)),
    Window.of(2, 3),
    Window.of((3, 2), 1, dilation=(2, 3)),
    Window.of(2, (1, 2), dilation=(4, 2)),
]
each_window = pytest.mark.parametrize("window", WINDOWS)


def inner(u, v):
    return float((u * v).sum())


@each_window
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_im2col_equals_the_definition(rng, window, groups):
    x = rng.standard_normal((2, 6, 7, 4))
    columns = im2col(x, window, groups)
    table = windows(x.shape, window.kernel_size, window.stride, dilation=window.dilation)
    for g in range(groups):
        row = 0
        for n in range(2):
            for line in table:
                for pixels in line:
                    channels = slice(g * 4 // groups, (g + 1) * 4 // groups)
                    expected = [value for pixel in pixels for value in x[n, *pixel, channels]]
                    np.testing.assert_array_equal(columns[g, row], expected)
                    row += 1
        assert row == columns.shape[1]


@each_window
@pytest.mark.parametrize("groups", [1, 2])
def test_col2im_is_the_adjoint_of_im2col(rng, window, groups):
    u = rng.standard_normal((2, 6, 7, 4))
    columns = im2col(u, window, groups)
    v = rng.standard_normal(columns.shape)
    assert inner(columns, v) == pytest.approx(inner(u, col2im(v, u.shape, window)), rel=1e-12)


@each_window
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_average_pooling_has_the_adjoint_it_claims(rng, window, count_include_pad):
    u = rng.standard_normal((2, 6, 7, 3))
    y = avg_pool(u, window, count_include_pad)
    v = rng.standard_normal(y.shape)
    back = avg_pool_adjoint(v, u.shape, window, count_include_pad)
    assert inner(y, v) == pytest.approx(inner(u, back), rel=1e-12)


def test_crop_is_the_adjoint_of_pad(rng):
    pads = ((1, 2), (0, 3))
    u = rng.standard_normal((2, 4, 5, 3))
    padded = pad(u, pads)
    assert padded.shape == (2, 7, 8, 3)
    v = rng.standard_normal(padded.shape)
    assert inner(padded, v) == pytest.approx(inner(u, crop(v, pads)), rel=1e-12)


def test_pad_puts_the_value_around_the_image():
    padded = pad(np.ones((1, 1, 2, 1)), ((1, 0), (0, 2)), -7)
    np.testing.assert_array_equal(padded[0, :, :, 0], [[-7, -7, -7, -7], [1, 1, -7, -7]])


def test_im2col_lays_out_a_known_image():
    columns = im2col(np.arange(9.0).reshape(1, 3, 3, 1), Window.of(2, 1))
    np.testing.assert_array_equal(columns, [[[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]])


def test_im2col_gives_each_group_a_matrix_of_its_own():
    x = np.arange(8.0).reshape(1, 2, 1, 4)  # pixels (0, 1, 2, 3) and (4, 5, 6, 7)
    columns = im2col(x, Window.of((2, 1), 1), groups=2)
    np.testing.assert_array_equal(columns, [[[0, 1, 4, 5]], [[2, 3, 6, 7]]])


def test_positions_pick_one_pixel_of_each_window_in_row_major_order():
    window = Window.of((2, 1), (3, 2), dilation=(2, 5))
    assert window.positions(2, 3) == [
        (slice(None), slice(0, 4, 3), slice(0, 5, 2)),
        (slice(None), slice(2, 6, 3), slice(0, 5, 2)),
    ]


@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_gives_the_size_divided_by_the_stride_rounded_up(dilation):
    for size in range(1, 12):
        for kernel in range(1, 6):
            for stride in range(1, 5):
                window = Window.of((kernel, 1), (stride, 1), "same", dilation)
                assert window.output_size(size, 9) == (-(-size // stride), 9)
                assert window.pads(size, 9) == (same_pads(size, kernel, stride, dilation), (0, 0))


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_the_number_of_windows_equals_the_definition(ceil_mode):
    for size in range(1, 9):
        for kernel in range(1, 4):
            for stride in range(1, 5):
                for before in range(kernel):
                    for after in range(kernel):
                        starts = window_starts(size, kernel, stride, (before, after), 1, ceil_mode)
                        window = Window.of((1, kernel), (1, stride), ((0, 0), (before, after)), 1, ceil_mode)
                        if starts:
                            assert window.output_size(1, size) == (1, len(starts))
                            beyond = max(after, starts[-1] + kernel - size)
                            assert window.cover(1, size) == ((0, 0), (before, beyond))
                        else:
                            with pytest.raises(ValueError, match="does not fit"):
                                window.output_size(1, size)


@pytest.mark.parametrize("pads", [((0, 0), (0, 0)), ((1, 0), (2, 1))])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_coverage_counts_the_pixels_of_each_window(pads, ceil_mode):
    window = Window.of((2, 3), 2, ((1, 0), (2, 1)), (1, 2), ceil_mode)
    shape = (1, 4, 5, 1)
    table = windows(shape, window.kernel_size, window.stride, window.pads(4, 5), window.dilation, ceil_mode)
    expected = [[sum(inside(pixel, shape, pads) for pixel in pixels) for pixels in line] for line in table]
    np.testing.assert_array_equal(window.coverage(4, 5, pads)[:, :, 0], expected)


@pytest.mark.parametrize(
    ("padding", "sides", "text"),
    [
        (2, ((2, 2), (2, 2)), "2"),
        ((1, 3), ((1, 1), (3, 3)), "((1, 1), (3, 3))"),
        ([1, 3], ((1, 1), (3, 3)), "((1, 1), (3, 3))"),
        (((1, 2), (3, 4)), ((1, 2), (3, 4)), "((1, 2), (3, 4))"),
        ("valid", ((0, 0), (0, 0)), "0"),
        ("same", ((1, 1), (0, 1)), "same"),
    ],
)
def test_padding_has_several_spellings(padding, sides, text):
    window = Window.of((3, 2), 1, padding)
    assert window.pads(8, 8) == sides
    assert window.describe_padding() == text


def test_a_window_has_no_padding_no_dilation_and_no_ceil_mode_unless_told():
    assert Window.of(2, 3) == Window((2, 2), (3, 3), ((0, 0), (0, 0)), (1, 1))
    assert not Window.of(2, 3).ceil_mode


def test_padding_counts_in_a_mean_unless_told_otherwise():
    window, x = Window.of(2, 2, 1), np.full((1, 2, 2, 1), 8.0)
    np.testing.assert_array_equal(avg_pool(x, window), np.full((1, 2, 2, 1), 2))
    np.testing.assert_array_equal(avg_pool_adjoint(x, x.shape, window), np.full((1, 2, 2, 1), 2))


def test_a_pair_is_one_number_or_two():
    assert as_pair("stride", 2) == as_pair("stride", (2, 2)) == as_pair("stride", [2, np.int64(2)]) == (2, 2)
    assert as_pair("stride", (1, 3)) == (1, 3)


@pytest.mark.parametrize(("dtype", "tail"), [(np.float32, -6), (np.float64, -13)])
def test_the_normal_distribution_comes_within_three_units_in_the_last_place_of_one(dtype, tail):
    """And small ones, down to Φ(tail), within 200 units in their own last place."""
    x = np.concatenate([np.linspace(-9, 9, 8001), np.linspace(-40, 40, 2001), [-1e30, -1e-30, 0, 100]])
    x = x.astype(dtype)
    below, density = normal_distribution(x)
    assert below.dtype == density.dtype == dtype
    expected = np.array([erfc(-value / sqrt(2)) / 2 for value in x.astype(float)])
    error = np.abs(below - expected)
    assert error.max() <= 3 * np.finfo(dtype).eps
    small = (tail < x) & (x < 0)
    assert (error[small] / expected[small]).max() <= 200 * np.finfo(dtype).eps
    expected = np.array([exp(-min(value * value, 1e4) / 2) / sqrt(2 * pi) for value in x.astype(float)])
    np.testing.assert_allclose(density, expected, rtol=1e3 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


@pytest.mark.filterwarnings("error")
def test_the_normal_distribution_of_infinities_and_nan():
    below, density = normal_distribution(np.array([np.inf, -np.inf, np.nan]))
    np.testing.assert_array_equal(below, [1, 0, np.nan])
    np.testing.assert_array_equal(density, [0, 0, np.nan])


@pytest.mark.parametrize("shape", [(0,), (0, 3), (1,), (BLOCK + 1,), (3, BLOCK), (5, 7, BLOCK // 100)])
def test_blocks_are_all_of_an_array_in_order_and_of_one_size_but_the_last(shape):
    x = np.zeros(shape, np.float32)
    parts = [x[block] for block in blocks(x)]
    assert sum(len(part) for part in parts) == len(x)
    assert [block.start for block in blocks(x)] == list(range(0, len(x), len(parts[0]) if parts else 1))
    assert all(part.nbytes <= BLOCK or len(part) == 1 for part in parts)
    assert all(part.nbytes > BLOCK - x[:1].nbytes for part in parts[:-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("error")
def test_sigmoid_is_safe_for_numbers_of_any_size(dtype):
    x = np.array([-1000, -20, -1.5, 0, 1.5, 20, 1000], dtype)
    expected = [
        0,
        exp(-20) / (1 + exp(-20)),
        exp(-1.5) / (1 + exp(-1.5)),
        0.5,
        1 / (1 + exp(-1.5)),
        1 / (1 + exp(-20)),
        1,
    ]
    values = sigmoid(x)
    assert values.dtype == dtype
    np.testing.assert_allclose(values, expected, rtol=4 * np.finfo(dtype).eps)


def test_softmax_and_its_logarithm_equal_their_definitions(rng):
    z = rng.standard_normal((2, 3, 5)) * 3
    expected = softmax(z)
    np.testing.assert_allclose(fast_softmax(z), expected, rtol=1e-13)
    np.testing.assert_allclose(log_softmax(z), np.vectorize(log)(expected), rtol=1e-13)


@pytest.mark.filterwarnings("error")
def test_softmax_survives_logits_of_any_size():
    z = np.array([[1e4, 0.0, -1e4], [-1e5, -1e5, -1e5]])
    np.testing.assert_array_equal(log_softmax(z)[0], [0, -1e4, -2e4])
    np.testing.assert_array_equal(fast_softmax(z)[0], [1, 0, 0])
    np.testing.assert_allclose(fast_softmax(z)[1], [1 / 3, 1 / 3, 1 / 3], rtol=1e-14)


def test_the_adjoint_of_softmax_is_its_jacobian_transposed(rng):
    z, grad_p = rng.standard_normal(4), rng.standard_normal(4)
    p = softmax(z[None])[0]
    jacobian = np.array([[p[j] * ((i == j) - p[i]) for i in range(4)] for j in range(4)])  # ∂p_j/∂z_i
    np.testing.assert_allclose(softmax_adjoint(grad_p[None], p[None])[0], grad_p @ jacobian, rtol=1e-12)


def test_normalize_equals_the_definition(rng):
    x = rng.standard_normal((2, 3, 4)) * 7 + 3
    normalized, inverse_deviation = normalize(x, 0.5)
    np.testing.assert_allclose(normalized, layer_norm(x, np.ones(4), np.zeros(4), 0.5), rtol=1e-12)
    np.testing.assert_allclose(inverse_deviation[..., 0], 1 / np.sqrt(x.var(axis=-1) + 0.5), rtol=1e-13)


def test_the_gradient_of_normalize_matches_finite_differences(rng):
    x, v = rng.standard_normal((3, 2, 4)), rng.standard_normal((3, 2, 4))
    analytic = normalize_adjoint(v, *normalize(x, 0.1))
    numeric = numeric_gradient(lambda: inner(normalize(x, 0.1)[0], v), x)
    assert relative_error(analytic, numeric) < 1e-7


def sizes_around_a_block(channels, itemsize):
    rows = BLOCK // itemsize // channels
    return [(2, channels), (rows - 1, channels), (2 * rows + 1, channels), (rows // 15, 3, 10, channels)]


@pytest.mark.parametrize("mean", [0, 1000])
@pytest.mark.parametrize("shape", sizes_around_a_block(3, 4))
def test_batch_normalization_of_float32_equals_the_definition_in_float64(rng, shape, mean):
    """Whatever the number of blocks, and also if the mean is far above the deviation."""
    x = (rng.standard_normal(shape) + mean).astype(np.float32)
    x[:1] += 5  # the first rows are not like the others
    grad_y = (rng.standard_normal(shape) + x - mean).astype(np.float32)
    gamma, beta = np.array([[1, -2, 3], [0.5, 0, -4]], np.float32)
    axes = tuple(range(len(shape) - 1))
    wide, grad, m = x.astype(float), grad_y.astype(float), x[..., 0].size
    normalized = (wide - wide.mean(axis=axes)) / np.sqrt(wide.var(axis=axes) + 0.5)
    grad_gamma, grad_beta = (grad * normalized).sum(axis=axes), grad.sum(axis=axes)
    grad_x = grad - grad_beta / m - normalized * grad_gamma / m
    grad_x *= gamma.astype(float) / np.sqrt(wide.var(axis=axes) + 0.5)

    z, offset, found_mean, variance = batch_statistics(x)
    inverse_deviation = 1 / np.sqrt(variance + np.float32(0.5))
    scale = gamma * inverse_deviation
    y = scale_and_shift(z, scale, beta - offset * scale)
    found = batch_normalize_adjoint(grad_y, z, offset, inverse_deviation, gamma)
    assert {array.dtype for array in (z, offset, found_mean, variance, y, *found)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found_mean, wide.mean(axis=axes), rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(variance, wide.var(axis=axes), rtol=1e-5)
    np.testing.assert_allclose(y, normalized * gamma + beta, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[0], grad_x, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found[1] / m, grad_gamma / m, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[2] / m, grad_beta / m, rtol=1e-5, atol=1e-5)


def test_the_variance_survives_a_first_block_unlike_all_others(rng):
    x = rng.standard_normal((BLOCK, 1)).astype(np.float32)
    x[: BLOCK // 4] += 1e4
    _, _, mean, variance = batch_statistics(x)
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=float), rtol=1e-5)
    np.testing.assert_allclose(variance, x.var(axis=0, dtype=float), rtol=1e-4)


def test_the_variance_of_equal_numbers_is_never_negative(rng):
    for value in rng.standard_normal(30).astype(np.float32) * 1e6:
        assert 0 <= batch_statistics(np.full((100_003, 1), value))[3].item() < 1


def test_spread_values_stay_clear_of_ties_and_zero(rng):
    values = np.sort(spread(rng, (3, 5)).ravel())
    assert np.diff(values).min() > 0.0099
    assert np.abs(values).min() > 0.0099


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 5, 3), (0, 3)])
def test_sums_over_rows_equal_their_definitions(rng, shape):
    x, y = rng.standard_normal(shape), rng.standard_normal(shape)
    axes = tuple(range(x.ndim - 1))
    np.testing.assert_allclose(sum_over_rows(x), x.sum(axis=axes), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(dot_over_rows(x, y), (x * y).sum(axis=axes), rtol=1e-12, atol=1e-15)
    assert sum_over_rows(x.astype(np.float32)).dtype == np.float32
    assert dot_over_rows(x.astype(np.float32), y.astype(np.float32)).dtype == np.float32


def test_im2col_in_blocks_holds_the_same_rows_grouped_by_position(rng):
    x, window, (block_h, block_w) = rng.standard_normal((2, 10, 9, 4)), Window.of((3, 2), (1, 2)), (2, 3)
    rows = im2col(x, window, 2).reshape(2, 2, 8, 4, -1)  # (groups, n, out_h, out_w, patch)
    blocks = im2col(x, window, 2, (block_h, block_w)).reshape(2, block_h, block_w, 2, 4, 1, -1)
    for a, b, p, q in np.ndindex(block_h, block_w, 4, 1):
        np.testing.assert_array_equal(blocks[:, a, b, :, p, q], rows[:, :, p * block_h + a, q * block_w + b])


@pytest.mark.parametrize("channels", [1, 4])
def test_col2im_in_blocks_is_the_adjoint_of_im2col(rng, channels):
    x, window = rng.standard_normal((2, 10, 9, channels)), Window.of((3, 2), (1, 2), 0, (2, 1))
    columns = im2col(x, window, 1, (2, 2))
    v = rng.standard_normal(columns.shape)
    assert inner(columns, v) == pytest.approx(inner(col2im(v, x.shape, window, (2, 2)), x), rel=1e-12)
