"""What there is, by name: layers, losses, optimisers, schedules, initialisers and augmentations.

Each stands under one name: a function under its own, a class under its own in small letters (`MaxPool2D` is
max_pool2d). What it takes stands once, in its signature, with ranges beside the types (`cnn.checks`); what
each argument means stands in the section "Args:" of its docstring. `options` reads both; params.yaml,
architectures.yaml, `repr`, `spec`, `from_spec`, error messages and `python -m cnn` follow from it.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from cnn.checks import Given, Rule, annotations_of, checked, rule_of

Bearer = Callable[..., Any]  # a class or a function
B = TypeVar("B", bound=Bearer)

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Option:
    """An argument: its name, type with range, default (REQUIRED if there is none) and meaning.

    `given` ones are never written in a file: they follow from where the thing is used.
    """

    name: str
    annotation: Any
    default: Any
    meaning: str
    given: bool
    keyword_only: bool

    @property
    def rule(self) -> Rule | None:
        """What its values must be, beyond their type."""
        return rule_of(self.annotation)


class Registry(Mapping[str, Any]):
    """Things of one kind, by name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._bearers: dict[str, Bearer] = {}

    def register(self, bearer: B) -> B:
        """Enter a class or function, and check its arguments by its signature from then on; a decorator."""
        name = name_of(bearer)
        if name in self._bearers:
            raise ValueError(f"There is a {self.kind} {name!r} already: choose another name.")
        if isinstance(bearer, type):
            constructor = bearer.__init__  # type: ignore[misc]
            if not hasattr(constructor, "__wrapped__") and constructor is not object.__init__:
                bearer.__init__ = checked(constructor)  # type: ignore[misc]
        else:
            bearer = checked(bearer)
        self._bearers[name] = bearer
        return bearer

    def find(self, name: object) -> Bearer:
        """What stands under `name`; ValueError, with the nearest name, if there is nothing."""
        if name not in self._bearers:
            raise ValueError(unknown(self.kind, str(name), self._bearers))
        return self._bearers[str(name)]

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
    """The name under which a class or function stands: conv2d, max_pool2d, relu, leaky_relu, adamw."""
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
    """Those of `options` that a file may hold."""
    return {name: option for name, option in options(bearer).items() if not option.given}


def summary(bearer: Bearer) -> str:
    """The first sentence of its docstring."""
    return " ".join((inspect.getdoc(bearer) or "").partition("\n\n")[0].split()).replace("`", "")


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is none of `known`, with the nearest one."""
    names = sorted(known)
    return f"Unknown {kind} '{name}'.{did_you_mean(name, names)} Known: {', '.join(names)}."


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """ " Did you mean 'prefix + nearest name'?", or nothing if none is near."""
    nearest = get_close_matches(name, known, n=1)
    return f" Did you mean '{prefix}{nearest[0]}'?" if nearest else ""


def _meaning(bearer: Bearer, name: str) -> str:
    """What the docstring says of an argument; a class that says nothing takes over what its bases say."""
    for origin in bearer.__mro__ if isinstance(bearer, type) else (bearer,):
        _, _, section = inspect.cleandoc(origin.__doc__ or "").partition("Args:\n")
        section = re.split(r"^\S|\n\n", section, maxsplit=1, flags=re.M)[0]
        for entry in re.split(r"\n(?=    \S)", section.rstrip()):
            names, _, meaning = entry.strip().partition(":")
            if name in re.split(r",\s*", names):
                return " ".join(meaning.split())
    return ""


def argument(thing: Any, option: Option) -> Any:
    """What the constructor was given for an argument, as the attribute of the same name tells."""
    value = getattr(thing, option.name)
    if option.annotation is bool:  # such as the bias: a parameter, or None
        return value is not None and value is not False
    return value


def spec(kind: Registry, thing: Any) -> dict[str, Any]:
    """{"type": name, …} of a layer or an optimiser: its arguments, less those that have their default.

    Values are plain. ValueError if its type is not registered, or does not keep an argument.
    """
    name = next((name for name, bearer in kind.items() if bearer is type(thing)), None)
    if name is None:
        raise ValueError(
            f"{type(thing).__name__} is not registered as {kind.kind}, so it has no name to be found by; "
            "docs/extending.md shows how."
        )
    found: dict[str, Any] = {"type": name}
    for option in options(type(thing)).values():
        if option.name in ("parameters", "rng", "dtype"):
            continue
        if not hasattr(thing, option.name):
            raise ValueError(
                f"{type(thing).__name__} does not keep its argument {option.name} as an attribute."
            )
        value = argument(thing, option)
        if value != option.default:
            found[option.name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if hasattr(value, "spec"):
        nested = value.spec()
        return nested["layers"] if nested["type"] == "sequential" else nested
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return getattr(value, "__name__", value)
