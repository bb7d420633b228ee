"""Rules for argument values, written beside the types in a signature and checked before the body runs.

    @checked
    def scale(x: float, factor: Annotated[float, Range("(0, ∞)")]) -> float: ...

`scale(1.0, 0.0)` then raises ValueError: "factor must be a finite number > 0; received 0.0."
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from inspect import signature
from math import inf, isfinite
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])


class Rule:
    """A condition on a value, beyond its type."""

    def describe(self) -> str:
        """The rule in words, as it follows "must be" in a message."""
        raise NotImplementedError

    def holds(self, value: Any) -> bool:
        """Whether `value` follows the rule."""
        raise NotImplementedError

    def convert(self, value: Any) -> Any:
        """Convert a value that follows the rule to a plain Python number."""
        return value

    def check(self, name: str, value: Any) -> Any:
        """Return `value` as a plain number; ValueError if it does not follow the rule."""
        if not self.holds(value):
            raise ValueError(f"{name} must be {self.describe()}; received {value!r}.")
        return self.convert(value)


@dataclass(frozen=True)
class Whole(Rule):
    """A whole number >= low and, unless high is None, <= high."""

    low: int = 1
    high: int | None = None

    def describe(self) -> str:
        """For example "a whole number >= 1"."""
        if self.high is None:
            return f"a whole number >= {self.low}"
        return f"a whole number from {self.low} to {self.high}"

    def holds(self, value: Any) -> bool:
        """Whether `value` is a whole number in the range; True and False are not numbers."""
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            return False
        return bool(value >= self.low and (self.high is None or value <= self.high))

    def convert(self, value: Any) -> int:
        """`value` as an int."""
        return int(value)


@dataclass(frozen=True)
class Range(Rule):
    """A finite number in an interval, such as "[0, 1)" or "(0, ∞)"; a round bracket excludes the bound."""

    interval: str

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """(low, high)."""
        low, high = self.interval[1:-1].split(",")
        return float(low), inf if high.strip() == "∞" else float(high)

    def describe(self) -> str:
        """For example "in [0, 1)" or "a finite number > 0"."""
        low, high = self.bounds
        if high != inf:
            return f"in {self.interval}"
        return f"a finite number {'>=' if self.interval[0] == '[' else '>'} {low:g}"

    def holds(self, value: Any) -> bool:
        """Whether `value` is a finite number in the interval; True and False are not numbers."""
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not isfinite(value):
            return False
        low, high = self.bounds
        above = value >= low if self.interval[0] == "[" else value > low
        return bool(above and (value <= high if self.interval[-1] == "]" else value < high))

    def convert(self, value: Any) -> float:
        """`value` as a float."""
        return float(value)


@dataclass(frozen=True)
class Flag(Rule):
    """True or False; the rule of every argument annotated as `bool`."""

    def describe(self) -> str:
        """ "True or False"."""
        return "True or False"

    def holds(self, value: Any) -> bool:
        """Whether `value` is True or False."""
        return isinstance(value, bool)


class Given:
    """Marks an argument that is never written in a file, because the context provides it.

    For a layer, a given count is the length of the input's last axis.
    """


Count = Annotated[int, Whole()]
Positive = Annotated[float, Range("(0, ∞)")]
NotNegative = Annotated[float, Range("[0, ∞)")]
Fraction = Annotated[float, Range("[0, 1]")]
Kept = Annotated[float, Range("[0, 1)")]  # a fraction below 1


def rule_of(annotation: Any) -> Rule | None:
    """The rule in an annotation, also in that of an optional value; None if there is none."""
    if annotation is bool:
        return Flag()
    for part in (annotation, *get_args(annotation)):
        for mark in getattr(part, "__metadata__", ()):
            if isinstance(mark, Rule):
                return mark
    return None


def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function's arguments, or of a class's constructor."""
    if isinstance(function, type):
        function = function.__init__  # type: ignore[misc]
        if function is object.__init__:
            return {}
    hints = get_type_hints(function, include_extras=True)
    return {name: hint for name, hint in hints.items() if name != "return"}


def checked(function: F) -> F:
    """Wrap `function` so that its arguments are checked against the rules in its signature before it runs.

    An argument whose default is None may be None.
    """
    hints = annotations_of(function)
    rules = [
        (position, name, rule, argument.default is None)
        for position, (name, argument) in enumerate(signature(function).parameters.items())
        if (rule := rule_of(hints.get(name))) is not None
    ]

    @wraps(function)
    def checking(*arguments: Any, **options: Any) -> Any:
        for position, name, rule, optional in rules:
            if position < len(arguments):
                value = _check(rule, name, arguments[position], optional)
                arguments = (*arguments[:position], value, *arguments[position + 1 :])
            elif name in options:
                options[name] = _check(rule, name, options[name], optional)
        return function(*arguments, **options)

    return checking  # type: ignore[return-value]


def _check(rule: Rule, name: str, value: Any, optional: bool) -> Any:
    return None if value is None and optional else rule.check(name, value)
