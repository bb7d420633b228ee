"""Properties that hold for every geometry: hypothesis draws shapes, strides, paddings, dilations and groups."""

import re
import warnings

import numpy as np
import pytest
import reference
from conftest import spread
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cnn import AvgPool2D, Conv2D, GlobalAvgPool2D, GlobalMaxPool2D, MaxPool2D, gradient_check
from cnn.ops.pooling import avg_pool, avg_pool_adjoint
from cnn.ops.windows import Window, col2im, crop, im2col, pad


def modest(examples):
    """The same examples on every run; nothing is kept between runs."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


def pair(value):
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


@st.composite
def pairs(draw, high):
    """A number or a pair (height, width) of them, from 1 to `high`, in any spelling."""
    both = (draw(st.integers(1, high)), draw(st.integers(1, high)))
    return draw(st.sampled_from([both, list(both), both[0], np.int64(both[1])]))


@st.composite
def paddings(draw, high):
    """(padding in one of its spellings, its four sides or None for "same")."""
    spelling = draw(st.sampled_from(["number", "pair", "sides", "valid", "same"]))
    top, bottom, left, right = (draw(st.integers(0, high)) for _ in range(4))
    return {
        "number": (top, ((top, top), (top, top))),
        "pair": ((top, left), ((top, top), (left, left))),
        "sides": (((top, bottom), (left, right)), ((top, bottom), (left, right))),
        "valid": ("valid", reference.ZERO),
        "same": ("same", None),
    }[spelling]


@st.composite
def geometries(draw, largest_padding=2):
    """(options as written, the four sides of the padding, a size in pixels that fits them)."""
    kernel_size, stride, dilation = draw(pairs(3)), draw(pairs(3)), draw(pairs(3))
    padding, sides = draw(paddings(largest_padding))
    size = []
    for axis in (0, 1):
        extent = (pair(kernel_size)[axis] - 1) * pair(dilation)[axis] + 1
        smallest = 1 if sides is None else max(extent - sum(sides[axis]), 1)
        size.append(smallest + draw(st.integers(0, 4)))
    if sides is None:
        sides = tuple(
            reference.same_pads(size[axis], pair(kernel_size)[axis], pair(stride)[axis], pair(dilation)[axis])
            for axis in (0, 1)
        )
    options = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
    return options, sides, tuple(size)


@st.composite
def convolutions(draw):
    """(a layer, images for it, and the layer's output by the definition)."""
    options, sides, size = draw(geometries())
    groups, channels, outputs = (draw(st.integers(1, high)) for high in (3, 2, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layer = Conv2D(groups * channels, groups * outputs, **options, groups=groups, rng=rng, dtype=np.float64)
    layer.bias.value[:] = rng.standard_normal(groups * outputs)
    x = rng.standard_normal((draw(st.integers(1, 2)), *size, groups * channels))
    stride, dilation = pair(options["stride"]), pair(options["dilation"])
    y = reference.convolution(x, layer.kernel.value, layer.bias.value, stride, sides, dilation, groups)
    return layer, x, y


@st.composite
def poolings(draw, kinds=("max", "average")):
    """(a layer, images without ties for it, its output by the definition, arguments of the definition)."""
    options, sides, size = draw(geometries())
    kernel_size, stride, dilation = (pair(options[name]) for name in ("kernel_size", "stride", "dilation"))
    ceil_mode, include = draw(st.booleans()), draw(st.booleans())
    shape = (draw(st.integers(1, 2)), *size, draw(st.integers(1, 2)))
    for axis in (0, 1):  # another test has padding as large as the window
        assume(max(sides[axis]) <= (kernel_size[axis] - 1) * dilation[axis])
    table = reference.windows(shape, kernel_size, stride, sides, dilation, ceil_mode)
    assume(all(any(reference.inside(p, shape) for p in pixels) for line in table for pixels in line))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = spread(rng, shape)
    geometry = (kernel_size, stride, sides, dilation, ceil_mode)
    if draw(st.sampled_from(kinds)) == "max":
        return MaxPool2D(**options, ceil_mode=ceil_mode), x, reference.max_pooling(x, *geometry), geometry
    layer = AvgPool2D(**options, ceil_mode=ceil_mode, count_include_pad=include)
    return layer, x, reference.avg_pooling(x, *geometry, include), geometry


@modest(150)
@given(convolutions())
def test_convolution_equals_the_definition(case):
    layer, x, expected = case
    assert layer.output_shape(x.shape[1:]) == expected.shape[1:]
    np.testing.assert_allclose(layer.forward(x), expected, rtol=0, atol=1e-12)


@modest(150)
@given(poolings())
def test_pooling_equals_the_definition(case):
    layer, x, expected, _ = case
    assert layer.output_shape(x.shape[1:]) == expected.shape[1:]
    np.testing.assert_allclose(layer.forward(x), expected, rtol=0, atol=1e-14)


@modest(120)
@given(poolings(kinds=("max",)), st.integers(0, 2**32 - 1))
def test_gradients_of_max_pooling_take_the_way_of_the_definition(case, seed):
    layer, x, y, geometry = case
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, x.shape).astype(np.float64)  # many ties
    layer.forward(x, training=True)
    grad_y = rng.standard_normal(y.shape)
    expected = reference.max_pooling_gradient(x, grad_y, *geometry)
    np.testing.assert_allclose(layer.backward(grad_y), expected, rtol=0, atol=1e-13)


@modest(60)
@given(convolutions())
def test_gradients_of_convolution_match_finite_differences(case):
    layer, x, _ = case
    errors = gradient_check(layer, x, rng=np.random.default_rng(0), step=1e-2)  # linear: no step is too long
    assert max(errors.values()) < 1e-7, errors


@modest(80)
@given(poolings())
def test_gradients_of_pooling_match_finite_differences(case):
    layer, x, _, _ = case
    assert gradient_check(layer, x, rng=np.random.default_rng(0), step=1e-4)["x"] < 1e-7


@st.composite
def global_poolings(draw):
    shape = tuple(draw(st.integers(1, high)) for high in (2, 5, 5, 3))
    return draw(st.sampled_from([GlobalAvgPool2D, GlobalMaxPool2D]))(), spread(
        np.random.default_rng(0), shape
    )


@modest(30)
@given(global_poolings())
def test_global_pooling_equals_the_definition_and_its_gradients_finite_differences(case):
    layer, x = case
    reduce = max if isinstance(layer, GlobalMaxPool2D) else lambda values: sum(values) / len(values)
    y = layer.forward(x)
    assert y.shape == (len(x), *layer.output_shape(x.shape[1:]))
    for n, c in np.ndindex(y.shape):
        assert y[n, c] == pytest.approx(reduce(x[n, :, :, c].ravel()), rel=1e-12, abs=1e-15)
    assert gradient_check(layer, x, rng=np.random.default_rng(0), step=1e-4)["x"] < 1e-7


# --- adjoints: <v, f(u)> = <fᵀ(v), u> ---------------------------------------------------------------------


def assert_adjoint(f, transposed, u, rng):
    """For linear f: the identity on random numbers, relative to the size of what is summed."""
    y = f(u)
    v = rng.standard_normal(y.shape)
    back = transposed(v)
    assert back.shape == u.shape
    largest = np.abs(v).sum() * np.abs(u).max()
    assert float((v * y).sum()) == pytest.approx(float((back * u).sum()), rel=1e-12, abs=1e-12 * largest)


@modest(120)
@given(geometries(), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2))
def test_col2im_is_the_adjoint_of_im2col(geometry, groups, channels, images):
    options, sides, (height, width) = geometry
    window, rng = Window.of(**options), np.random.default_rng(0)
    height, width = height + sum(sides[0]), width + sum(sides[1])
    u = rng.standard_normal((images, height, width, groups * channels))
    assert_adjoint(lambda u: im2col(u, window, groups), lambda v: col2im(v, u.shape, window), u, rng)


@modest(40)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=4), st.integers(1, 4), st.integers(1, 4))
def test_crop_is_the_adjoint_of_pad(sides, height, width):
    pads, rng = (tuple(sides[:2]), tuple(sides[2:])), np.random.default_rng(0)
    u = rng.standard_normal((2, height, width, 2))
    assert_adjoint(lambda u: pad(u, pads), lambda v: crop(v, pads), u, rng)
    np.testing.assert_array_equal(crop(pad(u, pads), pads), u)


@modest(120)
@given(poolings(kinds=("average",)))
def test_average_pooling_has_the_adjoint_it_claims(case):
    layer, x, _, _ = case
    options = (layer.window, layer.count_include_pad)
    rng = np.random.default_rng(0)
    assert_adjoint(lambda u: avg_pool(u, *options), lambda v: avg_pool_adjoint(v, x.shape, *options), x, rng)


@modest(120)
@given(convolutions())
def test_convolution_is_linear_in_images_and_in_kernels_with_backward_as_its_adjoint(case):
    layer, x, _ = case
    layer.bias.value[:] = 0

    def backward(v):
        layer.forward(x, training=True)
        return layer.backward(v)

    def kernel_gradient(v):
        backward(v)
        return layer.kernel.grad

    rng = np.random.default_rng(0)
    assert_adjoint(layer.forward, backward, x, rng)
    assert_adjoint(lambda kernel: layer.forward(x, training=True), kernel_gradient, layer.kernel.value, rng)


# --- invalid arguments ------------------------------------------------------------------------------------

DOES_NOT_FIT = re.compile(
    r"A \d+x\d+ kernel with padding (same|\d+|\(\(\d+, \d+\), \(\d+, \d+\)\))(, dilation \(\d+, \d+\))? "
    r"does not fit an input of \d+x\d+ pixels\. Use a smaller kernel, more padding or one pooling layer fewer\."
)
IN_THE_PADDING = re.compile(
    r".+ with padding .+, (Max|Avg)Pool2D\(.+\) .* in the padding of \d+x\d+ pixels\. Use less padding\."
)
ARGUMENT = re.compile(
    r"(kernel_size|stride|dilation) must be a whole number >= 1 or a pair \(height, width\) of them; received .+\."
    r'|padding must be "same", "valid", a whole number >= 0, a pair \(height, width\) '
    r"or four sides \(\(top, bottom\), \(left, right\)\); received .+\."
)


def outcome(action, *arguments, **options):
    """(return value, None), or (None, text of the ValueError); any other exception fails the test."""
    try:
        return action(*arguments, **options), None
    except ValueError as error:
        return None, str(error)


@st.composite
def wild_geometries(draw):
    """Any whole numbers that the constructor accepts, and images of any size."""
    padding = draw(paddings(6))[0]
    options = {name: draw(pairs(high)) for name, high in (("kernel_size", 4), ("stride", 6), ("dilation", 4))}
    return options | {"padding": padding}, (draw(st.integers(1, 8)), draw(st.integers(1, 8)))


@modest(300)
@given(wild_geometries(), st.sampled_from([Conv2D, MaxPool2D, AvgPool2D]), st.booleans(), st.booleans())
def test_a_geometry_either_works_or_is_refused_in_words(geometry, layer_type, ceil_mode, include):
    options, size = geometry
    if layer_type is Conv2D:
        layer = Conv2D(1, 1, **options, rng=np.random.default_rng(0), dtype=np.float64)
    else:
        flags = {"ceil_mode": ceil_mode} | ({"count_include_pad": include} if layer_type is AvgPool2D else {})
        layer = layer_type(**options, **flags)
    x = np.random.default_rng(0).standard_normal((1, *size, 1))
    shape, refusal = outcome(layer.output_shape, (*size, 1))
    if refusal:
        allowed = [DOES_NOT_FIT] if layer_type is Conv2D else [DOES_NOT_FIT, IN_THE_PADDING]
        assert any(rule.fullmatch(refusal) for rule in allowed), refusal
        assert outcome(layer.forward, x) == (None, refusal)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = layer.forward(x, training=True)
        grad_x = layer.backward(np.ones_like(y))
    assert y.shape == (1, *shape)
    assert min(shape) >= 1
    assert np.isfinite(y).all()
    assert grad_x.shape == x.shape
    if layer_type is MaxPool2D:  # the gradient of every output arrives
        assert grad_x.sum() == y.size


@modest(200)
@given(wild_geometries(), st.booleans())
def test_pooling_refuses_what_does_not_fit_or_lies_in_the_padding_and_nothing_else(geometry, ceil_mode):
    options, size = geometry
    shape = (1, *size, 1)
    layer = MaxPool2D(**options, ceil_mode=ceil_mode)
    kernel_size, stride, dilation = (pair(options[name]) for name in ("kernel_size", "stride", "dilation"))
    sides = layer.window.pads(*size)
    for axis in (0, 1):
        assume(not ceil_mode or max(sides[axis]) <= (kernel_size[axis] - 1) * dilation[axis])
    table = reference.windows(shape, kernel_size, stride, sides, dilation, ceil_mode)
    if not table or not table[0]:
        expected = "does not fit"
    elif all(any(reference.inside(p, shape) for p in pixels) for line in table for pixels in line):
        assert layer.output_shape(shape[1:]) == (len(table), len(table[0]), 1)
        return
    else:
        expected = "in the padding"
    with pytest.raises(ValueError, match=expected):
        layer.output_shape(shape[1:])


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=2),
    st.lists(st.one_of(st.integers(-2, 3), st.none(), st.lists(st.integers(-2, 3), max_size=3)), max_size=3),
    st.tuples(st.integers(-1, 3), st.floats()),
    st.dictionaries(st.integers(0, 1), st.integers(0, 1), max_size=2),
    st.just(np.array([2, 2])),
)


@modest(300)
@given(st.sampled_from(["kernel_size", "stride", "padding", "dilation"]), junk)
def test_an_argument_either_has_a_meaning_or_is_refused_in_words(name, value):
    options = {"kernel_size": 2, "stride": 1, "padding": 0, "dilation": 1} | {name: value}
    window, refusal = outcome(Window.of, **options)
    if refusal:
        assert ARGUMENT.fullmatch(refusal), refusal
        assert refusal.startswith(name)
        return
    numbers = [*window.kernel_size, *window.stride, *window.dilation]
    numbers += [side for sides in window.pads(20, 20) for side in sides]
    assert all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)


@modest(120)
@given(st.lists(st.integers(0, 6), max_size=5))
def test_a_shape_that_is_not_an_image_of_the_right_channels_is_refused_in_words(shape):
    shape = tuple(shape)
    layers = [
        (Conv2D(2, 3, 1, rng=np.random.default_rng(0), dtype=np.float64), 2),
        (MaxPool2D(1), None),
        (AvgPool2D(1), None),
        (GlobalAvgPool2D(), None),
        (GlobalMaxPool2D(), None),
    ]
    for layer, channels in layers:
        x = np.ones((1, *shape))
        if len(shape) == 3 and min(shape) > 0 and channels in (None, shape[2]):
            assert layer.forward(x).shape == (1, *layer.output_shape(shape))
        else:
            with pytest.raises(ValueError) as error:
                layer.forward(x)
            wanted = f"(height, width, {channels or 'channels'})"
            assert str(error.value) == f"{layer!r} needs images of shape {wanted}; received {shape}."
