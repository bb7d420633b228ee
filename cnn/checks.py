"""Rules for argument values, written beside the types in a signature and checked before the body runs.

    @checked
    def scale(x: float, factor: Annotated[float, Range("(0, ∞)")]) -> float: ...

`scale(1.0, 0.0)` then raises ValueError: "factor must be a finite number > 0; received 0.0."
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from inspect import signature
from math import inf, isfinite
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])
LONGEST = 200  # characters of a refused value in a message


class Rule(ABC):
    """A condition on a value, beyond its type."""

    @abstractmethod
    def describe(self) -> str:
        """The rule in words, as it follows "must be" in a message."""

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether `value` follows the rule."""

    def convert(self, value: Any) -> Any:
        """Convert a value that follows the rule to a plain Python number."""
        return value

    def check(self, name: str, value: Any) -> Any:
        """Return `value` as a plain number; ValueError if it does not follow the rule."""
        if not self.holds(value):
            received = " ".join(repr(value).split())
            received = received if len(received) <= LONGEST else f"{received[:LONGEST]}…"
            raise ValueError(f"{name} must be {self.describe()}; received {received}.")
        return self.convert(value)


@dataclass(frozen=True)
class Whole(Rule):
    """A whole number, >= low unless low is None, and <= high unless high is None."""

    low: int | None = 1
    high: int | None = None

    def describe(self) -> str:
        """For example "a whole number >= 1"."""
        if self.low is None:
            return "a whole number"
        if self.high is None:
            return f"a whole number >= {self.low}"
        return f"a whole number from {self.low} to {self.high}"

    def holds(self, value: Any) -> bool:
        """Whether `value` is a whole number in the range; True and False are not numbers."""
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            return False
        return bool((self.low is None or value >= self.low) and (self.high is None or value <= self.high))

    def convert(self, value: Any) -> int:
        """As an int."""
        return int(value)


@dataclass(frozen=True)
class Range(Rule):
    """A finite number in an interval, such as "[0, 1)" or "(0, ∞)"; a round bracket excludes the bound."""

    interval: str

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """(low, high)."""
        low, high = self.interval[1:-1].split(",")
        return float(low.replace("∞", "inf")), float(high.replace("∞", "inf"))

    def describe(self) -> str:
        """For example "in [0, 1)" or "a finite number > 0"."""
        low, high = self.bounds
        if high != inf:
            return f"in {self.interval}"
        if low == -inf:
            return "a finite number"
        return f"a finite number {'>=' if self.interval[0] == '[' else '>'} {low:g}"

    def holds(self, value: Any) -> bool:
        """Whether `value` is a finite number in the interval; True and False are not numbers."""
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            return False
        try:
            finite = isfinite(value)
        except OverflowError:  # a whole number beyond all floats
            finite = False
        if not finite:
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


@dataclass(frozen=True)
class OneOf(Rule):
    """One of a few words; the rule of an argument annotated as `Literal["a", "b"]`."""

    words: tuple[str, ...]

    def describe(self) -> str:
        """For example "reflect or constant"."""
        return " or ".join(self.words)

    def holds(self, value: Any) -> bool:
        """Whether `value` is one of the words."""
        return isinstance(value, str) and value in self.words


@dataclass(frozen=True)
class Each(Rule):
    """A list whose items all follow a rule; stands for a `Sequence` of what has one."""

    rule: Rule

    def describe(self) -> str:
        """For example "a list, each item a whole number >= 1"."""
        return f"a list, each item {self.rule.describe()}"

    def holds(self, value: Any) -> bool:
        """Whether `value` is a list, a tuple, an array or the like, and all its items follow the rule."""
        if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable):
            return False
        return all(self.rule.holds(item) for item in value)

    def convert(self, value: Any) -> list[Any]:
        """The items as plain numbers."""
        return [self.rule.convert(item) for item in value]


@dataclass(frozen=True)
class Instance(Rule):
    """An object of a class; stands for this library's classes, for mappings and for random generators."""

    kind: type

    def describe(self) -> str:
        """For example "a Sequential"."""
        if self.kind is np.random.Generator:
            return "a NumPy generator, such as np.random.default_rng(0)"
        if self.kind is Mapping:
            return "a dict, such as model.parameters() returns"
        return f"{'an' if self.kind.__name__[0] in 'AEIO' else 'a'} {self.kind.__name__}"

    def holds(self, value: Any) -> bool:
        """Whether `value` is such an object; the class itself is not."""
        return isinstance(value, self.kind) and not isinstance(value, type)


@dataclass(frozen=True)
class Function(Rule):
    """Something that can be called; stands for every `Callable`."""

    def describe(self) -> str:
        """ "a function"."""
        return "a function"

    def holds(self, value: Any) -> bool:
        """Whether it can be called."""
        return callable(value)


class Given:
    """Marks an argument that is never written in a file, because the context provides it.

    For a layer, a given count is the length of the input's last axis.
    """


Count = Annotated[int, Whole()]
Positive = Annotated[float, Range("(0, ∞)")]
NotNegative = Annotated[float, Range("[0, ∞)")]
Fraction = Annotated[float, Range("[0, 1]")]
InitialRng = Annotated[np.random.Generator, Given, Instance(np.random.Generator)]
Kept = Annotated[float, Range("[0, 1)")]  # a fraction below 1


PLAIN: dict[Any, Rule] = {
    bool: Flag(),
    int: Whole(low=None),
    float: Range("(-∞, ∞)"),
}


def rule_of(annotation: Any) -> Rule | None:
    """The rule in an annotation, or the one that its type stands for; None if there is neither.

    `X | None` has the rule of X; other unions have none.
    """
    for mark in getattr(annotation, "__metadata__", ()):
        if isinstance(mark, Rule):
            return mark
    if hasattr(annotation, "__metadata__"):
        return rule_of(annotation.__origin__)
    if annotation in PLAIN:
        return PLAIN[annotation]
    origin, parts = get_origin(annotation), get_args(annotation)
    if type(None) in parts:
        others = [part for part in parts if part is not type(None)]
        return rule_of(others[0]) if len(others) == 1 else None
    if origin is Literal and all(isinstance(part, str) for part in parts):
        return OneOf(parts)
    if origin in (Sequence, list):
        item = rule_of(parts[0])
        return None if item is None else Each(item)
    if origin is Callable:
        return Function()
    if origin is Mapping:
        return Instance(Mapping)
    ours = isinstance(annotation, type) and annotation.__module__.startswith("cnn.")
    return Instance(annotation) if ours else None


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

    An argument may be None if its annotation or its default is.
    """
    hints = annotations_of(function)
    rules = [
        (position, name, rule, argument.default is None or type(None) in get_args(hints[name]))
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

    checking.is_checked = True  # type: ignore[attr-defined]
    return checking  # type: ignore[return-value]


def _check(rule: Rule, name: str, value: Any, optional: bool) -> Any:
    return None if value is None and optional else rule.check(name, value)
