"""Registries: layers, losses, optimisers, schedules, initialisers and augmentations by name.

Each entry has one name: a function its own, a class its own in snake case (`MaxPool2D` is max_pool2d). Its
arguments are declared once, in its signature, with ranges beside the types (`cnn.checks`). Their meanings are
in the section "Args:" of its docstring. `options` reads both; params.yaml, architectures.yaml, `repr`,
`spec`, `from_spec`, error messages and `python -m cnn` are derived from them.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_origin

import numpy as np

from cnn.checks import Given, Rule, Whole, annotations_of, checked, rule_of

Bearer = Callable[..., Any]  # a class or a function
B = TypeVar("B", bound=Bearer)

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Option:
    """An argument: its name, type with range, default (REQUIRED if there is none) and meaning.

    A `given` argument is never written in a file, because the context provides it.
    """

    name: str
    annotation: Any
    default: Any
    meaning: str
    given: bool
    keyword_only: bool

    @property
    def rule(self) -> Rule | None:
        """The condition on its values, beyond their type."""
        return rule_of(self.annotation)

    @property
    def takes_list(self) -> bool:
        """Whether its values are lists."""
        return any(
            get_origin(part) in (Sequence, list) for part in (self.annotation, *get_args(self.annotation))
        )


class Registry(Mapping[str, Any]):
    """Classes or functions of one kind, by name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._bearers: dict[str, Bearer] = {}

    def register(self, bearer: B) -> B:
        """Add a class or function, and check its arguments by its signature from then on; a decorator.

        Registering the same definition again, as a notebook's cell does, replaces it.
        """
        name = name_of(bearer)
        other = self._bearers.get(name, bearer)
        if (other.__module__, other.__qualname__) != (bearer.__module__, bearer.__qualname__):
            raise ValueError(f"There is a {self.kind} {name!r} already: choose another name.")
        if isinstance(bearer, type):
            constructor = bearer.__init__  # type: ignore[misc]
            if not hasattr(constructor, "is_checked") and constructor is not object.__init__:
                bearer.__init__ = checked(constructor)  # type: ignore[misc]
        else:
            bearer = checked(bearer)
        self._bearers[name] = bearer
        return bearer

    def find(self, name: object) -> Bearer:
        """What has this `name`; ValueError, with the nearest name, if nothing has it."""
        if not isinstance(name, str) or name not in self._bearers:
            raise ValueError(unknown(self.kind, str(name), self._bearers))
        return self._bearers[name]

    def __getitem__(self, name: str) -> Bearer:
        return self._bearers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._bearers)

    def __len__(self) -> int:
        return len(self._bearers)


LAYERS = Registry("layer type")
LOSSES = Registry("loss")
OPTIMIZERS = Registry("optimizer")
SCHEDULES = Registry("schedule")
INITIALIZERS = Registry("initializer")
AUGMENTATIONS = Registry("augmentation")


def name_of(bearer: Bearer) -> str:
    """The registered name of a class or function: conv2d, max_pool2d, relu, leaky_relu, adamw."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", bearer.__name__).lower()


def options(bearer: Bearer) -> dict[str, Option]:
    """The arguments of a class or function, by name."""
    hints = annotations_of(bearer)
    return {
        name: Option(
            name=name,
            annotation=hints.get(name, Any),
            default=argument.default,
            meaning=_meaning(bearer, name),
            given=Given in getattr(hints.get(name), "__metadata__", ()),
            keyword_only=argument.kind is argument.KEYWORD_ONLY,
        )
        for name, argument in inspect.signature(bearer).parameters.items()
    }


def written_options(bearer: Bearer) -> dict[str, Option]:
    """The `options` that a file may contain."""
    return {name: option for name, option in options(bearer).items() if not option.given}


def summary(bearer: Bearer) -> str:
    """The first paragraph of its docstring, on one line."""
    return " ".join((inspect.getdoc(bearer) or "").partition("\n\n")[0].split()).replace("`", "")


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not in `known`; it suggests the nearest one."""
    names = sorted(known)
    return f"Unknown {kind} '{name}'.{did_you_mean(name, names)} Known: {', '.join(names)}."


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """ " Did you mean 'prefix + nearest name'?", or "" if no name is near."""
    by_lower_case = {other.lower(): other for other in known}
    nearest = get_close_matches(name.lower(), by_lower_case, n=1)
    return f" Did you mean '{prefix}{by_lower_case[nearest[0]]}'?" if nearest else ""


def _meaning(bearer: Bearer, name: str) -> str:
    """What the docstring says about an argument; a class whose docstring says nothing inherits it."""
    for origin in bearer.__mro__ if isinstance(bearer, type) else (bearer,):
        _, _, section = inspect.cleandoc(origin.__doc__ or "").partition("Args:\n")
        section = re.split(r"^\S|\n\n", section, maxsplit=1, flags=re.M)[0]
        for entry in re.split(r"\n(?=    \S)", section.rstrip()):
            names, _, meaning = entry.strip().partition(":")
            if name in re.split(r",\s*", names):
                return " ".join(meaning.split())
    return ""


def argument(thing: Any, option: Option) -> Any:
    """The value that the constructor received for an argument, read from the attribute of the same name."""
    value = getattr(thing, option.name)
    if option.annotation is bool:  # for example bias, whose attribute is a parameter or None
        return value is not None and value is not False
    if option.takes_list and hasattr(value, "children"):  # a list of layers is kept as a Sequential
        return list(value.children().values())
    return value


def call(thing: Any) -> str:
    """How the constructor was called, without arguments that have their default or were not kept."""
    shown = []
    for name, option in options(type(thing)).items():
        if hasattr(thing, name) and option.name != "parameters":
            value = argument(thing, option)
            if _differs(value, option.default):
                text = getattr(value, "__name__", repr(value))
                shown.append(f"{name}={text}" if option.keyword_only else text)
    return f"{type(thing).__name__}({', '.join(shown)})"


def spec(kind: Registry, thing: Any) -> dict[str, Any]:
    """Describe a layer or an optimiser: {"type": name, …} and the arguments that differ from defaults.

    All values are plain. ValueError if its type is not registered, or does not keep an argument.
    """
    name = next((name for name, bearer in kind.items() if bearer is type(thing)), None)
    if name is None:
        raise ValueError(
            f"{type(thing).__name__} is not registered as {kind.kind}, so a file cannot refer to it; "
            "docs/extending.md shows how to register it."
        )
    found: dict[str, Any] = {"type": name}
    for option in options(type(thing)).values():
        if option.given and not isinstance(option.rule, Whole):  # parameters, rng and dtype cannot be written
            continue
        if not hasattr(thing, option.name):
            raise ValueError(
                f"{type(thing).__name__} does not keep its argument {option.name}: "
                f"assign it to self.{option.name}."
            )
        value = argument(thing, option)
        if _differs(value, option.default):
            found[option.name] = _plain(value, f"{option.name} of {type(thing).__name__}")
    return found


def _differs(value: Any, default: Any) -> bool:
    try:
        return bool(value != default)
    except ValueError:  # of arrays
        return True


def _plain(value: Any, place: str) -> Any:
    if hasattr(value, "spec"):
        return value.spec()
    if isinstance(value, list | tuple):
        return [_plain(item, place) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if any(value is initializer for initializer in INITIALIZERS.values()):
        return value.__name__
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"A file cannot hold {place}, {type(value).__name__}: it can hold numbers, texts, lists, layers, and "
        "initializers that are registered."
    )
