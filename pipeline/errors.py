"""Errors that are the user's to mend: printed as one message, never as a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can put right; the message says what, and how."""


class StoppedError(Exception):
    """The run was asked to stop; the message says how to go on, `signal` what asked."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is none of `known`, with the nearest one."""
    names = sorted(known)
    nearest = get_close_matches(name, names, n=1)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return f"Unknown {kind} '{name}'.{hint} Known: {', '.join(names)}."


def shown(value: object) -> str:
    """`value` as a person would write it in YAML, or nearly so."""
    return "null" if value is None else repr(value)
