from itertools import pairwise
from math import cos, pi, sqrt

import numpy as np
import pytest

from cnn import registry
from cnn.schedules import constant, cosine, exponential, linear, one_cycle, step, triangular, warm_up

SCHEDULES = {
    "constant": constant(0.3),
    "step": step(0.3, every=2, factor=0.1),
    "exponential": exponential(0.3, factor=0.9),
    "linear": linear(0.3, epochs=10, final_factor=0.01),
    "cosine": cosine(0.3, epochs=10, final_factor=0.01),
    "triangular": triangular(0.3, epochs=10),
    "one_cycle": one_cycle(0.3, epochs=10),
    "warm_up": warm_up(cosine(0.3, epochs=10, final_factor=0.01), epochs=2),
}


def values(schedule, start, end, count=200):
    """The rates at `count` evenly spaced times from `start` to `end`, both included."""
    return [schedule(start + (end - start) * i / (count - 1)) for i in range(count)]


def assert_rises(rates):
    assert all(a < b for a, b in pairwise(rates))


def test_every_registered_schedule_is_under_test():
    assert set(SCHEDULES) == {*registry.SCHEDULES, "warm_up"}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_rates_are_positive_python_floats_from_the_first_update_on(schedule):
    rates = [schedule(0), *values(schedule, 0.0, 30.0)]
    assert {type(rate) for rate in rates} == {float}
    assert all(0 < rate <= 0.3 for rate in rates)


VALUES = {  # name -> (a schedule, its rates by the time)
    "constant": (constant(0.3), {0: 0.3, 7.5: 0.3}),
    "step": (step(0.8, every=2, factor=0.5), {0: 0.8, 1.9: 0.8, 2: 0.4, 5: 0.2}),
    "exponential": (exponential(0.8, factor=0.25), {0: 0.8, 0.5: 0.4, 1: 0.2, 2: 0.05}),
    "linear": (linear(0.8, epochs=4, final_factor=0.5), {0: 0.8, 1: 0.7, 2: 0.6, 4: 0.4, 9: 0.4}),
    "triangular": (
        triangular(0.8, epochs=10, rise=0.2, start_factor=0.25, final_factor=0.5),
        {0: 0.2, 0.5: 0.35, 1: 0.5, 2: 0.8, 4: 0.7, 6: 0.6, 10: 0.4, 99: 0.4},
    ),
    "cosine": (cosine(0.8, epochs=4, final_factor=0.5), {0: 0.8, 4 / 3: 0.7, 2: 0.6, 4: 0.4, 9: 0.4}),
    "one_cycle": (
        one_cycle(0.8, epochs=10, rise=0.2, start_factor=0.25, final_factor=0.5),
        {0: 0.2, 1: 0.5, 2: 0.8, 6: 0.6, 10: 0.4, 99: 0.4},
    ),
}


def test_every_registered_schedule_has_its_values():
    assert set(VALUES) == set(registry.SCHEDULES)
    for name, (schedule, rates) in VALUES.items():
        assert {t: schedule(t) for t in rates} == pytest.approx(rates, rel=1e-12), name


def test_numpy_scalars_as_arguments_become_python_floats():
    number = np.float64(0.5)
    assert type(constant(number)(0.0)) is float
    assert type(step(number, every=number, factor=number)(1.0)) is float
    assert type(one_cycle(number, epochs=number, rise=number)(0.1)) is float


def test_the_constant_schedule_never_changes():
    assert {constant(0.3)(t) for t in (0.0, 0.5, 1e6)} == {0.3}


def test_a_stair_changes_at_its_end_and_not_before():
    schedule = step(0.8, every=2.5, factor=0.5)
    times = [0.0, 2.4999, 2.5, 4.9999, 5.0, 7.4999, 7.5]
    assert [schedule(t) for t in times] == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1]


@pytest.mark.parametrize("late", [2.9999999996, 3.0, 3.0000000004])
def test_a_stair_forgives_the_rounding_of_times(late):
    assert step(1.0, every=3, factor=0.5)(late) == 0.5
    assert step(1.0, every=1, factor=0.5)(late) == 0.125


@pytest.mark.parametrize("every", [0.1, 0.3, 0.7])
def test_stairs_of_broken_epochs_have_equally_many_steps(every):
    schedule = step(1.0, every=every, factor=0.5)  # 0.3 / 0.1 is 2.9999999999999996
    assert [schedule(k * every / 10) for k in range(1000)] == [0.5 ** (k // 10) for k in range(1000)]


def test_the_exponential_schedule_has_the_same_ratio_over_each_epoch():
    schedule = exponential(0.5, factor=0.25)
    assert [schedule(t) for t in (0.0, 0.5, 1.0, 2.0)] == [0.5, 0.25, 0.125, 0.03125]
    for t in (0.3, 1.7, 20.0):
        assert schedule(t + 1) / schedule(t) == pytest.approx(0.25, rel=1e-12)


def test_a_factor_above_one_rises():
    assert step(0.1, every=1, factor=2.0)(3.0) == pytest.approx(0.8)
    assert exponential(0.1, factor=2.0)(3.0) == pytest.approx(0.8)


def test_the_cosine_starts_high_is_halfway_in_the_middle_and_stays_at_its_end():
    schedule = cosine(0.4, epochs=10)
    assert schedule(0.0) == 0.4
    assert schedule(10 / 3) == pytest.approx(0.3, rel=1e-12)  # cos(π / 3) = 1/2
    assert schedule(5.0) == pytest.approx(0.2, rel=1e-12)
    assert schedule(2.5) == pytest.approx(0.2 * (1 + sqrt(0.5)), rel=1e-12)
    assert [schedule(t) for t in (10.0, 10.1, 1000.0)] == [0.0] * 3
    assert_rises(values(schedule, 10.0, 0.0))


def test_the_cosine_ends_at_its_final_factor():
    schedule = cosine(0.4, epochs=10, final_factor=0.25)
    assert schedule(0.0) == 0.4
    assert schedule(5.0) == pytest.approx(0.25, rel=1e-12)
    assert [schedule(t) for t in (10.0, 99.0)] == [0.1, 0.1]
    assert_rises(values(schedule, 10.0, 0.0))
    for t in (1.0, 4.0, 7.7):
        assert schedule(t) == pytest.approx(0.1 + 0.3 * (1 + cos(pi * t / 10)) / 2, rel=1e-12)


def test_the_line_starts_high_falls_by_equal_amounts_and_stays_at_its_end():
    schedule = linear(0.4, epochs=10)
    assert schedule(0.0) == 0.4
    assert schedule(5.0) == pytest.approx(0.2, rel=1e-12)
    assert [schedule(t) for t in (10.0, 10.1, 1000.0)] == [0.0] * 3
    assert [linear(0.4, epochs=10, final_factor=0.25)(t) for t in (10.0, 99.0)] == [0.1, 0.1]
    falls = {round(a - b, 12) for a, b in pairwise(values(schedule, 0.0, 10.0))}
    assert falls == {round(0.4 / 199, 12)}


def test_the_triangle_rises_to_its_peak_falls_and_stays_down_on_straight_lines():
    schedule = triangular(0.5, epochs=20, rise=0.25, start_factor=0.1, final_factor=0.01)
    assert schedule(0.0) == 0.05
    assert schedule(5.0) == 0.5
    assert [schedule(t) for t in (20.0, 20.1, 1000.0)] == [0.005] * 3
    rises = {round(b - a, 12) for a, b in pairwise(values(schedule, 0.0, 5.0))}
    falls = {round(a - b, 12) for a, b in pairwise(values(schedule, 5.0, 20.0))}
    assert rises == {round(0.45 / 199, 12)}
    assert falls == {round(0.495 / 199, 12)}


def test_the_triangle_starts_at_a_fifth_peaks_at_23_hundredths_and_ends_at_7_hundredths():
    schedule = triangular(1.0, epochs=10)
    assert [schedule(t) for t in (0.0, 2.3, 10.0)] == pytest.approx([0.2, 1.0, 0.07], rel=1e-12)


def test_one_cycle_rises_to_its_peak_falls_and_stays_down():
    schedule = one_cycle(0.5, epochs=20, rise=0.25, start_factor=0.1, final_factor=0.01)
    assert schedule(0.0) == 0.05
    assert schedule(2.5) == pytest.approx((0.05 + 0.5) / 2, rel=1e-12)
    assert schedule(5.0) == 0.5
    assert schedule(12.5) == pytest.approx((0.5 + 0.005) / 2, rel=1e-12)
    assert [schedule(t) for t in (20.0, 20.1, 1000.0)] == [0.005] * 3
    assert_rises(values(schedule, 0.0, 5.0))
    assert_rises(values(schedule, 20.0, 5.0))
    assert schedule(5.0 - 1e-9) == pytest.approx(schedule(5.0 + 1e-9), rel=1e-12)


def test_one_cycle_starts_at_a_25th_peaks_at_three_tenths_and_ends_at_a_10000th():
    schedule = one_cycle(1.0, epochs=10)
    assert [schedule(t) for t in (0.0, 3.0, 10.0)] == [0.04, 1.0, 0.0001]


def test_a_warm_up_rises_on_a_line_from_a_tenth_and_then_leaves_the_rate_alone():
    schedule = warm_up(constant(0.5), epochs=4)
    assert schedule(0.0) == pytest.approx(0.05, rel=1e-12)
    assert schedule(2.0) == pytest.approx(0.5 * 0.55, rel=1e-12)
    assert [schedule(t) for t in (4.0, 4.1, 100.0)] == [0.5] * 3
    assert_rises(values(schedule, 0.0, 4.0))
    rates = values(schedule, 0.0, 4.0)
    assert {round(b - a, 12) for a, b in pairwise(rates)} == {round(0.45 / 199, 12)}


def test_a_warm_up_does_not_put_off_the_schedule_inside():
    inner = cosine(0.4, epochs=10)
    schedule = warm_up(inner, epochs=3)
    for t in (0.0, 0.9, 2.9):
        assert schedule(t) == pytest.approx(inner(t) * (0.1 + 0.9 * t / 3), rel=1e-12)
    assert all(schedule(t) == inner(t) for t in (3.0, 3.3, 7.0, 12.0))


@pytest.mark.parametrize("epochs", [0.1, 0.3, 0.7, 3, 4.9, 7])
def test_a_warm_up_is_over_exactly_at_its_end(epochs):
    assert warm_up(constant(0.3), epochs=epochs)(epochs) == 0.3


RATE = "learning_rate must be a finite number > 0"
EPOCHS = "epochs must be a finite number > 0"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: constant(0.0), f"{RATE}; received 0.0."),
        (lambda: constant("0.1"), f"{RATE}; received '0.1'."),
        (lambda: step(-1, every=1, factor=0.1), f"{RATE}; received -1."),
        (lambda: step(1, every=0, factor=0.1), "every must be a finite number > 0; received 0."),
        (lambda: step(1, every=1, factor=0), "factor must be a finite number > 0; received 0."),
        (lambda: exponential(float("inf"), factor=0.1), f"{RATE}; received inf."),
        (lambda: exponential(1, factor=-0.5), "factor must be a finite number > 0; received -0.5."),
        (lambda: cosine(float("nan"), epochs=1), f"{RATE}; received nan."),
        (lambda: cosine(1, epochs=0), f"{EPOCHS}; received 0."),
        (lambda: cosine(1, epochs=1, final_factor=1.1), "final_factor must be in [0, 1]; received 1.1."),
        (lambda: linear(0, epochs=1), f"{RATE}; received 0."),
        (lambda: linear(1, epochs=0), f"{EPOCHS}; received 0."),
        (lambda: linear(1, epochs=1, final_factor=-0.1), "final_factor must be in [0, 1]; received -0.1."),
        (lambda: triangular(1, epochs=0), f"{EPOCHS}; received 0."),
        (lambda: triangular(1, epochs=1, rise=0), "rise must be in (0, 1); received 0."),
        (lambda: triangular(1, epochs=1, start_factor=0), "start_factor must be in (0, 1]; received 0."),
        (lambda: triangular(1, epochs=1, final_factor=2), "final_factor must be in [0, 1]; received 2."),
        (lambda: one_cycle(0, epochs=1), f"{RATE}; received 0."),
        (lambda: one_cycle(1, epochs=-1), f"{EPOCHS}; received -1."),
        (lambda: one_cycle(1, epochs=1, rise=0), "rise must be in (0, 1); received 0."),
        (lambda: one_cycle(1, epochs=1, rise=1.0), "rise must be in (0, 1); received 1.0."),
        (lambda: one_cycle(1, epochs=1, start_factor=0), "start_factor must be in (0, 1]; received 0."),
        (lambda: one_cycle(1, epochs=1, start_factor=2), "start_factor must be in (0, 1]; received 2."),
        (lambda: one_cycle(1, epochs=1, final_factor=-1), "final_factor must be in [0, 1]; received -1."),
        (lambda: warm_up(constant(1), epochs=0), f"{EPOCHS}; received 0."),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == message
