import numpy as np
import pytest
from conftest import spread

from cnn.ops.pooling import avg_pool, avg_pool_adjoint
from cnn.ops.windows import Window, col2im, crop, im2col, pad

WINDOWS = [Window.of(2, 2), Window.of(3, 1), Window.of((2, 3), (2, 1)), Window.of(2, 3)]


@pytest.mark.parametrize("window", WINDOWS)
def test_col2im_is_the_adjoint_of_im2col(rng, window):
    u = rng.standard_normal((2, 6, 7, 3))
    columns = im2col(u, window)
    v = rng.standard_normal(columns.shape)
    assert (columns * v).sum() == pytest.approx((u * col2im(v, u.shape, window)).sum(), rel=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
def test_average_pooling_has_the_adjoint_it_claims(rng, window):
    u = rng.standard_normal((2, 6, 7, 3))
    y = avg_pool(u, window)
    v = rng.standard_normal(y.shape)
    assert (y * v).sum() == pytest.approx((u * avg_pool_adjoint(v, u.shape, window)).sum(), rel=1e-12)


def test_crop_is_the_adjoint_of_pad(rng):
    pads = ((1, 2), (0, 3))
    u = rng.standard_normal((2, 4, 5, 3))
    padded = pad(u, pads)
    assert padded.shape == (2, 7, 8, 3)
    v = rng.standard_normal(padded.shape)
    assert (padded * v).sum() == pytest.approx((u * crop(v, pads)).sum(), rel=1e-12)


def test_im2col_lays_out_a_known_image():
    columns = im2col(np.arange(9.0).reshape(1, 3, 3, 1), Window.of(2, 1))
    np.testing.assert_array_equal(columns, [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]])


def test_same_padding_gives_the_size_divided_by_the_stride_rounded_up():
    for size in range(1, 12):
        for kernel in range(1, 6):
            for stride in range(1, 5):
                assert Window.of(kernel, stride, "same").output_size(size, size)[0] == -(-size // stride)


def test_spread_values_stay_clear_of_ties_and_zero(rng):
    values = np.sort(spread(rng, (3, 5)).ravel())
    assert np.diff(values).min() > 0.0099
    assert np.abs(values).min() > 0.0099
