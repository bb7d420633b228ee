"""Timing in alternation: contenders take turns, so that a busy machine slows all of them equally."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Step = Callable[[], object]
Block = Callable[[int], float]  # does this many steps, and returns the seconds for all of them

MOST_STEPS = 1000  # per block


@dataclass(frozen=True)
class Pace:
    """How long to measure: `rounds` blocks for each contender, each as many steps as fit into `seconds`."""

    rounds: int
    seconds: float


@dataclass(frozen=True)
class Ratio:
    """How many times as long one contender took as another: median and quartiles over the rounds."""

    median: float
    low: float
    high: float


def block(step: Step, clock: Callable[[], float] = time.perf_counter) -> Block:
    """A block that times `step`, several times in a row."""

    def run(steps: int) -> float:
        start = clock()
        for _ in range(steps):
            step()
        return clock() - start

    return run


def alternate(contenders: Mapping[str, Block], pace: Pace) -> dict[str, list[float]]:
    """The seconds that a step of each contender took, round by round.

    In each round, every contender runs one block in turn. The number of steps in a block is fixed before the
    first round. Each block begins with a step that does not count, since the contender's data may have left
    the processor's caches during the turns of the others, and its threads or processes may sleep.
    """
    steps = {}
    for name, run in contenders.items():
        seconds = run(1)  # a first step, which also warms up
        if seconds < pace.seconds:
            seconds = run(1)
        steps[name] = min(MOST_STEPS, max(1, round(pace.seconds / max(seconds, 1e-9))))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(pace.rounds):
        for name, run in contenders.items():
            run(1)
            times[name].append(run(steps[name]) / steps[name])
    return times


def paired_ratio(base: Sequence[float], other: Sequence[float]) -> Ratio:
    """other / base, computed within each round before any averaging; above 1, `base` is faster."""
    low, median, high = np.quantile(np.array(other) / np.array(base), [0.25, 0.5, 0.75])
    return Ratio(float(median), float(low), float(high))


def fastest(times: Mapping[str, Sequence[float]]) -> str:
    """The name with the smallest median."""
    return min(times, key=lambda name: float(np.median(times[name])))


def milliseconds(times: Sequence[float]) -> float:
    """The median of `times`, which are in seconds."""
    return float(np.median(times)) * 1000
