"""Sections of params.yaml that follow from the signatures of what they configure; see `cnn.registry`."""

import inspect
import re
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from cnn.checks import Rule, rule_of
from cnn.registry import REQUIRED, Bearer, Option, Registry, unknown, written_options

OUT_OF_RANGE = "out of range"

S = TypeVar("S", bound="Section")
Try = Callable[[Bearer, dict[str, Any]], object]


class Section(BaseModel):
    """A part of params.yaml: no key missing, no extra key, no value converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_null(cls, keys: Any) -> Any:
        """`-S data.image_size=` writes an empty text where an empty line in the file would be null."""
        if not isinstance(keys, dict):
            return keys
        null = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {key: None if value == "" and key in null else value for key, value in keys.items()}


class Choice(Section):
    """One of several methods: `name` chooses it; the keys of each method are in the section of that name."""

    name: str

    def options(self) -> dict[str, Any]:
        """The keys of the chosen method; empty if it has none."""
        section: Section | None = getattr(self, self.name, None)
        return {} if section is None else section.model_dump()


def one_of(kind: str, names: Collection[str]) -> AfterValidator:
    """Require that the value is one of `names`."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(unknown(kind, name, names))
        return name

    return AfterValidator(check)


def with_methods(
    registry: Registry, attempt: Try | None = None, *, short: bool = False
) -> Callable[[type[S]], type[S]]:
    """Add a section for each method in `registry`, with the keys of its signature; a decorator.

    A section that is left out gets the defaults of the signature. `attempt` calls a method with the given
    options, so that values that do not fit together are refused, too. With `short`, a method with one key is
    written without a section, and a method that is left out is off: its first key is 0.
    """

    def extend(section: type[S]) -> type[S]:
        fields: dict[str, Any] = {}
        for name, bearer in registry.items():
            options = list(written_options(bearer).values())
            if short and len(options) == 1:
                kind, description = _field(options[0])
                fields[name] = kind, Field(default=0, description=description)
            elif options:
                keys: dict[str, Any] = {}
                for option in options:
                    kind, description = _field(option)
                    keys[option.name] = kind, Field(description=description)
                inner = create_model(
                    name, __base__=Section, __validators__=_validators(bearer, attempt), **keys
                )
                default = inner.model_construct(
                    None,
                    **{
                        option.name: 0 if option.default is REQUIRED else option.default for option in options
                    },
                )
                fields[name] = inner, Field(default=default, description=f"the keys of {name}")
        return create_model(section.__name__, __base__=section, __doc__=section.__doc__, **fields)

    return extend


def _validators(bearer: Bearer, attempt: Try | None) -> dict[str, Any]:
    if attempt is None:
        return {}

    def goes_together(self: Section) -> Section:
        attempt(bearer, self.model_dump())
        return self

    return {"goes_together": model_validator(mode="after")(goes_together)}


def _field(option: Option) -> tuple[Any, str]:
    """The type of a key, with its range as pydantic checks it, and its meaning."""
    parts = (_first_clause(option.meaning), _in_words(option.annotation))
    return _pydantic_type(option.annotation), ": ".join(filter(None, parts))


def _first_clause(text: str) -> str:
    """The text up to the first semicolon or end of a sentence that is not in brackets."""
    depth = 0
    for end in re.finditer(r"[(\[]|[)\]]|; |\. (?=[A-Z])", text):
        if end[0] in "([":
            depth += 1
        elif end[0] in ")]":  # also of the other kind, as in [0, 1)
            depth -= 1
        elif depth == 0:
            return text[: end.start()]
    return text.rstrip(".")


def _pydantic_type(annotation: Any) -> Any:
    if hasattr(annotation, "__metadata__"):
        rules = [mark for mark in annotation.__metadata__ if isinstance(mark, Rule)]
        kind = _pydantic_type(annotation.__origin__)
        return Annotated[kind, *(AfterValidator(_holds(rule)) for rule in rules)] if rules else kind
    if get_origin(annotation) is Sequence:
        return list[_pydantic_type(get_args(annotation)[0])]  # type: ignore[misc]
    if type(None) in get_args(annotation):
        (kind,) = (kind for kind in get_args(annotation) if kind is not type(None))
        return _pydantic_type(kind) | None
    return annotation


def _holds(rule: Rule) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not rule.holds(value):
            raise ValueError(OUT_OF_RANGE)
        return value

    return check


def _in_words(annotation: Any) -> str:
    """A type in words: "a number > 0", "true or false", "a list, each item a number >= 0, or null"."""
    rule = rule_of(annotation)
    if rule is None:
        return inspect.formatannotation(annotation)
    text = rule.describe().replace("a finite number", "a number").replace("True or False", "true or false")
    return f"{text}, or null" if type(None) in get_args(annotation) else text
