"""What each of the library's ideas gains: training steps with and without it, in alternation."""

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product

from benchmarks import cases, ours
from benchmarks.processes import torch_process
from benchmarks.report import Section, ratio_columns
from benchmarks.suite import Suite
from benchmarks.timing import alternate, block, milliseconds, paired_ratio
from cnn.engine.passes import PASSES, Pass

NETWORKS = [name for name in cases.NETWORKS if name != "CIFAR net"]  # which would take too long

Variant = tuple[int, Sequence[Pass]]  # workers, passes


def ideas(suite: Suite) -> Section:
    """Two workers against one; each pass of `cnn.engine.passes` on top of those before it."""
    section = Section(
        "What each idea gains",
        "Training steps of the smallest batch; without / with: above 1, the idea helps. 2 threads, unless a "
        "row says otherwise. A row that begins with + adds one pass to the row above.",
    )
    for name in NETWORKS:
        pairs: list[tuple[str, Variant, Variant]] = [
            ("2 workers instead of 1", (2, PASSES), (1, PASSES)),
            ("all passes together", (2, PASSES), (2, ())),
            *(
                (f"+ {one.__name__}", (2, PASSES[: number + 1]), (2, PASSES[:number]))
                for number, one in enumerate(PASSES)
            ),
        ]
        for title, with_it, without in pairs:
            if suite.starts(section.title, f"{name}, {title}"):
                times = _compare(suite, name, {"with": with_it, "without": without})
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
    """PyTorch with the C library's setting that our side uses, against PyTorch with its defaults."""
    section = Section(
        "PyTorch with our memory setting",
        "Our side asks the C library to keep freed memory (`cnn.keep_freed_memory`). PyTorch does "
        "not; this shows what it would gain. Training steps of the smallest batch; as it comes / with the "
        "setting: above 1, the setting helps.",
    )
    with torch_process() as plain, torch_process() as keeping:
        for name, threads in product(NETWORKS, cases.THREADS):
            if not suite.starts(section.title, f"{name}, threads {threads}"):
                continue
            model, shape = cases.make_network(name)
            examples = cases.make_examples(cases.NETWORKS[name].batch_sizes[0], shape)
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


def _compare(suite: Suite, name: str, variants: dict[str, Variant]) -> dict[str, list[float]]:
    network, (model, shape) = cases.NETWORKS[name], cases.make_network(name)
    examples = cases.make_examples(network.batch_sizes[0], shape)
    with ExitStack() as stack:
        steps = {
            name: stack.enter_context(
                ours.training_step(model, examples, network.shard_size, workers, passes=passes)
            )
            for name, (workers, passes) in variants.items()
        }
        return alternate({name: block(step) for name, step in steps.items()}, suite.pace)
