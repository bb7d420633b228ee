"""The measurements on batches in memory, section by section."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from benchmarks import cases, loops, ours
from benchmarks.machine import multiply_adds, sgemm_peak
from benchmarks.processes import Torch
from benchmarks.report import Row, Section, ratio_columns
from benchmarks.timing import Pace, alternate, block, fastest, milliseconds, paired_ratio
from cnn import Examples, Sequential, softmax_cross_entropy
from cnn.engine.replicas import Replicas
from cnn.engine.shards import ShardedGradients

TOLERANCE = 1e-4  # between the results of both sides from the same weights
LOOP_IMAGES = 2


@dataclass
class Suite:
    """What the sections share; `training_times` holds our and PyTorch's medians in ms."""

    pace: Pace
    networks: list[tuple[str, int, int]]  # with batch sizes and numbers of threads
    wanted: Callable[[str], bool]
    say: Callable[[str], None]
    training_times: dict[tuple[str, int, int], tuple[float, float]] = field(default_factory=dict)

    def starts(self, section: str, case: str) -> bool:
        """Whether the case is wanted; if so, announce it."""
        if wanted := self.wanted(f"{section}: {case}"):
            self.say(f"{section}: {case}")
        return wanted

    def against_torch(self, name: str, threads: int, step: Callable[[], object], torch: Torch) -> Row:
        """A row that compares `step` with what the other process prepared."""
        times = alternate({"ours": block(step), **torch.blocks()}, self.pace)
        mine = times.pop("ours")
        layout = fastest(times)
        return {
            "what": name,
            "threads": threads,
            "ours, ms": milliseconds(mine),
            "PyTorch, ms": milliseconds(times[layout]),
            "its layout": layout,
            **ratio_columns("PyTorch / ours", paired_ratio(mine, times[layout])),
        }


def training(suite: Suite, torch: Torch) -> Section:
    """Training steps of whole networks."""
    section = Section(
        "Training step",
        f"Forward, loss, backward and SGD's step. Ours in shards of 32 images (64 for CIFAR net), which are "
        "gathered from an array; PyTorch's batch is ready. Both start from the same weights; their "
        f"logits were compared first, and agree within {TOLERANCE:g}. Batch norm normalises over a shard "
        "(ours) or over the batch (PyTorch).",
    )
    for name, batch, threads in suite.networks:
        case = f"{name}, batch {batch}"
        if suite.starts(section.title, f"{case}, threads {threads}"):
            model, shape = cases.make_network(name)
            examples = cases.make_examples(batch, shape)
            check_twin(name, torch)
            torch.prepare_training(model, shape, examples, threads)
            with ours.training_step(model, examples, cases.NETWORKS[name].shard_size, threads) as step:
                row = suite.against_torch(case, threads, step, torch)
            section.rows.append(row)
            suite.training_times[name, batch, threads] = row["ours, ms"], row["PyTorch, ms"]
    return section


def inference(suite: Suite, torch: Torch) -> Section:
    """Predictions of whole networks."""
    section = Section(
        "Inference",
        "Logits of a batch. Each of our workers takes as many images at a time as in training; PyTorch runs "
        "with eval() and inference_mode().",
    )
    for name, batch, threads in suite.networks:
        case = f"{name}, batch {batch}"
        if suite.starts(section.title, f"{case}, threads {threads}"):
            model, shape = cases.make_network(name)
            images = cases.make_examples(batch, shape).images
            torch.prepare_prediction(model, shape, images, threads)
            with ours.prediction(model, images, cases.NETWORKS[name].shard_size, threads) as step:
                section.rows.append(suite.against_torch(case, threads, step, torch))
    return section


def layers(suite: Suite, torch: Torch) -> Section:
    """Single layers."""
    section = Section(
        "One layer, forward and backward",
        f"Batch {cases.LAYER_BATCH_SIZE}, with dL/dx and the gradients of the parameters. Ours in shards of "
        f"{ours.LAYER_SHARD_SIZE} images, each on one worker, where its dL/dx stays, as in a network. The "
        "dL/dx of both sides were compared first.",
    )
    for case, threads in product(cases.LAYERS, cases.THREADS):
        if suite.starts(section.title, f"{case.name}, threads {threads}"):
            layer = case.make(np.random.default_rng(0))
            x, grad_y = case.arrays(layer)
            torch.prepare_layer(layer, case.shape, x, grad_y, threads)
            _check_close(case.name, ours.layer_gradient(layer, x, grad_y), torch.layer_gradient("NCHW"))
            with ours.layer_step(layer, x, grad_y, threads) as step:
                row = suite.against_torch(case.name, threads, step, torch)
            if len(case.shape) == 1:
                row["its layout"] = "vectors"
            section.rows.append(row)
    return section


def against_peak(suite: Suite) -> Section:
    """The speed of the measured training steps as a fraction of BLAS's peak."""
    section = Section(
        "Against the machine",
        "Operations are counted from the definition of convolutions and dense layers, two for each "
        "multiply-add. The peak is the best of several square float32 products in NumPy. A method that needs "
        "fewer multiply-adds than the definition can pass 100 %.",
    )
    if suite.training_times:
        suite.say("the machine's peak")
        peaks = {threads: sgemm_peak(threads) for threads in cases.THREADS}
    for (name, batch, threads), (own, other) in suite.training_times.items():
        model, shape = cases.make_network(name)
        gflop = 2e-9 * batch * multiply_adds(model, shape, training=True)
        section.rows.append(
            {
                "training step": f"{name}, batch {batch}",
                "threads": threads,
                "GFLOP": gflop,
                "peak, GFLOP/s": peaks[threads],
                "ours, GFLOP/s": gflop / own * 1e3,
                "ours, % of peak": gflop / own * 1e5 / peaks[threads],
                "PyTorch, % of peak": gflop / other * 1e5 / peaks[threads],
            }
        )
    return section


def against_loops(suite: Suite) -> Section:
    """Training steps against the definition in plain Python loops."""
    batch = 64
    section = Section(
        "Against plain Python loops",
        "Loops over Python's own lists (`benchmarks/loops.py`), which give the same gradients, use one core, "
        f"our side two. {LOOP_IMAGES} images were timed; the batch of {batch} is extrapolated from them.",
    )
    if suite.starts(section.title, f"baseline, batch {batch}"):
        model, shape = cases.make_network("baseline")
        few = cases.make_examples(LOOP_IMAGES, shape)
        _check_loops(model, few)
        examples = cases.make_examples(batch, shape)
        with ours.training_step(model, examples, cases.NETWORKS["baseline"].shard_size, 2) as step:
            times = alternate(
                {"ours": block(step), "loops": block(lambda: loops.gradients(model, few))}, suite.pace
            )
        extrapolated = [seconds * batch / LOOP_IMAGES for seconds in times["loops"]]
        section.rows.append(
            {
                "training step": f"baseline, batch {batch}",
                "ours, ms": milliseconds(times["ours"]),
                "loops, ms (extrapolated)": milliseconds(extrapolated),
                **ratio_columns("loops / ours", paired_ratio(times["ours"], extrapolated)),
            }
        )
    return section


def _check_loops(model: Sequential, examples: Examples) -> None:
    loss, gradients = loops.gradients(model, examples)
    count = len(examples.images)
    with ShardedGradients(model, softmax_cross_entropy, examples, count) as own:
        own_loss, _ = own(np.arange(count))
    _check_close("the loss of the loops", np.array(own_loss), np.array(loss))
    for parameter, gradient in zip(model.parameters().values(), gradients, strict=True):
        _check_close(f"the loops' dL/d{parameter.name}", parameter.grad, gradient)


def check_twin(name: str, torch: Torch) -> None:
    """RuntimeError unless both sides have equally many parameters, and equal logits from the same weights."""
    model, shape = cases.make_network(name)
    images = cases.make_examples(32, shape).images
    expected, parameters = torch.logits(model, shape, images)
    if (own := sum(p.value.size for p in model.parameters().values())) != parameters:
        raise RuntimeError(f"{name} has {own} parameters here and {parameters} in PyTorch.")
    with Replicas(model) as replicas:
        _check_close(f"the logits of {name}", replicas.predict(images), expected)


def _check_close(what: str, own: np.ndarray | None, other: np.ndarray) -> None:
    scale = max(1.0, float(np.abs(other).max()))
    error = np.inf if own is None else float(np.abs(own - other).max())
    if not error <= TOLERANCE * scale:  # written like this, NaN also fails
        raise RuntimeError(f"Nothing was timed: {what} differs from the other side's by up to {error:g}.")
