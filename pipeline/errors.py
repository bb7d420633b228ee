"""Errors that the user can fix: printed as one message, never as a traceback."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

VALUES_STAY = (
    "Values that `dvc exp run -S` wrote stay in params.yaml and architectures.yaml. To go back to those of "
    "the last commit: git checkout params.yaml architectures.yaml"
)


class UserError(Exception):
    """An error that the user can fix; the message says what is wrong, and how to fix it."""


class StoppedError(Exception):
    """The run was asked to stop by `signal`; the message says how to continue."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def shown(value: object) -> str:
    """`value` approximately as it is written in YAML."""
    return "null" if value is None else repr(value)


def printable(text: object) -> str:
    """Text without control characters, and without bytes that are not text, as a file's name may hold."""
    return "".join(c if c.isprintable() else "�" for c in str(text))


def reason(error: Exception) -> str:
    """What is wrong, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    if isinstance(error, OSError):
        return f"it cannot be read ({error.strerror})"
    return str(error)


@contextmanager
def damage_reported(path: Path, stage: str) -> Iterator[None]:
    """Turn an error in reading a file of `stage` into a UserError that says how to make the file again."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Make it with: dvc repro {stage}") from None
    except (ValueError, csv.Error, EOFError, OSError) as error:
        raise UserError(
            f"{path} is damaged: {reason(error)}. Make it again with: dvc repro --force {stage}"
        ) from None
