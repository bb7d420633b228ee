"""Errors that are the user's to mend: printed as one message, never as a traceback."""


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
