"""On a GPU: the loss of an epoch beside the processor's, and the time of a step beside PyTorch's.

`make gpu-check` installs CuPy and PyTorch, and runs the tests of the layers on the GPU, and then this.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.cases import NETWORKS, make_examples, make_network
from benchmarks.ours import LEARNING_RATE
from benchmarks.timing import Pace, Step, alternate, block, milliseconds
from cnn import SGD, Examples, Processes, Progress, Sequential, fit, move, softmax_cross_entropy
from cnn.engine.shards import ShardedGradients
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.preprocess import Description
from pipeline.cores import count_cores
from pipeline.device import describe

MEASURED = ("sample", "CIFAR net")
PACE = Pace(rounds=7, seconds=0.5)
BATCH_SIZE = 64
COMPARED = 20  # steps; after 50, one rounding more or less has moved a loss by a third
TOLERANCE = 0.01  # of a loss

Array = NDArray[Any]


def losses(train: Examples, like: Array) -> list[float]:
    """The loss of each step of an epoch of the network `sample`, computed where `like` is."""
    model, _ = make_network("sample")
    move(model, like)
    on_host = isinstance(like, np.ndarray)
    sums = [0.0]

    def note(at: Progress) -> None:
        sums.append(float(at.loss_sum))

    executor = Processes(count_cores()) if on_host else None
    fit(model, train, epochs=1, batch_size=BATCH_SIZE, executor=executor, on_step=note)
    sizes = [min(BATCH_SIZE, len(train.images) - start) for start in range(0, len(train.images), BATCH_SIZE)]
    return [(end - start) / size for (start, end), size in zip(pairwise(sums), sizes, strict=True)]


def largest_difference(found: list[float], expected: list[float]) -> float:
    """The largest relative difference between the losses of the first steps."""
    curves = np.array([found[:COMPARED], expected[:COMPARED]])
    return float((np.abs(curves[0] - curves[1]) / curves[1]).max())


@contextmanager
def training_step(model: Sequential, examples: Examples, like: Array) -> Iterator[Step]:
    """A step as `fit` makes it, the transfer of its images included; the whole batch is one shard."""
    model = deepcopy(model)
    move(model, like)
    optimizer = SGD(model.parameters(), LEARNING_RATE)
    batch = np.arange(len(examples.images))
    with ShardedGradients(model, softmax_cross_entropy, examples, len(batch)) as gradients:

        def step() -> None:
            gradients(batch)
            optimizer.step()
            float(next(iter(model.parameters().values())).value.sum())  # waits for the device

        yield step


def step_times(name: str, like: Array, theirs: Any, pace: Pace = PACE) -> dict[str, float]:
    """Milliseconds of a training step: ours, and of each variant of `theirs`, taking turns."""
    model, shape = make_network(name)
    examples = make_examples(NETWORKS[name].batch_sizes[0], shape)
    with training_step(model, examples, like) as ours:
        steps = {"this library": ours} | theirs(model, shape, examples)
        times = alternate({label: block(step) for label, step in steps.items()}, pace)
    return {label: milliseconds(seconds) for label, seconds in times.items()}


def main() -> None:
    """Print how far the losses differ, and the times; end with an error if they differ too far."""
    console = Console(width=110)
    console.print(describe("cuda"))  # an error if there is no GPU
    import cupy

    from benchmarks.theirs import gpu_steps

    like, description = cupy.empty(0), Description.load()
    if description.dataset != "mnist":
        raise SystemExit(
            f"error: data/processed holds {description.dataset}, and this compares training on MNIST. Set "
            "data.dataset: mnist in params.yaml, and prepare it: dvc repro preprocess"
        )
    with threadpool_limits(1, user_api="blas"):
        train = load_examples("train", description)
        found, expected = losses(train, like), losses(train, np.empty(0))
    difference = largest_difference(found, expected)
    ends = [f"{np.mean(curve[-100:]):.4f}" for curve in (found, expected)]
    console.print(
        f"An epoch of sample on MNIST. The losses of the first {COMPARED} steps differ from the processor's "
        f"by at most {difference:.2%} (they may by {TOLERANCE:.0%}); the last 100 steps have a mean of "
        f"{ends[0]} on the GPU and {ends[1]} on the processor."
    )
    table = Table("network", "batch", "contender", "ms per step")
    for name in MEASURED:
        for label, time in step_times(name, like, gpu_steps).items():
            table.add_row(name, str(NETWORKS[name].batch_sizes[0]), label, f"{time:.2f}")
    console.print(table)
    if difference > TOLERANCE and os.environ.get("CUPY_TF32", "0") == "0":
        raise SystemExit("error: The loss on the GPU is not that on the processor.")


if __name__ == "__main__":
    main()
