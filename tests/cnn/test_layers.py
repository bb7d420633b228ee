"""The contract that holds for every layer. A registered layer that is missing in this file fails."""

import copy
import pickle
import weakref

import numpy as np
import pytest
from conftest import spread

import cnn
from cnn import (
    ELU,
    GELU,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Layer,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    MaxPool2D,
    Parameter,
    ReLU,
    Residual,
    Scale,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    SpatialDropout,
    Tanh,
    gradient_check,
)
from cnn.engine.fused import FusedConv2D
from cnn.engine.fused_batch_norm import FirstConvBatchNorm
from cnn.initializers import he_normal
from cnn.layers.checks import check_channels, check_image_shape
from cnn.layers.trace import trace_forward, trace_shapes
from cnn.ops.winograd import best_tile
from cnn.registry import LAYERS, REQUIRED, written_options


def conv(*arguments, dtype, **options):
    return Conv2D(*arguments, **options, rng=np.random.default_rng(1), dtype=dtype)


def dense(*arguments, dtype, **options):
    return Dense(*arguments, **options, rng=np.random.default_rng(2), dtype=dtype)


def nested(dtype):
    """Layers in layers in layers. No bias before a BatchNorm: its gradient would be 0 up to rounding."""
    branch = [
        conv(2, 2, 3, padding=1, bias=False, dtype=dtype),
        BatchNorm(2, dtype=dtype),
        Sequential([SiLU(), Dropout(0.3)]),
    ]
    return Sequential(
        [
            conv(1, 2, 3, bias=False, dtype=dtype),
            Sequential([BatchNorm(2, momentum=0.5, dtype=dtype), Tanh()]),
            Residual(branch, [SpatialDropout(0.5)]),
            Flatten(),
            dense(12, 3, dtype=dtype),
        ]
    )


IMAGES = (4, 5, 3)
WIDE = (16, 8)  # enough channels for minimal filtering
# name -> (a function dtype -> layer, the shape of an input without batch axis); a name begins with the layer's
CASES = {
    "AvgPool2D": (lambda dtype: AvgPool2D(2), IMAGES),
    "AvgPool2D padded": (
        lambda dtype: AvgPool2D(
            (3, 2), stride=2, padding=1, dilation=(1, 2), ceil_mode=True, count_include_pad=False
        ),
        IMAGES,
    ),
    "BatchNorm": (lambda dtype: BatchNorm(3, momentum=0.7, epsilon=0.01, dtype=dtype), (2, 3, 3)),
    "BatchNorm without scale": (lambda dtype: BatchNorm(3, scale=False, dtype=dtype), (2, 3, 3)),
    "Conv2D": (lambda dtype: conv(3, 4, 3, dtype=dtype), IMAGES),
    "Conv2D without bias": (
        lambda dtype: conv(3, 2, 2, stride=2, padding="same", bias=False, dtype=dtype),
        IMAGES,
    ),
    "Conv2D depthwise": (lambda dtype: conv(3, 6, 3, padding=1, groups=3, dtype=dtype), IMAGES),
    "Conv2D 1x1": (lambda dtype: conv(3, 2, 1, initializer=he_normal, dtype=dtype), IMAGES),
    "Conv2D dilated": (lambda dtype: conv(3, 2, 2, dilation=(2, 3), dtype=dtype), IMAGES),
    "Dense": (lambda dtype: dense(7, 4, dtype=dtype), (7,)),
    "Dense without bias": (
        lambda dtype: dense(3, 2, bias=False, initializer=he_normal, dtype=dtype),
        (3,),
    ),
    "Dropout": (lambda dtype: Dropout(0.4), (4, 5)),
    "ELU": (lambda dtype: ELU(1.5), (4, 5)),
    "Flatten": (lambda dtype: Flatten(), (2, 3, 4)),
    "GELU": (lambda dtype: GELU(), (4, 5)),
    "GELU approximate": (lambda dtype: GELU(approximate=True), (4, 5)),
    "GlobalAvgPool2D": (lambda dtype: GlobalAvgPool2D(), IMAGES),
    "GlobalMaxPool2D": (lambda dtype: GlobalMaxPool2D(), IMAGES),
    "LayerNorm": (lambda dtype: LayerNorm(4, epsilon=0.01, dtype=dtype), (2, 3, 4)),
    "LayerNorm of vectors": (lambda dtype: LayerNorm(5, dtype=dtype), (5,)),
    "LeakyReLU": (lambda dtype: LeakyReLU(0.2), (4, 5)),
    "LogSoftmax": (lambda dtype: LogSoftmax(), (5,)),
    "MaxPool2D": (lambda dtype: MaxPool2D(2), IMAGES),
    "MaxPool2D padded": (
        lambda dtype: MaxPool2D((2, 3), stride=2, padding=1, dilation=(2, 1), ceil_mode=True),
        IMAGES,
    ),
    "ReLU": (lambda dtype: ReLU(), (4, 5)),
    "Residual": (lambda dtype: Residual([dense(4, 4, dtype=dtype), Tanh()]), (4,)),
    "Residual with shortcut": (
        lambda dtype: Residual(
            [conv(3, 2, 3, stride=2, padding=1, dtype=dtype), ReLU(), conv(2, 4, 1, dtype=dtype)],
            [conv(3, 4, 1, stride=2, bias=False, dtype=dtype)],
        ),
        IMAGES,
    ),
    "Residual without layers": (lambda dtype: Residual([], [dense(4, 4, dtype=dtype)]), (4,)),
    "Sequential": (
        lambda dtype: Sequential(
            [conv(1, 2, 3, dtype=dtype), ReLU(), Flatten(), dense(8, 3, dtype=dtype)],
        ),
        (4, 4, 1),
    ),
    "Sequential nested": (nested, (4, 5, 1)),
    "Scale": (lambda dtype: Scale(0.4), (4, 5)),
    "SiLU": (lambda dtype: SiLU(), (4, 5)),
    "Sigmoid": (lambda dtype: Sigmoid(), (4, 5)),
    "Softmax": (lambda dtype: Softmax(), (5,)),
    "Softmax of pixels": (lambda dtype: Softmax(), (2, 2, 3)),
    "SpatialDropout": (lambda dtype: SpatialDropout(0.4), (2, 3, 6)),
    "Tanh": (lambda dtype: Tanh(), (4, 5)),
    # The fused layers that `cnn.engine.passes` puts in place of others.
    "FirstConvBatchNorm": (
        lambda dtype: FirstConvBatchNorm(
            conv(3, 4, 3, padding="same", dtype=dtype), BatchNorm(4, dtype=dtype)
        ),
        IMAGES,
    ),
    "FirstConvBatchNorm without bias": (
        lambda dtype: FirstConvBatchNorm(
            conv(3, 4, 2, stride=2, bias=False, dtype=dtype), BatchNorm(4, scale=False, dtype=dtype)
        ),
        IMAGES,
    ),
    "FusedConv2D": (lambda dtype: FusedConv2D(conv(3, 4, 3, padding="same", dtype=dtype)), IMAGES),
    "FusedConv2D in groups": (
        lambda dtype: FusedConv2D(conv(4, 6, 2, stride=2, groups=2, bias=False, dtype=dtype)),
        (4, 5, 4),
    ),
    "FusedConv2D with pool": (
        lambda dtype: FusedConv2D(conv(3, 4, 3, padding=1, dtype=dtype), MaxPool2D(2)),
        IMAGES,
    ),
    "FusedConv2D with pool without bias": (
        lambda dtype: FusedConv2D(
            conv(3, 2, 2, stride=(2, 1), padding=((1, 2), (0, 1)), bias=False, dtype=dtype), MaxPool2D((3, 2))
        ),
        IMAGES,
    ),
    "FusedConv2D with minimal": (
        lambda dtype: FusedConv2D(conv(*WIDE, 3, padding=1, dtype=dtype), minimal=True),
        (8, 8, 16),
    ),
    "FusedConv2D with minimal pool": (
        lambda dtype: FusedConv2D(conv(*WIDE, 3, padding=1, dtype=dtype), MaxPool2D(2), minimal=True),
        (9, 8, 16),
    ),
    "FusedConv2D with minimal but without tiles": (
        lambda dtype: FusedConv2D(conv(*WIDE, 3, bias=False, dtype=dtype), minimal=True),
        (3, 3, 16),
    ),
}
WRITTEN = [name for name in CASES if not name.startswith(("FirstConv", "FusedConv"))]
# Layers whose output in training differs from that in evaluation.
DIFFERENT = {
    "BatchNorm",
    "BatchNorm without scale",
    "FirstConvBatchNorm",
    "FirstConvBatchNorm without bias",
    "Dropout",
    "SpatialDropout",
    "Sequential nested",
}

each_layer = pytest.mark.parametrize("name", CASES)
each_written_layer = pytest.mark.parametrize("name", WRITTEN)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def make(name, dtype=np.float64, batch=3):
    build, shape = CASES[name]
    return build(dtype), spread(np.random.default_rng(3), (batch, *shape), dtype)


def forward(layer, x, training=True):
    """Run forward with the same random numbers each time; evaluation never needs them."""
    return layer.forward(x, training=training, rng=np.random.default_rng(7) if training else None)


def gradient_for(y):
    return np.random.default_rng(5).standard_normal(y.shape).astype(y.dtype)


def gradients(layer):
    return {name: parameter.grad.copy() for name, parameter in layer.parameters().items()}


def assert_same(arrays, others):
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)


def arrays_in(value, seen=None):
    """All arrays that can be reached from `value` through attributes, containers and views."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        yield value
        yield from arrays_in(value.base, seen)
    elif isinstance(value, dict):
        for item in value.values():
            yield from arrays_in(item, seen)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from arrays_in(item, seen)
    elif isinstance(value, Layer | Parameter):
        yield from arrays_in(vars(value), seen)


def test_every_registered_layer_is_under_contract():
    registered = {layer_type.__name__ for layer_type in LAYERS.values()}
    cases = {name.split()[0] for name in WRITTEN}
    missing, unknown = sorted(registered - cases), sorted(cases - registered)
    assert registered == cases, f"missing in CASES of this file: {missing}; not registered: {unknown}"
    for name, (build, _) in CASES.items():
        assert type(build(np.float32)).__name__ == name.split()[0]


def test_every_option_of_a_layer_differs_from_its_default_in_a_case():
    specs = [CASES[name][0](np.float32).spec() for name in WRITTEN]
    changed = {(spec["type"], key) for spec in specs for key in spec}
    missing = [
        f"{name}: {key}"
        for name, layer_type in LAYERS.items()
        for key, option in written_options(layer_type).items()
        if option.default is not REQUIRED and (name, key) not in changed
    ]
    assert not missing, f"CASES of this file have only the default of {missing}: set another value in one"


def test_every_registered_layer_is_exported():
    missing = [x.__name__ for x in LAYERS.values() if getattr(cnn, x.__name__, None) is not x]
    assert not missing, f"not exported by cnn/layers/__init__.py: {missing}"


def test_the_cases_of_minimal_filtering_are_with_tiles_and_without():
    cases = {"FusedConv2D with minimal": True, "FusedConv2D with minimal but without tiles": False}
    for name, uses_tiles in cases.items():
        layer, x = make(name)
        height, width, _ = layer.output_shape(x.shape[1:])
        assert bool(best_tile(height, width, *WIDE, len(x))) == uses_tiles


@each_layer
@pytest.mark.parametrize("batch", [1, 3])
def test_gradients_match_finite_differences(name, batch):
    layer, x = make(name, batch=batch)
    for parameter in layer.parameters().values():  # away from special values: bias 0, gamma 1
        parameter.value += 0.1 * np.random.default_rng(6).standard_normal(parameter.value.shape)
    errors = gradient_check(layer, x, rng=np.random.default_rng(4))
    assert set(errors) == {"x", *layer.parameters()}
    assert max(errors.values()) < 1e-7, errors


@each_layer
@pytest.mark.parametrize("batch", [1, 3])
def test_output_shape_agrees_with_forward(name, batch):
    layer, x = make(name, batch=batch)
    assert forward(layer, x).shape == (batch, *layer.output_shape(x.shape[1:]))
    assert forward(layer, x, training=False).shape == (batch, *layer.output_shape(x.shape[1:]))


@each_layer
@each_dtype
def test_the_dtype_is_kept(name, dtype):
    layer, x = make(name, dtype)
    y = forward(layer, x)
    grad_x = layer.backward(gradient_for(y))
    arrays = [y, grad_x, forward(layer, x, training=False), *gradients(layer).values()]
    arrays += [*layer.state_dict().values(), *layer.buffers().values()]
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}


@each_layer
def test_float32_and_float64_tell_the_same(name):
    outcomes = []
    for dtype in (np.float32, np.float64):
        layer, x = make(name, dtype)
        y = forward(layer, x)
        grad_x = layer.backward(gradient_for(y))
        outcomes.append({"y": y, "x": grad_x, **gradients(layer), **layer.state_dict()})
    for key, single in outcomes[0].items():
        np.testing.assert_allclose(single, outcomes[1][key], rtol=1e-4, atol=1e-4, err_msg=key)


@each_layer
def test_gradients_have_the_shapes_of_what_they_belong_to(name):
    layer, x = make(name)
    assert layer.backward(gradient_for(forward(layer, x))).shape == x.shape
    for parameter in layer.parameters().values():
        assert parameter.grad.shape == parameter.value.shape


@each_layer
def test_evaluation_changes_no_state(name):
    layer, x = make(name)
    forward(layer, x)  # moves buffers away from their initial values
    before = layer.state_dict()
    y = forward(layer, x, training=False)
    assert_same(layer.state_dict(), before)
    np.testing.assert_array_equal(forward(layer, x, training=False), y)
    assert all(parameter.grad is None for parameter in layer.parameters().values())


@each_layer
def test_evaluation_gives_the_output_of_training_unless_that_is_random_or_of_the_batch(name):
    layer, x = make(name)
    same = np.array_equal(forward(layer, x), forward(layer, x, training=False))
    assert same == (name not in DIFFERENT)


@each_layer
def test_training_changes_buffers_and_nothing_else(name):
    layer, x = make(name)
    before = layer.state_dict()
    layer.backward(gradient_for(forward(layer, x)))
    changed = {key for key, value in layer.state_dict().items() if not np.array_equal(value, before[key])}
    assert changed == set(layer.buffers())


@each_layer
def test_evaluation_between_the_passes_is_not_what_backward_sees(name):
    layer, x = make(name)
    y = forward(layer, x)
    expected = layer.backward(gradient_for(y))
    forward(layer, x)
    forward(layer, 2 * x, training=False)
    np.testing.assert_array_equal(layer.backward(gradient_for(y)), expected)


@each_layer
def test_evaluation_alone_allows_no_backward(name):
    layer, x = make(name)
    y = forward(layer, x, training=False)
    with pytest.raises(RuntimeError, match=r"backward\(\) was called without a forward\(x, training=True\)"):
        layer.backward(y)


@each_layer
def test_in_evaluation_an_example_does_not_see_the_others(name):
    layer, x = make(name)
    forward(layer, x)
    together = forward(layer, x, training=False)
    for n in range(len(x)):
        alone = forward(layer, x[n : n + 1], training=False)
        np.testing.assert_allclose(alone[0], together[n], rtol=1e-12, atol=1e-14)


@each_layer
def test_neither_pass_changes_its_argument(name):
    layer, x = make(name)
    x.flags.writeable = False
    y = forward(layer, x)
    grad_y = gradient_for(y)
    grad_y.flags.writeable = False
    layer.backward(grad_y)
    forward(layer, x, training=False)


@each_layer
def test_what_a_pass_returns_can_be_written_to(name):
    layer, x = make(name)
    y = forward(layer, x)
    grad_x = layer.backward(gradient_for(y))
    assert y.flags.writeable
    assert grad_x.flags.writeable


@each_layer
def test_a_second_backward_is_refused(name):
    layer, x = make(name)
    grad_y = gradient_for(forward(layer, x))
    layer.backward(grad_y)
    with pytest.raises(RuntimeError, match="Each backward uses up one training forward"):
        layer.backward(grad_y)


@each_layer
def test_a_gradient_of_another_shape_is_refused(name):
    layer, x = make(name)
    y = forward(layer, x)
    for shape in [(1, *y.shape), (len(y) + 1, *y.shape[1:]), y.shape[:-1]]:
        with pytest.raises(ValueError, match="needs a gradient of its output's shape"):
            layer.backward(np.ones(shape))
    assert layer.backward(gradient_for(y)).shape == x.shape  # the errors above consumed nothing


@each_layer
def test_nothing_of_a_batch_is_kept_after_backward(name):
    layer, x = make(name)
    x = x.copy()  # owns its memory, so that a saved view would keep it alive
    y = forward(layer, x)
    grad_y = gradient_for(y)
    grad_x = layer.backward(grad_y)
    batch = [weakref.ref(array) for array in (x, y, grad_y, grad_x)]
    del x, y, grad_y, grad_x
    assert [reference() for reference in batch] == [None] * 4
    own = [*layer.buffers().values(), *(p.value for p in layer.parameters().values())]
    own += [parameter.grad for parameter in layer.parameters().values()]
    largest = max((array.nbytes for array in own), default=0)
    own += [array.base for array in own]  # the same numbers in another shape
    for array in arrays_in(layer):
        assert any(array is one for one in own)
        assert array.nbytes <= largest


@each_layer
def test_backward_assigns_and_does_not_add(name):
    layer, x = make(name)
    results = []
    for scale in (1, 3, 1):
        y = forward(layer, x)
        results.append({"x": layer.backward(scale * gradient_for(y)), **gradients(layer)})
    assert_same(results[0], results[2])
    for key, value in results[0].items():
        np.testing.assert_allclose(results[1][key], 3 * value, rtol=1e-10, atol=1e-12)


@each_layer
def test_a_layer_does_the_same_again(name):
    outcomes = []
    for _ in range(2):
        layer, x = make(name)
        y = forward(layer, x)
        outcomes.append(
            {"y": y, "x": layer.backward(gradient_for(y)), **gradients(layer), **layer.state_dict()}
        )
    assert_same(*outcomes)


@each_layer
def test_the_state_makes_the_round_trip(name):
    layer, x = make(name)
    forward(layer, x)
    other, _ = make(name)
    for array in [*other.buffers().values(), *(p.value for p in other.parameters().values())]:
        array += 1
    held = {key: parameter.value for key, parameter in other.parameters().items()} | other.buffers()
    other.load_state_dict(layer.state_dict())
    assert list(layer.state_dict()) == [*layer.parameters(), *layer.buffers()]
    assert_same(other.state_dict(), layer.state_dict())
    assert_same(held, layer.state_dict())  # references to the layer's arrays see the loaded values
    np.testing.assert_array_equal(forward(other, x, training=False), forward(layer, x, training=False))
    np.testing.assert_array_equal(forward(other, x), forward(layer, x))


@each_layer
def test_the_state_is_a_copy(name):
    layer, _ = make(name)
    before = layer.state_dict()
    for array in [*layer.buffers().values(), *(p.value for p in layer.parameters().values())]:
        array += 1
    for key, value in layer.state_dict().items():
        assert not np.array_equal(before[key], value)


@each_layer
def test_what_is_loaded_is_copied(name):
    layer, _ = make(name)
    state = layer.state_dict()
    layer.load_state_dict(state)
    for value in state.values():
        value += 1
    for key, value in layer.state_dict().items():
        assert not np.array_equal(state[key], value)


@each_layer
def test_parameters_and_buffers_of_children_are_those_of_the_layer(name):
    layer, _ = make(name)
    for child, inner in layer.children().items():
        for key, parameter in inner.parameters().items():
            assert layer.parameters()[f"{child}.{key}"] is parameter
        for key, buffer in inner.buffers().items():
            assert layer.buffers()[f"{child}.{key}"] is buffer
    if layer.children():
        count = sum(len(inner.state_dict()) for inner in layer.children().values())
        assert len(layer.state_dict()) == count


def branches(layer, name=""):
    """The names of the lists inside layers that are not lists themselves."""
    for inner, child in layer.children().items():
        full = f"{name}.{inner}".lstrip(".")
        if isinstance(child, Sequential) and not isinstance(layer, Sequential):
            yield full
        yield from branches(child, full)


@each_written_layer
def test_a_trace_tells_shapes_and_outputs_of_each_layer_inside_in_the_order_of_the_computation(name):
    layer, x = make(name)
    shapes, outputs, order = {}, {}, []
    for inner_name, inner in layer.walk():
        original = inner.forward

        def spy(x, key=inner_name, forward=original, **options):
            order.append(key)
            y = forward(x, **options)
            shapes[key], outputs[key] = (x.shape[1:], y.shape[1:]), y
            return y

        inner.forward = spy
    layer.forward(x)
    for _, inner in layer.walk():
        del inner.forward
    within = [key for key in order if key not in set(branches(layer))]
    inside = dict(layer.walk())
    assert [key for key, _, _, _ in trace_shapes(layer, x.shape[1:])] == within
    for key, original, *pair in trace_shapes(layer, x.shape[1:]):
        assert original is inside[key]
        assert tuple(pair) == shapes[key]
    assert [key for key, _, _ in trace_forward(layer, x)] == within
    for key, original, y in trace_forward(layer, x):
        assert original is inside[key]
        np.testing.assert_array_equal(y, outputs[key])
    assert bool(within) == bool(list(layer.children()))


@each_layer
def test_a_layer_as_evaluated_trains_on_what_evaluation_computes(name):
    layer, x = make(name)
    y = forward(layer, x)  # batch norm has seen a batch
    layer.backward(gradient_for(y))
    state = layer.state_dict()
    copied = layer.as_evaluated()
    np.testing.assert_allclose(forward(copied, x), layer.forward(x), rtol=1e-12, atol=1e-12)
    errors = gradient_check(copied, x, rng=np.random.default_rng(4))
    assert len(errors) == 1 + len(layer.parameters())
    assert max(errors.values()) < 1e-6, errors
    assert_same(layer.state_dict(), state)


@each_written_layer
def test_walk_gives_each_layer_inside_before_those_inside_it(name):
    layer, _ = make(name)
    found = list(layer.walk())
    for key, inner in found:
        value = layer
        for part in key.split("."):
            value = value[int(part)] if part.isdigit() else getattr(value, part)
        assert value is inner
    names = [key for key, _ in found]
    assert all(key.rpartition(".")[0] in ["", *names[:index]] for index, key in enumerate(names))
    assert len(set(names)) == len(names)


@each_layer
def test_mapping_to_the_same_layers_gives_an_equal_layer_with_the_same_parameters(name):
    layer, x = make(name)
    before = copy.deepcopy(layer)
    mapped = layer.map(lambda name, child: child)
    assert mapped is not layer
    assert mapped.children() == layer.children()
    assert all(mapped.parameters()[key] is value for key, value in layer.parameters().items())
    np.testing.assert_array_equal(forward(mapped, x), forward(before, x))


@each_layer
def test_the_gradients_without_that_of_the_input_are_exactly_those_of_backward(name):
    results = []
    for method in ("backward", "backward_parameters"):
        layer, x = make(name)
        y = forward(layer, x)
        gave = getattr(layer, method)(gradient_for(y))
        results.append(gradients(layer))
        assert (gave is None) == (method == "backward_parameters")
    assert_same(*results)
    with pytest.raises(RuntimeError, match="Each backward uses up one training forward"):
        layer.backward_parameters(gradient_for(y))


@each_layer
def test_the_number_of_parameters_is_that_of_their_numbers(name):
    layer, _ = make(name)
    assert layer.count_parameters() == sum(p.value.size for p in layer.parameters().values())


@each_layer
@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_hold_no_activations_and_compute_the_same(name, again):
    layer, x = make(name)
    y = forward(layer, x)
    duplicate = again(layer)
    held = [layer for _, layer in duplicate.walk()] if again is not copy.copy else []
    assert all("_saved" not in vars(one) for one in [duplicate, *held])
    assert_same(duplicate.state_dict(), layer.state_dict())
    np.testing.assert_array_equal(forward(duplicate, x, training=False), forward(layer, x, training=False))
    if again is not copy.copy:
        layer.backward(gradient_for(y))  # which still has its own activations
        with pytest.raises(RuntimeError, match="was called without a forward"):
            duplicate.backward(gradient_for(y))


@each_layer
@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_deep_copy_shares_nothing(name, again):
    layer, _ = make(name)
    duplicate, before = again(layer), layer.state_dict()
    for array in duplicate._state().values():
        array += 1
    assert_same(layer.state_dict(), before)


@each_written_layer
def test_a_representation_without_parameters_can_be_evaluated(name):
    layer, x = make(name)
    if layer.parameters():
        text = repr(layer)
        assert text.startswith(f"{type(layer).__name__}(")
        assert not any(word in text for word in ("rng", "dtype", "object at", "array("))
    else:
        again = eval(repr(layer), dict(vars(cnn)))
        assert type(again) is type(layer)
        assert repr(again) == repr(layer)
        np.testing.assert_array_equal(forward(again, x), forward(layer, x))


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda rng: Conv2D(1, 32, 3, rng=rng), "Conv2D(1, 32, 3)"),
        (
            lambda rng: Conv2D(
                4,
                8,
                (3, 5),
                stride=2,
                padding="same",
                dilation=(1, 2),
                groups=2,
                bias=False,
                initializer=he_normal,
                rng=rng,
            ),
            "Conv2D(4, 8, (3, 5), stride=2, padding='same', dilation=(1, 2), groups=2, bias=False, initializer=he_normal)",
        ),
        (lambda rng: Dense(3, 2, rng=rng, dtype=np.float64), "Dense(3, 2)"),
        (lambda rng: Dense(3, 2, bias=False, rng=rng), "Dense(3, 2, bias=False)"),
        (lambda rng: MaxPool2D(2), "MaxPool2D(2)"),
        (
            lambda rng: MaxPool2D((2, 3), stride=1, ceil_mode=True),
            "MaxPool2D((2, 3), stride=1, ceil_mode=True)",
        ),
        (
            lambda rng: AvgPool2D(3, padding=((0, 1), (1, 0)), dilation=2, count_include_pad=False),
            "AvgPool2D(3, padding=((0, 1), (1, 0)), dilation=2, count_include_pad=False)",
        ),
        (lambda rng: BatchNorm(8), "BatchNorm(8)"),
        (lambda rng: BatchNorm(8, momentum=0.99, epsilon=1e-3), "BatchNorm(8, momentum=0.99, epsilon=0.001)"),
        (lambda rng: LayerNorm(8, epsilon=0.1), "LayerNorm(8, epsilon=0.1)"),
        (lambda rng: Dropout(0.5), "Dropout(0.5)"),
        (lambda rng: SpatialDropout(0), "SpatialDropout(0.0)"),
        (lambda rng: LeakyReLU(), "LeakyReLU()"),
        (lambda rng: LeakyReLU(0.2), "LeakyReLU(0.2)"),
        (lambda rng: ELU(2), "ELU(2.0)"),
        (lambda rng: GELU(), "GELU()"),
        (lambda rng: GELU(approximate=True), "GELU(approximate=True)"),
        (lambda rng: Sequential([]), "Sequential([])"),
        (
            lambda rng: Sequential([Dense(2, 2, rng=rng), ReLU(), Sequential([Flatten()])]),
            "Sequential([Dense(2, 2), ReLU(), Sequential([Flatten()])])",
        ),
        (lambda rng: Residual([Tanh()]), "Residual([Tanh()])"),
        (lambda rng: FusedConv2D(Conv2D(1, 2, 3, rng=rng)), "FusedConv2D(Conv2D(1, 2, 3))"),
        (
            lambda rng: FusedConv2D(Conv2D(1, 2, 3, rng=rng), MaxPool2D(2), minimal=True),
            "FusedConv2D(Conv2D(1, 2, 3), MaxPool2D(2), minimal=True)",
        ),
        (lambda rng: Residual([Tanh()], [SiLU(), ReLU()]), "Residual([Tanh()], [SiLU(), ReLU()])"),
    ],
)
def test_the_representation_is_the_call(rng, build, text):
    assert repr(build(rng)) == text


def refusal(action, *arguments, error=ValueError, **options):
    with pytest.raises(error) as caught:
        action(*arguments, **options)
    return str(caught.value)


def test_a_state_that_does_not_fit_is_refused_whole():
    layer, _ = make("Dense")
    before = layer.state_dict()
    assert refusal(layer.load_state_dict, {"weight": np.zeros((2, 2)), "scale": np.zeros(3)}) == (
        "The state does not fit this Dense: missing: bias; unexpected: scale; weight has shape (2, 2), not (7, 4)."
    )
    state = {"weight": np.zeros((7, 4)), "bias": np.zeros(4, np.float32)}
    assert (
        refusal(layer.load_state_dict, state)
        == "The state does not fit this Dense: bias is float32, not float64."
    )
    assert_same(layer.state_dict(), before)


def test_a_nested_state_that_does_not_fit_is_refused_with_full_names():
    layer, _ = make("Sequential nested")
    assert list(layer.state_dict()) == [
        "0.kernel",
        "1.0.gamma",
        "1.0.beta",
        "2.layers.0.kernel",
        "2.layers.1.gamma",
        "2.layers.1.beta",
        "4.weight",
        "4.bias",
        "1.0.running_mean",
        "1.0.running_var",
        "2.layers.1.running_mean",
        "2.layers.1.running_var",
    ]
    before = layer.state_dict()
    state = layer.state_dict()
    del state["0.kernel"], state["2.layers.1.running_var"]
    state["2.shortcut.0.kernel"] = np.zeros(1)
    state["2.layers.1.gamma"] = np.zeros((1, 2))
    state["1.0.running_mean"] = np.zeros(2, np.float32)
    state["4.bias"] += 1
    assert refusal(layer.load_state_dict, state) == (
        "The state does not fit this Sequential: missing: 0.kernel; missing: 2.layers.1.running_var; "
        "unexpected: 2.shortcut.0.kernel; 2.layers.1.gamma has shape (1, 2), not (2,); "
        "1.0.running_mean is float32, not float64."
    )
    assert_same(layer.state_dict(), before)


def test_a_backward_out_of_turn_says_what_is_missing(rng):
    text = refusal(MaxPool2D(2).backward, np.ones((1, 2, 2, 1)), error=RuntimeError)
    assert "MaxPool2D(2).backward() was called without a forward(x, training=True)" in text
    assert "only once in a network" in text


def test_a_gradient_of_another_shape_is_told_from_the_right_one():
    layer = AvgPool2D(2)
    layer.forward(np.ones((5, 4, 6, 1)), training=True)
    assert refusal(layer.backward, np.ones((5, 2, 3))) == (
        "AvgPool2D(2).backward() needs a gradient of its output's shape, (5, 2, 3, 1); received (5, 2, 3)."
    )


def test_dense_says_that_images_must_be_flattened(rng):
    text = refusal(Dense(8, 10, rng=rng).output_shape, (13, 13, 8))
    assert "Dense(8, 10) needs vectors of shape (8,); received (13, 13, 8)." in text
    assert "Flatten" in text
    text = refusal(Dense(8, 10, rng=rng).forward, np.ones((1, 7), np.float32))
    assert "Dense(8, 10) needs vectors of shape (8,); received (7,)." in text


@pytest.mark.parametrize("layer_type", [Dropout, SpatialDropout])
def test_dropout_says_that_it_needs_random_numbers(layer_type):
    for layer in (layer_type(0.5), Sequential([layer_type(0.5)]), Residual([layer_type(0.5)])):
        text = refusal(layer.forward, np.ones((2, 3)), training=True)
        assert text.startswith(f"{layer_type.__name__}(0.5) needs random numbers")
        assert "rng=…" in text


@pytest.mark.parametrize("layer_type", [BatchNorm, LayerNorm])
def test_normalisation_says_how_many_channels_it_needs(layer_type):
    name = layer_type.__name__
    assert refusal(layer_type(3).forward, np.ones((2, 5, 4))) == (
        f"{name}(3) needs 3 channels on the last axis; received shape (5, 4)."
    )
    assert refusal(layer_type(3).forward, np.ones(3)) == (
        f"{name}(3) needs 3 channels on the last axis; received shape ()."
    )


def test_checks_of_shapes_return_what_passes():
    assert check_channels(ReLU(), (5, 3), 3) == (5, 3)
    assert check_image_shape(ReLU(), (5, 4, 3)) == check_image_shape(ReLU(), (5, 4, 3), 3) == (5, 4, 3)


def test_branches_of_different_shapes_are_refused(rng):
    layer = Residual([Conv2D(3, 4, 3, padding=1, rng=rng)])
    text = refusal(layer.output_shape, (8, 8, 3))
    for part in ("same shape", "input of (8, 8, 3)", "(8, 8, 4) and the shortcut (8, 8, 3)", "1x1 Conv2D"):
        assert part in text
    assert refusal(layer.forward, np.ones((1, 8, 8, 3), np.float32)) == text
    broadcast = Residual([Conv2D(3, 1, 1, rng=rng)])  # NumPy would add these without an error
    assert "layers give (8, 8, 1) and the shortcut (8, 8, 3)" in refusal(broadcast.output_shape, (8, 8, 3))


def test_an_input_that_does_not_fit_names_the_layer_at_every_depth(rng):
    model = Sequential([ReLU(), Residual([Tanh(), Sequential([Dense(4, 4, rng=rng)])])])
    text = refusal(model.output_shape, (5,))
    assert text.startswith("Dense(4, 4) needs vectors of shape (4,); received (5,).")
    assert text.endswith(
        "In layer 0, Dense(4, 4), whose input has shape (5,). "
        "In layer 1, Sequential([Dense(4, 4)]), whose input has shape (5,). "
        "In layer 1, Residual([Tanh(), Sequential([Dense(4, 4)])]), whose input has shape (5,)."
    )


COUNT = "must be a whole number >= 1; received"


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda rng: Dense(0, 1, rng=rng), f"in_features {COUNT} 0."),
        (lambda rng: Dense(1, 2.0, rng=rng), f"out_features {COUNT} 2.0."),
        (lambda rng: Dense(1, 2, bias=None, rng=rng), "bias must be True or False; received None."),
        (lambda rng: BatchNorm(0), f"channels {COUNT} 0."),
        (lambda rng: BatchNorm(1, momentum=1.1), "momentum must be in [0, 1]; received 1.1."),
        (lambda rng: BatchNorm(1, momentum=-0.1), "momentum must be in [0, 1]; received -0.1."),
        (lambda rng: BatchNorm(1, epsilon=0), "epsilon must be a finite number > 0; received 0."),
        (lambda rng: LayerNorm(True), f"channels {COUNT} True."),
        (lambda rng: LayerNorm(1, epsilon=-1e-5), "epsilon must be a finite number > 0; received -1e-05."),
        (
            lambda rng: LayerNorm(1, epsilon=float("inf")),
            "epsilon must be a finite number > 0; received inf.",
        ),
        (lambda rng: Dropout(1), "rate must be in [0, 1); received 1."),
        (lambda rng: Dropout(-0.5), "rate must be in [0, 1); received -0.5."),
        (lambda rng: SpatialDropout("half"), "rate must be in [0, 1); received 'half'."),
        (lambda rng: LeakyReLU(1.5), "slope must be in [0, 1]; received 1.5."),
        (lambda rng: LeakyReLU(float("nan")), "slope must be in [0, 1]; received nan."),
        (lambda rng: ELU(-1), "alpha must be a finite number >= 0; received -1."),
        (lambda rng: ELU(True), "alpha must be a finite number >= 0; received True."),
        (lambda rng: GELU(approximate="tanh"), "approximate must be True or False; received 'tanh'."),
        (lambda rng: Sequential([]).predict(np.ones((1, 2)), 0), f"batch_size {COUNT} 0."),
    ],
)
def test_arguments_without_meaning_are_refused(rng, build, text):
    assert refusal(build, rng) == text


def test_limits_that_are_allowed(rng):
    assert (BatchNorm(1, momentum=0).momentum, BatchNorm(1, momentum=1).momentum) == (0, 1)
    assert (LeakyReLU(0).slope, LeakyReLU(1).slope, ELU(0).alpha, Dropout(0).rate) == (0, 1, 0, 0)
    assert Dense(np.int64(2), np.int32(3), rng=rng).weight.value.shape == (2, 3)


def test_the_summary_shows_layers_inside_layers():
    layer, x = make("Sequential nested", np.float32)
    assert layer.summary(x.shape[1:]) == "\n".join(
        [
            "              layer                                       output shape  parameters",
            "              input                                       4 x 5 x 1               ",
            "0             Conv2D(1, 2, 3, bias=False)                 2 x 3 x 2             18",
            "1             Sequential:                                 2 x 3 x 2               ",
            "1.0             BatchNorm(2, momentum=0.5)                2 x 3 x 2              4",
            "1.1             Tanh()                                    2 x 3 x 2              0",
            "2             Residual:                                   2 x 3 x 2               ",
            "2.layers.0        Conv2D(2, 2, 3, padding=1, bias=False)  2 x 3 x 2             36",
            "2.layers.1        BatchNorm(2)                            2 x 3 x 2              4",
            "2.layers.2        Sequential:                             2 x 3 x 2               ",
            "2.layers.2.0        SiLU()                                2 x 3 x 2              0",
            "2.layers.2.1        Dropout(0.3)                          2 x 3 x 2              0",
            "2.shortcut.0      SpatialDropout(0.5)                     2 x 3 x 2              0",
            "3             Flatten()                                   12                     0",
            "4             Dense(12, 3)                                3                     39",
            "              total                                                            101",
        ]
    )


def test_predict_is_evaluation_in_batches():
    layer, x = make("Sequential nested", batch=7)
    forward(layer, x)
    before, expected = layer.state_dict(), forward(layer, x, training=False)
    for batch_size in (1, 3, 7, 100):
        np.testing.assert_allclose(layer.predict(x, batch_size), expected, rtol=1e-12, atol=1e-14)
    assert layer.predict(x[:0]).shape == (0, 3)
    assert_same(layer.state_dict(), before)


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (0, 4, 4, 3), (1, 1, 1, 3), (1, 1, 3)])
def test_batch_norm_refuses_to_train_on_less_than_two_numbers_to_a_channel(shape):
    layer = BatchNorm(3, dtype=np.float64)
    before = layer.state_dict()
    text = refusal(layer.forward, np.ones(shape), training=True)
    assert "BatchNorm(3) needs at least two numbers" in text
    assert f"received {np.prod(shape[:-1])}, in a batch of shape {shape}." in text
    assert_same(layer.state_dict(), before)
    assert layer.forward(np.ones(shape)).shape == shape  # evaluation takes them


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 1, 3)])
def test_batch_norm_trains_on_two_numbers_to_a_channel(shape):
    x = spread(np.random.default_rng(0), shape)
    y = BatchNorm(3, epsilon=1e-12, dtype=np.float64).forward(x, training=True)
    np.testing.assert_allclose(np.abs(y), 1, rtol=1e-6)
