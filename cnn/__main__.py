"""`python -m cnn`: every name that params.yaml and architectures.yaml may use, and its options."""

import os
import sys

from cnn import registry


def main() -> None:
    """Print each registry: its names, and their options with meaning, range and default."""
    for title, entries in vars(registry).items():
        if isinstance(entries, registry.Registry):
            print(f"\n{title.lower()}")
            for name, bearer in entries.items():
                print(f"  {name}: {registry.summary(bearer)}")
                for option in registry.written_options(bearer).values():
                    print(f"    {option.name}: {option.meaning} {_range(option)}".rstrip())


def _range(option: registry.Option) -> str:
    """The range and the default, for example "(in [0, 1), default 0.9)"."""
    notes = [option.rule.describe()] if option.rule else []
    if option.default is not registry.REQUIRED:
        notes.append(f"default {getattr(option.default, '__name__', repr(option.default))}")
    return f"({', '.join(notes)})" if notes else ""


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # if it cannot show ∞
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # as in `python -m cnn | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
