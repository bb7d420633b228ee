"""Learning-rate schedules: functions from the step (0 for the first update) to the learning rate."""

from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(learning_rate: float) -> Schedule:
    """The same learning rate at every step."""
    return lambda step: learning_rate
