"""What the library's ideas bring: training steps with and without them, in alternation."""

from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from itertools import product

from benchmarks import cases, ours
from benchmarks.processes import torch_process
from benchmarks.report import Section, ratio_columns
from benchmarks.suite import Suite
from benchmarks.timing import alternate, block, milliseconds, paired_ratio
from cnn import Conv2D, Examples, Layer, MaxPool2D, ReLU, Sequential
from cnn.plan import ConvMaxPool

BATCH_SIZE = 64
REWRITTEN = "sample"  # the network on which `cnn.plan`'s rewrites are tried one by one

Variant = tuple[Sequential, int, bool]  # network, workers, planned


def ideas(suite: Suite) -> Section:
    """Two workers against one; a network as `cnn.plan` rewrites it against the layers as they are."""
    section = Section(
        "What the ideas bring",
        f"Training steps of batch {BATCH_SIZE}; without / with: above 1, the idea helps. On 2 threads where "
        "nothing else is said. Rows that begin with + come on top of the row above.",
    )
    for name in cases.INPUT_SHAPES:
        model, shape = cases.make_network(name)
        examples = cases.make_examples(BATCH_SIZE, shape)
        pairs: list[tuple[str, Variant, Variant]] = [
            ("2 workers instead of 1", (model, 2, True), (model, 1, True)),
            ("planned, all rewrites together", (model, 2, True), (model, 2, False)),
        ]
        if name == REWRITTEN:
            stages = rewrite_one_by_one(model)
            variants = [(network, 2, False) for network in stages.values()] + [(model, 2, True)]
            titles = [*stages, "+ what else `plan` does"]
            pairs += zip(titles[1:], variants[1:], variants[:-1], strict=True)
        for title, with_it, without in pairs:
            if suite.starts(section.title, f"{name}, {title}"):
                times = _compare(suite, examples, {"with": with_it, "without": without})
                section.rows.append(
                    {
                        "network": name,
                        "idea": title,
                        "with, ms": milliseconds(times["with"]),
                        "without, ms": milliseconds(times["without"]),
                        **ratio_columns("without / with", paired_ratio(times["with"], times["without"])),
                    }
                )
    return section


def torch_keeping_memory(suite: Suite) -> Section:
    """PyTorch with the C library's setting that our side uses, against PyTorch as it comes."""
    section = Section(
        "PyTorch with our memory setting",
        "Our workers ask the C library to keep freed memory (`cnn.parallel.keep_freed_memory`). PyTorch does "
        f"not; this is what it would gain. Training steps of batch {BATCH_SIZE}; as it comes / with the "
        "setting: above 1, the setting helps.",
    )
    with torch_process() as plain, torch_process() as keeping:
        for name, threads in product(cases.INPUT_SHAPES, cases.THREADS):
            if not suite.starts(section.title, f"{name}, threads {threads}"):
                continue
            model, shape = cases.make_network(name)
            examples = cases.make_examples(BATCH_SIZE, shape)
            plain.prepare_training(model, shape, examples, threads)
            keeping.prepare_training(model, shape, examples, threads, True)
            for layout, run in plain.blocks().items():
                times = alternate({"plain": run, "keeping": keeping.blocks()[layout]}, suite.pace)
                ratio = paired_ratio(times["keeping"], times["plain"])
                section.rows.append(
                    {
                        "network": name,
                        "threads": threads,
                        "layout": layout,
                        "as it comes, ms": milliseconds(times["plain"]),
                        "with the setting, ms": milliseconds(times["keeping"]),
                        **ratio_columns("as it comes / with", ratio),
                    }
                )
    return section


def rewrite_one_by_one(model: Sequential) -> dict[str, Sequential]:
    """What `cnn.plan` does to convolutions, ReLU and pooling, by hand, one rewrite after the other."""
    layers = deepcopy(model.layers)
    stages = {"the layers as they are": Sequential(layers)}
    layers = deepcopy(layers)
    assert isinstance(layers[0], Conv2D)
    layers[0].needs_grad_x = False
    stages["+ no dL/dx of the images"] = Sequential(layers)
    layers = _replace_pairs(layers, ReLU, MaxPool2D, lambda relu, pool: [pool, relu])
    stages["+ ReLU after max pooling"] = Sequential(layers)
    layers = _replace_pairs(layers, Conv2D, MaxPool2D, _merge)
    stages["+ max pooling merged into convolution"] = Sequential(layers)
    return stages


def _merge(conv: Layer, pool: Layer) -> list[Layer]:
    assert isinstance(conv, Conv2D)
    assert isinstance(pool, MaxPool2D)
    merged = ConvMaxPool(conv, pool)
    merged.needs_grad_x = conv.needs_grad_x
    return [merged]


def _replace_pairs(
    layers: list[Layer],
    first: type[Layer],
    second: type[Layer],
    replace: Callable[[Layer, Layer], list[Layer]],
) -> list[Layer]:
    """`layers` with replace(a, b) for each a of type `first` that a b of type `second` follows."""
    result: list[Layer] = []
    for layer in layers:
        if isinstance(layer, second) and result and isinstance(result[-1], first):
            result += replace(result.pop(), layer)
        else:
            result.append(layer)
    return result


def _compare(suite: Suite, examples: Examples, variants: dict[str, Variant]) -> dict[str, list[float]]:
    with ExitStack() as stack:
        steps = {
            name: stack.enter_context(ours.training_step(model, examples, workers, planned=planned))
            for name, (model, workers, planned) in variants.items()
        }
        return alternate({name: block(step) for name, step in steps.items()}, suite.pace)
