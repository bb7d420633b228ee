"""What arguments may be: rules beside the types in a signature, checked before the body runs.

    @checked
    def scale(x: float, factor: Annotated[float, Range("(0, ∞)")]) -> float: ...

`scale(1.0, 0.0)` then raises ValueError: "factor must be a finite number > 0; received 0.0."
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from math import inf, isfinite
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])


class Rule:
    """What a value must be, beyond its type."""

    def describe(self) -> str:
        """The rule in words, to stand after "must be"."""
        raise NotImplementedError

    def holds(self, value: Any) -> bool:
        """Whether `value` follows the rule."""
        raise NotImplementedError

    def convert(self, value: Any) -> Any:
        """A value that follows the rule, as a plain Python number."""
        return value

    def check(self, name: str, value: Any) -> Any:
        """`value` as a plain number; ValueError if it does not follow the rule."""
        if not self.holds(value):
            raise ValueError(f"{name} must be {self.describe()}; received {value!r}.")
        return self.convert(value)


@dataclass(frozen=True)
class Whole(Rule):
    """A whole number >= low and, if there is one, <= high."""

    low: int = 1
    high: int | None = None

    def describe(self) -> str:
        """Such as "a whole number >= 1"."""
        if self.high is None:
            return f"a whole number >= {self.low}"
        return f"a whole number from {self.low} to {self.high}"

    def holds(self, value: Any) -> bool:
        """Whether it is one; True and False are none."""
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            return False
        return bool(value >= self.low and (self.high is None or value <= self.high))

    def convert(self, value: Any) -> int:
        """As an int."""
        return int(value)


@dataclass(frozen=True)
class Range(Rule):
    """A finite number in an interval, such as "[0, 1)" or "(0, ∞)"; a round bracket excludes the bound."""

    interval: str

    def __post_init__(self) -> None:
        low, high = self.interval[1:-1].split(",")
        bounds = float(low), inf if high.strip() == "∞" else float(high)
        object.__setattr__(self, "_bounds", bounds)

    def describe(self) -> str:
        """Such as "in [0, 1)" or "a finite number > 0"."""
        low, high = self._bounds  # type: ignore[attr-defined]
        if high != inf:
            return f"in {self.interval}"
        return f"a finite number {'>=' if self.interval[0] == '[' else '>'} {low:g}"

    def holds(self, value: Any) -> bool:
        """Whether it is one; True and False are no numbers."""
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not isfinite(value):
            return False
        low, high = self._bounds  # type: ignore[attr-defined]
        above = value >= low if self.interval[0] == "[" else value > low
        return bool(above and (value <= high if self.interval[-1] == "]" else value < high))

    def convert(self, value: Any) -> float:
        """As a float."""
        return float(value)


@dataclass(frozen=True)
class Flag(Rule):
    """True or False; stands for every `bool` in a signature."""

    def describe(self) -> str:
        """ "True or False"."""
        return "True or False"

    def holds(self, value: Any) -> bool:
        """Whether it is one of the two."""
        return isinstance(value, bool)


class Given:
    """Marks an argument that is never written in a file: it follows from where the thing is used.

    A count that is given to a layer is the length of its input's last axis.
    """


Count = Annotated[int, Whole()]
Positive = Annotated[float, Range("(0, ∞)")]
NotNegative = Annotated[float, Range("[0, ∞)")]
Fraction = Annotated[float, Range("[0, 1]")]
Kept = Annotated[float, Range("[0, 1)")]  # a fraction that never is the whole


def rule_of(annotation: Any) -> Rule | None:
    """The rule in an annotation, also in that of an optional value."""
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
    """`function`, whose arguments are checked by the rules in its signature before it runs.

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
                value = rule_or_none(rule, name, arguments[position], optional)
                arguments = (*arguments[:position], value, *arguments[position + 1 :])
            elif name in options:
                options[name] = rule_or_none(rule, name, options[name], optional)
        return function(*arguments, **options)

    return checking  # type: ignore[return-value]


def rule_or_none(rule: Rule, name: str, value: Any, optional: bool) -> Any:
    """`value`, checked; None if that is allowed."""
    return None if value is None and optional else rule.check(name, value)
