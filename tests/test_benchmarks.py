"""The arithmetic of the benchmarks; both sides compute the same."""

import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from benchmarks import __main__ as program
from benchmarks import cases, gpu, loops, machine, ours, report, suite, whole
from benchmarks.machine import bytes_passed, products_left
from benchmarks.processes import busy_neighbour, jax_processes, peer_process
from benchmarks.timing import Pace, Ratio, alternate, block, fastest, milliseconds, paired_ratio
from cnn import BatchNorm, Conv2D, Dropout, softmax_cross_entropy
from cnn.engine.executors import can_fork
from cnn.engine.shards import ShardedGradients
from cnn.inspection import multiply_adds

each_network = pytest.mark.parametrize("name", cases.NETWORKS)


def own_gradients(model, examples):
    """Loss and gradients of one shard, by the library."""
    count = len(examples.images)
    with ShardedGradients(model, softmax_cross_entropy, examples, count) as gradients:
        loss, _ = gradients(np.arange(count))
    return loss, {name: parameter.grad for name, parameter in model.parameters().items()}


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))


# Timing


def test_a_block_is_the_time_of_its_steps_alone():
    now = [5.0]

    def step():
        now[0] += 0.25

    assert block(step, lambda: now[0])(3) == 0.75


def test_contenders_take_turns_with_as_many_steps_as_fit():
    log = []

    def contender(name, seconds):
        def run(steps):
            log.append((name, steps))
            return steps * seconds

        return run

    times = alternate({"a": contender("a", 0.1), "b": contender("b", 3.0)}, Pace(rounds=2, seconds=0.5))
    warm_up = [("a", 1), ("a", 1), ("b", 1)]
    assert log == warm_up + 2 * [("a", 1), ("a", 5), ("b", 1), ("b", 1)]
    assert times == {"a": [0.1, 0.1], "b": [3.0, 3.0]}


def test_ratios_are_formed_within_rounds():
    ours, theirs = [1.0, 10.0, 2.0], [3.0, 30.0, 2.0]
    assert paired_ratio(ours, theirs) == Ratio(median=3.0, low=2.0, high=3.0)
    assert milliseconds(theirs) / milliseconds(ours) == 1.5


def test_the_fastest_has_the_smallest_median():
    assert fastest({"a": [1.0, 5.0, 5.0], "b": [4.0, 4.0, 90.0]}) == "b"


# Counting


@pytest.mark.parametrize(
    ("name", "inference", "training"),
    [
        ("baseline", 26 * 26 * 72 + 13520, 2 * 26 * 26 * 72 + 3 * 13520),
        (
            "sample",
            26 * 26 * 288 + 11 * 11 * 18432 + 204800 + 1280,
            2 * 26 * 26 * 288 + 3 * (11 * 11 * 18432 + 204800 + 1280),
        ),
    ],
)
def test_multiply_adds_are_those_counted_by_hand(name, inference, training):
    model, shape = cases.make_network(name)
    assert multiply_adds(model, shape, training=False) == inference
    assert multiply_adds(model, shape, training=True) == training


def test_operations_and_bytes_that_are_left_are_those_counted_by_hand():
    model, shape = cases.make_network("sample")  # 10 x 10 outputs reach the pool: 2 x 2 tiles of 7 x 7
    left = 2 * 26 * 26 * 288 + 3 * (4 * 49 * 32 * 64 + 204800 + 1280)
    assert products_left(model, shape, 32) == left
    model, shape = cases.make_network("deep")  # tiles of 6, 5, 4 and no tiles for 2 x 2 outputs
    tiles = 16 * 64 * 32 * 32 + 4 * 49 * 32 * 64 + 4 * 36 * 64 * 64 + 4 * 9 * 64 * 128
    assert products_left(model, shape, 32) == 2 * 26 * 26 * 288 + 3 * (tiles + 5120)
    model, shape = cases.make_network("baseline")
    convolved, pooled = 26 * 26 * 8, 13 * 13 * 8
    passed = (28 * 28 + convolved) + 2 * convolved + (convolved + pooled) + (pooled + 10)
    assert bytes_passed(model, shape) == 4 * (2 * passed - 28 * 28)


def test_the_vgg_like_network_is_the_one_described():
    model, shape = cases.make_network("VGG-like")
    convolutions = [layer for layer in model.layers if isinstance(layer, Conv2D)]
    assert [layer.out_channels for layer in convolutions] == [64, 64, 128, 128, 256, 256]
    assert all(layer.padding == "same" and layer.kernel_size == 3 for layer in convolutions)
    assert sum(isinstance(layer, BatchNorm) for layer in model.layers) == 6
    assert multiply_adds(model, shape, training=False) == (
        1024 * 9 * (3 * 64 + 64 * 64) + 256 * 9 * (64 + 128) * 128 + 64 * 9 * (128 + 256) * 256 + 2560
    )


def test_the_networks_of_the_recipes_have_the_parameters_counted_by_hand():
    def size(name):
        return sum(parameter.value.size for parameter in cases.make_network(name)[0].parameters().values())

    deep = 9 * (32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128) + 2 * (32 + 32 + 64 + 64 + 128) + 512 * 10 + 10
    assert size("deep") == deep == 144_298
    convolutions = 4 * 3 * 24 + 24 + 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    assert size("CIFAR net") == convolutions + 2 * 2 * (64 + 256 + 256) + 256 * 10 == 1_972_792


# What is compared computes the same


def test_loops_give_the_gradients_of_the_library():
    model, shape = cases.make_network("baseline")
    examples = cases.make_examples(2, shape)
    loss, gradients = loops.gradients(model, examples)
    own_loss, own = own_gradients(model, examples)
    assert own_loss == pytest.approx(loss, rel=1e-5)
    for actual, expected in zip(own.values(), gradients, strict=True):
        assert_close(actual, expected)


def test_a_layer_in_shards_gives_the_gradients_of_the_whole(rng):
    layer = Conv2D(2, 3, 3, padding="same", rng=rng)
    x = rng.standard_normal((70, 6, 6, 2), dtype=np.float32)  # two shards and a part of one
    grad_y = rng.standard_normal((70, 6, 6, 3), dtype=np.float32)
    layer.forward(x, training=True)
    grad_x = layer.backward(grad_y)
    assert_close(ours.layer_gradient(layer, x, grad_y), grad_x)
    with ours.layer_step(layer, x, grad_y, workers=2) as step:
        gradients = step()
    for actual, parameter in zip(gradients, layer.parameters().values(), strict=True):
        assert_close(actual, parameter.grad)


@each_network
def test_pytorch_gives_the_same_logits_and_gradients(name, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: make benchmark")
    from benchmarks import theirs

    model, shape = cases.make_network(name)
    for layer in model.layers:
        if isinstance(layer, Dropout):
            layer.rate = 0.0  # both sides draw other numbers
    images, targets = (array.astype(np.float64) for array in cases.make_examples(4, shape))
    for parameter in model.parameters().values():  # in float64, where no rounding decides a maximum
        parameter.value = parameter.value.astype(np.float64)
    outputs = model.forward(images, training=True, rng=rng)
    model.backward(softmax_cross_entropy(outputs, targets)[1])
    # Put the gradients into another network as weights; its twin lays them out as PyTorch does.
    gradients, _ = cases.make_network(name)
    for parameter, own in zip(gradients.parameters().values(), model.parameters().values(), strict=True):
        parameter.value = own.grad
    for layout, memory_format in theirs.LAYOUTS.items():
        network = theirs.twin(model, shape).double().to(memory_format=memory_format)
        other_outputs = network(theirs.to_tensor(images, layout))
        torch.nn.functional.cross_entropy(other_outputs, torch.from_numpy(targets.argmax(axis=1))).backward()
        np.testing.assert_allclose(outputs, other_outputs.detach().numpy(), rtol=0, atol=1e-10)
        twins = zip(network.parameters(), theirs.twin(gradients, shape).parameters(), strict=True)
        for parameter, own in twins:  # a twin's weights are float32
            np.testing.assert_allclose(parameter.grad.numpy(), own.detach().numpy(), rtol=1e-6, atol=1e-10)


def test_pytorch_runs_in_its_own_process_in_both_layouts():
    pytest.importorskip("torch", reason="PyTorch is not installed: make benchmark")
    model, shape = cases.make_network("baseline")
    with peer_process("theirs") as torch:
        assert can_fork()  # our side's workers stay processes
        torch.prepare_training(model, shape, cases.make_examples(4, shape), 1)
        assert set(torch.blocks()) == {"NCHW", "channels_last"}
        assert all(run(2) > 0 for run in torch.blocks().values())
        with pytest.raises(KeyError):
            torch.run("NHWC", 1)


def test_a_failing_compilation_is_reported_and_leaves_the_eager_variants(monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: make benchmark")
    from benchmarks import theirs

    def no_compiler(network):
        raise RuntimeError("no C++\ncompiler")

    monkeypatch.setattr(torch, "compile", no_compiler)
    model, shape = cases.make_network("baseline")
    theirs.prepare_prediction(model, shape, cases.make_examples(4, shape).images, 1)
    assert theirs.compile_step("NCHW") == "RuntimeError: no C++ compiler"
    assert theirs.names() == ["NCHW", "channels_last"]


def test_compiled_variants_join_the_eager_ones(monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: make benchmark")
    from benchmarks import theirs

    monkeypatch.setattr(torch, "compile", lambda network: network)  # compiling takes long
    model, shape = cases.make_network("baseline")
    theirs.prepare_training(model, shape, cases.make_examples(4, shape), 1)
    assert theirs.compile_step("NCHW") == ""
    assert theirs.names() == ["NCHW", "channels_last", "NCHW, compiled"]


class FakePeer:
    """PyTorch with these seconds for a step; it compiles if it has seconds for that."""

    def __init__(self, seconds):
        self.seconds, self.prepared = seconds, ["NCHW", "channels_last"]

    def names(self):
        return list(self.prepared)

    def compile_step(self, layout):
        if (name := f"{layout}, compiled") not in self.seconds:
            return "RuntimeError: no C++ compiler"
        self.prepared.append(name)
        return ""

    def blocks(self):
        return {name: lambda steps, name=name: steps * self.seconds[name] for name in self.prepared}


@pytest.mark.parametrize("quick", [False, True])
def test_the_fastest_variant_counts_and_all_are_listed(quick):
    plain = FakePeer({"NCHW": 7.0, "channels_last": 6.0})
    keeping = FakePeer(
        {"NCHW": 5.0, "channels_last": 4.0, "NCHW, compiled": 2.0, "channels_last, compiled": 3.0}
    )
    peers = suite.Peers({"as it comes": plain, "kept memory": keeping}, {})
    run = suite.Suite(Pace(3, 0.01), quick, peers, lambda case: True, lambda case: None)
    row = run.against_torch("Training step", "sample", 2, lambda: None, compiled=True)
    assert row["its variant"] == ("channels_last" if quick else "NCHW") + ", compiled, kept memory"
    assert row["PyTorch, ms"] == (3000.0 if quick else 2000.0)
    (listed,) = suite.variants(run).rows
    assert listed["NCHW, as it comes"] == 7000.0
    assert ("NCHW, compiled, kept memory" in listed) == (not quick)
    assert ("no C++ compiler" in suite.variants(run).note) == (not quick)


def test_twins_give_the_same_logits_in_evaluation():
    pytest.importorskip("torch", reason="PyTorch is not installed: make benchmark")
    with peer_process("theirs") as torch:
        for name in cases.NETWORKS:
            suite.check_twin(name, torch)


def test_jax_gives_the_same_logits():
    pytest.importorskip("jax", reason="JAX is not installed: the extra bench-jax")
    with jax_processes([1]) as jax:
        for name in cases.NETWORKS:
            suite.check_twin(name, jax[1])


def test_jax_trains_as_the_library_does():
    jax = pytest.importorskip("jax", reason="JAX is not installed: the extra bench-jax")
    from benchmarks import theirs_jax

    model, shape = cases.make_network("VGG-like")
    examples = cases.make_examples(4, shape)
    _, gradients = own_gradients(model, examples)
    weights = theirs_jax.training(model, examples)()[0]
    updated = [
        parameter.value - ours.LEARNING_RATE * gradients[name]
        for name, parameter in model.parameters().items()
    ]
    for actual, expected in zip(jax.tree.leaves(weights), updated, strict=True):
        assert_close(np.asarray(actual), expected)


def test_a_busy_neighbour_computes_only_beside_a_block():
    def processor_seconds():
        (used,) = [
            process.cpu_times().user
            for process in psutil.Process().children()
            if "while True: pass" in process.cmdline()
        ]
        return used

    def processor_seconds_alone():
        before = processor_seconds()
        time.sleep(0.1)
        return processor_seconds() - before

    with busy_neighbour() as beside:
        assert processor_seconds_alone() == 0
        before = processor_seconds()
        assert beside(lambda steps: time.sleep(0.2) or float(steps))(3) == 3.0
        assert processor_seconds() > before
        assert processor_seconds_alone() == 0


# Reports

SECTION = report.Section(
    "Training step", "One note.", [{"what": "sample", "threads": 2, "ours, ms": 9.876, "ratio": 1.25}]
)


def test_results_are_written_as_json_and_as_a_page(tmp_path):
    paths = report.write(tmp_path / "new", {"cores": 2}, {"quick": True}, [SECTION])
    assert json.loads(paths[0].read_text()) == {
        "machine": {"cores": 2},
        "settings": {"quick": True},
        "sections": [{"title": SECTION.title, "note": SECTION.note, "rows": SECTION.rows}],
    }
    page = paths[1].read_text()
    assert page.endswith(
        "- cores: 2\n- quick: True\n\n## Training step\n\nOne note.\n\n"
        "| what | threads | ours, ms | ratio |\n| --- | ---: | ---: | ---: |\n| sample | 2 | 9.88 | 1.25 |\n"
    )


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (99.96, "100.0"), (12.34, "12.3"), (0.987, "0.99"), (64, "64")]
)
def test_numbers_are_written_with_what_counts(value, text):
    assert report.format_value(value) == text


def test_without_pytorch_it_says_what_installs_it(monkeypatch):
    monkeypatch.setattr(program, "find_spec", lambda name: None)
    result = CliRunner().invoke(program.app, ["--quick"])
    assert result.exit_code == 1
    assert result.output == "error: PyTorch is not installed. `make benchmark` installs it and runs this.\n"


@pytest.mark.parametrize(("cores", "busy"), [(0.0, False), (0.1, False), (1.0, True)])
def test_a_busy_machine_is_pointed_out(cores, busy):
    page = report.to_markdown({machine.LOAD: cores}, {}, [])
    assert (report.BUSY_NOTE in page) == busy


# Whole programs


def test_time_and_memory_of_a_command_are_its_own(tmp_path):
    ballast = np.ones(40_000_000, np.float32)  # 160 MB here must not count there
    used = whole.measure([sys.executable, "-c", "b'x' * 50_000_000"], tmp_path)
    assert 0 < used["seconds"] < 60
    assert 50 < used["megabytes"] < 120
    assert ballast.all()


def test_a_command_that_fails_is_told(tmp_path):
    with pytest.raises(RuntimeError, match=r"-c 1/0 failed:\n(.|\n)*ZeroDivisionError"):
        whole.measure([sys.executable, "-c", "1/0"], tmp_path)


def test_the_copy_of_the_project_leaves_out_what_git_ignores(tmp_path):
    whole.copy_project(tmp_path)
    assert (tmp_path / "params.yaml").exists()
    assert (tmp_path / "cnn/layers/conv2d.py").exists()
    assert not (tmp_path / "data/processed").exists()
    assert not (tmp_path / ".venv").exists()


# The GPU's, on the device double


@pytest.fixture
def on_double(monkeypatch):
    """An array of the device double."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "cnn")
    return importlib.import_module("device_double").DeviceArray(np.empty(0))


def test_the_curves_of_both_devices_are_those_of_the_same_steps(on_double, monkeypatch):
    train = cases.make_examples(150, (28, 28, 1))
    found, expected = gpu.losses(train, on_double), gpu.losses(train, np.empty(0))
    assert len(found) == 3
    assert gpu.largest_difference(found, expected) < 1e-5
    assert gpu.largest_difference([1.0, 1.0, 1.1], [1.0, 1.0, 1.0]) == pytest.approx(0.1)


def test_a_step_on_the_device_takes_turns_with_the_others(on_double, monkeypatch):
    monkeypatch.setitem(cases.NETWORKS, "sample", cases.Network((28, 28, 1), (4,)))
    calls = []

    def theirs(model, shape, examples):
        assert len(examples.images) == 4
        return {"other": lambda: calls.append(shape)}

    times = gpu.step_times("sample", on_double, theirs, Pace(1, 0.01))
    assert [*times] == ["this library", "other"]
    assert min(times.values()) > 0
    assert (28, 28, 1) in calls
