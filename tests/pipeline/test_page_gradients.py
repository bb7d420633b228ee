"""The playground's backward pass in a real browser: gradients, steps and sums are those of cnn.

The page computes in evaluation mode: dropout passes everything on, and batch norm's running statistics are
constants. `evaluation` makes a network of cnn that is trained like that, in float64, so what is compared is the
page's rounding to float32 alone. All runs in the page's worker.
"""

import base64
import json
import math
import re

import numpy as np
import pytest
from conftest import spread
from test_playground import DIGITS, NETWORKS, ROOT, build, metadata
from test_playground import browser as browser
from test_playground import shared_tab as shared_tab
from test_playground import visit as visit

from cnn import SGD, BatchNorm, Dropout, Layer, Sequential, gradient_check
from cnn.layers.trace import Trace, Traced
from cnn.parameter import Parameter
from cnn.registry import LOSSES
from pipeline.apps.playground import TEMPLATE, layers_of_the_page, render
from pipeline.config.architectures import build_model, gives_probabilities, load_layers

SHAPE = (11, 12, 3)
ARCHITECTURES = ["baseline", "sample", "batch_norm", "residual"]

# Rounding to float32 is an error of 2^-24 = 6e-8 in each layer. Bounds are relative to the largest number of
# each array, since the error of a sum is relative to its terms.
BOUND = 1e-6


class FixedNorm(Layer):
    """Batch norm in evaluation, where mean and variance are constants, with a backward pass."""

    def __init__(self, layer):
        self.gamma = None if layer.gamma is None else Parameter(layer.gamma.value, "gamma")
        self.beta = Parameter(layer.beta.value, "beta")
        self.mean = layer.running_mean.astype(np.float64)
        self.deviation = np.sqrt(layer.running_var.astype(np.float64) + layer.epsilon)

    def forward(self, x, *, training=False, rng=None):
        normalized = (x - self.mean) / self.deviation
        y = (1 if self.gamma is None else self.gamma.value) * normalized + self.beta.value
        if training:
            self._save(y, normalized)
        return y

    def backward(self, grad_y):
        (normalized,) = self._take(grad_y)
        axes = tuple(range(grad_y.ndim - 1))
        self.beta.grad = grad_y.sum(axis=axes)
        if self.gamma is None:
            return grad_y / self.deviation
        self.gamma.grad = (grad_y * normalized).sum(axis=axes)
        return grad_y * self.gamma.value / self.deviation

    def output_shape(self, input_shape):
        return input_shape


def evaluation(model):
    """A copy in float64 whose training computes what `model` does in evaluation."""

    def replace(_, layer):
        if isinstance(layer, BatchNorm):
            return FixedNorm(layer)
        return Sequential([]) if isinstance(layer, Dropout) else layer.map(replace)

    copy = model.map(replace)
    for layer in [copy, *(layer for _, layer in copy.walk())]:
        for name, parameter in layer.own_parameters().items():
            setattr(layer, name, Parameter(parameter.value.astype(np.float64), name))
    return copy


class Recorded(Traced):
    """Records dL/dy, too."""

    def backward(self, grad_y):
        self.grad_y = grad_y
        return super().backward(grad_y)


def differentiate(model, images, labels, loss, classes):
    """(loss, the numbers of a pass as the page names them) in float64."""
    trace = Trace(model, Recorded)
    outputs = trace.network.forward(images.astype(np.float64), training=True)
    value, grad = LOSSES[loss](outputs, np.eye(classes)[labels])
    trace.network.backward(grad)
    numbers = {
        kind: {one.name: getattr(one, kind) for one in trace._order} for kind in ("y", "grad_y", "grad_x")
    }
    numbers["gradients"] = {name: parameter.grad for name, parameter in model.parameters().items()}
    return value, numbers


def loss_of(model):
    """The loss that fits the network's last layer."""
    return "cross_entropy" if gives_probabilities(model) else "softmax_cross_entropy"


# Arrays travel as base64, and all as one text: hundreds of thousands of numbers one by one would take minutes.
ASK = """async ([task, values]) => {
    const pack = (value) => {
        if (value instanceof Float32Array) {
            const bytes = new Uint8Array(value.slice().buffer);
            let text = "";
            for (let k = 0; k < bytes.length; k += 8192) {
                text += String.fromCharCode(...bytes.subarray(k, k + 8192));
            }
            return {packed: btoa(text)};
        }
        if (Array.isArray(value)) return value.map(pack);
        if (value === null || typeof value !== "object") return value;
        return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, pack(item)]));
    };
    const unpack = (example) => ({...example, pixels: Float32Array.from(example.pixels)});
    if (values.pixels) values = unpack(values);
    if (values.examples) values.examples = values.examples.map(unpack);
    return JSON.stringify(pack(await playground.ask(task, values)));
}"""


def unpack(value):
    match value:
        case {"packed": text}:
            return np.frombuffer(base64.b64decode(text), "<f4")
        case dict():
            return {key: unpack(item) for key, item in value.items()}
        case list():
            return [unpack(item) for item in value]
    return value


def ask(page, task, **values):
    """What the worker answers."""
    return unpack(json.loads(page.evaluate(ASK, [task, values])))


def example(image, label):
    return {"pixels": image.ravel().tolist(), "label": int(label)}


def error(found, expected):
    """The largest difference, relative to the largest number."""
    assert found.shape == (expected.size,)
    difference = np.abs(found - expected.ravel()).max(initial=0)
    return difference / max(np.abs(expected).max(initial=0), 1e-12)


def check_pass(found, loss, expected, bound=BOUND):
    """Require that all numbers of a pass are those of cnn."""
    assert found["loss"] == pytest.approx(loss, rel=bound, abs=bound)
    errors = {}
    for kind, arrays in expected.items():
        assert found[kind].keys() == arrays.keys()
        for name, array in arrays.items():
            errors[kind, name] = error(found[kind][name], array)
    print(f"largest error of {len(errors)} arrays: {max(errors.values()):.1e}")
    assert {key: value for key, value in errors.items() if value > bound} == {}


def network(name, rng):
    """(network, image shape, number of classes): one of the page's tests, or of architectures.yaml."""
    if name in NETWORKS:
        specs = [*NETWORKS[name], {"type": "flatten"}, {"type": "dense", "out_features": 4}]
        model = build(specs, SHAPE, 4, rng)
        for parameter in model.parameters().values():
            if parameter.value.ndim > 1:  # outputs as large as inputs, so that nothing saturates
                parameter.value /= np.sqrt(parameter.value[..., 0].size)
        return model, SHAPE, 4
    model = build_model(load_layers(name, ROOT / "architectures.yaml"), name, (28, 28, 1), 10, rng)
    for _, layer in model.walk():
        if isinstance(layer, BatchNorm):
            layer.gamma.value[:] = rng.uniform(0.5, 1.5, layer.channels)
            layer.beta.value[:] = rng.normal(0, 0.2, layer.channels)
            layer.running_mean[:] = rng.normal(0, 0.2, layer.channels)
            layer.running_var[:] = rng.uniform(0.2, 1, layer.channels)
    return model, (28, 28, 1), 10


def images_of(shape, rng, count=3):
    """Images without ties and kinks, or with ink on empty paper as MNIST has."""
    if shape == SHAPE:
        return rng.standard_normal((count, *shape)).astype(np.float32)
    images = rng.uniform(0, 1, (count, *shape)).astype(np.float32)
    images[:, :5] = images[:, :, :6] = 0
    return images


def open_network(visit, name, rng):
    model, shape, classes = network(name, rng)
    page = visit(render(model, metadata(shape, DIGITS[:classes]), []))
    return page, model, images_of(shape, rng), rng.integers(0, classes, 3), classes


@pytest.mark.parametrize("name", [*NETWORKS, *ARCHITECTURES])
def test_forward_values_and_all_gradients_are_those_of_cnn(name, visit, rng):
    page, model, images, labels, classes = open_network(visit, name, rng)
    reference, loss = evaluation(model), loss_of(model)
    for image, label in zip(images, labels, strict=True):
        expected = differentiate(reference, image[None], [label], loss, classes)
        answer = ask(page, "differentiate", **example(image, label), loss=loss)
        check_pass(answer["pass"], *expected)


@pytest.mark.parametrize("name", [*NETWORKS, *ARCHITECTURES])
def test_three_steps_give_the_weights_of_cnn_and_can_be_taken_back(name, visit, rng):
    page, model, images, labels, classes = open_network(visit, name, rng)
    reference, loss, rate = evaluation(model), loss_of(model), 0.01
    optimizer = SGD(reference.parameters(), rate)
    before = {key: parameter.value.copy() for key, parameter in reference.parameters().items()}
    examples = [example(*pair) for pair in zip(images, labels, strict=True)]
    weights = [ask(page, "weights")["weights"]]
    for _ in range(3):
        expected, _ = differentiate(reference, images, labels, loss, classes)
        optimizer.step()
        found = ask(page, "step", examples=examples, loss=loss, learningRate=rate)
        assert found["loss"] == pytest.approx(expected, rel=BOUND, abs=BOUND)
        weights.append(ask(page, "weights")["weights"])
    after = {key: parameter.value for key, parameter in reference.parameters().items()}
    errors = {key: error(weights[3][key], array) for key, array in after.items()}
    changes = {key: error(before[key].ravel(), array) for key, array in after.items()}
    print(f"largest error {max(errors.values()):.1e}, largest change {max(changes.values()):.1e}")
    assert max(errors.values()) <= BOUND
    assert max(changes.values()) > 1000 * BOUND  # the steps are far larger than the bound
    state = model.state_dict()
    assert weights[3].keys() == state.keys()
    for key in state.keys() - after.keys():
        np.testing.assert_array_equal(weights[3][key], state[key])  # running statistics stay
    for earlier in (weights[2], weights[1], weights[0]):
        ask(page, "undo")
        assert same_bytes(ask(page, "weights")["weights"], earlier)
    assert ask(page, "undo")["steps"] == 0
    ask(page, "step", examples=examples, loss=loss, learningRate=rate)
    assert not same_bytes(ask(page, "weights")["weights"], state)
    ask(page, "reset")
    assert same_bytes(ask(page, "weights")["weights"], state)


def same_bytes(arrays, others):
    return {key: array.tobytes() for key, array in arrays.items()} == {
        key: array.tobytes() for key, array in others.items()
    }


def places_of(numbers, rng, each):
    """`each` random places of every array of a pass."""
    for kind, arrays in numbers.items():
        for name, array in arrays.items():
            layer, _, key = name.rpartition(".") if kind == "gradients" else (name, "", "")
            of = f"grad_{key}" if key else kind
            for index in rng.integers(0, array.size, each):
                yield {"of": of, "layer": layer, "index": int(index)}


def number_at(numbers, arrays, image, place):
    """The number at a place, read from what the worker returned."""
    of, layer, index = place["of"], place["layer"], place["index"]
    if of == "x":
        assert layer == ""
        return image.ravel()[index]
    if of in numbers:
        return numbers[of][layer][index]
    if of.startswith("grad_"):
        return numbers["gradients"][f"{layer}.{of[5:]}"][index]
    return arrays[f"{layer}.{of}"].ravel()[index]


@pytest.mark.parametrize("name", [*NETWORKS, *ARCHITECTURES])  # 11 networks, more than 500 numbers
def test_the_terms_of_any_number_sum_to_it(name, visit, rng):
    page, model, images, labels, _ = open_network(visit, name, rng)
    answer = ask(page, "differentiate", **example(images[0], labels[0]), loss=loss_of(model))["pass"]
    numbers, state = (
        {kind: answer[kind] for kind in ("y", "grad_y", "grad_x", "gradients")},
        model.state_dict(),
    )
    places = [*places_of(numbers, rng, 3), {"of": "loss", "layer": "", "index": 0}]
    assert len(places) >= 50
    explanations = ask(page, "explain", places=places)["explanations"]
    for place, found in zip(places, explanations, strict=True):
        assert found["place"] == place
        is_loss = place["of"] == "loss"
        value = answer["loss"] if is_loss else number_at(numbers, state, images[0], place)
        assert found["value"] == value
        for term in found["terms"]:
            assert math.isclose(term["product"], math.prod(factor["value"] for factor in term["factors"]))
            for factor in term["factors"]:
                source = factor["places"][0] if len(factor["places"]) == 1 else {"of": None}
                if factor["name"] in ("x", source["of"]):
                    assert factor["value"] == number_at(numbers, state, images[0], source)
        products = [term["product"] for term in found["terms"]]
        # one rounding to float32; that of the products, in float64
        bound = 2**-24 * abs(value) + 2**-40 * np.abs(products).sum() + 1e-45
        assert abs(sum(products) - value) <= bound, place
        if found["compared"]:
            assert max(factor["value"] for factor in found["compared"]) == value


@pytest.mark.parametrize("specs", [NETWORKS["max_pooling"], [{"type": "global_max_pool2d"}]])
def test_in_a_tie_the_first_maximum_gets_the_gradient_as_in_cnn(specs, visit, rng):
    model = build([*specs, {"type": "flatten"}, {"type": "dense", "out_features": 4}], SHAPE, 4, rng)
    page = visit(render(model, metadata(SHAPE, DIGITS[:4]), []))
    image = rng.integers(0, 2, SHAPE).astype(np.float32)  # two different numbers
    expected = differentiate(evaluation(model), image[None], [1], "softmax_cross_entropy", 4)
    answer = ask(page, "differentiate", **example(image, 1), loss="softmax_cross_entropy")
    check_pass(answer["pass"], *expected)


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_and_its_terms_are_those_of_cnn(name, visit, rng):
    specs = [{"type": "flatten"}, {"type": "dense", "out_features": 4}]
    specs += [{"type": "softmax"}] if name == "cross_entropy" else []
    model = build(specs, (3, 3, 1), 4, rng)
    page = visit(render(model, metadata((3, 3, 1), DIGITS[:4]), []))
    for scale in (0.5, 1, 300):  # in the last, the probability is rounded to 0
        image = (scale * rng.standard_normal((3, 3, 1))).astype(np.float32)
        label = model.forward(image[None])[0].argmin()
        value, numbers = differentiate(evaluation(model), image[None], [label], name, 4)
        found = ask(page, "differentiate", **example(image, label), loss=name)["pass"]
        places = [{"of": "grad_y", "layer": "", "index": k} for k in range(4)]
        explanations = ask(page, "explain", places=[{"of": "loss", "layer": "", "index": 0}, *places])
        sums = [sum(term["product"] for term in one["terms"]) for one in explanations["explanations"]]
        np.testing.assert_allclose(sums, [found["loss"], *found["grad_y"][""]], rtol=1e-6, atol=1e-12)
        if name == "cross_entropy" and scale == 300:
            assert found["loss"] == pytest.approx(126 * np.log(2))  # a 0 counts as 2^-126
            np.testing.assert_array_equal(found["grad_x"]["1"], 0)
        else:
            check_pass(found, value, numbers)


def test_a_network_whose_weights_have_changed_is_not_explained_with_old_numbers(visit, rng):
    page, _, images, labels, _ = open_network(visit, "global_maximum", rng)
    loss = "softmax_cross_entropy"
    ask(page, "differentiate", **example(images[0], labels[0]), loss=loss)
    ask(page, "step", examples=[example(images[0], labels[0])], loss=loss, learningRate=0.1)
    problem = page.evaluate("playground.ask('explain', {places: []}).catch((error) => error.message)")
    assert "differentiate again" in problem


def test_pixels_and_weights_were_given_and_have_no_terms(visit, rng):
    page, model, images, labels, _ = open_network(visit, "convolutions", rng)
    ask(page, "differentiate", **example(images[0], labels[0]), loss="softmax_cross_entropy")
    places = [{"of": "x", "layer": "", "index": 7}, {"of": "kernel", "layer": "0", "index": 8}]
    found = ask(page, "explain", places=places)["explanations"]
    assert [one["value"] for one in found] == [
        images[0].ravel()[7],
        model.state_dict()["0.kernel"].ravel()[8],
    ]
    assert [one["terms"] for one in found] == [[], []]


def test_as_many_steps_can_be_undone_as_64_megabytes_hold(visit, rng):
    model, shape, classes = network("global_maximum", rng)
    text = render(model, metadata(shape, DIGITS[:classes]), [])
    limit = 3 * sum(array.size for array in model.state_dict().values())
    page = visit(text.replace("const KEPT = 2 ** 24;", f"const KEPT = {limit};"))
    request = {"examples": [example(np.ones(shape), 1)], "loss": "mean_squared_error", "learningRate": 0}
    assert [ask(page, "step", **request)["steps"] for _ in range(4)] == [1, 2, 3, 3]
    assert [ask(page, "undo")["steps"] for _ in range(4)] == [2, 1, 0, 0]


def table(file, name):
    """The keys of a table of layers in one of the page's files."""
    text = (TEMPLATE.parent / file).read_text(encoding="utf-8")
    return re.findall(
        r"^  (\w+)(?=[:,(])", text.partition(f"const {name} = {{\n")[2].partition("\n};")[0], re.M
    )


def test_every_layer_and_every_loss_has_a_way_back():
    assert set(table("backward.js", "BACKWARD")) == layers_of_the_page()
    assert set(table("terms.js", "TERMS")) <= layers_of_the_page()
    assert set(table("backward.js", "LOSSES")) == set(table("terms.js", "LOSS_TERMS")) == set(LOSSES)


@pytest.mark.parametrize("scale", [True, False])
def test_the_network_that_the_page_is_compared_with_is_batch_norm_in_evaluation(scale, rng):
    layer = BatchNorm(3, scale=scale, epsilon=0.1, dtype=np.float64)
    layer.running_mean[:], layer.running_var[:] = rng.normal(size=3), rng.uniform(0.5, 2, 3)
    fixed = FixedNorm(layer)
    x = spread(rng, (2, 4, 5, 3))
    np.testing.assert_allclose(fixed.forward(x), layer.forward(x), rtol=1e-12)
    assert max(gradient_check(fixed, x, rng=rng).values()) < 1e-7
