"""What each of the library's ideas gains: training steps with and without it, in alternation."""

from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks import cases, ours
from benchmarks.report import Section, ratio_columns
from benchmarks.suite import Suite
from benchmarks.timing import alternate, block, milliseconds, paired_ratio
from cnn.engine.passes import PASSES, Pass, fold_batch_norm

NETWORKS = [name for name in cases.NETWORKS if name != "CIFAR net"]  # which would take too long
WORKERS_NETWORKS = ("sample", "deep", "CIFAR net")

Variant = tuple[int, Sequence[Pass]]  # workers, passes


def ideas(suite: Suite) -> Section:
    """Each pass of `cnn.engine.passes` on top of those before it."""
    section = Section(
        "What each idea gains",
        "Training steps of the smallest batch; without / with: above 1, the idea helps. Two workers. "
        "A row that begins with + adds one pass to the row above.",
    )
    for name in NETWORKS:
        pairs: list[tuple[str, Variant, Variant]] = [
            ("all passes together", (2, PASSES), (2, ())),
            *(
                (f"+ {one.__name__}", (2, PASSES[: number + 1]), (2, PASSES[:number]))
                for number, one in enumerate(PASSES)
                if one is not fold_batch_norm  # it is for evaluation
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


def two_workers(suite: Suite) -> Section:
    """Two workers against one, ours alone."""
    section = Section(
        "Two workers against one",
        "Training steps of the smallest batch, ours alone; one / two: 2 is the most that two cores can give.",
    )
    for name in WORKERS_NETWORKS:
        if suite.starts(section.title, name):
            times = _compare(suite, name, {"two": (2, PASSES), "one": (1, PASSES)})
            section.rows.append(
                {
                    "training step": f"{name}, batch {cases.NETWORKS[name].batch_sizes[0]}",
                    "one worker, ms": milliseconds(times["one"]),
                    "two workers, ms": milliseconds(times["two"]),
                    **ratio_columns("one / two", paired_ratio(times["two"], times["one"])),
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
