import math
from functools import partial

import numpy as np
import pytest
from scipy import ndimage

from cnn.augmentation import (
    affine,
    alternating_flip,
    compose,
    cutout,
    elastic,
    elastic_distortion,
    horizontal_flip,
    random_aspect,
    random_blur,
    random_brightness,
    random_contrast,
    random_crop,
    random_erasing,
    random_gamma,
    random_rotation,
    random_shear,
    random_shift,
    random_stroke,
    random_zoom,
)
from cnn.augmentation.composition import keywords_of
from cnn.augmentation.flips import splitmix64
from cnn.augmentation.sampling import sample
from cnn.registry import AUGMENTATIONS, written_options


def flip_in_first_epoch(images, rng, on):
    return alternating_flip(images, rng, on, examples=np.arange(len(images)), epoch=1)


def crop_with_background(images, rng, padding, *, fill=0.0):
    return random_crop(images, rng, padding, mode="constant", fill=fill)


# One amount for each function, with which almost every image changes.
WARPS = [
    (random_shift, 2.5),
    (random_rotation, 40.0),
    (random_zoom, 0.4),
    (random_aspect, 0.6),
    (random_shear, 30.0),
    (elastic_distortion, 1.5),
]
AFFINE = WARPS[:5]
FILLING = [*WARPS, (cutout, 3), (crop_with_background, 3)]
DRAWING = [
    *FILLING,
    (random_crop, 3),
    (horizontal_flip, 0.5),
    (random_stroke, 0.9),
    (random_blur, 0.9),
    (random_gamma, 0.7),
    (random_brightness, 0.4),
    (random_contrast, 0.4),
    (random_erasing, 1.0),
]
ALL = [*DRAWING, (flip_in_first_epoch, True)]


class Fixed:
    """A generator that returns the given values in every draw, and records the arguments of each call."""

    def __init__(self, *values):
        self.values, self.low, self.high, self.size, self.endpoint = values, None, None, None, None

    def uniform(self, low, high, size):
        self.low, self.high, self.size = low, high, size
        return np.broadcast_to(np.array(self.values, float), size)

    def integers(self, low, high, size, endpoint=False):
        self.low, self.high, self.size, self.endpoint = low, high, size, endpoint
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
    y = sample(images, rows.copy(), columns.copy(), 0.7)
    assert y.shape == (2, 30, 20, 3)
    for n, p, q, k in np.ndindex(y.shape):
        expected = interpolate(images[n, :, :, k], rows[n, p, q], columns[n, p, q], 0.7)
        assert y[n, p, q, k] == pytest.approx(expected, abs=1e-12)


def test_the_affine_helper_matches_plain_loops_with_a_matrix_for_each_image(rng):
    images, fill = rng.standard_normal((3, 5, 8, 2)), -0.4
    matrix, offset = rng.standard_normal((3, 2, 2)), rng.standard_normal((3, 2))
    maps = np.concatenate([np.concatenate([matrix, offset[:, :, None]], axis=2), [[[0, 0, 1]]] * 3], axis=1)
    c = np.array([2.0, 3.5])
    expected = warp(images, lambda n, i, j: matrix[n] @ (np.array([i, j]) - c) + c + offset[n], fill)
    y = affine.sample_under(images, maps, fill)
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


def test_an_aspect_stretches_height_and_width_to_sizes_whose_product_stays():
    i, j = np.indices((30, 26)) - np.array([14.5, 12.5])[:, None, None]
    for u in (0.25, -0.25):
        y = random_aspect(blob(30, 26, 14.5, 12.5, deviation=2.0), Fixed(u), 0.5)[0, :, :, 0]
        assert (i**2 * y).sum() / y.sum() == pytest.approx((2.0 * math.exp(u)) ** 2, rel=0.05)
        assert (j**2 * y).sum() / y.sum() == pytest.approx((2.0 / math.exp(u)) ** 2, rel=0.05)


def test_an_aspect_matches_its_equation(rng):
    images = rng.standard_normal((2, 6, 9, 2))

    def position(n, i, j):
        return (i - 2.5) / math.exp(0.3) + 2.5, (j - 4.0) * math.exp(0.3) + 4.0

    y = random_aspect(images, Fixed(0.3), 0.3, fill=1.5)
    np.testing.assert_allclose(y, warp(images, position, 1.5), atol=1e-12)


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
        (random_aspect, 0.2, -0.2, 0.2, 3),
        (random_shear, 15, -15, 15, 3),
        (random_stroke, 0.5, -0.5, 0.5, (3, 1)),
        (random_blur, 0.5, 0, 0.5, (3, 1)),
        (random_gamma, 0.5, -0.5, 0.5, (3, 1, 1)),
    ],
)
def test_each_draw_is_uniform_on_the_stated_range(function, amount, low, high, size):
    draw = Fixed(1.0)
    function(np.zeros((3, 4, 4, 1)), draw, amount)
    assert (draw.low, draw.high, draw.size) == (low, high, size)


@pytest.mark.parametrize("smoothness", [0.7, 4.0])
def test_elastic_strength_is_the_root_mean_square_displacement(rng, smoothness):
    d = elastic._displacements(rng, (5, 13, 20), 1.7, smoothness, np.dtype(np.float64))
    assert d.shape == (5, 2, 13, 20)
    np.testing.assert_allclose(np.sqrt((d**2).sum(axis=1).mean(axis=(1, 2))), 1.7, rtol=1e-12)


def test_elastic_displacements_are_as_smooth_as_the_gaussian_says(rng):
    """A Gaussian filter of deviation s correlates noise at distance k by exp(−k² / (4 s²))."""
    d = elastic._displacements(rng, (400, 40, 40), 1.0, 2.0, np.dtype(np.float64))[:, :, 10:30, 10:30]
    variance = (d * d).mean()
    for k in (1, 2, 4):
        expected = math.exp(-(k**2) / 16)
        assert (d[:, :, k:] * d[:, :, :-k]).mean() / variance == pytest.approx(expected, abs=0.05)
        assert (d[..., k:] * d[..., :-k]).mean() / variance == pytest.approx(expected, abs=0.05)


def test_elastic_displacements_have_no_direction_of_their_own_and_are_as_long_at_the_border(rng):
    d = elastic._displacements(rng, (2000, 12, 12), 1.0, 1.5, np.dtype(np.float32))
    assert np.abs(d.mean(axis=0)).max() < 0.1
    np.testing.assert_allclose((d * d).mean(axis=0), 0.5, atol=0.1)
    assert abs((d[:, 0] * d[:, 1]).mean()) < 0.02


def test_elastic_distortion_takes_each_pixel_from_where_the_field_points(rng, monkeypatch):
    images, d = rng.standard_normal((2, 5, 6, 2)), rng.uniform(-3, 3, (2, 2, 5, 6))
    monkeypatch.setattr(elastic, "_displacements", lambda *_: d)
    y = elastic_distortion(images, rng, 1.0, fill=0.3)
    expected = warp(images, lambda n, i, j: (i + d[n, 0, i, j], j + d[n, 1, i, j]), 0.3)
    np.testing.assert_allclose(y, expected, atol=1e-12)


def test_elastic_distortion_passes_strength_and_smoothness_on(rng, monkeypatch):
    asked = []
    monkeypatch.setattr(elastic, "_displacements", lambda *a: asked.append(a) or np.zeros((2, 2, 5, 6)))
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


class Sequence:
    """A generator whose draws from uniform are the given values, one after the other."""

    def __init__(self, *values):
        self.values = iter(values)

    def uniform(self, low, high, size):
        return np.broadcast_to(np.array(next(self.values), float), size)


def drawn(*pairs):
    """(what composes the steps, a generator of the values) for pairs of a function and the value it draws."""
    largest = {random_shift: 20, random_rotation: 180, random_zoom: 0.9, random_aspect: 0.9, random_shear: 80}
    names = {random_shift: "pixels", random_zoom: "fraction", random_aspect: "fraction"}
    steps = [
        partial(function, **{names.get(function, "degrees"): largest[function]}, fill=0.3)
        for function, _ in pairs
    ]
    return steps, Sequence(*(value for _, value in pairs))


def follow(position, function, value, c):
    """Where `function` takes the value of an output position from, by its docstring."""
    i, j = position[0] - c[0], position[1] - c[1]
    if function is random_shift:
        i, j = i - value[0], j - value[1]
    elif function is random_rotation:
        cos, sin = math.cos(math.radians(value)), math.sin(math.radians(value))
        i, j = cos * i + sin * j, -sin * i + cos * j
    elif function is random_zoom:
        i, j = i / value, j / value
    elif function is random_aspect:
        i, j = i / math.exp(value), j * math.exp(value)
    else:
        i, j = i, math.tan(math.radians(value)) * i + j
    return i + c[0], j + c[1]


MAPS = [
    (random_shift, (1.25, -0.5)),
    (random_rotation, 25.0),
    (random_zoom, 1.3),
    (random_shear, 15.0),
    (random_aspect, 0.2),
]


@pytest.mark.parametrize("order", [(0, 1, 2, 4, 3), (3, 1, 0), (2, 0), (1, 1), (4, 1), (0, 3, 4, 0, 2, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_affine_maps_are_followed_back_from_the_last_to_the_first(rng, order, dtype):
    images, pairs = rng.standard_normal((2, 6, 9, 2)).astype(dtype), [MAPS[k] for k in order]
    c = (2.5, 4.0)

    def position(n, i, j):
        for function, value in reversed(pairs):
            i, j = follow((i, j), function, value, c)
        return i, j

    steps, generator = drawn(*pairs)
    y = compose(*steps)(images, generator)
    assert y.dtype == dtype
    tolerance = 1e-12 if dtype is np.float64 else 1e-4
    np.testing.assert_allclose(y, warp(images, position, 0.3), atol=tolerance)


@pytest.mark.parametrize(
    "pairs",
    [
        [(random_rotation, 33.0), (random_rotation, -33.0)],
        [(random_shift, (2.5, -1.25)), (random_shift, (-2.5, 1.25))],
        [(random_zoom, 0.7), (random_zoom, 1 / 0.7)],
        [(random_shear, 20.0), (random_shear, -20.0)],
        [(random_aspect, 0.4), (random_aspect, -0.4)],
        [
            *[(random_rotation, 33.0), (random_shift, (2.5, -1.25)), (random_zoom, 0.7)],
            *[(random_zoom, 1 / 0.7), (random_shift, (-2.5, 1.25)), (random_rotation, -33.0)],
        ],
    ],
)
def test_a_map_and_its_inverse_give_the_images_back_as_no_two_samplings_do(rng, pairs):
    images = rng.standard_normal((3, 7, 10, 2))
    steps, generator = drawn(*pairs)
    np.testing.assert_allclose(compose(*steps)(images, generator), images, rtol=0, atol=1e-12)
    y, (steps, generator) = images, drawn(*pairs)
    for step in steps:
        y = step(y, generator)
    assert np.abs(y - images).max() > 0.1


def test_maps_applied_at_once_are_those_applied_in_turn_up_to_interpolation():
    images = blob(31, 35, row=14.0, column=18.0, deviation=4.0)
    images = np.repeat(images, 20, axis=0)
    steps = [
        partial(random_shift, pixels=2.0),
        partial(random_rotation, degrees=20.0),
        partial(random_zoom, fraction=0.1),
        partial(random_aspect, fraction=0.1),
        partial(random_shear, degrees=10.0),
    ]
    at_once = compose(*steps)(images, np.random.default_rng(4))
    y, generator = images, np.random.default_rng(4)
    for step in steps:
        y = step(y, generator)
    np.testing.assert_allclose(at_once, y, atol=0.04)
    assert np.abs(compose(*steps[::-1])(images, np.random.default_rng(4)) - y).max() > 0.1
    assert (at_once**2).sum() > 1.005 * (y**2).sum()  # sampled five times, the dots are blurred


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("function", "amount"), AFFINE)
def test_one_affine_map_alone_has_the_bytes_of_its_function(rng, function, amount, dtype):
    images = rng.standard_normal((5, 6, 9, 2)).astype(dtype)
    (name,) = set(written_options(AUGMENTATIONS[function.__name__]))
    step = partial(function, **{name: amount}, fill=-0.7)
    off = [partial(random_shift, pixels=0.0, fill=-0.7), partial(random_shear, degrees=0, fill=-0.7)]
    expected = function(images, np.random.default_rng(1), amount, fill=-0.7).tobytes()
    for steps in ([step], [off[0], step, off[1]]):
        assert compose(*steps)(images, np.random.default_rng(1)).tobytes() == expected
    y = compose(*off)(images, np.random.default_rng(1))
    assert y.tobytes() == images.tobytes()
    assert not np.shares_memory(y, images)


TURN, SHIFT = partial(random_rotation, degrees=10.0), partial(random_shift, pixels=2.0)


@pytest.mark.parametrize(
    ("steps", "samplings"),
    [
        ([SHIFT, TURN, SHIFT, TURN], 1),
        ([SHIFT, partial(cutout, size=2), TURN], 2),
        ([SHIFT, partial(SHIFT, fill=1.0)], 2),
        ([partial(SHIFT, fill=np.ones(2)), partial(TURN, fill=np.ones(2, np.float32))], 1),
        ([partial(SHIFT, fill=np.ones(2)), partial(TURN, fill=np.array([1.0, 2.0]))], 2),
        ([SHIFT, partial(random_shift, pixels=0.0)], 1),
        ([partial(random_shift, pixels=0.0)], 0),
        ([SHIFT, lambda images, rng: random_shift(images, rng, 1.0)], 2),
    ],
)
def test_neighbours_with_the_same_fill_are_sampled_once(rng, monkeypatch, steps, samplings):
    calls = []
    monkeypatch.setattr(affine, "sample", lambda images, *rest: calls.append(rest[-1]) or images)
    compose(*steps)(rng.standard_normal((2, 5, 5, 2)), rng)
    assert len(calls) == samplings
    if samplings == 1:
        np.testing.assert_array_equal(calls[0], steps[0].keywords.get("fill", 0.0))


def test_other_steps_follow_one_another(rng):
    images = rng.standard_normal((6, 7, 7, 1))
    steps = [
        partial(random_crop, padding=2),
        partial(horizontal_flip, probability=0.5),
        partial(cutout, size=3),
    ]
    y, generator = images, np.random.default_rng(8)
    for step in steps:
        y = step(y, generator)
    np.testing.assert_array_equal(compose(*steps)(images, np.random.default_rng(8)), y)
    np.testing.assert_array_equal(compose()(images, rng), images)


def test_a_step_receives_the_keywords_that_it_has(rng):
    received = []

    def step(images, rng, *, epoch, examples):
        received.append((epoch, examples.tolist()))
        return images

    images = rng.standard_normal((3, 2, 4, 1))
    both = compose(step, partial(alternating_flip, on=True))
    y = both(images, rng, examples=np.array([7, 8, 9]), epoch=2, seed=5)
    assert received == [(2, [7, 8, 9])]
    expected = alternating_flip(images, rng, True, examples=np.array([7, 8, 9]), epoch=2, seed=5)
    np.testing.assert_array_equal(y, expected)
    assert keywords_of(both) == ("examples", "epoch", "seed")
    assert keywords_of(partial(alternating_flip, on=True, seed=3)) == ("examples", "epoch")  # its own seed


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (partial(random_shift), "missing a required argument: 'pixels'"),
        (partial(random_shift, degrees=3), "incorrect arguments"),
        (random_shift, "missing a required argument: 'pixels'"),
        (lambda images, rng, *, strength: images, "missing a required .*argument: 'strength'"),
        (lambda images: images, "too many positional arguments"),
        (partial(random_shift, pixels=-1), r"^pixels must be in \[0, 1000\]; received -1\.$"),
        (partial(random_rotation, degrees=200), r"^degrees must be in \[0, 180\]; received 200\.$"),
    ],
)
def test_a_step_that_cannot_be_applied_is_refused_when_it_is_composed(step, message):
    with pytest.raises(ValueError, match=message):
        compose(SHIFT, step)


def mirrored(i, size):
    """The pixel at position i of a row that is mirrored at its ends, as often as needed."""
    while size > 1 and not 0 <= i < size:
        i = -i if i < 0 else 2 * (size - 1) - i
    return i if size > 1 else 0


@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize("shape", [(2, 5, 8, 3), (2, 1, 4, 1), (2, 1, 1, 2), (2, 2, 3, 1)])
@pytest.mark.parametrize("t", [(0, 0), (1, -2), (-4, 3), (11, -9), (-30, 29)])
def test_a_crop_matches_plain_loops_also_with_more_padding_than_image(rng, mode, shape, t):
    images, fill = rng.standard_normal(shape).astype(np.float32), np.float32(0.5)
    y, expected = random_crop(images, Fixed(*t), 30, mode=mode, fill=0.5), np.empty_like(images)
    _, h, w, _ = shape
    for n, i, j, k in np.ndindex(shape):
        row, column = i + t[0], j + t[1]
        if mode == "reflect":
            expected[n, i, j, k] = images[n, mirrored(row, h), mirrored(column, w), k]
        else:
            inside = 0 <= row < h and 0 <= column < w
            expected[n, i, j, k] = images[n, row, column, k] if inside else fill
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(("mode", "options"), [("reflect", {}), ("constant", {"constant_values": -2.0})])
def test_a_crop_is_a_window_of_the_padded_image(rng, mode, options):
    images, draw = rng.standard_normal((1, 6, 5, 2)), np.random.default_rng(0)
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), mode, **options)
    windows = {
        padded[:, i : i + 6, j : j + 5].tobytes(): (i, j) for i, j in np.ndindex(7, 7)
    }  # every place where a window fits
    seen = {windows[random_crop(images, draw, 3, mode=mode, fill=-2.0).tobytes()] for _ in range(1000)}
    assert seen == set(windows.values())


def test_each_place_of_a_crop_is_equally_likely():
    draw = Fixed(0, 0)
    random_crop(np.zeros((4, 6, 5, 1)), draw, 3)
    assert (draw.low, draw.high, draw.size, draw.endpoint) == (-3, 3, (4, 2), True)


@pytest.mark.parametrize("mode", ["wrap", None, 1])
def test_another_mode_of_a_crop_is_refused(rng, mode):
    with pytest.raises(ValueError) as error:
        random_crop(np.zeros((2, 4, 4, 1)), rng, 1, mode=mode)
    assert str(error.value) == f"mode must be reflect or constant; received {mode!r}."


@pytest.mark.parametrize("black", [0.0, -1.5, np.array([0.5, -2.0, 0.25])])
def test_brightness_matches_plain_loops(rng, black):
    images = rng.standard_normal((2, 3, 4, 3))
    y, blacks = random_brightness(images, Fixed(1.25), 0.5, black=black), np.broadcast_to(black, 3)
    for n, i, j, k in np.ndindex(images.shape):
        assert y[n, i, j, k] == pytest.approx(blacks[k] + 1.25 * (images[n, i, j, k] - blacks[k]))


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (2, 1, 4, 1), (2, 3, 1, 2), (2, 1, 1, 2), (2, 2, 3, 1)])
@pytest.mark.parametrize("u", [0.75, -0.75, 1.0, -1.0])
def test_a_stroke_matches_plain_loops_and_ends_at_the_border(rng, shape, u):
    images = rng.standard_normal(shape)
    y, (_, h, w, _) = random_stroke(images, Fixed(u), 1), shape
    for n, i, j, k in np.ndindex(shape):
        square = [
            images[n, row, column, k]
            for row in range(max(0, i - 1), min(h, i + 2))
            for column in range(max(0, j - 1), min(w, j + 2))
        ]
        extreme = max(square) if u > 0 else min(square)
        assert y[n, i, j, k] == pytest.approx((1 - abs(u)) * images[n, i, j, k] + abs(u) * extreme)


@pytest.mark.parametrize(("u", "judge"), [(1.0, ndimage.grey_dilation), (-1.0, ndimage.grey_erosion)])
def test_the_thickest_and_the_thinnest_stroke_are_grey_dilation_and_erosion(rng, u, judge):
    images = rng.standard_normal((3, 9, 8, 2)).astype(np.float32)
    expected = [[judge(image[..., k], size=(3, 3)) for k in range(2)] for image in images]
    y = random_stroke(images, Fixed(u), 1)
    np.testing.assert_allclose(y, np.moveaxis(expected, 1, 3), rtol=0, atol=1e-6)


def test_positive_strokes_are_thicker_where_they_are_light_on_dark():
    bar = np.zeros((1, 9, 9, 1))
    bar[:, :, 4] = 1.0
    assert random_stroke(bar, Fixed(1.0), 1).sum() == 3 * bar.sum()
    assert random_stroke(bar, Fixed(0.5), 1).sum() == 2 * bar.sum()
    assert random_stroke(bar, Fixed(-0.5), 1).sum() == 0.5 * bar.sum()


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (2, 1, 4, 1), (2, 3, 1, 2), (2, 1, 1, 2), (2, 2, 3, 1)])
def test_a_blur_matches_plain_loops_with_the_border_pixel_beyond_the_border(rng, shape):
    images, b = rng.standard_normal(shape), [1, 4, 6, 4, 1]
    y, (_, h, w, _) = random_blur(images, Fixed(0.75), 1), shape
    for n, i, j, k in np.ndindex(shape):
        total = 0.0
        for p, q in np.ndindex(5, 5):
            row, column = min(max(i + p - 2, 0), h - 1), min(max(j + q - 2, 0), w - 1)
            total += b[p] * b[q] / 256 * images[n, row, column, k]
        assert y[n, i, j, k] == pytest.approx(0.25 * images[n, i, j, k] + 0.75 * total)


def test_the_strongest_blur_is_a_convolution_with_the_binomial_kernel(rng):
    images, kernel = rng.standard_normal((3, 9, 8, 2)), np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    expected = ndimage.convolve(images, kernel[None, :, :, None], mode="nearest")
    np.testing.assert_allclose(random_blur(images, Fixed(1.0), 1), expected, atol=1e-12)


@pytest.mark.parametrize("function", [random_stroke, random_blur])
def test_filters_leave_an_image_without_detail_as_it_is(rng, function):
    images = np.tile(np.float32([-0.4242, 0.1307, 1e-3]), (8, 5, 6, 1))
    np.testing.assert_array_equal(function(images, rng, 0.9), images)


@pytest.mark.parametrize("black", [0.0, -1.5, np.array([0.5, -2.0, 0.25])])
@pytest.mark.parametrize("u", [0.5, -0.5])
def test_gamma_matches_plain_loops_and_clips_what_is_darker_than_black_or_lighter_than_white(rng, black, u):
    images, white = 2 * rng.standard_normal((2, 3, 4, 3)), np.array([1.5, 1.0, 2.0])
    y, blacks = random_gamma(images, Fixed(u), 1, black=black, white=white), np.broadcast_to(black, 3)
    for n, i, j, k in np.ndindex(images.shape):
        light = white[k] - blacks[k]
        r = min(max((images[n, i, j, k] - blacks[k]) / light, 0.0), 1.0)
        assert y[n, i, j, k] == pytest.approx(blacks[k] + light * r ** math.exp(u))


@pytest.mark.filterwarnings("error")  # log 0
@pytest.mark.parametrize("log_gamma", [0.3, 10.0])
def test_gamma_leaves_black_and_white_as_they_are_and_orders_the_greys(rng, log_gamma):
    images = np.broadcast_to(np.linspace(0, 1, 101, dtype=np.float32).reshape(101, 1, 1), (9, 101, 2, 1))
    y = random_gamma(images, rng, log_gamma)
    assert set(y[:, 0].ravel()) == {0.0}
    assert set(y[:, -1].ravel()) == {1.0}
    assert (np.diff(y, axis=1) >= 0).all()


def test_single_precision_gamma_agrees_with_powers_in_double_precision(rng):
    images = rng.random((8, 28, 28, 1), np.float32)
    y = random_gamma(images, np.random.default_rng(1), 0.7)
    gamma = np.exp(np.random.default_rng(1).uniform(-0.7, 0.7, (8, 1, 1, 1)))
    np.testing.assert_allclose(y, images.astype(np.float64) ** gamma, rtol=0, atol=1e-6)


def test_contrast_matches_plain_loops(rng):
    images = rng.standard_normal((2, 3, 4, 3))
    y = random_contrast(images, Fixed(0.75), 0.5)
    for n, k in np.ndindex(2, 3):
        mean = sum(images[n, i, j, k] for i, j in np.ndindex(3, 4)) / 12
        for i, j in np.ndindex(3, 4):
            assert y[n, i, j, k] == pytest.approx(mean + 0.75 * (images[n, i, j, k] - mean))


@pytest.mark.parametrize("function", [random_brightness, random_contrast])
def test_factors_are_uniform_on_the_stated_range(function):
    draw = Fixed(1.0)
    function(np.zeros((4, 2, 2, 1)), draw, 0.25)
    assert (draw.low, draw.high, draw.size) == (0.75, 1.25, (4, 1, 1))


@pytest.mark.parametrize(
    "function", [random_stroke, random_blur, random_gamma, random_brightness, random_contrast, random_erasing]
)
def test_light_and_noise_mean_the_same_for_standardised_pixels(rng, function):
    raw, mean, deviation = rng.random((6, 8, 7, 3)), np.array([0.2, 0.5, 0.7]), np.array([0.1, 0.3, 2.0])
    black, white = {"black": -mean / deviation}, {"white": (1 - mean) / deviation}
    colours = {random_brightness: black, random_gamma: black | white}.get(function, {})
    y = function(raw, np.random.default_rng(1), 0.9)
    assert not np.array_equal(y, raw)
    of_standardised = function((raw - mean) / deviation, np.random.default_rng(1), 0.9, **colours)
    np.testing.assert_allclose(of_standardised, (y - mean) / deviation, atol=1e-12)


def test_splitmix64_gives_the_numbers_of_the_reference():
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(1234567, np.arange(4)).tolist() == first
    assert splitmix64(1234567, np.array([3, 0, 3], np.int32)).tolist() == [first[3], first[0], first[3]]
    assert splitmix64(1234567 + 2**64, np.arange(4)).tolist() == first
    assert splitmix64(0, np.arange(2)).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@pytest.mark.parametrize("seed", [0, 3, 2**70])
def test_an_alternating_flip_follows_its_bit_and_the_epoch(rng, seed):
    images, examples = rng.standard_normal((9, 3, 4, 2)), np.array([5, 0, 17, 3, 2, 49_999, 1, 11, 4])
    for epoch in (1, 2, 3, 10):
        y = alternating_flip(images, rng, True, examples=examples, epoch=epoch, seed=seed)
        for n, place in enumerate(examples):
            bit = int(splitmix64(seed, np.array([place]))[0]) >= 2**63
            flipped = bit ^ (epoch % 2 == 0)
            np.testing.assert_array_equal(y[n], images[n, :, ::-1] if flipped else images[n])


def test_an_alternating_flip_shows_half_of_the_images_mirrored_and_the_other_half_next():
    images = np.broadcast_to(np.array([0.0, 1.0]).reshape(1, 1, 2, 1), (20_000, 1, 2, 1))

    def flipped(epoch, seed=0):
        place = {"examples": np.arange(20_000), "epoch": epoch, "seed": seed}
        return alternating_flip(images, None, True, **place)[:, 0, 0, 0]

    first = flipped(1)
    assert first.mean() == pytest.approx(0.5, abs=0.015)
    assert (first[1:] == first[:-1]).mean() == pytest.approx(0.5, abs=0.015)
    np.testing.assert_array_equal(flipped(2), 1 - first)
    np.testing.assert_array_equal(flipped(3), first)
    assert (flipped(1, seed=1) == first).mean() == pytest.approx(0.5, abs=0.015)


def test_an_alternating_flip_does_not_depend_on_the_batch(rng):
    images, order = rng.standard_normal((30, 3, 4, 1)), rng.permutation(30)

    def flip(chosen):
        return alternating_flip(images[chosen], rng, True, examples=chosen, epoch=2, seed=6)

    whole = flip(np.arange(30))
    np.testing.assert_array_equal(flip(order), whole[order])
    np.testing.assert_array_equal(np.concatenate([flip(order[:7]), flip(order[7:])]), whole[order])


@pytest.mark.parametrize("shape", [(40, 12, 20, 3), (10, 1, 1, 2), (10, 3, 1, 1)])
@pytest.mark.parametrize("probability", [0.6, 1.0])
def test_erasing_matches_plain_loops(rng, shape, probability):
    images, options = rng.standard_normal(shape), {"smallest_area": 0.1, "largest_area": 0.3}
    y = random_erasing(images, np.random.default_rng(3), probability, **options, largest_ratio=2.5)
    draw, expected, (n, h, w, c) = np.random.default_rng(3), images.copy(), shape
    chosen = draw.random(n) < probability
    areas, logarithms = draw.uniform(0.1, 0.3, n), draw.uniform(-1, 1, n) * math.log(2.5)
    sizes = []
    for area, logarithm in zip(areas, logarithms, strict=True):
        height = round(math.sqrt(area * h * w * math.exp(logarithm)))
        width = round(math.sqrt(area * h * w / math.exp(logarithm)))
        sizes.append((min(max(height, 1), h), min(max(width, 1), w)))
    places = draw.integers(0, [(h - height, w - width) for height, width in sizes], endpoint=True)
    pixels = [
        (m, i, j)
        for m in range(n)
        if chosen[m]
        for i in range(places[m, 0], places[m, 0] + sizes[m][0])
        for j in range(places[m, 1], places[m, 1] + sizes[m][1])
    ]
    for (m, i, j), noise in zip(pixels, draw.random((len(pixels), c)), strict=True):
        for k in range(c):
            low, high = images[m, :, :, k].min(), images[m, :, :, k].max()
            expected[m, i, j, k] = low + noise[k] * (high - low)
    np.testing.assert_array_equal(y, expected)


def test_erased_rectangles_have_the_stated_areas_ratios_and_frequency(rng):
    images = np.broadcast_to(np.indices((50, 60)).sum(axis=0)[None, :, :, None] * 1.0, (3000, 50, 60, 1))
    changed = (random_erasing(images, rng, 0.4) != images)[..., 0]
    hit = changed.any(axis=(1, 2))
    assert hit.mean() == pytest.approx(0.4, abs=0.03)
    heights, widths = (changed[hit].any(axis=axis).sum(axis=1) for axis in (2, 1))
    areas, ratios = changed[hit].mean(axis=(1, 2)), heights / widths
    np.testing.assert_array_equal(changed[hit].sum(axis=(1, 2)), heights * widths)  # rectangles
    assert 0.015 < areas.min() < 0.03
    assert 0.38 < areas.max() < 0.41
    assert 0.25 < ratios.min() < 0.35
    assert 2.9 < ratios.max() < 4
    assert np.log(ratios).mean() == pytest.approx(0, abs=0.1)
    covered = changed.mean(axis=0)
    assert covered.min() > 0  # also the corners
    np.testing.assert_allclose(covered, covered[::-1, ::-1], atol=0.06)


def test_a_smallest_area_above_the_largest_is_refused(rng):
    with pytest.raises(ValueError) as error:
        random_erasing(np.zeros((2, 4, 4, 1)), rng, 0.5, smallest_area=0.3, largest_area=0.2)
    assert str(error.value) == "smallest_area must be at most largest_area; received 0.3 and 0.2."


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
    assert len(different) == 2 if function in (horizontal_flip, flip_in_first_epoch) else len(different) > 15


@pytest.mark.parametrize(("function", "amount"), [case for case in ALL if case[0] is not random_erasing])
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
    for module in (affine, elastic):
        monkeypatch.setattr(module, "sample", lambda *arguments: taken.extend(arguments[1:3]))
    function(np.zeros((2, 4, 5, 1), dtype), rng, amount)
    assert [(t.shape, t.dtype) for t in taken] == [((2, 4, 5), dtype)] * 2


@pytest.mark.parametrize(("function", "amount"), AFFINE)
def test_single_precision_agrees_with_double_precision(rng, function, amount):
    images = rng.random((8, 28, 28, 1))
    y = function(images.astype(np.float32), np.random.default_rng(1), amount)
    np.testing.assert_allclose(y, function(images, np.random.default_rng(1), amount), atol=2e-5)


@pytest.mark.parametrize(("function", "amount"), ALL)
def test_the_argument_is_unchanged_and_may_be_a_read_only_view(rng, function, amount):
    images = rng.standard_normal((6, 2, 5, 20)).transpose(0, 3, 2, 1)
    before = images.copy()
    images.setflags(write=False)
    y = function(images, np.random.default_rng(1), amount)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(y, function(before, np.random.default_rng(1), amount))


@pytest.mark.parametrize(("function", "amount"), DRAWING)
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


@pytest.mark.parametrize(("function", "amount"), FILLING)
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
        (random_aspect, 1, "fraction must be in [0, 1); received 1."),
        (random_shear, 90, "degrees must be in [0, 90); received 90."),
        (random_shear, -1, "degrees must be in [0, 90); received -1."),
        (elastic_distortion, -1.0, "strength must be in [0, 1000]; received -1.0."),
        (horizontal_flip, 1.5, "probability must be in [0, 1]; received 1.5."),
        (horizontal_flip, -0.1, "probability must be in [0, 1]; received -0.1."),
        (cutout, -1, "size must be a whole number from 0 to 1000; received -1."),
        (cutout, 1001, "size must be a whole number from 0 to 1000; received 1001."),
        (cutout, 2.0, "size must be a whole number from 0 to 1000; received 2.0."),
        (cutout, True, "size must be a whole number from 0 to 1000; received True."),
        (random_crop, -1, "padding must be a whole number from 0 to 1000; received -1."),
        (random_crop, 1.5, "padding must be a whole number from 0 to 1000; received 1.5."),
        (random_stroke, 1.1, "fraction must be in [0, 1]; received 1.1."),
        (random_blur, -0.1, "fraction must be in [0, 1]; received -0.1."),
        (random_gamma, 10.5, "log_gamma must be in [0, 10]; received 10.5."),
        (random_brightness, 1.1, "fraction must be in [0, 1]; received 1.1."),
        (random_contrast, -0.1, "fraction must be in [0, 1]; received -0.1."),
        (random_erasing, 2, "probability must be in [0, 1]; received 2."),
        (flip_in_first_epoch, 0.5, "on must be True or False; received 0.5."),
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


@pytest.mark.parametrize(("function", "amount"), FILLING)
@pytest.mark.parametrize(
    "fill",
    [None, math.nan, "0", True, np.zeros(2), np.zeros(1), np.zeros((1, 3)), np.array([0, 0, math.inf])],
)
def test_a_fill_that_is_not_one_finite_number_or_one_for_each_channel_is_refused(rng, function, amount, fill):
    with pytest.raises(ValueError) as error:
        function(np.zeros((2, 4, 4, 3)), rng, amount, fill=fill)
    assert str(error.value) == (
        f"fill must be a finite number, or an array of 3, one for each channel; received {fill!r}."
    )


def test_a_black_that_does_not_fit_the_channels_is_refused(rng):
    with pytest.raises(ValueError, match=r"^black must be a finite number, or an array of 1, one for each"):
        random_brightness(np.zeros((2, 4, 4, 1)), rng, 0.1, black=np.zeros(3))


@pytest.mark.parametrize("amount", [0.0, 0.1])
def test_a_white_that_is_not_lighter_than_black_in_each_channel_is_refused(rng, amount):
    for white in (0.5, [1.0, 0.5, 1.0], [1.0, 0.4, 1.0]):
        with pytest.raises(ValueError, match=r"^white must be greater than black; received .*\b0\.5\.$"):
            random_gamma(np.zeros((2, 4, 4, 3)), rng, amount, black=0.5, white=np.array(white))
    with pytest.raises(ValueError, match=r"^white must be a finite number, or an array of 1, one for each"):
        random_gamma(np.zeros((2, 4, 4, 1)), rng, amount, white=np.ones(3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("function", "amount"), FILLING)
def test_each_channel_has_a_fill_of_its_own(rng, function, amount, dtype):
    images = rng.standard_normal((6, 7, 5, 3)).astype(dtype)
    fill = np.array([-1.5, 0.0, 0.7], np.float32)
    y = function(images, np.random.default_rng(2), amount, fill=fill)
    for k in range(3):
        one = function(images[..., k : k + 1], np.random.default_rng(2), amount, fill=float(fill[k]))
        np.testing.assert_array_equal(y[..., k : k + 1], one)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("function", "amount"), ALL)
def test_an_image_may_be_a_single_pixel(rng, function, amount, dtype):
    y = function(rng.standard_normal((5, 1, 1, 2)).astype(dtype), rng, amount)
    assert (y.shape, y.dtype) == ((5, 1, 1, 2), dtype)
    assert np.isfinite(y).all()


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
    "random_aspect": [test_an_aspect_matches_its_equation],
    "random_shear": [test_a_positive_shear_leans_the_top_to_the_right_and_keeps_rows_apart],
    "elastic_distortion": [test_elastic_distortion_takes_each_pixel_from_where_the_field_points],
    "horizontal_flip": [test_flipping_mirrors_left_and_right],
    "random_crop": [test_a_crop_matches_plain_loops_also_with_more_padding_than_image],
    "alternating_flip": [test_an_alternating_flip_follows_its_bit_and_the_epoch],
    "random_stroke": [test_a_stroke_matches_plain_loops_and_ends_at_the_border],
    "random_blur": [test_a_blur_matches_plain_loops_with_the_border_pixel_beyond_the_border],
    "random_gamma": [
        test_gamma_matches_plain_loops_and_clips_what_is_darker_than_black_or_lighter_than_white
    ],
    "random_brightness": [test_brightness_matches_plain_loops],
    "random_contrast": [test_contrast_matches_plain_loops],
    "cutout": [test_cutout_fills_a_square_and_clips_it_at_the_border],
    "random_erasing": [test_erasing_matches_plain_loops],
}


def test_every_registered_augmentation_stands_under_its_equation_and_the_common_facts():
    assert set(EQUATIONS) == set(AUGMENTATIONS)
    wrapped = {flip_in_first_epoch: alternating_flip, crop_with_background: random_crop}
    assert {wrapped.get(function, function) for function, _ in ALL} == set(AUGMENTATIONS.values())
