"""The measurements on batches in memory, section by section."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

import numpy as np

from benchmarks import cases, loops, ours
from benchmarks.machine import bandwidth, bytes_passed, products_left, sgemm_peak
from benchmarks.processes import Peer, busy_neighbour
from benchmarks.report import Row, Section, ratio_columns
from benchmarks.timing import Block, Pace, alternate, block, fastest, milliseconds, paired_ratio
from cnn import Examples, Sequential, softmax_cross_entropy
from cnn.engine.replicas import Replicas
from cnn.engine.shards import ShardedGradients
from cnn.inspection import multiply_adds

TOLERANCE = 1e-4  # between the results of both sides from the same weights
LOOP_IMAGES = 2
FEW_ROUNDS, FINALISTS = 2, 2
BUSY_NETWORKS = ("sample", "deep")


@dataclass
class Peers:
    """Processes of the other side: PyTorch's by their setting of memory, JAX's by their number of threads."""

    torch: dict[str, Peer]
    jax: dict[int, Peer]

    def check_twins(self, name: str) -> None:
        """RuntimeError unless all sides compute the same logits from the same weights."""
        for peer in (next(iter(self.torch.values())), *self.jax.values()):
            check_twin(name, peer)


@dataclass
class Suite:
    """What the sections share; `training_times` holds our and PyTorch's medians in ms."""

    pace: Pace
    quick: bool
    peers: Peers
    wanted: Callable[[str], bool]
    say: Callable[[str], None]
    training_times: dict[tuple[str, int, int], tuple[float, float]] = field(default_factory=dict)
    variants: list[Row] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # why a compilation failed, and where first

    @property
    def threads(self) -> tuple[int, ...]:
        """The numbers of threads to measure."""
        return cases.THREADS[-1:] if self.quick else cases.THREADS

    def networks(self, section: str, batch_sizes: tuple[int, ...] = ()) -> Iterator[tuple[str, int, int]]:
        """The wanted names of networks, with batch sizes (or theirs) and threads; it announces each."""
        for name, network in cases.NETWORKS.items():
            batches = batch_sizes or network.batch_sizes
            for batch, threads in product(batches[:1] if self.quick else batches, self.threads):
                if self.starts(section, f"{name}, batch {batch}, threads {threads}"):
                    yield name, batch, threads

    def starts(self, section: str, case: str) -> bool:
        """Whether the case is wanted; if so, announce it."""
        if wanted := self.wanted(f"{section}: {case}"):
            self.say(f"{section}: {case}")
        return wanted

    def prepare(self, what: str, *arguments: Any) -> None:
        """Call prepare_`what` of PyTorch in each setting of memory."""
        for peer in self.peers.torch.values():
            getattr(peer, f"prepare_{what}")(*arguments)

    def screen(self, section: str, case: str, threads: int, *, compiled: bool) -> dict[str, Block]:
        """PyTorch's variants of what was prepared last, best first, by a few short rounds among themselves.

        All eager variants are also compiled, or only the best one with --quick. The first process to compile
        fills a cache on disk, which the others read.
        """
        peers, pace = self.peers.torch, self.few_rounds()
        blocks = _blocks(peers)
        times = _medians(blocks, pace)
        if compiled:
            best = min(times, key=times.__getitem__)
            for memory, peer in peers.items():
                for layout in peer.names():
                    if self.quick and best != _variant(layout, memory):
                        continue
                    if failure := peer.compile_step(layout):
                        self.failures.setdefault(failure, f"{section}: {case}")
            blocks = _blocks(peers)
            times |= _medians({name: run for name, run in blocks.items() if name not in times}, pace)
        self.variants.append({"what": f"{section}: {case}", "threads": threads, **times})
        return {name: blocks[name] for name in sorted(blocks, key=times.__getitem__)}

    def few_rounds(self) -> Pace:
        """A quicker pace."""
        return Pace(min(FEW_ROUNDS, self.pace.rounds), self.pace.seconds / 2)

    def against_torch(
        self, section: str, case: str, threads: int, step: Callable[[], object], *, compiled: bool
    ) -> Row:
        """A row that compares `step` with the best variant of what PyTorch prepared last."""
        screened = self.screen(section, case, threads, compiled=compiled)
        times = alternate({"ours": block(step), **dict(islice(screened.items(), FINALISTS))}, self.pace)
        mine = times.pop("ours")
        variant = fastest(times)
        return {
            "what": case,
            "threads": threads,
            "ours, ms": milliseconds(mine),
            "PyTorch, ms": milliseconds(times[variant]),
            "its variant": variant,
            **ratio_columns("PyTorch / ours", paired_ratio(mine, times[variant])),
        }

    def against_jax(self, threads: int, step: Callable[[], object], what: str, *arguments: Any) -> Row:
        """Two columns that compare `step` with prepare_`what` of JAX, if it is installed."""
        if not self.peers.jax:
            return {}
        peer = self.peers.jax[threads]
        getattr(peer, f"prepare_{what}")(*arguments)
        times = alternate({"ours": block(step), **peer.blocks()}, self.few_rounds())
        mine, other = times.values()
        return {"JAX, ms": milliseconds(other), "JAX / ours": paired_ratio(mine, other).median}


def _variant(name: str, memory: str) -> str:
    return f"{name}, {memory}"


def _blocks(peers: dict[str, Peer]) -> dict[str, Block]:
    return {
        _variant(name, memory): run for memory, peer in peers.items() for name, run in peer.blocks().items()
    }


def _medians(blocks: dict[str, Block], pace: Pace) -> dict[str, float]:
    return {name: milliseconds(times) for name, times in alternate(blocks, pace).items()}


def training(suite: Suite) -> Section:
    """Training steps of whole networks."""
    section = Section(
        "Training step",
        "Forward, loss, backward and SGD's step. Ours in shards of 32 images (CIFAR net: 64), which are "
        "gathered from an array; PyTorch's and JAX's batch is ready. All start from the same weights; their "
        f"logits were compared first, and agree within {TOLERANCE:g} of the largest. Batch norm normalises "
        "over a shard (ours) or over the batch (PyTorch, JAX). JAX took turns with ours in few short rounds.",
    )
    for name, batch, threads in suite.networks(section.title):
        model, shape = cases.make_network(name)
        examples, case = cases.make_examples(batch, shape), f"{name}, batch {batch}"
        suite.peers.check_twins(name)
        suite.prepare("training", model, shape, examples, threads)
        with ours.training_step(model, examples, cases.NETWORKS[name].shard_size, threads) as step:
            row = suite.against_torch(section.title, case, threads, step, compiled=True)
            section.rows.append(row | suite.against_jax(threads, step, "training", model, examples))
        suite.training_times[name, batch, threads] = row["ours, ms"], row["PyTorch, ms"]
    return section


def inference(suite: Suite) -> Section:
    """Predictions of whole networks."""
    section = Section(
        "Inference",
        f"Logits of a batch. Each of our workers takes {ours.PREDICTION_SHARD_SIZE} images at a time; "
        "PyTorch runs with eval() and inference_mode().",
    )
    for name, batch, threads in suite.networks(section.title, cases.PREDICTION_BATCH_SIZES):
        model, shape = cases.make_network(name)
        images, case = cases.make_examples(batch, shape).images, f"{name}, batch {batch}"
        suite.prepare("prediction", model, shape, images, threads)
        with ours.prediction(model, images, threads) as step:
            row = suite.against_torch(section.title, case, threads, step, compiled=True)
            section.rows.append(row | suite.against_jax(threads, step, "prediction", model, images))
    return section


def layers(suite: Suite) -> Section:
    """Single layers."""
    section = Section(
        "One layer, forward and backward",
        f"Batch {cases.LAYER_BATCH_SIZE}, with dL/dx and the gradients of the parameters. Ours in shards of "
        f"{ours.LAYER_SHARD_SIZE} images, each on one worker, where its dL/dx stays, as in a network. The "
        "dL/dx of both sides were compared first. PyTorch runs eagerly.",
    )
    for case, threads in product(cases.LAYERS, suite.threads):
        if suite.starts(section.title, f"{case.name}, threads {threads}"):
            layer = case.make(np.random.default_rng(0))
            x, grad_y = case.arrays(layer)
            suite.prepare("layer", layer, case.shape, x, grad_y, threads)
            other = next(iter(suite.peers.torch.values())).layer_gradient("NCHW")
            _check_close(case.name, ours.layer_gradient(layer, x, grad_y), other)
            with ours.layer_step(layer, x, grad_y, threads) as step:
                section.rows.append(
                    suite.against_torch(section.title, case.name, threads, step, compiled=False)
                )
    return section


def variants(suite: Suite) -> Section:
    """All that was screened."""
    section = Section(
        "All variants of PyTorch, in ms",
        f"Medians of at most {FEW_ROUNDS} short rounds, in which the variants took turns among themselves. "
        f"The best {FINALISTS} of each row then took turns with ours in the tables above. "
        "Compiled by torch.compile in its default mode"
        + (", only the best eager variant since this is a quick run." if suite.quick else "."),
    )
    for failure, case in suite.failures.items():
        section.note += f" Compilation failed ({case}): {failure}."
    columns = list(dict.fromkeys(column for row in suite.variants for column in row))
    section.rows = [{column: row.get(column, "") for column in columns} for row in suite.variants]
    return section


def busy(suite: Suite) -> Section:
    """How much one busy process slows both sides down."""
    threads = cases.THREADS[-1]
    section = Section(
        "With a busy machine",
        f"Training steps on {threads} threads, alone and beside one other process that computes without end; "
        "beside / alone: 1 is undisturbed. PyTorch's variant is the best one of a screening while alone.",
    )
    for name in BUSY_NETWORKS:
        batch = cases.NETWORKS[name].batch_sizes[0]
        case = f"{name}, batch {batch}"
        if not suite.starts(section.title, case):
            continue
        model, shape = cases.make_network(name)
        examples = cases.make_examples(batch, shape)
        suite.prepare("training", model, shape, examples, threads)
        variant, theirs = next(iter(suite.screen(section.title, case, threads, compiled=True).items()))
        shard_size = cases.NETWORKS[name].shard_size
        with ours.training_step(model, examples, shard_size, threads) as step, busy_neighbour() as beside:
            sides = {"ours": block(step), f"PyTorch, {variant}": theirs}
            busy_sides = {f"{side}, beside": beside(run) for side, run in sides.items()}
            times = alternate(sides | busy_sides, suite.pace)
        for side in sides:
            alone, together = times[side], times[f"{side}, beside"]
            section.rows.append(
                {
                    "training step": case,
                    "side": side,
                    "alone, ms": milliseconds(alone),
                    "beside, ms": milliseconds(together),
                    **ratio_columns("beside / alone", paired_ratio(alone, together)),
                }
            )
    return section


def against_machine(suite: Suite) -> Section:
    """The measured training steps beside what the machine's peaks allow."""
    section = Section("Against the machine", "")
    if not suite.training_times:
        return section
    suite.say("the machine's peaks")
    peaks = {threads: sgemm_peak(threads) for threads in suite.threads}
    bandwidths = {threads: bandwidth(threads) for threads in suite.threads}
    section.note = (
        "Operations are counted from the definition of convolutions and dense layers, two for each "
        "multiply-add. The peak is the best of several square float32 products in NumPy, in GFLOP/s "
        f"{_by_threads(peaks)}. A method that needs fewer multiply-adds than the definition can pass 100 %. "
        "Products: the time at this peak of the products that are left after minimal filtering, without its "
        "transforms. Memory: the time to pass each layer's x and y once in forward, and their gradients once "
        f"in backward, at the speed of copying a large array, in GB/s {_by_threads(bandwidths)}. The bound "
        "is the larger of the two: a step can go below it only if it needs fewer products, or if arrays stay "
        "in a cache or layers are merged."
    )
    for (name, batch, threads), (own, other) in suite.training_times.items():
        model, shape = cases.make_network(name)
        shard_size = cases.NETWORKS[name].shard_size
        gflop = 2e-9 * batch * multiply_adds(model, shape, training=True)
        left = 2e-9 * batch * products_left(model, shape, shard_size)
        products = left / peaks[threads] * 1e3
        memory = 1e-9 * batch * bytes_passed(model, shape) / bandwidths[threads] * 1e3
        section.rows.append(
            {
                "training step": f"{name}, batch {batch}",
                "threads": threads,
                "GFLOP": gflop,
                "ours, % of peak": gflop / own * 1e5 / peaks[threads],
                "PyTorch, % of peak": gflop / other * 1e5 / peaks[threads],
                "products, ms": products,
                "memory, ms": memory,
                "ours, ms": own,
                "ours / bound": own / max(products, memory),
            }
        )
    return section


def _by_threads(speeds: dict[int, float]) -> str:
    return ", ".join(f"{speed:.0f} (threads: {threads})" for threads, speed in speeds.items())


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


def check_twin(name: str, peer: Peer) -> None:
    """RuntimeError unless both sides have equally many parameters, and equal logits from the same weights."""
    model, shape = cases.make_network(name)
    images = cases.make_examples(32, shape).images
    expected, parameters = peer.logits(model, shape, images)
    if (own := sum(p.value.size for p in model.parameters().values())) != parameters:
        raise RuntimeError(f"{name} has {own} parameters here and {parameters} on the other side.")
    with Replicas(model) as replicas:
        _check_close(f"the logits of {name}", replicas.predict(images), expected)


def _check_close(what: str, own: np.ndarray | None, other: np.ndarray) -> None:
    scale = float(np.abs(other).max())
    error = np.inf if own is None else float(np.abs(own - other).max())
    if not error <= TOLERANCE * scale:  # written like this, NaN also fails
        raise RuntimeError(f"Nothing was timed: {what} differs from the other side's by up to {error:g}.")
