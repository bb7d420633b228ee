"""A layer of layers that the library does not know works wherever a network does."""

import copy

import numpy as np
import pytest
from conftest import spread

from cnn import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Examples,
    Flatten,
    Layer,
    LeakyReLU,
    MaxPool2D,
    Parameter,
    Processes,
    ReLU,
    Sequential,
    Threads,
    fit,
    gradient_check,
    save,
    softmax_cross_entropy,
)
from cnn.engine import executors
from cnn.engine.fused import FusedConv2D
from cnn.engine.passes import plan
from cnn.engine.replicas import Replicas
from cnn.engine.shards import ShardedGradients
from cnn.layers.trace import trace_forward, trace_shapes


class Blend(Layer):
    """y = scale · gate(x) + Σ_i experts_i(x)."""

    def __init__(self, gate, experts, dtype=np.float64):
        self.gate, self.experts = gate, list(experts)
        self.scale = Parameter(np.full(1, 0.5, dtype), "scale")

    def forward(self, x, *, training=False, rng=None):
        z = self.gate.forward(x, training=training, rng=rng)
        y = self.scale.value * z
        for expert in self.experts:
            y = y + expert.forward(x, training=training, rng=rng)
        if training:
            self._save(y, z)
        return y

    def backward(self, grad_y):
        (z,) = self._take(grad_y)
        self.scale.grad = np.array([(grad_y * z).sum()], grad_y.dtype)
        return self.gate.backward(grad_y * self.scale.value) + sum(e.backward(grad_y) for e in self.experts)

    def output_shape(self, input_shape):
        shapes = {layer.output_shape(input_shape) for layer in [self.gate, *self.experts]}
        if len(shapes) > 1:
            raise ValueError(f"Parts of a Blend must give one shape; received {shapes}.")
        return shapes.pop()


def network(dtype=np.float64):
    rng = np.random.default_rng(0)

    def conv(**options):
        return Conv2D(2, 3, 3, rng=rng, dtype=dtype, **options)

    gate = Sequential([conv(bias=False), BatchNorm(3, dtype=dtype), LeakyReLU(), AvgPool2D(2)])
    experts = [
        Sequential([conv(), ReLU(), MaxPool2D(2)]),
        conv(stride=2),
        Sequential([conv(stride=2), Dropout(0.2)]),
    ]
    layers = [Blend(gate, experts, dtype), Flatten(), Dense(12, 10, rng=rng, dtype=dtype)]
    return Sequential(layers)


@pytest.fixture
def x():
    return spread(np.random.default_rng(3), (4, 6, 6, 2))


def examples(dtype=np.float32):
    rng = np.random.default_rng(1)
    return Examples(rng.random((20, 6, 6, 2)).astype(dtype), np.eye(10, dtype=dtype)[np.arange(20) % 10])


def train(model, executor):
    return fit(model, examples(), examples(), epochs=2, batch_size=8, shard_size=3, executor=executor)


def test_parameters_and_buffers_are_found_through_its_attributes():
    assert list(network().parameters()) == [
        "0.scale",
        *("0.gate.0.kernel", "0.gate.1.gamma", "0.gate.1.beta"),
        *("0.experts.0.0.kernel", "0.experts.0.0.bias"),
        *("0.experts.1.kernel", "0.experts.1.bias"),
        *("0.experts.2.0.kernel", "0.experts.2.0.bias"),
        *("2.weight", "2.bias"),
    ]
    assert list(network().buffers()) == ["0.gate.1.running_mean", "0.gate.1.running_var"]
    assert network().count_parameters() == 1 + 4 * 2 * 3 * 9 + 3 * 3 + 6 + 130


def test_walking_and_mapping_reach_the_layers_inside():
    model = network()
    names = [name for name, _ in model.walk()]
    assert names == [
        *("0", "0.gate", "0.gate.0", "0.gate.1", "0.gate.2", "0.gate.3"),
        *("0.experts.0", "0.experts.0.0", "0.experts.0.1", "0.experts.0.2", "0.experts.1"),
        *("0.experts.2", "0.experts.2.0", "0.experts.2.1", "1", "2"),
    ]
    seen = []
    mapped = model[0].map(lambda name, layer: seen.append((name, layer)) or Flatten())
    assert seen == list(model[0].children().items())
    assert [name for name, _ in seen] == ["gate", "experts.0", "experts.1", "experts.2"]
    assert {type(layer) for layer in mapped.children().values()} == {Flatten}
    assert mapped.scale is model[0].scale
    assert [name for name, _ in model.walk()] == names  # the original is unchanged


def test_traces_show_what_goes_through_each_layer_inside(x):
    model = network()
    shapes = {name: (before, after) for name, _, before, after in trace_shapes(model, (6, 6, 2))}
    outputs = {name: y for name, _, y in trace_forward(model, x)}
    assert (
        list(shapes)
        == list(outputs)
        == [
            *("0", "0.gate.0", "0.gate.1", "0.gate.2", "0.gate.3"),
            *(
                "0.experts.0.0",
                "0.experts.0.1",
                "0.experts.0.2",
                "0.experts.1",
                "0.experts.2.0",
                "0.experts.2.1",
            ),
            *("1", "2"),
        ]
    )
    assert shapes["0"] == ((6, 6, 2), (2, 2, 3))
    assert shapes["0.experts.0.2"] == ((4, 4, 3), (2, 2, 3))
    parts = [outputs[f"0.experts.{i}"] for i in ("0.2", "1", "2.1")]
    np.testing.assert_allclose(outputs["0"], 0.5 * outputs["0.gate.3"] + sum(parts), rtol=1e-12)
    np.testing.assert_array_equal(outputs["2"], model.forward(x))


def test_its_gradients_are_right(x):
    errors = gradient_check(network(), x, rng=np.random.default_rng(4))
    assert len(errors) == 13
    assert max(errors.values()) < 1e-7, errors


def test_lists_of_layers_inside_it_are_planned_and_compute_the_same(x):
    model, planned = network(), plan(network())
    kinds = {name: type(layer) for name, layer in planned.walk()}
    assert kinds["0.experts.0.0"] is kinds["0.gate.0"] is kinds["0.experts.2.0"] is FusedConv2D
    assert kinds["0.experts.1"] is Conv2D
    results = []
    for layer in (model, planned):
        y = layer.forward(x, training=True, rng=np.random.default_rng(0))
        grad_x = layer.backward(np.random.default_rng(1).standard_normal(y.shape))
        results.append([y, grad_x, *(p.grad for p in layer.parameters().values()), *layer.buffers().values()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_parameters_of_the_planned_network_are_its_own_in_its_order():
    model = network()
    planned = plan(model)
    pairs = zip(planned.parameters().values(), model.parameters().values(), strict=True)
    assert all(one is other for one, other in pairs)


def test_replicas_of_it_predict_and_train_to_the_same_bits(x, monkeypatch):
    monkeypatch.setattr(executors, "can_fork", lambda: True)
    model = network()
    with Replicas(model, Threads(2)) as replicas:
        np.testing.assert_allclose(replicas.predict(x, 3), model.predict(x), rtol=1e-11)
    outcomes = []
    for executor in (None, Threads(2), Processes(3)):
        model = network(np.float32)
        outcomes.append((train(model, executor), {k: v.tobytes() for k, v in model.state_dict().items()}))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_gradients_in_shards_are_those_of_the_network():
    model, data = network(), examples(np.float64)
    model[0].gate.layers[1:2] = []  # BatchNorm and Dropout see only their own shard
    model[0].experts.pop()
    outputs = model.forward(data.images, training=True)
    model.backward(softmax_cross_entropy(outputs, data.targets)[1])
    expected = {name: parameter.grad for name, parameter in model.parameters().items()}
    with ShardedGradients(model, softmax_cross_entropy, data, 7) as compute:
        compute(np.arange(20))
    for name, parameter in model.parameters().items():
        np.testing.assert_allclose(parameter.grad, expected[name], rtol=1e-10, atol=1e-14)


def test_a_deep_copy_shares_nothing_and_computes_the_same(x):
    model = network()
    model.forward(x, training=True, rng=np.random.default_rng(0))
    duplicate = copy.deepcopy(model)
    np.testing.assert_array_equal(duplicate.forward(x), model.forward(x))
    for array in duplicate._state().values():
        array += 1
    assert not np.array_equal(duplicate.forward(x), model.forward(x))
    assert not any("_saved" in vars(layer) for _, layer in duplicate.walk())


def test_its_state_goes_into_another_one_and_its_summary_shows_its_inside(x):
    model, other = network(), network()
    for array in other._state().values():
        array += 1
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.forward(x), model.forward(x))
    lines = model.summary((6, 6, 2)).splitlines()
    assert any(line.startswith("0.experts.0.2 ") and "MaxPool2D(2)" in line for line in lines)
    assert str(model.count_parameters()) in lines[-1]


def test_without_a_registered_name_it_has_no_spec_and_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="Blend is not registered as layer type"):
        network().spec()
    with pytest.raises(ValueError, match="Blend is not registered as layer type"):
        save(tmp_path / "model.npz", network())
    assert list(tmp_path.iterdir()) == []


def test_a_shape_that_does_not_fit_inside_it_is_reported():
    with pytest.raises(ValueError, match=r"Conv2D\(2, 3, 3, bias=False\) needs images .* In layer 0, Blend"):
        network().output_shape((6, 6, 1))


def test_a_composites_own_parameters_are_counted_in_its_row(rng):
    class Gain(Layer):
        def __init__(self):
            self.inner = Dense(4, 3, rng=rng)
            self.gain = Parameter(np.ones(3), "gain")

        def forward(self, x, *, training=False, rng=None):
            return self.inner.forward(x, training=training)

        def backward(self, grad_y):
            return self.inner.backward(grad_y)

        def output_shape(self, input_shape):
            return self.inner.output_shape(input_shape)

    rows = [line.split() for line in Sequential([Gain()]).summary((4,)).splitlines()]
    assert ["0", "Gain:", "3", "3"] in rows
    assert rows[-1] == ["total", "18"]
