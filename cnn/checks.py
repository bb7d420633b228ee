"""Checks of arguments; each error says the rule and what was received."""

from math import inf, isfinite

import numpy as np


def check_count(name: str, value: object) -> int:
    """`value`, if it is a whole number >= 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1; received {value!r}.")
    return int(value)


def check_flag(name: str, value: object) -> bool:
    """`value`, if it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False; received {value!r}.")
    return value


def check_range(
    name: str,
    value: float,
    low: float,
    high: float = inf,
    *,
    low_included: bool = True,
    high_included: bool = True,
) -> float:
    """`value`, if it is a finite number from `low` to `high`."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool) and isfinite(value)
    above = number and (value >= low if low_included else value > low)
    below = number and (value <= high if high_included else value < high)
    if not (above and below):
        if high == inf:
            rule = f"a finite number {'>=' if low_included else '>'} {low:g}"
        else:
            rule = f"in {'[' if low_included else '('}{low:g}, {high:g}{']' if high_included else ')'}"
        raise ValueError(f"{name} must be {rule}; received {value!r}.")
    return float(value)
