"""The defining equations, each compared with numbers that the test computes by the plain definition."""

from math import erf, exp, expm1, log, pi, sqrt, tanh

import numpy as np
import pytest
import reference

from cnn import (
    ELU,
    GELU,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    SpatialDropout,
    Tanh,
    initializers,
    softmax_cross_entropy,
    whiten,
)
from cnn.gradient_check import numeric_gradient, relative_error
from cnn.ops.blocks import BLOCK
from cnn.registry import INITIALIZERS


def test_convolution_is_cross_correlation_with_bias():
    """y[p, q] = bias + Σ_{i, j} x[p + i, q + j] · kernel[i, j], by hand for a 3x3 image and a 2x2 kernel."""
    layer = Conv2D(1, 1, 2, rng=np.random.default_rng(0), dtype=np.float64)
    layer.kernel.value[:, :, 0, 0] = [[1, 2], [3, 4]]
    layer.bias.value[:] = 0.5
    x = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 3, 3, 1)
    y = layer.forward(x, training=True)
    by_hand = [
        [1 * 1 + 2 * 2 + 4 * 3 + 5 * 4 + 0.5, 2 * 1 + 3 * 2 + 5 * 3 + 6 * 4 + 0.5],
        [4 * 1 + 5 * 2 + 7 * 3 + 8 * 4 + 0.5, 5 * 1 + 6 * 2 + 8 * 3 + 9 * 4 + 0.5],
    ]
    np.testing.assert_array_equal(y[0, :, :, 0], by_hand)
    grad_x = layer.backward(np.array([[1.0, 10], [100, 1000]]).reshape(1, 2, 2, 1))
    # ∂L/∂kernel[i, j] = Σ_{p, q} ∂L/∂y[p, q] · x[p + i, q + j]; ∂L/∂bias = Σ ∂L/∂y
    np.testing.assert_array_equal(layer.kernel.grad[:, :, 0, 0], [[5421, 6532], [8754, 9865]])
    assert layer.bias.grad.item() == 1111
    # ∂L/∂x[r, s] = Σ_{i, j} ∂L/∂y[r − i, s − j] · kernel[i, j]
    np.testing.assert_array_equal(grad_x[0, :, :, 0], [[1, 12, 20], [103, 1234, 2040], [300, 3400, 4000]])


def test_convolution_with_several_channels_images_strides_and_groups_is_the_same_sum(rng):
    layer = Conv2D(
        4, 6, (2, 3), stride=(2, 1), padding=1, dilation=(1, 2), groups=2, rng=rng, dtype=np.float64
    )
    layer.bias.value[:] = rng.standard_normal(6)
    x = rng.standard_normal((2, 5, 6, 4))
    expected = reference.convolution(
        x, layer.kernel.value, layer.bias.value, (2, 1), ((1, 1), (1, 1)), (1, 2), groups=2
    )
    np.testing.assert_allclose(layer.forward(x), expected, rtol=0, atol=1e-13)


def test_dense_is_an_affine_map(rng):
    """y[n, o] = bias[o] + Σ_i x[n, i] · weight[i, o], and its three gradients."""
    layer = Dense(3, 2, rng=rng, dtype=np.float64)
    layer.bias.value[:] = [10, 20]
    x, grad_y = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    weight, bias = layer.weight.value, layer.bias.value
    y = layer.forward(x, training=True)
    grad_x = layer.backward(grad_y)
    for n, o in np.ndindex(4, 2):
        assert y[n, o] == pytest.approx(bias[o] + sum(x[n, i] * weight[i, o] for i in range(3)), rel=1e-13)
    for i, o in np.ndindex(3, 2):
        expected = sum(x[n, i] * grad_y[n, o] for n in range(4))
        assert layer.weight.grad[i, o] == pytest.approx(expected, rel=1e-12)
    for o in range(2):
        assert layer.bias.grad[o] == pytest.approx(sum(grad_y[n, o] for n in range(4)), rel=1e-12)
    for n, i in np.ndindex(4, 3):
        expected = sum(grad_y[n, o] * weight[i, o] for o in range(2))
        assert grad_x[n, i] == pytest.approx(expected, rel=1e-12)


def test_relu_and_its_derivative():
    """max(x, 0); 1 if x > 0, else 0, also at 0."""
    layer = ReLU()
    x = np.array([[-2.0, -1e-30, -0.0, 0.0, 1e-30, 3.0]])
    np.testing.assert_array_equal(layer.forward(x, training=True), [[0, 0, 0, 0, 1e-30, 3]])
    np.testing.assert_array_equal(layer.backward(np.full((1, 6), 7.0)), [[0, 0, 0, 0, 7, 7]])


def test_max_pooling_and_its_gradient_routing():
    """Each window's maximum; each gradient goes to the pixel it came from, and a shared winner adds up."""
    x = np.array([[1.0, 5, 2], [3, 4, 9], [8, 8, 7]]).reshape(1, 3, 3, 1)
    layer = MaxPool2D(2, stride=1)
    np.testing.assert_array_equal(layer.forward(x, training=True)[0, :, :, 0], [[5, 9], [8, 9]])
    grad_x = layer.backward(np.array([[1.0, 10], [100, 1000]]).reshape(1, 2, 2, 1))
    np.testing.assert_array_equal(grad_x[0, :, :, 0], [[0, 1, 0], [0, 0, 1010], [100, 0, 0]])


def test_average_pooling_and_its_gradient():
    x = np.array([[1.0, 5, 2], [3, 7, 10]]).reshape(1, 2, 3, 1)
    layer = AvgPool2D(2, stride=1)
    np.testing.assert_array_equal(layer.forward(x, training=True)[0, :, :, 0], [[4, 6]])
    grad_x = layer.backward(np.array([[4.0, 8]]).reshape(1, 1, 2, 1))
    np.testing.assert_array_equal(grad_x[0, :, :, 0], [[1, 3, 2], [1, 3, 2]])


def test_global_average_and_maximum():
    x = np.array([[[1.0, 8], [2, 8]], [[3, 5], [6, -1]]])[None]  # channels [1 2; 3 6] and [8 8; 5 −1]
    average, maximum = GlobalAvgPool2D(), GlobalMaxPool2D()
    np.testing.assert_array_equal(average.forward(x, training=True), [[3, 5]])
    np.testing.assert_array_equal(maximum.forward(x, training=True), [[6, 8]])
    grad_y = np.array([[4.0, 12]])
    np.testing.assert_array_equal(average.backward(grad_y)[0], [[[1, 3], [1, 3]], [[1, 3], [1, 3]]])
    np.testing.assert_array_equal(maximum.backward(grad_y)[0], [[[0, 12], [0, 0]], [[0, 0], [4, 0]]])


def test_batch_norm_in_training_and_evaluation_with_running_statistics_over_two_batches(rng):
    layer = BatchNorm(3, momentum=0.8, epsilon=0.05, dtype=np.float64)
    layer.gamma.value[:], layer.beta.value[:] = [1.5, -0.5, 2], [0.1, 0.2, -3]
    running_mean, running_var = np.zeros(3), np.ones(3)
    for scale in (1, 4):
        x = rng.standard_normal((2, 3, 2, 3)) * scale + scale
        mean, variance = reference.batch_statistics(x)
        expected = reference.batch_norm(x, layer.gamma.value, layer.beta.value, mean, variance, 0.05)
        np.testing.assert_allclose(layer.forward(x, training=True), expected, rtol=1e-12, atol=1e-13)
        running_mean = 0.8 * running_mean + 0.2 * mean
        running_var = 0.8 * running_var + 0.2 * variance
        np.testing.assert_allclose(layer.running_mean, running_mean, rtol=1e-12)
        np.testing.assert_allclose(layer.running_var, running_var, rtol=1e-12)
    expected = reference.batch_norm(x, layer.gamma.value, layer.beta.value, running_mean, running_var, 0.05)
    np.testing.assert_allclose(layer.forward(x), expected, rtol=1e-12, atol=1e-13)


def test_batch_norm_starts_as_the_identity_up_to_epsilon(rng):
    layer, x = BatchNorm(2, epsilon=0.21, dtype=np.float64), rng.standard_normal((4, 2))
    np.testing.assert_allclose(layer.forward(x), x / sqrt(1.21), rtol=1e-14)
    assert (BatchNorm(2).momentum, BatchNorm(2).epsilon) == (0.9, 1e-5)


def test_batch_norm_without_scale_is_one_whose_gamma_stays_1(rng):
    x, grad_y = rng.standard_normal((2, 4, 3, 3, 5))
    with_scale, without = BatchNorm(5, dtype=np.float64), BatchNorm(5, scale=False, dtype=np.float64)
    assert list(without.parameters()) == ["beta"]
    for layer in (with_scale, without):
        layer.beta.value[:] = [1, 2, 3, 4, 5]
    for answer in (
        lambda layer: layer.forward(x, training=True),
        lambda layer: layer.backward(grad_y),
        lambda layer: layer.beta.grad,
        lambda layer: layer.forward(x),
    ):
        np.testing.assert_array_equal(answer(without), answer(with_scale))


def test_batch_norm_of_two_examples():
    """x = ±1 has σ² = 1: with epsilon 3, x̂ = ±1/2 and d = 2; the gradient is computed by hand."""
    layer = BatchNorm(1, epsilon=3, dtype=np.float64)
    layer.gamma.value[:], layer.beta.value[:] = 10, 1
    np.testing.assert_allclose(
        layer.forward(np.array([[-1.0], [1.0]]), training=True), [[-4], [6]], rtol=1e-15
    )
    grad_x = layer.backward(np.array([[0.0], [1.0]]))
    assert (layer.gamma.grad.item(), layer.beta.grad.item()) == (0.5, 1)
    # g = (0, 10): mean 5, mean of g·x̂ 2.5; (g − 5 − x̂·2.5) / 2
    np.testing.assert_allclose(grad_x, [[-1.875], [1.875]], rtol=1e-14)


def test_layer_norm(rng):
    layer = LayerNorm(4, epsilon=0.02, dtype=np.float64)
    layer.gamma.value[:], layer.beta.value[:] = rng.standard_normal((2, 4))
    x = rng.standard_normal((2, 3, 2, 4)) * 3 + 1
    expected = reference.layer_norm(x, layer.gamma.value, layer.beta.value, 0.02)
    np.testing.assert_allclose(layer.forward(x), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(layer.forward(x), expected, rtol=1e-12, atol=1e-13)
    fresh = LayerNorm(4)
    assert fresh.epsilon == 1e-5
    np.testing.assert_array_equal([fresh.gamma.value, fresh.beta.value], [[1] * 4, [0] * 4])


def test_softmax(rng):
    x = rng.standard_normal((3, 2, 5)) * 2
    layer = Softmax()
    y = layer.forward(x, training=True)
    expected = reference.softmax(x)
    np.testing.assert_allclose(y, expected, rtol=1e-13)
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-14)
    grad_y = rng.standard_normal(x.shape)
    grad_x = layer.backward(grad_y)
    for *place, i in np.ndindex(x.shape):
        p, g = expected[*place], grad_y[*place]
        total = sum(g[j] * p[j] * ((i == j) - p[i]) for j in range(5))
        assert grad_x[*place, i] == pytest.approx(total, rel=1e-10, abs=1e-14)


def test_log_softmax(rng):
    x = rng.standard_normal((3, 2, 5)) * 2
    layer = LogSoftmax()
    p = reference.softmax(x)
    np.testing.assert_allclose(layer.forward(x, training=True), np.vectorize(log)(p), rtol=1e-13)
    grad_y = rng.standard_normal(x.shape)
    grad_x = layer.backward(grad_y)
    for *place, i in np.ndindex(x.shape):
        total = sum(grad_y[*place, j] * ((i == j) - p[*place, i]) for j in range(5))
        assert grad_x[*place, i] == pytest.approx(total, rel=1e-10, abs=1e-14)
    extreme = np.array([[2000.0, 0.0]])
    np.testing.assert_array_equal(layer.forward(extreme, training=True), [[0, -2000]])


def one_hot(rng, examples, classes):
    return np.eye(classes)[rng.integers(0, classes, examples)]


def test_cross_entropy(rng):
    logits, targets = rng.standard_normal((5, 4)) * 2, one_hot(rng, 5, 4)
    expected = reference.cross_entropy(logits, targets)
    assert softmax_cross_entropy(logits, targets)[0] == pytest.approx(expected, rel=1e-13)


def test_the_gradient_of_softmax_with_cross_entropy_is_prediction_minus_target_over_n(rng):
    """∂L/∂z = (ŷ − y) / N; softmax's backward of ∂L/∂ŷ = −y / ŷ / N is the same."""
    logits, targets = rng.standard_normal((5, 4)) * 2, one_hot(rng, 5, 4)
    gradient = softmax_cross_entropy(logits, targets)[1]
    predicted = reference.softmax(logits)
    for n, k in np.ndindex(5, 4):
        assert gradient[n, k] == pytest.approx((predicted[n, k] - targets[n, k]) / 5, rel=1e-12)
    layer = Softmax()
    y = layer.forward(logits, training=True)
    np.testing.assert_allclose(layer.backward(-targets / y / 5), gradient, rtol=1e-10, atol=1e-15)
    numeric = numeric_gradient(lambda: reference.cross_entropy(logits, targets), logits)
    assert relative_error(gradient, numeric) < 1e-7


def sigma(x):
    return 1 / (1 + exp(-x))


def normal_cdf(x):
    return (1 + erf(x / sqrt(2))) / 2


def cubic(x):
    return sqrt(2 / pi) * (x + 0.044715 * x**3)


def approximate_cdf_slope(x):
    return 0.5 * (1 - tanh(cubic(x)) ** 2) * sqrt(2 / pi) * (1 + 3 * 0.044715 * x**2)


ACTIVATIONS = {
    # name -> (layer, f, f')
    "ReLU": (ReLU(), lambda x: max(x, 0), lambda x: float(x > 0)),
    "LeakyReLU": (LeakyReLU(), lambda x: x if x > 0 else x / 100, lambda x: 1 if x > 0 else 0.01),
    "LeakyReLU(0.3)": (LeakyReLU(0.3), lambda x: x if x > 0 else 0.3 * x, lambda x: 1 if x > 0 else 0.3),
    "ELU": (ELU(), lambda x: x if x > 0 else expm1(x), lambda x: 1 if x > 0 else exp(x)),
    "ELU(0.4)": (ELU(0.4), lambda x: x if x > 0 else 0.4 * expm1(x), lambda x: 1 if x > 0 else 0.4 * exp(x)),
    "GELU": (
        GELU(),
        lambda x: x * normal_cdf(x),
        lambda x: normal_cdf(x) + x * exp(-x * x / 2) / sqrt(2 * pi),
    ),
    "GELU approximate": (
        GELU(approximate=True),
        lambda x: x * (1 + tanh(cubic(x))) / 2,
        lambda x: (1 + tanh(cubic(x))) / 2 + x * approximate_cdf_slope(x),
    ),
    "SiLU": (SiLU(), lambda x: x * sigma(x), lambda x: sigma(x) + x * sigma(x) * sigma(-x)),
    "Sigmoid": (Sigmoid(), sigma, lambda x: exp(-x) / (1 + exp(-x)) ** 2),
    "Tanh": (Tanh(), tanh, lambda x: 4 / (exp(x) + exp(-x)) ** 2),
}
POINTS = [-9.0, -3.3, -1.0, -0.75, -0.01, 0.01, 0.5, 1.0, 1.7, 2.0, 6.5]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_and_their_derivatives(name, dtype):
    layer, function, derivative = ACTIVATIONS[name]
    x = np.array([POINTS], dtype)
    exact = [float(value) for value in x[0]]
    tolerance = 16 * np.finfo(dtype).eps
    y = layer.forward(x, training=True)
    np.testing.assert_allclose(y[0], [function(v) for v in exact], rtol=tolerance, atol=tolerance)
    slopes = layer.backward(np.ones_like(x))
    np.testing.assert_allclose(slopes[0], [derivative(v) for v in exact], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_treat_a_number_alike_wherever_it_is(name, dtype):
    """In the last block or another, alone in it, beside any others, and in a view."""
    layer = ACTIVATIONS[name][0]
    points = np.array(POINTS, dtype)
    few = layer.forward(points[None], training=True)[0], layer.backward(points[None])[0]
    block = BLOCK // points.itemsize
    for count in (0, 1, block - 1, block, block + 1, 2 * block + 3):
        x = np.resize(points, (1, count))
        view = np.stack([x, x], axis=-1)[..., 0]
        view.flags.writeable = False
        y, slopes = layer.forward(view, training=True), layer.backward(view)
        for found, expected in zip((y, slopes, layer.forward(x)), (*few, few[0]), strict=True):
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, np.resize(expected, (1, count)))


@pytest.mark.parametrize(
    ("name", "value", "slope"),
    [
        ("LeakyReLU(0.3)", 0, 0.3),
        ("ELU", 0, 1),
        ("ELU(0.4)", 0, 0.4),
        ("GELU", 0, 0.5),
        ("GELU approximate", 0, 0.5),
        ("SiLU", 0, 0.5),
        ("Sigmoid", 0.5, 0.25),
        ("Tanh", 0, 1),
    ],
)
def test_activations_at_zero(name, value, slope):
    layer = ACTIVATIONS[name][0]
    assert layer.forward(np.zeros((1, 1)), training=True).item() == pytest.approx(value, abs=1e-15)
    assert layer.backward(np.ones((1, 1))).item() == pytest.approx(slope, rel=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("error")
def test_activations_are_safe_for_large_numbers(name, dtype):
    """At ±1000 each function (0, ±x, ±1 or −alpha) and its slope is at its limit; nothing overflows."""
    layer = ACTIVATIONS[name][0]
    y = layer.forward(np.array([[-1000, 1000]], dtype), training=True)
    low, high = {
        "LeakyReLU": (-10, 1000),
        "LeakyReLU(0.3)": (-300, 1000),
        "ELU": (-1, 1000),
        "ELU(0.4)": (-0.4, 1000),
        "Sigmoid": (0, 1),
        "Tanh": (-1, 1),
    }.get(name, (0, 1000))
    np.testing.assert_allclose(y[0], [low, high], rtol=1e-6, atol=1e-6)
    slopes = {"LeakyReLU": (0.01, 1), "LeakyReLU(0.3)": (0.3, 1), "Sigmoid": (0, 0), "Tanh": (0, 0)}.get(
        name, (0, 1)
    )
    np.testing.assert_allclose(layer.backward(np.ones((1, 2), dtype))[0], slopes, rtol=1e-6, atol=1e-6)


def test_the_approximate_gelu_differs_by_less_than_a_thousandth():
    x = np.linspace(-8, 8, 2001)[None]
    difference = np.abs(GELU(approximate=True).forward(x) - GELU().forward(x)).max()
    assert 1e-5 < difference < 1e-3


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_zeroes_a_fraction_and_keeps_the_mean(rate, dtype):
    x = np.ones((400, 500), dtype)
    y = Dropout(rate).forward(x, training=True, rng=np.random.default_rng(0))
    assert (y == 0).mean() == pytest.approx(rate, abs=0.005)
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)
    assert y.mean() == pytest.approx(1, abs=0.02)
    assert Dropout(rate).forward(x) is x


@pytest.mark.parametrize("layer_type", [Dropout, SpatialDropout])
def test_dropout_sends_the_gradient_through_the_same_mask(rng, layer_type):
    x, grad_y = rng.standard_normal((2, 3, 10, 20, 8))[0:2]
    layer = layer_type(0.3)
    mask = layer.forward(x, training=True, rng=np.random.default_rng(1)) / x
    assert 0 < (mask == 0).sum() < mask.size
    np.testing.assert_allclose(layer.backward(grad_y), grad_y * mask, rtol=1e-13)


@pytest.mark.parametrize("layer_type", [Dropout, SpatialDropout])
def test_dropout_of_rate_zero_is_the_identity(rng, layer_type):
    x, layer = rng.standard_normal((2, 3, 4, 5)), layer_type(0)
    np.testing.assert_array_equal(layer.forward(x, training=True, rng=np.random.default_rng(0)), x)
    np.testing.assert_array_equal(layer.backward(x), x)


def test_dropout_draws_anew_each_time_and_the_same_from_the_same_generator():
    layer, x = Dropout(0.5), np.ones((10, 10))
    rng = np.random.default_rng(0)
    first, second = layer.forward(x, training=True, rng=rng), layer.forward(x, training=True, rng=rng)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(layer.forward(x, training=True, rng=np.random.default_rng(0)), first)


def test_dropout_keeps_a_number_whose_draw_is_not_below_the_rate():
    """Draws are uniform on [0, 1): below the rate with probability rate, and never below 0."""

    class Draws:
        def random(self, shape, dtype):
            return np.array([0.0, 0.25, 0.5, 0.75], dtype)

    x = np.ones(4)
    np.testing.assert_array_equal(Dropout(0.5).forward(x, training=True, rng=Draws()), [0, 0, 2, 2])
    np.testing.assert_array_equal(Dropout(0).forward(x, training=True, rng=Draws()), [1, 1, 1, 1])


def test_dropout_passes_its_generator_through_nested_layers():
    model = Sequential([Residual([Dropout(0.5)], [Dropout(0.5)]), Dropout(0.5)])
    x, rng = np.ones((20, 20)), np.random.default_rng(0)
    y = model.forward(x, training=True, rng=np.random.default_rng(0))
    masks = [Dropout(0.5).forward(x, training=True, rng=rng) for _ in range(3)]
    np.testing.assert_array_equal(y, (masks[0] + masks[1]) * masks[2])


def test_spatial_dropout_drops_whole_channels_of_each_example():
    x = np.ones((50, 3, 4, 40))
    y = SpatialDropout(0.25).forward(x, training=True, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
    channels = y[:, 0, 0]
    assert (channels == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert set(np.unique(channels)) == {0, 4 / 3}
    assert len(np.unique(channels, axis=0)) > 40  # each example has its own draws
    vectors = SpatialDropout(0.25).forward(np.ones((50, 40)), training=True, rng=np.random.default_rng(0))
    assert len(np.unique(vectors, axis=0)) > 40


def test_the_residual_gradient_is_the_sum_of_both_branches(rng):
    x, grad_y = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    alone = Dense(4, 4, rng=np.random.default_rng(0), dtype=np.float64)
    other = Dense(4, 4, rng=np.random.default_rng(1), dtype=np.float64)
    y, z = alone.forward(x, training=True), other.forward(x, training=True)
    grad, other_grad = alone.backward(grad_y), other.backward(grad_y)
    identity, both = Residual([alone]), Residual([alone], [other])
    np.testing.assert_allclose(identity.forward(x, training=True), y + x, rtol=1e-14)
    np.testing.assert_allclose(identity.backward(grad_y), grad + grad_y, rtol=1e-14)
    np.testing.assert_allclose(both.forward(x, training=True), y + z, rtol=1e-14)
    np.testing.assert_allclose(both.backward(grad_y), grad + other_grad, rtol=1e-14)


def test_sequential_is_composition_and_backward_the_chain_rule(rng):
    first, second = Dense(3, 4, rng=rng, dtype=np.float64), Dense(4, 2, rng=rng, dtype=np.float64)
    x, grad_y = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    model = Sequential([first, Tanh(), second])
    hidden = np.vectorize(tanh)(x @ first.weight.value)
    np.testing.assert_allclose(model.forward(x, training=True), hidden @ second.weight.value, rtol=1e-12)
    expected = ((grad_y @ second.weight.value.T) * (1 - hidden**2)) @ first.weight.value.T
    np.testing.assert_allclose(model.backward(grad_y), expected, rtol=1e-12)


# --- initial values ---------------------------------------------------------------------------------------

# of a kernel: 5x5 pixels, 8 channels in, 32 out
FAN_IN, FAN_OUT = 5 * 5 * 8, 5 * 5 * 32
VARIANCES = {
    "he": 2 / FAN_IN,
    "glorot": 2 / (FAN_IN + FAN_OUT),
    "lecun": 1 / FAN_IN,
}


def draw(name, shape, dtype=np.float64, seed=0):
    return getattr(initializers, name)(shape, np.random.default_rng(seed), dtype)


EACH_VARIANCE = {  # name -> variance of all values
    **{
        f"{family}_{kind}": variance
        for family, variance in VARIANCES.items()
        for kind in ("normal", "uniform")
    },
    "fan_in_uniform": 1 / (3 * FAN_IN),
    "orthogonal": 1 / FAN_IN,  # each column of FAN_IN numbers has length 1
    "dirac": 8 / 32 / FAN_IN + 24 / 32 / (3 * FAN_IN),  # 8 of 32 columns of length 1, the others uniform
    "whitening": 1 / 1.0005 / FAN_IN,  # one number in each column
    "zeros": 0,
}


def test_every_registered_initializer_has_its_variance():
    assert set(EACH_VARIANCE) == set(INITIALIZERS)
    for name, variance in EACH_VARIANCE.items():
        values = draw(name, (5, 5, 8, 32))
        assert values.shape == (5, 5, 8, 32)
        assert values.var() == pytest.approx(variance, rel=0.05), name
        if name.endswith("uniform"):
            assert sqrt(3 * variance) * 0.999 < np.abs(values).max() <= sqrt(3 * variance)


@pytest.mark.parametrize("family", VARIANCES)
def test_initial_values_have_the_variance_of_their_equation(family):
    variance = VARIANCES[family]
    for distribution in ("normal", "uniform"):
        values = draw(f"{family}_{distribution}", (5, 5, 8, 32))
        assert values.shape == (5, 5, 8, 32)
        assert values.var() == pytest.approx(variance, rel=0.05)
        assert abs(values.mean()) < 4 * sqrt(variance / values.size)
    limit = sqrt(3 * variance)  # the variance of a uniform distribution on ±limit is limit² / 3
    assert limit * 0.999 < values.max() <= limit
    assert -limit <= values.min() < -limit * 0.999
    assert np.abs(draw(f"{family}_normal", (5, 5, 8, 32))).max() > 3 * sqrt(variance)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((7, 4), (7, 4)), ((3, 3, 16, 32), (144, 288)), ((5, 2, 1, 6), (10, 60)), ((1, 1, 8, 3), (8, 3))],
)
def test_fans_of_a_weight_and_of_a_kernel(shape, expected):
    assert initializers.fans(shape) == expected


def test_a_grouped_kernel_has_the_fan_in_of_one_group():
    """A depthwise 3x3 output sees 9 numbers for any number of channels."""
    for initializer in (initializers.he_normal, initializers.lecun_normal):
        layer = Conv2D(512, 512, 3, groups=512, initializer=initializer, rng=np.random.default_rng(0))
        expected = 2 / 9 if initializer is initializers.he_normal else 1 / 9
        assert layer.kernel.value.var() == pytest.approx(expected, rel=0.06)


def test_a_fan_needs_two_axes():
    with pytest.raises(ValueError, match=r"at least two axes .*; received \(3,\)"):
        initializers.fans((3,))


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6), (3, 3, 2, 4), (2, 2, 1, 9)])
def test_orthogonal_columns_or_rows_are_orthonormal(shape):
    values = draw("orthogonal", shape)
    assert values.shape == shape
    matrix = values.reshape(-1, shape[-1])
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-14)


def test_orthogonal_matrices_favour_no_sign():
    """A plain QR decomposition gives R a diagonal of arbitrary signs; Q is uniform only if they are corrected."""
    corners = np.array([draw("orthogonal", (3, 3), seed=seed)[0, 0] for seed in range(2000)])
    assert abs(np.sign(corners).mean()) < 0.1
    assert (corners**2).mean() == pytest.approx(1 / 3, rel=0.1)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_dirac_filters_pass_their_channels_on_and_the_others_are_uniform(side):
    kernel, drawn = draw("dirac", (side, side, 2, 5)), draw("fan_in_uniform", (side, side, 2, 5))
    np.testing.assert_array_equal(kernel[..., 2:], drawn[..., 2:])
    for i, j, c, o in np.ndindex(side, side, 2, 2):
        assert kernel[i, j, c, o] == (i == j == (side - 1) // 2 and c == o)
    np.testing.assert_array_equal(draw("dirac", (3, 2)), np.eye(3, 2))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5])
def test_a_dirac_convolution_passes_its_input_on(side):
    layer = Conv2D(
        2, 3, side, padding="same", bias=False, initializer=initializers.dirac, rng=np.random.default_rng(0)
    )
    x = np.random.default_rng(1).standard_normal((2, 5, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(layer.forward(x)[..., :2], x)


def correlated_images(n=40, dtype=np.float64):
    """Smooth colour images whose channels resemble each other."""
    x = np.random.default_rng(0).standard_normal((n, 7, 6, 3))
    x = x + x[..., :1] + np.roll(x, 1, axis=1) + np.roll(x, 1, axis=2)
    return (x + 0.3).astype(dtype)


def whitening_layer(outputs=24, dtype=np.float64, **options):
    return Conv2D(
        3,
        outputs,
        2,
        initializer=initializers.whitening,
        rng=np.random.default_rng(0),
        dtype=dtype,
        **options,
    )


@pytest.mark.parametrize("wrap", [lambda layer: [layer, ReLU()], lambda layer: [Sequential([layer]), ReLU()]])
def test_whitened_outputs_are_uncorrelated_and_occur_with_both_signs(wrap):
    images, layer = correlated_images(600), whitening_layer()
    np.testing.assert_allclose(layer.kernel_matrix()[0][:, :12] * sqrt(1.0005), np.eye(12))
    whiten(Sequential(wrap(layer)), images)
    y = layer.forward(images).reshape(-1, 24)
    np.testing.assert_allclose(y[:, 12:], -y[:, :12])
    moments = y[:, :12].T @ y[:, :12] / len(y)
    patches = np.array(
        [images[n, i : i + 2, j : j + 2].ravel() for n in range(600) for i in range(6) for j in range(5)]
    )
    variances = np.sort(np.linalg.eigvalsh(patches.T @ patches / len(patches)))[::-1]
    np.testing.assert_allclose(moments, np.diag(variances / (variances + 5e-4)), atol=1e-10)


def test_fewer_whitening_outputs_belong_to_the_largest_variances():
    whole, part = whitening_layer(), whitening_layer(outputs=6)
    for layer in (whole, part):
        whiten(Sequential([layer]), correlated_images())
    np.testing.assert_array_equal(part.kernel.value[..., :3], whole.kernel.value[..., :3])


def test_whitening_looks_at_the_first_images_a_few_at_a_time(monkeypatch):
    few, many = whitening_layer(), whitening_layer()
    images = correlated_images()
    whiten(Sequential([few]), images[:20])
    monkeypatch.setattr("cnn.whitening.IMAGES", 20)
    monkeypatch.setattr("cnn.whitening._NUMBERS_AT_ONCE", 3 * 6 * 5 * 12)  # three images
    seen = []

    class OnDisk:
        shape = images.shape

        def __len__(self):
            return len(images)

        def __getitem__(self, rows):
            seen.append(len(images[rows]))
            return images[rows]

    whiten(Sequential([many]), OnDisk())
    assert seen == [3, 3, 3, 3, 3, 3, 2]
    np.testing.assert_allclose(many.kernel.value, few.kernel.value, rtol=1e-9)


def test_whitening_survives_images_of_one_colour_and_single_precision():
    layer = whitening_layer(dtype=np.float32)
    whiten(Sequential([layer]), np.ones((3, 4, 4, 3), np.float32))
    assert np.isfinite(layer.kernel.value).all()
    assert layer.kernel.value.dtype == np.float32


def test_whiten_changes_nothing_without_a_whitening_layer_and_refuses_what_it_cannot_do():
    rng, images = np.random.default_rng(0), correlated_images()
    plain = Conv2D(3, 4, 2, rng=rng, dtype=np.float64)
    before = plain.kernel.value.copy()
    whiten(Sequential([plain]), images)
    np.testing.assert_array_equal(plain.kernel.value, before)
    later = Conv2D(4, 4, 2, initializer=initializers.whitening, rng=rng, dtype=np.float64)
    with pytest.raises(ValueError, match=r"first layer, without groups; received it in Conv2D\(4, 4, 2"):
        whiten(Sequential([plain, later]), images)
    with pytest.raises(ValueError, match="first layer, without groups"):
        whiten(Sequential([Dense(3, 4, initializer=initializers.whitening, rng=rng)]), images)
    grouped = Conv2D(3, 6, 2, groups=3, initializer=initializers.whitening, rng=rng)
    with pytest.raises(ValueError, match="first layer, without groups"):
        whiten(Sequential([grouped]), images)
    with pytest.raises(ValueError, match="received no image"):
        whiten(Sequential([whitening_layer()]), images[:0])
    with pytest.raises(ValueError, match="received some that are not"):
        whiten(Sequential([Sequential([]), whitening_layer()]), np.full_like(images, np.nan))
    for outputs in (3, 26):
        with pytest.raises(ValueError, match=f"at most twice the numbers in a patch, 24; received {outputs}"):
            whitening_layer(outputs=outputs)


def test_zeros_draws_nothing():
    rng = np.random.default_rng(0)
    assert not initializers.zeros((3,), rng, np.float32).any()
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("name", [name for name in INITIALIZERS if name not in ("zeros", "whitening")])
def test_initial_values_are_deterministic_and_the_same_in_both_dtypes(name):
    values = draw(name, (3, 3, 2, 4))
    np.testing.assert_array_equal(draw(name, (3, 3, 2, 4)), values)
    assert not np.array_equal(draw(name, (3, 3, 2, 4), seed=1), values)
    single = draw(name, (3, 3, 2, 4), np.float32)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, values.astype(np.float32))


@pytest.mark.parametrize("layer_type", [Conv2D, Dense])
def test_layers_start_from_the_generator_and_the_initializer_they_are_given(layer_type):
    arguments = (3, 4, 2) if layer_type is Conv2D else (3, 4)
    for name in ("fan_in_uniform", "orthogonal"):
        options = {} if name == "fan_in_uniform" else {"initializer": getattr(initializers, name)}
        layer = layer_type(*arguments, **options, rng=np.random.default_rng(3), dtype=np.float64)
        value, bias = (parameter.value for parameter in layer.parameters().values())
        np.testing.assert_array_equal(value, draw(name, value.shape, seed=3))
        assert not bias.any()
