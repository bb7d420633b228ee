import math

import numpy as np
import pytest

from cnn import augmentation
from cnn.augmentation import (
    cutout,
    elastic_distortion,
    horizontal_flip,
    random_rotation,
    random_shear,
    random_shift,
    random_zoom,
)
from cnn.registry import AUGMENTATIONS

# One amount for each function, with which almost every image changes.
WARPS = [
    (random_shift, 2.5),
    (random_rotation, 40.0),
    (random_zoom, 0.4),
    (random_shear, 30.0),
    (elastic_distortion, 1.5),
]
ALL = [*WARPS, (cutout, 3), (horizontal_flip, 0.5)]


class Fixed:
    """A generator that returns the given values in every draw, and records the arguments of each call."""

    def __init__(self, *values):
        self.values, self.low, self.high, self.size = values, None, None, None

    def uniform(self, low, high, size):
        self.low, self.high, self.size = low, high, size
        return np.broadcast_to(np.array(self.values, float), size)

    def integers(self, low, high, size):
        self.low, self.high, self.size = low, high, size
        return np.broadcast_to(np.array(self.values), size)


def interpolate(image, row, column, fill):
    """The value at one position of one channel, weighted over all pixels and a wide border of fill."""
    value = 0.0
    for i in range(math.floor(row), math.floor(row) + 2):
        for j in range(math.floor(column), math.floor(column) + 2):
            inside = 0 <= i < image.shape[0] and 0 <= j < image.shape[1]
            weight = max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
            value += weight * (image[i, j] if inside else fill)
    return value


def warp(images, position, fill):
    """By loops: y[n, i, j, k] is the value of channel k of image n at position(n, i, j)."""
    y = np.empty_like(images)
    for n, i, j, k in np.ndindex(images.shape):
        y[n, i, j, k] = interpolate(images[n, :, :, k], *position(n, i, j), fill)
    return y


def centre_of_ink(image):
    total = image.sum()
    i, j = np.indices(image.shape)
    return (i * image).sum() / total, (j * image).sum() / total


def blob(height=21, width=25, row=10.0, column=12.0, deviation=1.5):
    """A batch of one image with a soft dot."""
    i, j = np.indices((height, width))
    return np.exp(-((i - row) ** 2 + (j - column) ** 2) / (2 * deviation**2))[None, :, :, None]


def test_sampling_matches_plain_loops_inside_across_the_border_and_far_outside(rng):
    images = rng.standard_normal((2, 4, 5, 3))
    rows, columns = rng.uniform(-3, 7, (2, 2, 30, 20))
    rows[0, 0, :6] = [-1, 0, 3, 4, -1.5, 1e9]
    columns[0, 1, :6] = [-1, 0, 4, 5, 5.5, -1e9]
    y = augmentation._sample(images, rows.copy(), columns.copy(), 0.7)
    assert y.shape == (2, 30, 20, 3)
    for n, p, q, k in np.ndindex(y.shape):
        expected = interpolate(images[n, :, :, k], rows[n, p, q], columns[n, p, q], 0.7)
        assert y[n, p, q, k] == pytest.approx(expected, abs=1e-12)


def test_the_affine_helper_matches_plain_loops_with_a_matrix_for_each_image(rng):
    images, fill = rng.standard_normal((3, 5, 8, 2)), -0.4
    matrix, offset = rng.standard_normal((3, 2, 2)), rng.standard_normal((3, 2))
    c = np.array([2.0, 3.5])
    expected = warp(images, lambda n, i, j: matrix[n] @ (np.array([i, j]) - c) + c + offset[n], fill)
    y = augmentation._affine(images, matrix, offset, fill)
    np.testing.assert_allclose(y, expected, atol=1e-12)


@pytest.mark.parametrize(("down", "right"), [(2, 3), (-1, 2), (0, -2), (-4, 0)])
def test_a_shift_by_whole_pixels_slides_the_image_and_fills_what_it_leaves(rng, down, right):
    images = rng.standard_normal((2, 6, 7, 3)).astype(np.float32)
    expected = np.full((2, 6 + 8, 7 + 8, 3), 0.25, np.float32)
    expected[:, 4 + down : 10 + down, 4 + right : 11 + right] = images
    y = random_shift(images, Fixed(down, right), 4, fill=0.25)
    np.testing.assert_array_equal(y, expected[:, 4:10, 4:11])


def test_a_shift_by_fractions_moves_the_centre_of_ink_by_as_much():
    y = random_shift(blob(), Fixed(2.3, -1.6), 3)
    row, column = centre_of_ink(y[0, :, :, 0])
    assert (row - 10, column - 12) == pytest.approx((2.3, -1.6), abs=1e-3)


@pytest.mark.parametrize("shape", [(2, 6, 6, 2), (2, 7, 7, 1)])
def test_a_rotation_by_90_degrees_is_rot90_counter_clockwise(rng, shape):
    images = rng.standard_normal(shape)
    y = random_rotation(images, Fixed(90.0), 120, fill=5.0)
    np.testing.assert_allclose(y, np.rot90(images, axes=(1, 2)), atol=1e-12)
    y = random_rotation(images, Fixed(-90.0), 120, fill=5.0)
    np.testing.assert_allclose(y, np.rot90(images, -1, axes=(1, 2)), atol=1e-12)


def test_a_rotation_by_30_degrees_matches_its_equation(rng):
    images = rng.standard_normal((1, 6, 9, 2))
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)

    def position(n, i, j):
        i, j = i - 2.5, j - 4.0
        return cos * i + sin * j + 2.5, -sin * i + cos * j + 4.0

    y = random_rotation(images, Fixed(30.0), 30, fill=1.5)
    np.testing.assert_allclose(y, warp(images, position, 1.5), atol=1e-12)


def test_a_zoom_factor_above_one_enlarges_around_the_centre():
    i, j = np.indices((20, 20)) - 9.5
    for scale in (1.25, 0.8):
        y = random_zoom(blob(20, 20, 9.5, 9.5, deviation=2.0), Fixed(scale), 0.5)[0, :, :, 0]
        assert centre_of_ink(y) == pytest.approx((9.5, 9.5))
        assert (i**2 * y).sum() / y.sum() == pytest.approx((2.0 * scale) ** 2, rel=0.05)
        assert (j**2 * y).sum() / y.sum() == pytest.approx((2.0 * scale) ** 2, rel=0.05)


def test_zooming_to_half_size_leaves_a_border_of_fill():
    y = random_zoom(np.ones((1, 9, 9, 1)), Fixed(0.5), 0.6, fill=-3.0)[0, :, :, 0]
    expected = np.full((9, 9), -3.0)
    expected[2:7, 2:7] = 1.0
    np.testing.assert_array_equal(y, expected)


def test_a_positive_shear_leans_the_top_to_the_right_and_keeps_rows_apart(rng):
    images = rng.standard_normal((1, 5, 12, 2))
    y = random_shear(images, Fixed(45.0), 60, fill=9.0)
    for i in range(5):
        right = 2 - i  # the row two above the middle moves two pixels to the right
        expected = np.full((12 + 4, 2), 9.0)
        expected[2 + right : 14 + right] = images[0, i]
        np.testing.assert_allclose(y[0, i], expected[2:14], atol=1e-12)


@pytest.mark.parametrize(
    ("function", "amount", "low", "high", "size"),
    [
        (random_shift, 2.5, -2.5, 2.5, (3, 2)),
        (random_rotation, 10, -10, 10, 3),
        (random_zoom, 0.2, 0.8, 1.2, (3, 1, 1)),
        (random_shear, 15, -15, 15, 3),
    ],
)
def test_each_draw_is_uniform_on_the_stated_range(function, amount, low, high, size):
    draw = Fixed(1.0)
    function(np.zeros((3, 4, 4, 1)), draw, amount)
    assert (draw.low, draw.high, draw.size) == (low, high, size)


@pytest.mark.parametrize("smoothness", [0.7, 4.0])
def test_elastic_strength_is_the_root_mean_square_displacement(rng, smoothness):
    d = augmentation._displacements(rng, (5, 13, 20), 1.7, smoothness, np.dtype(np.float64))
    assert d.shape == (5, 2, 13, 20)
    np.testing.assert_allclose(np.sqrt((d**2).sum(axis=1).mean(axis=(1, 2))), 1.7, rtol=1e-12)


def test_elastic_displacements_are_as_smooth_as_the_gaussian_says(rng):
    """A Gaussian filter of deviation s correlates noise at distance k by exp(−k² / (4 s²))."""
    d = augmentation._displacements(rng, (400, 40, 40), 1.0, 2.0, np.dtype(np.float64))[:, :, 10:30, 10:30]
    variance = (d * d).mean()
    for k in (1, 2, 4):
        expected = math.exp(-(k**2) / 16)
        assert (d[:, :, k:] * d[:, :, :-k]).mean() / variance == pytest.approx(expected, abs=0.05)
        assert (d[..., k:] * d[..., :-k]).mean() / variance == pytest.approx(expected, abs=0.05)


def test_elastic_displacements_have_no_direction_of_their_own_and_are_as_long_at_the_border(rng):
    d = augmentation._displacements(rng, (2000, 12, 12), 1.0, 1.5, np.dtype(np.float32))
    assert np.abs(d.mean(axis=0)).max() < 0.1
    np.testing.assert_allclose((d * d).mean(axis=0), 0.5, atol=0.1)
    assert abs((d[:, 0] * d[:, 1]).mean()) < 0.02


def test_elastic_distortion_takes_each_pixel_from_where_the_field_points(rng, monkeypatch):
    images, d = rng.standard_normal((2, 5, 6, 2)), rng.uniform(-3, 3, (2, 2, 5, 6))
    monkeypatch.setattr(augmentation, "_displacements", lambda *_: d)
    y = elastic_distortion(images, rng, 1.0, fill=0.3)
    expected = warp(images, lambda n, i, j: (i + d[n, 0, i, j], j + d[n, 1, i, j]), 0.3)
    np.testing.assert_allclose(y, expected, atol=1e-12)


def test_elastic_distortion_passes_strength_and_smoothness_on(rng, monkeypatch):
    asked = []
    monkeypatch.setattr(augmentation, "_displacements", lambda *a: asked.append(a) or np.zeros((2, 2, 5, 6)))
    elastic_distortion(np.zeros((2, 5, 6, 3)), rng, 1.25)
    elastic_distortion(np.zeros((2, 5, 6, 3)), rng, 1.25, smoothness=2.5)
    assert [a[1:4] for a in asked] == [((2, 5, 6), 1.25, 4.0), ((2, 5, 6), 1.25, 2.5)]


def test_a_field_without_any_displacement_distorts_nothing():
    class Still:
        def random(self, size, dtype):
            return np.full(size, 0.5, dtype)

    images = np.ones((2, 5, 6, 1), np.float32)
    np.testing.assert_array_equal(elastic_distortion(images, Still(), 2.0), images)


def test_flipping_mirrors_left_and_right(rng):
    images = rng.standard_normal((4, 3, 5, 2)).astype(np.float32)
    np.testing.assert_array_equal(horizontal_flip(images, rng, 1), images[:, :, ::-1])


def test_flipping_strikes_each_image_with_the_probability_given(rng):
    images = np.broadcast_to(np.array([0.0, 1.0]).reshape(1, 1, 2, 1), (20_000, 1, 2, 1))
    assert horizontal_flip(images, rng, 0.3)[:, 0, 0, 0].mean() == pytest.approx(0.3, abs=0.015)


@pytest.mark.parametrize(
    ("size", "centre", "rows", "columns"),
    [
        (3, (4, 5), (3, 6), (4, 7)),
        (4, (4, 5), (2, 6), (3, 7)),
        (1, (0, 9), (0, 1), (9, 10)),
        (4, (0, 9), (0, 2), (7, 10)),
        (5, (7, 0), (5, 8), (0, 3)),
        (99, (3, 3), (0, 8), (0, 10)),
    ],
)
def test_cutout_fills_a_square_and_clips_it_at_the_border(rng, size, centre, rows, columns):
    images = rng.standard_normal((2, 8, 10, 3))
    expected = images.copy()
    expected[:, slice(*rows), slice(*columns)] = -2.0
    np.testing.assert_array_equal(cutout(images, Fixed(*centre), size, fill=-2.0), expected)


def test_every_centre_of_a_cutout_is_equally_likely(rng):
    hidden = cutout(np.ones((30_000, 3, 5, 1)), rng, 1) == 0
    assert (hidden.sum(axis=(1, 2, 3)) == 1).all()
    np.testing.assert_allclose(hidden.mean(axis=0)[:, :, 0], 1 / 15, atol=0.007)
    draw = Fixed(1, 1)
    cutout(np.ones((4, 3, 5, 1)), draw, 9)  # for any size
    assert (draw.low, draw.high, draw.size) == (0, (3, 5), (4, 2))


@pytest.mark.parametrize(("function", "amount"), ALL)
def test_images_of_one_batch_are_drawn_independently(rng, function, amount):
    images = np.repeat(rng.standard_normal((1, 9, 9, 2)), 40, axis=0)
    different = {image.tobytes() for image in function(images, rng, amount)}
    assert len(different) == 2 if function is horizontal_flip else len(different) > 15


@pytest.mark.parametrize(("function", "amount"), ALL)
def test_channels_of_one_image_move_together(rng, function, amount):
    images = np.repeat(rng.standard_normal((8, 9, 9, 1)), 3, axis=3)
    y = function(images, rng, amount)
    np.testing.assert_array_equal(y, y[..., :1].repeat(3, axis=3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("function", "amount"), ALL)
def test_amount_zero_gives_the_images_back_bit_for_bit(rng, dtype, function, amount):
    images = rng.standard_normal((3, 6, 5, 2)).astype(dtype)
    images[0, 0] = -0.0
    y = function(images, rng, type(amount)(0))
    assert y.tobytes() == images.tobytes()
    assert not np.shares_memory(y, images)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("function", "amount"), ALL)
def test_dtype_and_shape_are_kept(rng, dtype, function, amount):
    y = function(
        rng.standard_normal((3, 6, 5, 2)).astype(dtype), rng, np.float64(amount) if amount % 1 else amount
    )
    assert (y.dtype, y.shape) == (dtype, (3, 6, 5, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("function", "amount"), WARPS)
def test_positions_have_the_precision_of_the_images(rng, monkeypatch, dtype, function, amount):
    """Positions of twice the width would take twice as long."""
    taken = []
    monkeypatch.setattr(augmentation, "_sample", lambda *arguments: taken.extend(arguments[1:3]))
    function(np.zeros((2, 4, 5, 1), dtype), rng, amount)
    assert [(t.shape, t.dtype) for t in taken] == [((2, 4, 5), dtype)] * 2


@pytest.mark.parametrize(("function", "amount"), WARPS[:4])
def test_single_precision_agrees_with_double_precision(rng, function, amount):
    images = rng.random((8, 28, 28, 1))
    y = function(images.astype(np.float32), np.random.default_rng(1), amount)
    np.testing.assert_allclose(y, function(images, np.random.default_rng(1), amount), atol=2e-5)


@pytest.mark.parametrize(("function", "amount"), ALL)
def test_the_argument_is_unchanged_and_may_be_a_read_only_view(rng, function, amount):
    images = rng.standard_normal((6, 5, 8, 2)).transpose(0, 2, 1, 3)
    before = images.copy()
    images.setflags(write=False)
    y = function(images, np.random.default_rng(1), amount)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(y, function(before, np.random.default_rng(1), amount))


@pytest.mark.parametrize(("function", "amount"), ALL)
def test_the_same_generator_state_gives_the_same_bytes_and_another_state_others(rng, function, amount):
    images = rng.standard_normal((16, 6, 5, 2)).astype(np.float32)
    first, second, other = (
        function(images, np.random.default_rng(seed), amount).tobytes() for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


@pytest.mark.parametrize(("function", "amount"), WARPS)
def test_an_image_that_equals_fill_stays_as_it_is(rng, function, amount):
    images = np.full((8, 9, 9, 1), -0.4242, np.float32)
    np.testing.assert_array_equal(function(images, rng, amount, fill=-0.4242), images)


@pytest.mark.parametrize(("function", "amount"), [*WARPS, (cutout, 3)])
def test_fill_is_zero_where_none_is_given_and_is_blended_in_where_one_is(rng, function, amount):
    """Warping is linear: on images of ones, y is the weight of the image in each pixel; fill has the rest."""
    images = np.ones((30, 7, 7, 1))
    share = function(images, np.random.default_rng(3), amount)
    assert share.min() == 0
    assert share.max() == 1
    y = function(images, np.random.default_rng(3), amount, fill=-2.0)
    np.testing.assert_allclose(y, share - 2.0 * (1 - share), atol=1e-12)


@pytest.mark.parametrize(("function", "amount"), ALL)
def test_an_empty_batch_stays_empty(rng, function, amount):
    assert function(np.zeros((0, 6, 5, 2), np.float32), rng, amount).shape == (0, 6, 5, 2)


@pytest.mark.parametrize(
    ("function", "amount", "text"),
    [
        (random_shift, -1, "pixels must be in [0, 1000]; received -1."),
        (random_shift, math.nan, "pixels must be in [0, 1000]; received nan."),
        (random_shift, math.inf, "pixels must be in [0, 1000]; received inf."),
        (random_rotation, -0.5, "degrees must be in [0, 180]; received -0.5."),
        (random_rotation, 180.5, "degrees must be in [0, 180]; received 180.5."),
        (random_rotation, "10", "degrees must be in [0, 180]; received '10'."),
        (random_zoom, 1, "fraction must be in [0, 1); received 1."),
        (random_zoom, -0.1, "fraction must be in [0, 1); received -0.1."),
        (random_shear, 90, "degrees must be in [0, 90); received 90."),
        (random_shear, -1, "degrees must be in [0, 90); received -1."),
        (elastic_distortion, -1.0, "strength must be in [0, 1000]; received -1.0."),
        (horizontal_flip, 1.5, "probability must be in [0, 1]; received 1.5."),
        (horizontal_flip, -0.1, "probability must be in [0, 1]; received -0.1."),
        (cutout, -1, "size must be a whole number from 0 to 1000; received -1."),
        (cutout, 1001, "size must be a whole number from 0 to 1000; received 1001."),
        (cutout, 2.0, "size must be a whole number from 0 to 1000; received 2.0."),
        (cutout, True, "size must be a whole number from 0 to 1000; received True."),
    ],
)
def test_an_amount_out_of_range_is_refused(rng, function, amount, text):
    with pytest.raises(ValueError) as error:
        function(np.zeros((2, 4, 4, 1)), rng, amount)
    assert str(error.value) == text


@pytest.mark.parametrize("smoothness", [0, -1, math.inf, 1001])
def test_a_smoothness_out_of_range_is_refused(rng, smoothness):
    with pytest.raises(ValueError) as error:
        elastic_distortion(np.zeros((2, 4, 4, 1)), rng, 1.0, smoothness=smoothness)
    assert str(error.value) == f"smoothness must be in (0, 1000]; received {smoothness}."


@pytest.mark.parametrize(("function", "amount"), [*WARPS, (cutout, 3)])
@pytest.mark.parametrize("fill", [None, math.nan])
def test_a_fill_that_is_no_finite_number_is_refused(rng, function, amount, fill):
    with pytest.raises(ValueError) as error:
        function(np.zeros((2, 4, 4, 1)), rng, amount, fill=fill)
    assert str(error.value) == f"fill must be a finite number; received {fill}."


@pytest.mark.parametrize(("function", "amount"), ALL)
@pytest.mark.parametrize(
    "images", [np.zeros((2, 4, 4, 1), np.uint8), np.zeros((4, 4, 1), np.float32), np.zeros((2, 0, 4, 1))]
)
def test_what_is_not_a_batch_of_images_is_refused(rng, function, amount, images):
    with pytest.raises(ValueError) as error:
        function(images, rng, amount)
    assert str(error.value) == (
        "Images to augment must be float32 or float64 and have shape (images, height, width, channels), "
        f"with at least one pixel; received {images.dtype} of shape {images.shape}."
    )


EQUATIONS = {  # name -> the tests that compare it with its equation, value by value
    "random_shift": [test_a_shift_by_whole_pixels_slides_the_image_and_fills_what_it_leaves],
    "random_rotation": [test_a_rotation_by_30_degrees_matches_its_equation],
    "random_zoom": [test_zooming_to_half_size_leaves_a_border_of_fill],
    "random_shear": [test_a_positive_shear_leans_the_top_to_the_right_and_keeps_rows_apart],
    "elastic_distortion": [test_elastic_distortion_takes_each_pixel_from_where_the_field_points],
    "horizontal_flip": [test_flipping_mirrors_left_and_right],
    "cutout": [test_cutout_fills_a_square_and_clips_it_at_the_border],
}


def test_every_registered_augmentation_stands_under_its_equation_and_the_common_facts():
    assert set(EQUATIONS) == set(AUGMENTATIONS)
    assert {function for function, _ in ALL} == set(AUGMENTATIONS.values())
