"""Learning-rate schedules: functions from the time t in epochs to the learning rate.

Before an update, t = (updates so far) / (updates in an epoch): 0.0 for the first one, 1.0 after one pass
over the training set. So a schedule means the same at every batch size.
"""

from collections.abc import Callable
from math import cos, floor, pi

from cnn.checks import check_range

Schedule = Callable[[float], float]

_WARM_UP_START = 0.1


def constant(learning_rate: float) -> Schedule:
    """The same learning rate at all times. ValueError unless it is finite and > 0."""
    learning_rate = check_range("learning_rate", learning_rate, 0, low_included=False)
    return lambda t: learning_rate


def step(learning_rate: float, *, every: float, factor: float) -> Schedule:
    """A staircase.

        learning_rate · factor^floor(t / every)

    t / every is rounded to nine decimals first, so that a time such as 2.9999999996 counts as 3.

    Args:
        learning_rate: the rate at the start, > 0.
        every: the length of a stair in epochs, > 0.
        factor: what each stair multiplies the rate by, > 0; smaller than 1 to go down.

    Raises: ValueError for an argument out of its range.
    """
    learning_rate = check_range("learning_rate", learning_rate, 0, low_included=False)
    every = check_range("every", every, 0, low_included=False)
    factor = check_range("factor", factor, 0, low_included=False)
    return lambda t: learning_rate * factor ** floor(round(t / every, 9))


def exponential(learning_rate: float, *, factor: float) -> Schedule:
    """The same ratio from each epoch to the next.

        learning_rate · factor^t

    Args:
        learning_rate: the rate at the start, > 0.
        factor: what an epoch multiplies the rate by, > 0; smaller than 1 to go down.

    Raises: ValueError for an argument out of its range.
    """
    learning_rate = check_range("learning_rate", learning_rate, 0, low_included=False)
    factor = check_range("factor", factor, 0, low_included=False)
    return lambda t: learning_rate * factor**t


def cosine(learning_rate: float, *, epochs: float, final_factor: float = 0.0) -> Schedule:
    """Half a cosine from learning_rate at t = 0 down to `final` = final_factor · learning_rate.

        final + (learning_rate − final) · (1 + cos(π · t / epochs)) / 2        `final` after t = epochs

    Source: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017), equation 5,
    without restarts.

    Args:
        learning_rate: the rate at the start, > 0.
        epochs: when the descent ends, > 0.
        final_factor: the last rate as a fraction of the first, in [0, 1].

    Raises: ValueError for an argument out of its range.
    """
    learning_rate = check_range("learning_rate", learning_rate, 0, low_included=False)
    epochs = check_range("epochs", epochs, 0, low_included=False)
    final = learning_rate * check_range("final_factor", final_factor, 0, 1)
    return lambda t: _half_cosine(learning_rate, final, t / epochs)


def one_cycle(
    learning_rate: float,
    *,
    epochs: float,
    rise: float = 0.3,
    start_factor: float = 0.04,
    final_factor: float = 0.0001,
) -> Schedule:
    """Up to a high rate and down again, on two half cosines.

        from start_factor · learning_rate    at t = 0
        up to learning_rate                  at t = rise · epochs
        down to final_factor · learning_rate at t = epochs, and so ever after

    Source: Smith & Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
    Rates" (2018), whose paths between these points are straight lines.

    Args:
        learning_rate: the peak, > 0.
        epochs: when the descent ends, > 0.
        rise: the fraction of `epochs` before the peak, in (0, 1).
        start_factor: the first rate as a fraction of the peak, in (0, 1].
        final_factor: the last rate as a fraction of the peak, in [0, 1].

    Raises: ValueError for an argument out of its range.
    """
    learning_rate = check_range("learning_rate", learning_rate, 0, low_included=False)
    epochs = check_range("epochs", epochs, 0, low_included=False)
    peak = epochs * check_range("rise", rise, 0, 1, low_included=False, high_included=False)
    start = learning_rate * check_range("start_factor", start_factor, 0, 1, low_included=False)
    final = learning_rate * check_range("final_factor", final_factor, 0, 1)

    def schedule(t: float) -> float:
        if t < peak:
            return _half_cosine(start, learning_rate, t / peak)
        return _half_cosine(learning_rate, final, (t - peak) / (epochs - peak))

    return schedule


def warm_up(schedule: Schedule, *, epochs: float) -> Schedule:
    """`schedule`, held back at first by a factor that rises on a line from 0.1 to 1.

        schedule(t) · min(1, 0.1 + 0.9 · t / epochs)

    `schedule` keeps its own clock: it is not put off, and from t = `epochs` on nothing differs from it.

    Source: Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour" (2017), section 2.2.

    Args:
        schedule: what to hold back.
        epochs: for how long, > 0.

    Raises: ValueError if `epochs` is out of its range.
    """
    epochs = check_range("epochs", epochs, 0, low_included=False)
    return lambda t: schedule(t) * min(1.0, _WARM_UP_START + (1 - _WARM_UP_START) * (t / epochs))


def _half_cosine(start: float, end: float, fraction: float) -> float:
    """On half a cosine from `start` (fraction 0) to `end` (fraction 1 and beyond); exact at both."""
    weight = (1 + cos(pi * min(fraction, 1.0))) / 2
    return weight * start + (1 - weight) * end
