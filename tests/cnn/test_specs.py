"""Networks from plain values, and plain values from networks."""

import json

import numpy as np
import pytest
from test_layers import WRITTEN, forward, gradient_for, gradients, make

from cnn import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    SpecError,
    Tanh,
    from_spec,
)
from cnn.initializers import he_normal
from cnn.registry import LAYERS
from cnn.specs import layers_from_specs


@pytest.mark.parametrize("name", WRITTEN)
def test_a_layer_from_its_spec_is_the_same_network(name):
    layer, x = make(name)
    spec = layer.spec()
    assert json.loads(json.dumps(spec)) == spec
    again = from_spec(spec, dtype=np.float64)
    assert repr(again) == repr(layer)
    assert again.spec() == spec
    again.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(forward(again, x, training=False), forward(layer, x, training=False))
    y = forward(layer, x)
    np.testing.assert_array_equal(forward(again, x), y)
    np.testing.assert_array_equal(again.backward(gradient_for(y)), layer.backward(gradient_for(y)))
    for one, other in zip(gradients(again).values(), gradients(layer).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_spec_holds_plain_values_and_leaves_out_defaults(rng):
    branch = [Conv2D(1, 1, (3, 1), padding=((1, 1), (0, 0)), bias=False, initializer=he_normal, rng=rng)]
    model = Sequential([Residual(branch, [BatchNorm(1, momentum=0.5)]), Flatten(), Dense(4, 2, rng=rng)])
    conv = {"type": "conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": [3, 1]}
    conv |= {"padding": [[1, 1], [0, 0]], "bias": False, "initializer": "he_normal"}
    assert model.spec() == {
        "type": "sequential",
        "layers": [
            {
                "type": "residual",
                "layers": [conv],
                "shortcut": [{"type": "batch_norm", "channels": 1, "momentum": 0.5}],
            },
            {"type": "flatten"},
            {"type": "dense", "in_features": 4, "out_features": 2},
        ],
    }


def test_initial_values_come_from_the_generator_and_in_the_dtype_that_are_given():
    spec = {"type": "dense", "in_features": 3, "out_features": 2}
    for dtype in (np.float32, np.float64):
        layer = from_spec(spec, rng=np.random.default_rng(5), dtype=dtype)
        expected = Dense(3, 2, rng=np.random.default_rng(5), dtype=dtype)
        np.testing.assert_array_equal(layer.weight.value, expected.weight.value)
        assert layer.weight.value.dtype == dtype
    np.testing.assert_array_equal(from_spec(spec).weight.value, from_spec(spec).weight.value)


def test_what_a_person_writes_gets_its_channels_from_the_layer_before(rng):
    specs = [
        {"type": "conv2d", "out_channels": 4, "kernel_size": 3},
        {"type": "residual", "layers": [{"type": "batch_norm"}, {"type": "relu"}]},
        {"type": "flatten"},
        {"type": "dense", "out_features": 2},
    ]
    layers = layers_from_specs(specs, (5, 5, 3), rng)
    assert repr(layers) == "[Conv2D(3, 4, 3), Residual([BatchNorm(4), ReLU()]), Flatten(), Dense(36, 2)]"


CONV = {"type": "conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 3}


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ({"type": "conv3d"}, ["layer type 'conv3d'", "Did you mean 'conv2d'", "In spec."]),
        (7, ["received 7", "In spec."]),
        ({}, ["{type: NAME", "In spec."]),
        ({"type": ["relu"]}, ["{type: NAME", "In spec."]),
        ({"type": "relu", 3: 4}, ["{type: NAME", "In spec."]),
        ({"type": "relu", "slope": 1}, ["relu takes no options", "slope", "In spec (relu)"]),
        ({"type": "leaky_relu", "slop": 1}, ["option of leaky_relu 'slop'", "Did you mean 'slope'"]),
        ({"type": "dropout"}, ["dropout needs rate", "In spec (dropout)"]),
        ({"type": "dropout", "rate": 1}, ["rate must be in [0, 1); received 1.", "In spec (dropout)"]),
        (CONV | {"groups": 2}, ["groups must divide", "In spec (conv2d)"]),
        (CONV | {"kernel_size": [3, 0]}, ["kernel_size", "In spec (conv2d)"]),
        (CONV | {"initializer": "he_norm"}, ["initializer 'he_norm'", "Did you mean 'he_normal'"]),
        (CONV | {"out_channels": 2.0}, ["out_channels must be a whole number >= 1; received 2.0."]),
        ({"type": "sequential", "layers": {"type": "relu"}}, ["written as a list", "In spec.layers."]),
        (
            {"type": "residual", "layers": [{"type": "relu"}, {"type": "elu", "alpha": -1}]},
            ["alpha must be", "received -1", "In spec.layers[1] (elu)"],
        ),
        ({"type": "residual", "layers": [], "shortcut": [{"type": "x"}]}, ["In spec.shortcut[0]."]),
    ],
)
def test_what_no_network_can_be_made_from_is_refused_with_its_place(spec, parts):
    with pytest.raises(SpecError) as error:
        from_spec(spec)
    for part in parts:
        assert part in str(error.value)


def test_what_the_place_decides_is_refused_where_a_person_writes_it(rng):
    with pytest.raises(SpecError, match=r"in_features follows from the layer's place") as error:
        layers_from_specs([{"type": "dense", "in_features": 3, "out_features": 2}], (3,), rng, "here")
    assert "In here[0] (dense), whose input has shape (3,)." in str(error.value)


def test_a_layer_that_does_not_fit_the_one_before_is_refused_with_its_place(rng):
    specs = [{"type": "relu"}, {"type": "dense", "out_features": 2}]
    with pytest.raises(SpecError, match=r"Flatten") as error:
        layers_from_specs(specs, (4, 4, 1), rng)
    assert "In layers[1] (dense), whose input has shape (4, 4, 1)." in str(error.value)


class Unregistered(ReLU):
    pass


class Forgetful(MaxPool2D):
    """Keeps its argument under another name."""

    def __init__(self, size):
        super().__init__(size + 1)


def test_a_layer_without_a_name_or_that_forgets_its_arguments_has_no_spec(monkeypatch):
    with pytest.raises(ValueError, match="Unregistered is not registered as layer type"):
        Sequential([Dropout(0.5), Unregistered()]).spec()
    monkeypatch.setitem(LAYERS._bearers, "forgetful", Forgetful)
    with pytest.raises(ValueError, match="Forgetful does not keep its argument size"):
        Forgetful(1).spec()


def test_a_layer_that_does_not_keep_its_arguments_shows_without_them():
    assert repr(Forgetful(1)) == "Forgetful()"
    assert repr(Sequential([Forgetful(1), Dropout(0.5)])) == "Sequential([Forgetful(), Dropout(0.5)])"

    class Plain(Layer):
        def __init__(self, factor, *, offset=0):
            self.offset = offset

        forward = backward = output_shape = None

    assert repr(Plain(3)) == "Plain()"
    assert repr(Plain(3, offset=2)) == "Plain(offset=2)"


def test_a_constructor_that_fails_otherwise_is_reported_with_its_place(monkeypatch):
    class Broken(Tanh):
        def __init__(self, by="x"):
            self.by = 1 + by

    monkeypatch.setitem(LAYERS._bearers, "broken", Broken)
    with pytest.raises(
        SpecError, match=r"unsupported operand.*\nIn layers\[1\] \(broken\), whose input has shape \(3,\)"
    ):
        layers_from_specs([{"type": "tanh"}, {"type": "broken"}], (3,), np.random.default_rng(0))
