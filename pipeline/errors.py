"""Errors that are the user's to mend: printed as one message, never as a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError


class UserError(Exception):
    """Something the user can put right; the message says what, and how."""


class StoppedError(Exception):
    """The run was asked to stop; the message says how to go on, `signal` what asked."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def shown(value: object) -> str:
    """`value` as a person would write it in YAML, or nearly so."""
    return "null" if value is None else repr(value)


def reason(error: Exception) -> str:
    """What is wrong, on one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    if isinstance(error, OSError):
        return f"it cannot be read ({error.strerror})"
    return str(error)


@contextmanager
def damage_reported(path: Path, stage: str) -> Iterator[None]:
    """Turn what goes wrong while a file of `stage` is read into a UserError that says how to get it again."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Make it with: dvc repro {stage}") from None
    except (ValueError, EOFError, OSError) as error:
        raise UserError(
            f"{path} is damaged: {reason(error)}. Make it again with: dvc repro --force {stage}"
        ) from None
