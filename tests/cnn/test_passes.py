"""Planned networks compute the same as the original layers."""

import copy

import numpy as np
import pytest
from conftest import spread

from cnn import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    from_spec,
    gradient_check,
)
from cnn.engine import fused
from cnn.engine.fused import FusedConv2D
from cnn.engine.fused_batch_norm import FirstConvBatchNorm
from cnn.engine.passes import (
    PASSES,
    conv_with_max_pool,
    first_batch_norm,
    first_convolution,
    fold_batch_norm,
    plan,
    relu_after_max_pool,
    winograd,
)


def conv(inputs, outputs, size=3, **options):
    return Conv2D(inputs, outputs, size, rng=np.random.default_rng(inputs), dtype=np.float64, **options)


def wide(inputs, outputs, **options):
    return conv(inputs, outputs, 3, padding="same", **options)


NETWORKS = {
    "enough channels": (
        [conv(2, 16), wide(16, 16), ReLU(), wide(16, 16, bias=False)],
        ["fused", "minimal", ReLU, "minimal"],
    ),
    "enough channels, pool": (
        [conv(2, 16), wide(16, 12), ReLU(), MaxPool2D(2)],
        ["fused", "minimal, pool", ReLU],
    ),
    "too few pixels": ([MaxPool2D(4), conv(2, 16, 1), wide(16, 8)], [MaxPool2D, Conv2D, "minimal"]),
    "wide, dilated": ([conv(2, 16), wide(16, 16, dilation=2)], ["fused", Conv2D]),
    "wide, groups": ([conv(2, 16), wide(16, 16, groups=2)], ["fused", Conv2D]),
    "wide, 3x1": ([conv(2, 16), conv(16, 16, (3, 1))], ["fused", Conv2D]),
    "wide, 1x3": ([conv(2, 16), conv(16, 16, (1, 3))], ["fused", Conv2D]),
    "stride 2": ([conv(2, 16), conv(16, 16, 3, stride=2)], ["fused", Conv2D]),
    "conv, relu, pool": ([conv(2, 3), ReLU(), MaxPool2D(2)], ["fused, pool", ReLU]),
    "conv, pool": ([conv(2, 3), MaxPool2D((2, 3))], ["fused, pool"]),
    "one channel": ([conv(1, 3), ReLU(), MaxPool2D(2)], ["fused, pool", ReLU]),
    "no bias, strides, padding": (
        [conv(2, 3, bias=False, stride=(2, 1), padding=((1, 2), (0, 1))), ReLU(), MaxPool2D((3, 2))],
        ["fused, pool", ReLU],
    ),
    "dilation": ([conv(2, 3, dilation=2), MaxPool2D(2)], ["fused, pool"]),
    "groups stay": ([conv(2, 4, groups=2), ReLU(), MaxPool2D(2)], ["fused", MaxPool2D, ReLU]),
    "overlapping pool": ([conv(2, 3), ReLU(), MaxPool2D(3, stride=2)], ["fused", MaxPool2D, ReLU]),
    "padded pool": ([conv(2, 3), ReLU(), MaxPool2D(2, padding=1)], ["fused", MaxPool2D, ReLU]),
    "ceil mode": ([conv(2, 3), MaxPool2D(2, ceil_mode=True)], ["fused", MaxPool2D]),
    "dilated pool": ([conv(2, 3), MaxPool2D(2, dilation=2)], ["fused", MaxPool2D]),
    "batch norm": (
        [conv(2, 3, bias=False), BatchNorm(3, dtype=np.float64), ReLU(), MaxPool2D(2)],
        ["fused", BatchNorm, MaxPool2D, ReLU],
    ),
    "batch norm, short patches": (
        [conv(2, 18, padding=1, bias=False), BatchNorm(18, dtype=np.float64), ReLU(), MaxPool2D(2)],
        [FirstConvBatchNorm, MaxPool2D, ReLU],
    ),
    "batch norm, short patches, no bias, strides": (
        [conv(2, 8, 2, stride=(2, 1), bias=False), BatchNorm(8, dtype=np.float64), conv(8, 3)],
        [FirstConvBatchNorm, Conv2D],
    ),
    "batch norm later": (
        [LeakyReLU(), conv(2, 18, bias=False), BatchNorm(18, dtype=np.float64)],
        [LeakyReLU, Conv2D, BatchNorm],
    ),
    "batch norm, groups": (
        [conv(2, 18, groups=2, bias=False), BatchNorm(18, dtype=np.float64)],
        ["fused", BatchNorm],
    ),
    "pool first": ([MaxPool2D(2), conv(2, 3), ReLU()], [MaxPool2D, Conv2D, ReLU]),
    "relu first": ([ReLU(), MaxPool2D(2), conv(2, 3)], [MaxPool2D, ReLU, Conv2D]),
    "other layers": ([conv(2, 3), LeakyReLU(), AvgPool2D(2)], ["fused", LeakyReLU, AvgPool2D]),
    "two in a row": (
        [conv(2, 3), ReLU(), MaxPool2D(2), conv(3, 4, 2), ReLU(), MaxPool2D(2)],
        ["fused, pool", ReLU, "fused, pool", ReLU],
    ),
    "nested": ([Sequential([conv(2, 3), ReLU(), MaxPool2D(2)])], [Sequential]),
    "residual": (
        [Residual([conv(2, 3), ReLU(), MaxPool2D(2)], [conv(2, 3), MaxPool2D(2)]), ReLU()],
        [Residual, ReLU],
    ),
    "dense": ([Flatten(), Dense(198, 3, rng=np.random.default_rng(0), dtype=np.float64)], [Flatten, Dense]),
}


def kinds(model):
    """The types of its layers; of fused ones, what they do."""
    return [
        ", ".join(["minimal" if layer.minimal else "fused", *(["pool"] if layer.pool else [])])
        if type(layer) is FusedConv2D
        else type(layer)
        for layer in model.layers
    ]


each_network = pytest.mark.parametrize("name", NETWORKS)


def make(name):
    layers, planned = copy.deepcopy(NETWORKS[name])
    channels = 1 if name == "one channel" else 2
    return Sequential(layers), spread(np.random.default_rng(3), (2, 11, 9, channels)), planned


@each_network
def test_the_rewrites_are_these(name):
    model, _, planned = make(name)
    assert kinds(plan(model)) == planned
    inner = {"nested": 1, "residual": 2}.get(name, 0)
    assert sum(type(x) is FusedConv2D and x.pool is not None for _, x in plan(model).walk()) == (
        sum("pool" in str(kind).split(", ") for kind in planned) + inner
    )


@each_network
def test_outputs_are_the_same(name):
    model, x, _ = make(name)
    for training in (False, True):
        expected = model.forward(x, training=training)
        np.testing.assert_allclose(
            plan(model).forward(x, training=training), expected, rtol=1e-12, atol=1e-14
        )
    assert plan(model).output_shape(x.shape[1:]) == model.output_shape(x.shape[1:])


@each_network
def test_gradients_are_the_same(name):
    model, x, _ = make(name)
    grad_y = np.random.default_rng(0).standard_normal(model.forward(x, training=True).shape)
    expected_x = model.backward(grad_y)
    expected = [parameter.grad for parameter in model.parameters().values()]
    planned = plan(model)
    planned.forward(x, training=True)
    np.testing.assert_allclose(planned.backward(grad_y), expected_x, rtol=1e-11, atol=1e-13)
    for parameter, gradient in zip(planned.parameters().values(), expected, strict=True):
        np.testing.assert_allclose(parameter.grad, gradient, rtol=1e-11, atol=1e-13)


@each_network
def test_gradients_of_parameters_alone_are_exactly_those_of_backward(name):
    gradients = []
    for method in ("backward", "backward_parameters"):
        model, x, _ = make(name)
        planned = plan(model)
        y = planned.forward(x, training=True)
        getattr(planned, method)(np.random.default_rng(0).standard_normal(y.shape))
        gradients.append([parameter.grad for parameter in planned.parameters().values()])
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["conv, relu, pool", "stride 2", "enough channels", "wide alone"])
def test_a_first_convolution_leaves_out_the_gradient_of_its_input_if_nobody_needs_it(name, monkeypatch):
    """col2im computes dL/dx for products of matrices, and a transform does so for minimal filtering."""
    calls = []

    def spy(name, original):
        def record(*arguments):
            calls.append((name, arguments[-1]))
            return original(*arguments)

        monkeypatch.setattr(fused, name, record)

    if name == "wide alone":
        model, x = Sequential([wide(16, 16)]), spread(np.random.default_rng(3), (8, 12, 12, 16))
    else:
        model, x, _ = make(name)
    planned = plan(Sequential(model.layers[:1]))
    spy("col2im", fused.col2im)
    spy("winograd_backward", fused.winograd_backward)
    y = planned.forward(x, training=True)
    planned.backward_parameters(np.ones_like(y))
    assert [call for call in calls if call[0] == "col2im" or call[1] is not False] == []
    planned.forward(x, training=True)
    planned.backward(np.ones_like(y))
    assert [call for call in calls if call[0] == "col2im" or call[1] is True] != []


def test_without_passes_the_layers_are_as_they_were():
    model, x, _ = make("two in a row")
    planned = plan(model, ())
    assert [a is b for a, b in zip(planned.layers, model.layers, strict=True)] == [True] * 6
    np.testing.assert_array_equal(planned.forward(x), model.forward(x))


FOR_ALL_PASSES = [conv(2, 16), wide(16, 8), ReLU(), MaxPool2D(2), conv(8, 3), MaxPool2D(2)]


@pytest.mark.parametrize(
    ("passes", "planned_kinds"),
    [
        ([relu_after_max_pool], [Conv2D, Conv2D, MaxPool2D, ReLU, Conv2D, MaxPool2D]),
        ([winograd], [Conv2D, "minimal", ReLU, MaxPool2D, Conv2D, MaxPool2D]),
        ([conv_with_max_pool], [Conv2D, Conv2D, ReLU, MaxPool2D, "fused, pool"]),
        ([first_convolution], ["fused", Conv2D, ReLU, MaxPool2D, Conv2D, MaxPool2D]),
        (
            [winograd, conv_with_max_pool, first_convolution],
            ["fused", "minimal", ReLU, MaxPool2D, "fused, pool"],
        ),
        (
            [relu_after_max_pool, conv_with_max_pool, first_convolution],
            ["fused", "fused, pool", ReLU, "fused, pool"],
        ),
        (
            [relu_after_max_pool, winograd, first_convolution],
            ["fused", "minimal", MaxPool2D, ReLU, Conv2D, MaxPool2D],
        ),
        (
            [relu_after_max_pool, winograd, conv_with_max_pool],
            [Conv2D, "minimal, pool", ReLU, "fused, pool"],
        ),
    ],
)
def test_passes_can_be_left_out_one_by_one_and_each_changes_only_roundings(passes, planned_kinds):
    x = spread(np.random.default_rng(3), (8, 18, 18, 2))
    model = Sequential(copy.deepcopy(FOR_ALL_PASSES))
    planned = plan(Sequential(copy.deepcopy(FOR_ALL_PASSES)), passes)
    assert kinds(planned) == planned_kinds
    y = planned.forward(x, training=True)
    np.testing.assert_allclose(y, model.forward(x, training=True), rtol=1e-10, atol=1e-12)
    grad_y = np.random.default_rng(0).standard_normal(y.shape)
    np.testing.assert_allclose(planned.backward(grad_y), model.backward(grad_y), rtol=1e-9, atol=1e-11)
    for one, other in zip(planned.parameters().values(), model.parameters().values(), strict=True):
        np.testing.assert_allclose(one.grad, other.grad, rtol=1e-9, atol=1e-11)


def test_the_passes_stand_in_the_list_once_each():
    assert (
        fold_batch_norm,
        relu_after_max_pool,
        first_batch_norm,
        winograd,
        conv_with_max_pool,
        first_convolution,
    ) == PASSES


def norm(channels):
    layer = BatchNorm(channels, dtype=np.float64)
    rng = np.random.default_rng(channels)
    for array in (layer.gamma.value, layer.beta.value, layer.running_mean, layer.running_var):
        array[...] = rng.uniform(0.5, 2, channels)
    return layer


NORMALISED = {
    "conv": ([conv(2, 3), norm(3), ReLU()], ["fused", ReLU]),
    "without bias, pool": ([conv(2, 3, bias=False), norm(3), ReLU(), MaxPool2D(2)], ["fused, pool", ReLU]),
    "minimal": ([norm(2), conv(2, 16, 1), wide(16, 16), norm(16)], [BatchNorm, Conv2D, "minimal"]),
    "groups": ([conv(2, 4, groups=2), norm(4)], ["fused"]),
    "nothing before it": ([norm(2), ReLU()], [BatchNorm, ReLU]),
    "something between": ([conv(2, 3), ReLU(), norm(3)], ["fused", ReLU, BatchNorm]),
    "residual": ([conv(2, 3), Residual([wide(3, 3), norm(3), ReLU()])], ["fused", Residual]),
}


@pytest.mark.parametrize("name", NORMALISED)
def test_in_evaluation_batch_norm_is_part_of_the_convolution_before_it(name):
    layers, planned_kinds = copy.deepcopy(NORMALISED[name])
    model, x = Sequential(layers), spread(np.random.default_rng(3), (8, 12, 12, 2))
    state = {key: array.copy() for key, array in model.state_dict().items()}
    planned = plan(model, evaluation=True)
    assert kinds(planned) == planned_kinds
    np.testing.assert_allclose(planned.forward(x), model.forward(x), rtol=1e-10, atol=1e-12)
    assert (len(planned.buffers()) > 0) == (BatchNorm in planned_kinds)
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(array, state[key])
    unfolded = plan(model, [pass_ for pass_ in PASSES if pass_ is not fold_batch_norm], evaluation=True)
    assert kinds(unfolded) == kinds(plan(model))


def test_a_bias_before_batch_norm_has_no_gradient():
    planned = plan(Sequential([conv(2, 18), BatchNorm(18, dtype=np.float64)]))
    planned.layers[0].conv.bias.value += 7
    y = planned.forward(spread(np.random.default_rng(3), (2, 11, 9, 2)), training=True)
    planned.backward(np.random.default_rng(0).standard_normal(y.shape))
    np.testing.assert_array_equal(planned.layers[0].conv.bias.grad, np.zeros(18))
    assert abs(y.mean()) < 1e-12


def test_float32_statistics_of_patches_are_as_good_as_those_of_outputs():
    """The second kernel takes differences of neighbours, in images far from 0 that are much alike."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((16, 20, 20, 1)).cumsum(axis=1).cumsum(axis=2) * 0.01 + 20).astype(np.float32)
    layers = [Conv2D(1, 9, 3, padding=1, rng=rng), BatchNorm(9), ReLU()]
    layers[0].kernel.value[..., 1] = 0
    layers[0].kernel.value[1, :2, 0, 1] = 1, -1
    model = Sequential(layers)
    exact = from_spec(model.spec(), dtype=np.float64)
    exact.load_state_dict({name: array.astype(np.float64) for name, array in model.state_dict().items()})
    expected = exact.forward(x.astype(np.float64), training=True)
    y = plan(model).forward(x, training=True)
    assert np.abs(y - expected).max() < 3e-4 * np.abs(expected).max()
    np.testing.assert_allclose(layers[1].running_mean, exact.layers[1].running_mean, rtol=1e-4)
    np.testing.assert_allclose(layers[1].running_var, exact.layers[1].running_var, rtol=1e-3)


@each_network
def test_gradients_match_finite_differences(name):
    model, x, _ = make(name)
    planned = plan(
        Sequential([LeakyReLU(0.5), *model.layers])
    )  # so that dL/dx is needed from all layers after it
    errors = gradient_check(planned, x, rng=np.random.default_rng(4))
    assert max(errors.values()) < 1e-7, errors


@each_network
def test_parameters_are_shared_and_in_the_same_order(name):
    model, _, _ = make(name)
    pairs = zip(plan(model).parameters().values(), model.parameters().values(), strict=True)
    assert all(one is other for one, other in pairs)
    pairs = zip(plan(model).buffers().values(), model.buffers().values(), strict=True)
    assert all(one is other for one, other in pairs)


def test_planning_changes_nothing_of_the_model():
    model, x, _ = make("two in a row")
    before = repr(model)
    plan(model)
    assert repr(model) == before
    model.forward(x, training=True)
    assert np.isfinite(
        model.backward(np.ones(model.output_shape(x.shape[1:]), x.dtype)[None].repeat(2, 0))
    ).all()


def test_in_a_tie_the_first_maximum_gets_the_whole_gradient():
    model = Sequential([conv(1, 1, 1), MaxPool2D(2)])
    planned = plan(Sequential([LeakyReLU(1.0), *model.layers]))
    planned.forward(np.ones((1, 2, 2, 1)), training=True)
    kernel = model.layers[0].kernel.value.item()
    np.testing.assert_array_equal(planned.backward(np.ones((1, 1, 1, 1)))[0, :, :, 0], [[kernel, 0], [0, 0]])


def test_float32_stays_float32():
    rng = np.random.default_rng(0)
    planned = plan(Sequential([ReLU(), Conv2D(1, 2, 3, rng=rng), ReLU(), MaxPool2D(2)]))
    y = planned.forward(np.ones((2, 8, 8, 1), np.float32), training=True)
    arrays = [y, planned.backward(np.ones_like(y)), *(p.grad for p in planned.parameters().values())]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_subclasses_are_left_as_they_are():
    class Mine(Sequential):
        pass

    class Loud(Conv2D):
        pass

    class Leaky(ReLU):
        pass

    rng = np.random.default_rng(0)
    loud = Loud(1, 2, 3, rng=rng)
    model = Sequential([loud, Leaky(), MaxPool2D(2)])
    assert [type(layer) for layer in plan(model).layers] == [Loud, Leaky, MaxPool2D]
    assert plan(Mine([loud])).layers == [loud]
    assert type(plan(Mine([loud]))) is Mine


@pytest.mark.parametrize("name", ["conv, relu, pool", "stride 2", "enough channels"])
def test_the_models_own_layers_still_give_their_gradient_after_planning(name):
    model, x, _ = make(name)
    planned = plan(model)
    y = planned.forward(x, training=True)
    planned.backward(np.ones_like(y))
    model.forward(x, training=True)
    assert np.isfinite(model.backward(np.ones_like(y))).all()


def test_float32_images_in_a_float64_network_give_float64():
    x = np.random.default_rng(0).standard_normal((64, 16, 16, 16)).astype(np.float32)
    model = Sequential([ReLU(), wide(16, 16)])
    np.testing.assert_allclose(plan(model).forward(x), model.forward(x), rtol=1e-9, atol=1e-12)
