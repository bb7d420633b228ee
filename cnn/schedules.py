"""Learning-rate schedules: functions from the time t in epochs to the learning rate.

Before each update, t = (updates so far) / (updates in an epoch): 0.0 for the first one, 1.0 after one pass
over the training set. So a schedule means the same at every batch size.
"""

from collections.abc import Callable
from math import cos, floor, pi
from typing import Annotated

from cnn.checks import Fraction, Given, Positive, Range, checked
from cnn.registry import SCHEDULES

Schedule = Callable[[float], float]
Rate = Annotated[Positive, Given]
Epochs = Annotated[Positive, Given]

_WARM_UP_START = 0.1


@SCHEDULES.register
def constant(learning_rate: Rate) -> Schedule:
    """The same learning rate at all times. ValueError unless it is finite and > 0."""
    return lambda t: learning_rate


@SCHEDULES.register
def step(learning_rate: Rate, *, every: Positive = 3.0, factor: Positive = 0.3) -> Schedule:
    """Multiplies the rate by `factor` once every `every` epochs: a staircase.

        learning_rate · factor^floor(t / every)

    t / every is rounded to nine decimals first, so that a time such as 2.9999999996 counts as 3.

    Args:
        learning_rate: the rate at the start.
        every: the length of a stair, in epochs.
        factor: the factor from one stair to the next; below 1 lowers the rate.

    Raises: ValueError for an argument out of its range.
    """
    return lambda t: learning_rate * factor ** floor(round(t / every, 9))


@SCHEDULES.register
def exponential(learning_rate: Rate, *, factor: Positive = 0.7) -> Schedule:
    """Multiplies the rate by `factor` in the course of each epoch.

        learning_rate · factor^t

    Args:
        learning_rate: the rate at the start.
        factor: the factor for one epoch; below 1 lowers the rate.

    Raises: ValueError for an argument out of its range.
    """
    return lambda t: learning_rate * factor**t


@SCHEDULES.register
def linear(learning_rate: Rate, *, epochs: Epochs, final_factor: Fraction = 0.0) -> Schedule:
    """A straight line from learning_rate at t = 0 down to `final` = final_factor · learning_rate.

        learning_rate + (final − learning_rate) · t / epochs                   `final` after t = epochs

    Args:
        learning_rate: the rate at the start.
        epochs: when the descent ends.
        final_factor: the last rate as a fraction of the first.

    Raises: ValueError for an argument out of its range.
    """
    final = learning_rate * final_factor
    return lambda t: _line(learning_rate, final, t / epochs)


@SCHEDULES.register
def cosine(learning_rate: Rate, *, epochs: Epochs, final_factor: Fraction = 0.0) -> Schedule:
    """Half a cosine from learning_rate at t = 0 down to `final` = final_factor · learning_rate.

        final + (learning_rate − final) · (1 + cos(π · t / epochs)) / 2        `final` after t = epochs

    Source: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017), equation 5,
    without restarts.

    Args:
        learning_rate: the rate at the start.
        epochs: when the descent ends.
        final_factor: the last rate as a fraction of the first.

    Raises: ValueError for an argument out of its range.
    """
    final = learning_rate * final_factor
    return lambda t: _half_cosine(learning_rate, final, t / epochs)


@SCHEDULES.register
def triangular(
    learning_rate: Rate,
    *,
    epochs: Epochs,
    rise: Annotated[float, Range("(0, 1)")] = 0.23,
    start_factor: Annotated[float, Range("(0, 1]")] = 0.2,
    final_factor: Fraction = 0.07,
) -> Schedule:
    """Rises to a high rate and falls again, along two straight lines.

        from start_factor · learning_rate    at t = 0
        up to learning_rate                  at t = rise · epochs
        down to final_factor · learning_rate at t = epochs, and constant from then on

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.1, with a single
    cycle; the defaults are those of Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024).

    Args:
        learning_rate: the peak.
        epochs: when the descent ends.
        rise: the fraction of all epochs before the peak.
        start_factor: the first rate as a fraction of the peak.
        final_factor: the last rate as a fraction of the peak.

    Raises: ValueError for an argument out of its range.
    """
    return _rise_and_fall(_line, learning_rate, epochs, rise, start_factor, final_factor)


@SCHEDULES.register
def one_cycle(
    learning_rate: Rate,
    *,
    epochs: Epochs,
    rise: Annotated[float, Range("(0, 1)")] = 0.3,
    start_factor: Annotated[float, Range("(0, 1]")] = 0.04,
    final_factor: Fraction = 0.0001,
) -> Schedule:
    """Rises to a high rate and falls again, along two half cosines.

        from start_factor · learning_rate    at t = 0
        up to learning_rate                  at t = rise · epochs
        down to final_factor · learning_rate at t = epochs, and constant from then on

    Source: Smith & Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
    Rates" (2018), whose paths between these points are straight lines.

    Args:
        learning_rate: the peak.
        epochs: when the descent ends.
        rise: the fraction of all epochs before the peak.
        start_factor: the first rate as a fraction of the peak.
        final_factor: the last rate as a fraction of the peak.

    Raises: ValueError for an argument out of its range.
    """
    return _rise_and_fall(_half_cosine, learning_rate, epochs, rise, start_factor, final_factor)


@checked
def warm_up(schedule: Schedule, *, epochs: Positive) -> Schedule:
    """`schedule`, reduced at first by a factor that rises linearly from 0.1 to 1.

        schedule(t) · min(1, 0.1 + 0.9 · t / epochs)

    Warm-up does not delay `schedule`: from t = `epochs` on, the two are equal.

    Source: Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour" (2017), section 2.2.

    Args:
        schedule: the schedule to reduce at first.
        epochs: the length of the warm-up.

    Raises: ValueError if `epochs` is out of its range.
    """
    return lambda t: schedule(t) * min(1.0, _WARM_UP_START + (1 - _WARM_UP_START) * (t / epochs))


def _rise_and_fall(
    path: Callable[[float, float, float], float],
    learning_rate: float,
    epochs: float,
    rise: float,
    start_factor: float,
    final_factor: float,
) -> Schedule:
    """Along a `path` up to the peak, and along another one down; see `one_cycle`."""
    peak = epochs * rise
    start = learning_rate * start_factor
    final = learning_rate * final_factor

    def schedule(t: float) -> float:
        if t < peak:
            return path(start, learning_rate, t / peak)
        return path(learning_rate, final, (t - peak) / (epochs - peak))

    return schedule


def _line(start: float, end: float, fraction: float) -> float:
    """On a straight line from `start` (fraction 0) to `end` (fraction 1 and above); exact at both."""
    weight = 1 - min(fraction, 1.0)
    return weight * start + (1 - weight) * end


def _half_cosine(start: float, end: float, fraction: float) -> float:
    """On half a cosine from `start` (fraction 0) to `end` (fraction 1 and above); exact at both."""
    weight = (1 + cos(pi * min(fraction, 1.0))) / 2
    return weight * start + (1 - weight) * end
