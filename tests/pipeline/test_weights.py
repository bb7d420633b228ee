"""Weights of other tools come in: matched, converted, and refused with a list of what does not fit.

`defined` computes a network as PyTorch defines it, by plain loops on (image, channel, row, column), from arrays
in PyTorch's layout; so the layouts are judged without PyTorch. If it is installed, it is asked as well.
"""

import os
import sys
from contextlib import suppress

import numpy as np
import onnx
import pytest
from networks import description, disturb
from onnx import TensorProto, helper, numpy_helper
from ruamel.yaml import YAML

from cnn.registry import LAYERS
from pipeline.config.architectures import build_model
from pipeline.errors import UserError
from pipeline.formats import onnx as exporter
from pipeline.formats import safetensors
from pipeline.formats.weights import KINDS, fit, read

SHAPE = (8, 7, 2)
LAYERS_HERE = """
- {type: conv2d, out_channels: 4, kernel_size: [3, 2]}
- {type: batch_norm}
- {type: relu}
- {type: conv2d, out_channels: 4, kernel_size: 3, groups: 2, bias: false}
- {type: relu}
- {type: flatten}
- {type: batch_norm}
- {type: dropout, rate: 0.5}
- {type: dense, out_features: 48}
- {type: relu}
- {type: dense, out_features: 48}
- {type: dense, out_features: 3}
"""


def build(text=LAYERS_HERE, shape=SHAPE, classes=3):
    layers = YAML(typ="safe", pure=True).load(text)
    return build_model(layers, "a test", shape, classes, np.random.default_rng(0))


@pytest.fixture
def theirs(rng):
    """The state of the network above in PyTorch, where the layers have other names."""
    shapes = {
        "stem.conv.weight": (4, 2, 3, 2),
        "stem.conv.bias": (4,),
        "stem.norm.weight": (4,),
        "stem.norm.bias": (4,),
        "stem.norm.running_mean": (4,),
        "stem.norm.running_var": (4,),
        "tail.conv.weight": (4, 2, 3, 3),
        "tail.norm.weight": (64,),
        "tail.norm.bias": (64,),
        "tail.norm.running_mean": (64,),
        "tail.norm.running_var": (64,),
        "tail.fc2.weight": (48, 64),
        "tail.fc2.bias": (48,),
        "tail.fc9.weight": (48, 48),
        "tail.fc9.bias": (48,),
        "tail.fc10.weight": (3, 48),
        "tail.fc10.bias": (3,),
    }
    return {
        name: rng.uniform(0.1, 1, shape).astype(np.float32) - 0.5 * (len(shape) > 1)
        for name, shape in shapes.items()
    }


def conv(x, weight, bias=None, groups=1):
    out, within, kernel_h, kernel_w = weight.shape
    height, width = x.shape[2] - kernel_h + 1, x.shape[3] - kernel_w + 1
    y = np.zeros((len(x), out, height, width))
    for o in range(out):
        first = o // (out // groups) * within
        for i in range(kernel_h):
            for j in range(kernel_w):
                pixels = x[:, first : first + within, i : i + height, j : j + width]
                y[:, o] += np.einsum("nchw,c->nhw", pixels, weight[o, :, i, j])
    return y if bias is None else y + bias[:, None, None]


def norm(x, state, name):
    shape = (-1, *(1,) * (x.ndim - 2))
    gamma, beta, mean, variance = (
        state[f"{name}.{part}"].reshape(shape) for part in ("weight", "bias", "running_mean", "running_var")
    )
    return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta


def defined(state, x):
    """The outputs for images (image, channel, row, column)."""
    x = np.maximum(norm(conv(x, state["stem.conv.weight"], state["stem.conv.bias"]), state, "stem.norm"), 0)
    x = np.maximum(conv(x, state["tail.conv.weight"], groups=2), 0)
    x = norm(x.reshape(len(x), -1), state, "tail.norm")
    for name, last in (("tail.fc2", np.maximum), ("tail.fc9", np.add), ("tail.fc10", np.add)):
        x = last(x @ state[f"{name}.weight"].T + state[f"{name}.bias"], 0)
    return x


def write(path, arrays, **metadata):
    path.write_bytes(safetensors.to_bytes(arrays, metadata))
    return path


def came_in(path, model, x):
    """The network's outputs for images (image, channel, row, column), with the weights of a file."""
    state, _ = fit(model, SHAPE, read(path))
    model.load_state_dict(state)
    return model.predict(x.transpose(0, 2, 3, 1))


def refused(path, model=None):
    with pytest.raises(UserError) as error:
        fit(model or build(), SHAPE, read(path))
    return str(error.value).replace(f"{path.parent}/", "")


@pytest.fixture
def x(rng):
    return rng.random((5, 2, 8, 7), dtype=np.float32)


def test_weights_in_pytorchs_layout_give_what_pytorch_defines(theirs, x, tmp_path):
    path = write(tmp_path / "w.safetensors", theirs | {"stem.norm.num_batches_tracked": np.float32(3)})
    np.testing.assert_allclose(came_in(path, build(), x), defined(theirs, x), rtol=1e-4, atol=1e-4)


def test_the_table_says_what_became_what(theirs, tmp_path):
    _, taken = fit(build(), SHAPE, read(write(tmp_path / "w.safetensors", theirs)))
    rows = {row.name: (row.source, row.note) for row in taken}
    assert rows["0.kernel"] == ("stem.conv.weight", "")
    assert rows["6.running_var"] == ("tail.norm.running_var", "reordered for Flatten")
    assert rows["8.weight"] == ("tail.fc2.weight", "reordered for Flatten")
    assert rows["8.bias"] == ("tail.fc2.bias", "")
    assert rows["10.weight"] == ("tail.fc9.weight", "")
    assert [row.name for row in taken] == list(build().state_dict())


def test_equal_shapes_follow_the_order_of_names_and_names_of_all_layers_decide(rng, tmp_path):
    text = "[{type: flatten}, {type: dense, out_features: 112}, {type: relu}, {type: dense, out_features: 112}, {type: dense, out_features: 3}]"
    first, second = (rng.random((112, 112), dtype=np.float32) for _ in range(2))
    bias, last = (
        np.zeros(112, np.float32),
        {"weight": np.zeros((3, 112), np.float32), "bias": np.zeros(3, np.float32)},
    )

    def second_weight(names):
        arrays = {
            f"{names[1]}.weight": second,
            f"{names[0]}.weight": first,
            f"{names[2]}.weight": last["weight"],
        }
        arrays |= {f"{name}.bias": bias for name in names[:2]} | {f"{names[2]}.bias": last["bias"]}
        state, _ = fit(build(text), SHAPE, read(write(tmp_path / "w.safetensors", arrays)))
        return state["3.weight"]

    np.testing.assert_array_equal(second_weight(["block.2", "block.10", "block.11"]), second.T)
    np.testing.assert_array_equal(second_weight(["1", "3", "4"]), second.T)
    np.testing.assert_array_equal(second_weight(["3", "1", "4"]), first.T)  # these are the names here
    np.testing.assert_array_equal(second_weight(["0", "1", "4"]), second.T)  # only some of them are


def test_arrays_named_as_here_are_taken_as_they_are(rng, tmp_path):
    model = disturb(build(), rng)
    state, _ = fit(build(), SHAPE, read(write(tmp_path / "w.safetensors", model.state_dict())))
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(state[name], array, strict=True)


@pytest.mark.parametrize("scale", ["", ", scale: false"])
def test_an_export_comes_back_as_it_was(scale, rng, tmp_path):
    text = LAYERS_HERE.replace("{type: batch_norm}", f"{{type: batch_norm{scale}}}", 1)
    model = disturb(build(text), rng)
    proto = exporter.to_onnx(model, description(SHAPE, 3), {"network": "{}"})
    (tmp_path / "m.onnx").write_bytes(exporter.to_bytes(proto))
    write(tmp_path / "m.safetensors", model.state_dict(), network="{}")
    for name in ("m.onnx", "m.safetensors"):
        source = read(tmp_path / name)
        assert source.network == "{}"
        for arrays in (source, source._replace(own=None)):  # by names, and by the nodes of the graph
            state, _ = fit(build(text), SHAPE, arrays)
            for key, array in model.state_dict().items():
                np.testing.assert_array_equal(state[key], array, strict=True)


def test_every_layer_with_arrays_has_a_kind():
    with_state = set()
    for name, layer in LAYERS.items():
        if name not in ("residual", "sequential"):
            written = {
                "conv2d": "out_channels: 2, kernel_size: 1",
                "dense": "out_features: 2",
                "scale": "factor: 1",
            }
            options = written.get(name, "kernel_size: 1" if "pool2d" in name and "global" not in name else "")
            options = options or ("rate: 0.5" if "dropout" in name else "")
            before = "{type: flatten}, " if name == "dense" else ""
            after = ", {type: flatten}, {type: dense, out_features: 3}"
            model = build(f"[{before}{{type: {name}, {options}}}{after}]")
            if model.layers[1 if before else 0].state_dict():
                with_state.add(layer)
    assert with_state == set(KINDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.pop("tail.fc2.bias"),
            "- missing: 8 (dense): weight (64, 48), bias (48,)\n- left over: tail.fc2 (dense): weight (64, 48)",
        ),
        (
            lambda w: w.update({"x.weight": np.ones((2, 2), np.float32)}),
            "- left over: x (dense): weight (2, 2)",
        ),
        (lambda w: w.update({"x": np.ones(2, np.float32)}), "- left over: x"),
        (lambda w: w.update({"x.weight": np.ones((2, 2, 2), np.float32)}), "- left over: x.weight"),
        (
            lambda w: w.update({"stem.conv.weight": np.ones((4, 2, 3, 3), np.float32)}),
            "- missing: 0 (conv2d): kernel (3, 2, 2, 4), bias (4,)\n- left over: stem.conv (conv2d): kernel (3, 3, 2, 4), bias (4,)",
        ),
        (
            lambda w: w.pop("stem.norm.running_var"),
            "- missing: 1 (batch_norm): gamma (4,), beta (4,), running_mean (4,), running_var (4,)\n- left over: stem.norm (batch_norm): gamma (4,), beta (4,), running_mean (4,)",
        ),
    ],
)
def test_what_does_not_fit_is_listed_with_both_names(theirs, change, message, tmp_path):
    change(theirs)
    assert (
        refused(write(tmp_path / "w.safetensors", theirs))
        == f"The weights do not fit the network:\n{message}"
    )


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_become_float32(theirs, dtype, tmp_path, x):
    from safetensors.numpy import save

    (tmp_path / "w.safetensors").write_bytes(
        save({name: array.astype(dtype) for name, array in theirs.items()})
    )
    y = came_in(tmp_path / "w.safetensors", build(), x)
    np.testing.assert_allclose(y, defined(theirs, x), rtol=1e-4 if dtype == "float64" else 0.05)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (
            "tail.fc10.bias",
            np.full(3, np.nan, np.float32),
            "The file's array for 11.bias holds numbers that are not finite, or too large.",
        ),
        (
            "tail.fc10.bias",
            np.full(3, 1e300),
            "The file's array for 11.bias holds numbers that are not finite, or too large.",
        ),
        (
            "tail.fc10.bias",
            np.full(3, 1),
            "The file's array for 11.bias is int64; weights are floating-point numbers.",
        ),
        (
            "stem.norm.running_var",
            np.full(4, -1, np.float32),
            "The file's array for 1.running_var holds negative numbers, which no variance is.",
        ),
    ],
)
def test_numbers_that_cannot_be_weights_are_refused(theirs, name, array, message, tmp_path):
    from safetensors.numpy import save

    (tmp_path / "w.safetensors").write_bytes(save(theirs | {name: array}))
    assert refused(tmp_path / "w.safetensors") == message


def test_a_gamma_of_ones_fits_a_network_without_gamma(theirs, tmp_path):
    model = build(LAYERS_HERE.replace("batch_norm}", "batch_norm, scale: false}", 1))
    assert "- missing: 1 (batch_norm): beta (4,)" in refused(write(tmp_path / "w.safetensors", theirs), model)
    theirs["stem.norm.weight"][:] = 1
    state, _ = fit(model, SHAPE, read(write(tmp_path / "w.safetensors", theirs)))
    np.testing.assert_array_equal(state["1.beta"], theirs["stem.norm.bias"])


def test_a_flattened_image_that_is_added_to_other_numbers_is_refused(rng, tmp_path):
    text = "[{type: flatten}, {type: residual, layers: [{type: dense, out_features: 112}]}, {type: dense, out_features: 3}]"
    arrays = {
        "a.weight": rng.random((112, 112), dtype=np.float32),
        "a.bias": rng.random(112, dtype=np.float32),
    }
    arrays |= {"b.weight": rng.random((3, 112), dtype=np.float32), "b.bias": rng.random(3, dtype=np.float32)}
    message = refused(write(tmp_path / "w.safetensors", arrays), build(text))
    assert message.startswith(
        "The Residual 1 adds a flattened image to other numbers, so the order of its weights cannot"
    )


# ONNX files as other tools write them


def proto(theirs, *, dense="Gemm", epsilon=1e-5, to_pixels=False):
    """The network as a graph of ONNX, on images (image, channel, row, column)."""
    constants = {name: theirs[name] for name in theirs if ".fc" not in name}
    nodes = [
        helper.make_node("Conv", ["x", "stem.conv.weight", "stem.conv.bias"], ["a"]),
        helper.make_node(
            "BatchNormalization",
            ["a", *(f"stem.norm.{p}" for p in ("weight", "bias", "running_mean", "running_var"))],
            ["b"],
            epsilon=epsilon,
        ),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "tail.conv.weight"], ["d"], group=2),
        helper.make_node("Relu", ["d"], ["e"]),
        *([helper.make_node("Transpose", ["e"], ["p"], perm=[0, 2, 3, 1])] if to_pixels else []),
        helper.make_node("Flatten", ["p" if to_pixels else "e"], ["f"]),
        helper.make_node(
            "BatchNormalization",
            ["f", *(f"tail.norm.{p}" for p in ("weight", "bias", "running_mean", "running_var"))],
            ["0"],
        ),
    ]
    for k, name in enumerate(("tail.fc2", "tail.fc9", "tail.fc10")):
        weight, bias = theirs[f"{name}.weight"], theirs[f"{name}.bias"]
        constants[f"{name}.bias"] = bias
        if dense == "Gemm":
            constants[f"{name}.weight"] = weight
            nodes.append(
                helper.make_node("Gemm", [str(k), f"{name}.weight", f"{name}.bias"], [f"{k}s"], transB=1)
            )
        elif dense == "MatMul":
            constants[f"{k}w"] = weight.T
            nodes.append(helper.make_node("MatMul", [str(k), f"{k}w"], [f"{k}m"]))
            nodes.append(helper.make_node("Add", [f"{name}.bias", f"{k}m"], [f"{k}s"]))
        else:  # a transposed constant
            nodes.append(helper.make_node("Constant", [], [f"{k}v"], value=numpy_helper.from_array(weight)))
            nodes.append(helper.make_node("Transpose", [f"{k}v"], [f"{k}w"], perm=[1, 0]))
            nodes.append(helper.make_node("Gemm", [str(k), f"{k}w", f"{name}.bias"], [f"{k}s"]))
        nodes.append(helper.make_node("Identity" if k else "Relu", [f"{k}s"], [str(k + 1)]))
    initializers = [
        numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 8, 7])]
    outputs = [helper.make_tensor_value_info("3", TensorProto.FLOAT, ["N", 3])]
    return helper.make_model(helper.make_graph(nodes, "network", inputs, outputs, initializers))


@pytest.mark.parametrize("dense", ["Gemm", "MatMul", "Constant"])
def test_an_onnx_file_of_another_tool_gives_the_same_outputs(theirs, x, dense, tmp_path):
    onnx.save(proto(theirs, dense=dense), tmp_path / "m.onnx")
    np.testing.assert_allclose(
        came_in(tmp_path / "m.onnx", build(), x), defined(theirs, x), rtol=1e-4, atol=1e-4
    )


def test_a_graph_that_flattens_pixel_by_pixel_is_taken_so(theirs, tmp_path):
    onnx.save(proto(theirs, to_pixels=True), tmp_path / "m.onnx")
    state, _ = fit(build(), SHAPE, read(tmp_path / "m.onnx"))
    np.testing.assert_array_equal(state["8.weight"], theirs["tail.fc2.weight"].T)


def test_another_epsilon_does_not_fit(theirs, tmp_path):
    onnx.save(proto(theirs, epsilon=1e-3), tmp_path / "m.onnx")
    assert (
        refused(tmp_path / "m.onnx")
        == "The weights do not fit the network:\n- stem.norm has epsilon 0.001, and 1 here 1e-05"
    )


def test_weights_in_a_file_beside_it_are_read_and_elsewhere_not(theirs, x, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    model = proto(theirs)
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    np.testing.assert_allclose(
        came_in(folder / "m.onnx", build(), x), defined(theirs, x), rtol=1e-4, atol=1e-4
    )
    (folder / "weights").rename(tmp_path / "weights")
    assert refused(folder / "m.onnx").startswith("m.onnx cannot be used: it is damaged, or no ONNX file (")
    (folder / "weights").symlink_to(tmp_path / "weights")
    assert refused(folder / "m.onnx").startswith("m.onnx cannot be used: it is damaged, or no ONNX file (")
    content = onnx.load(folder / "m.onnx", load_external_data=False)
    for location in ("../weights", str(tmp_path / "weights"), "/dev/zero", "."):
        for tensor in content.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "n.onnx").write_bytes(content.SerializeToString())
        assert refused(folder / "n.onnx").startswith(
            "n.onnx cannot be used: it is damaged, or no ONNX file ("
        )


def test_tensors_that_claim_more_than_they_have_are_refused(theirs, tmp_path):
    model = proto(theirs)
    model.graph.initializer[0].dims[:] = [2**40, 2**40]
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert refused(tmp_path / "m.onnx").startswith("m.onnx cannot be used: it is damaged, or no ONNX file (")


def test_damaged_onnx_files_are_refused_or_read(theirs, tmp_path, faults):
    content = proto(theirs).SerializeToString()
    path = tmp_path / "m.onnx"
    for seed in faults(60, 20_000):
        rng = np.random.default_rng(seed)
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 5)):
            damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
        if rng.integers(3) == 0:
            del damaged[int(rng.integers(len(damaged))) :]
        path.write_bytes(damaged)
        with suppress(UserError):
            fit(build(), SHAPE, read(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "w.pt",
            b"",
            'Weights are read from .safetensors and .onnx files; received w.pt. In PyTorch: safetensors.torch.save_file(model.state_dict(), "weights.safetensors")',
        ),
        ("w.safetensors", None, "There is no file w.safetensors."),
        (
            "w.safetensors",
            b"",
            "w.safetensors cannot be used: it claims a header of 0 bytes, and has 0 bytes for it.",
        ),
        (
            "w.onnx",
            b"nothing",
            "w.onnx cannot be used: it is damaged, or no ONNX file (Error parsing message",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / name).partition(" with type")[0] == message


def test_a_pipe_and_a_folder_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "folder.onnx").mkdir()
    for name in ("pipe.onnx", "folder.onnx"):
        assert refused(tmp_path / name) == f"There is no file {name}."


def test_pytorch_gives_the_same_logits(theirs, x, tmp_path):
    """If it is installed, as it is where speed was measured: the definition above is PyTorch's."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    stem = nn.Sequential()
    stem.conv, stem.norm = nn.Conv2d(2, 4, (3, 2)), nn.BatchNorm2d(4)
    stem.append(nn.ReLU())
    tail = nn.Sequential()
    tail.conv = nn.Conv2d(4, 4, 3, groups=2, bias=False)
    tail.extend([nn.ReLU(), nn.Flatten()])
    tail.norm = nn.BatchNorm1d(64)
    tail.fc2, tail.relu = nn.Linear(64, 48), nn.ReLU()
    tail.fc9, tail.fc10 = nn.Linear(48, 48), nn.Linear(48, 3)
    model = nn.Sequential()
    model.stem, model.tail = stem, tail
    with torch.no_grad():
        model.train()(torch.rand(16, 2, 8, 7))  # running statistics of its own
        expected = model.eval()(torch.from_numpy(x)).numpy()
        state = {name: array.numpy() for name, array in model.state_dict().items()}
    from safetensors.numpy import save

    (tmp_path / "w.safetensors").write_bytes(save(state))
    assert "torch" in sys.modules
    np.testing.assert_allclose(
        came_in(tmp_path / "w.safetensors", build(), x), expected, rtol=1e-4, atol=1e-5
    )
