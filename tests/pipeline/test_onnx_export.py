"""Networks as ONNX models compute, in onnxruntime, what they compute here."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import description, disturb
from projects import SHIPPED

import cnn
from cnn.registry import LAYERS
from pipeline.config.architectures import build_model, gives_probabilities
from pipeline.config.yaml_files import read_mapping
from pipeline.errors import UserError
from pipeline.formats import onnx as exporter
from pipeline.formats.judge import judge

IMAGE, VECTOR = (9, 8, 6), (6,)
CASES = [
    (IMAGE, "conv2d, out_channels: 4, kernel_size: 3"),
    (IMAGE, "conv2d, out_channels: 4, kernel_size: 3, bias: false"),
    (IMAGE, "conv2d, out_channels: 4, kernel_size: [2, 4], padding: same"),
    (IMAGE, "conv2d, out_channels: 4, kernel_size: [4, 2], padding: same, stride: [3, 2]"),
    (IMAGE, "conv2d, out_channels: 4, kernel_size: 2, padding: same, dilation: [3, 2]"),
    (IMAGE, "conv2d, out_channels: 4, kernel_size: 3, padding: [[0, 3], [2, 1]], stride: 2"),
    (IMAGE, "conv2d, out_channels: 9, kernel_size: 3, groups: 3, dilation: 2"),
    (IMAGE, "conv2d, out_channels: 12, kernel_size: 3, groups: 6, padding: 5"),
    *(
        (IMAGE, f"{pool}, {geometry}")
        for pool in ("max_pool2d", "avg_pool2d", "avg_pool2d, count_include_pad: false")
        for geometry in (
            "kernel_size: 2",
            "kernel_size: 3, stride: 2, ceil_mode: true",
            "kernel_size: 3, stride: 2",
            "kernel_size: 2, padding: same",
            "kernel_size: [4, 3], padding: same, stride: [3, 2]",
            "kernel_size: [3, 2], padding: [[1, 0], [0, 1]], stride: 1",
            "kernel_size: 4, stride: 3, padding: 1, ceil_mode: true",
            "kernel_size: 2, dilation: [3, 2], stride: 1",
            "kernel_size: 3, dilation: 3, padding: same, stride: 2",
            "kernel_size: 2, dilation: 5, padding: 4, stride: 2",
            "kernel_size: [2, 1], stride: 5, ceil_mode: true",
        )
    ),
    (IMAGE, "global_avg_pool2d"),
    (IMAGE, "global_max_pool2d"),
    *(
        (shape, layer)
        for shape in (IMAGE, VECTOR)
        for layer in (
            "batch_norm",
            "batch_norm, scale: false, epsilon: 1.0e-12",
            "batch_norm, epsilon: 0.01",
            "layer_norm",
            "layer_norm, epsilon: 0.1",
            "relu",
            "leaky_relu, slope: 0.2",
            "elu, alpha: 1.5",
            "gelu",
            "gelu, approximate: true",
            "silu",
            "sigmoid",
            "tanh",
            "softmax",
            "log_softmax",
            "scale, factor: 0.25",
            "dropout, rate: 0.5",
            "spatial_dropout, rate: 0.5",
            "flatten",
            "sequential, layers: [{type: relu}, {type: sequential, layers: [{type: tanh}]}]",
            "residual, layers: [{type: residual, layers: [{type: tanh}]}, {type: layer_norm}]",
            "residual, layers: [{type: tanh}], shortcut: [{type: layer_norm}]",
        )
    ),
    (VECTOR, "dense, out_features: 7"),
    (VECTOR, "dense, out_features: 7, bias: false"),
    (
        IMAGE,
        "residual, layers: [{type: conv2d, out_channels: 5, kernel_size: 3, stride: 2, padding: same}, "
        "{type: layer_norm}], shortcut: [{type: conv2d, out_channels: 5, kernel_size: 1, stride: 2}]",
    ),
]


def load(layers):
    """A network, from the text of a list of layers."""
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(layers)


def network(shape, layer, rng):
    """A network of images of the layer alone, between what brings images to it and its output to classes."""
    before = "{type: global_avg_pool2d}, " if shape == VECTOR else ""
    layers = load(f"[{before}{{type: {layer}}}, {{type: flatten}}, {{type: dense, out_features: 10}}]")
    return disturb(build_model(layers, "a test", IMAGE, 10, rng), rng)


def run(content, images):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["logits", "probabilities"], {"images": images})


def export(model, data, **options):
    return exporter.to_bytes(exporter.to_onnx(model, data, {"key": "text"}, **options))


@pytest.mark.parametrize(("shape", "layer"), CASES, ids=[f"{len(s)}d {text}" for s, text in CASES])
def test_a_layer_computes_the_same_in_onnxruntime(shape, layer, rng):
    model = network(shape, layer, rng)
    images = rng.uniform(-2, 2, (5, *IMAGE)).astype(np.float32)
    logits, probabilities = run(export(model, description(IMAGE)), images)
    expected = model.predict(images)
    np.testing.assert_allclose(logits, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(probabilities, cnn.ops.softmax.softmax(expected), rtol=1e-4, atol=1e-6)


def test_every_layer_type_is_among_the_cases_and_has_a_function():
    assert set(exporter.EMITTERS) == set(LAYERS.values())
    named = {name for _, layer in CASES for name in LAYERS if f" {name}," in f" {layer},"}
    assert named == set(LAYERS)


NETWORKS = read_mapping(SHIPPED / "architectures.yaml")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_whole_network_computes_the_same_in_onnxruntime(name, rng):
    shape = (28, 28, 1) if "mnist" in name or name == "baseline" else (32, 32, 3)
    data = description(shape, mean=0.3, deviation=0.2)
    model = disturb(build_model(NETWORKS[name], name, shape, 10, rng), rng)
    images = rng.random((3, *shape), dtype=np.float32)
    logits, _ = run(export(model, data), images)
    expected = model.predict(data.normalise(images))
    assert abs(logits - expected).max() < 1e-5 * abs(expected).max()


def random_layers(rng, depth=0):
    """A few layers that keep three axes, with geometries drawn at random."""
    layers = []
    for _ in range(rng.integers(1, 5)):
        kernel = [int(k) for k in rng.integers(1, 5, 2)]
        stride = [int(k) for k in rng.integers(1, 3, 2)]
        dilation = [int(k) for k in rng.integers(1, 3, 2)]
        geometry = f"kernel_size: {kernel}, stride: {stride}, dilation: {dilation}, padding: same"
        ceil = f"ceil_mode: {str(bool(rng.integers(2))).lower()}"
        choices = [
            f"{{type: conv2d, out_channels: {2 * rng.integers(1, 5)}, groups: 2, {geometry}}}",
            f"{{type: max_pool2d, {geometry}, {ceil}}}",
            f"{{type: avg_pool2d, {geometry}, {ceil}, count_include_pad: false}}",
            "{type: batch_norm}",
            "{type: layer_norm}",
            "{type: gelu}",
            "{type: silu}",
        ]
        if depth < 2:
            inner = "{type: tanh}, {type: layer_norm}, {type: elu}"
            choices.append(f"{{type: residual, layers: [{inner}]}}")
            choices.append(f"{{type: sequential, layers: [{', '.join(random_layers(rng, depth + 1))}]}}")
        layers.append(choices[rng.integers(len(choices))])
    return layers


def test_networks_drawn_at_random_compute_the_same_in_onnxruntime(faults):
    for seed in faults(12, 2_000):
        rng = np.random.default_rng(seed)
        ending = ["{type: global_avg_pool2d}"] if rng.integers(2) else ["{type: flatten}"]
        text = ", ".join([*random_layers(rng), *ending, "{type: dense, out_features: 3}"])
        shape = (int(rng.integers(4, 12)), int(rng.integers(4, 12)), 2)
        model = disturb(build_model(load(f"[{text}]"), "a test", shape, 3, rng), rng)
        images = rng.uniform(0, 1, (2, *shape)).astype(np.float32)
        logits, _ = run(export(model, description(shape, 3)), images)
        np.testing.assert_allclose(logits, model.predict(images), rtol=1e-4, atol=1e-4, err_msg=text)


def test_bytes_and_numbers_in_0_to_1_give_the_same(rng):
    data = description((28, 28, 1), mean=0.13, deviation=0.31)
    model = build_model(NETWORKS["baseline"], "baseline", data.image_shape, 10, rng)
    pixels = rng.integers(0, 256, (4, 28, 28, 1)).astype(np.uint8)
    for images, from_bytes in ((pixels, True), (pixels / np.float32(255), False)):
        logits, _ = run(export(model, data, from_bytes=from_bytes), images)
        np.testing.assert_allclose(logits, model.predict(data.normalise(pixels)), atol=1e-5)


@pytest.mark.parametrize("nested", [False, True])
def test_a_network_that_ends_in_softmax_has_its_logits_too(nested, rng):
    end = "{type: sequential, layers: [{type: softmax}]}" if nested else "{type: softmax}"
    layers = load(f"[{{type: flatten}}, {{type: dense, out_features: 10}}, {end}]")
    model = build_model(layers, "a test", IMAGE, 10, rng)
    assert gives_probabilities(model)
    images = rng.random((3, *IMAGE), dtype=np.float32)
    logits, probabilities = run(export(model, description(IMAGE)), images)
    np.testing.assert_allclose(probabilities, model.predict(images), rtol=1e-4)
    np.testing.assert_allclose(logits, cnn.Sequential(model.layers[:2]).predict(images), rtol=1e-4, atol=1e-5)


@pytest.fixture
def baseline(rng):
    return build_model(NETWORKS["baseline"], "baseline", (28, 28, 1), 10, rng)


def test_the_same_network_gives_the_same_bytes(baseline):
    data = description((28, 28, 1))
    metadata = {"b": "2", "a": json.dumps(data.class_names)}
    first = exporter.to_bytes(exporter.to_onnx(baseline, data, metadata))
    assert first == exporter.to_bytes(exporter.to_onnx(baseline, data, dict(reversed(metadata.items()))))
    proto = onnx.load_model_from_string(first)
    assert [entry.key for entry in proto.metadata_props] == ["a", "b"]


def test_old_tools_can_read_it_and_infer_all_shapes(baseline):
    proto = exporter.to_onnx(baseline, description((28, 28, 1)), {})
    assert (proto.ir_version, [(o.domain, o.version) for o in proto.opset_import]) == (8, [("", 17)])
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    }
    assert shapes["images"] == ["N", 28, 28, 1]
    assert shapes["0/Conv"] == ["N", 8, 26, 26]
    assert shapes["logits"] == shapes["probabilities"] == ["N", 10]
    assert {name for node in proto.graph.node for name in node.output} <= set(shapes)


def test_any_number_of_images_will_do(baseline, rng):
    content = export(baseline, description((28, 28, 1)))
    for count in (1, 7):
        assert run(content, rng.random((count, 28, 28, 1), dtype=np.float32))[0].shape == (count, 10)


def test_a_layer_that_onnx_does_not_know_is_refused(baseline):
    class Unknown(cnn.ReLU):
        pass

    with pytest.raises(UserError) as error:
        exporter.to_onnx(cnn.Sequential([*baseline.layers, Unknown()]), description((28, 28, 1)), {})
    assert str(error.value) == (
        "Nothing says which operators of ONNX compute the layer 5, Unknown. Register a function for it in "
        "pipeline/formats/onnx.py, as docs/export.md shows."
    )


@pytest.mark.parametrize("wrong", [1e-2, np.nan])
def test_a_file_with_other_outputs_is_refused(baseline, wrong, rng):
    images = rng.random((300, 28, 28, 1), dtype=np.float32)
    outputs = baseline.predict(images)

    def judged(outputs):
        probabilities = cnn.ops.softmax.softmax(outputs)
        return judge(
            export(baseline, description((28, 28, 1))),
            images,
            lambda rows: (outputs[rows], probabilities[rows]),
            ends_in_softmax=False,
            threads=1,
        )

    found = judged(outputs)
    assert (found.images, found.agree) == (300, 300)
    assert found.difference < 1e-5
    outputs[299, 3] += wrong
    with pytest.raises(UserError, match="The ONNX file does not compute what the network does"):
        judged(outputs)
