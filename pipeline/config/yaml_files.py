"""YAML files as mappings, read by ruamel.yaml: PyYAML would read DVC's `1e-05` as a string."""

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.errors import UserError

LARGEST = 100_000  # values
NOT_THE_FOLDER = "Run the command from the project's folder."
CONFLICT_MARKS = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")  # Git begins lines with them


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in the file at `path`; UserError if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"There is no {path} in this folder. {NOT_THE_FOLDER}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start}.") from None
    return parse_mapping(text, str(path))


def parse_mapping(text: str, source: str) -> dict[str, Any]:
    """The mapping in `text`; UserError with `source` if there is none."""
    try:
        content = YAML(typ="safe", pure=True).load(text)
    except RecursionError:
        raise UserError(f"{source} is nested too deeply.") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{source} is not valid YAML: {error.problem}{place}.{_hint(text, error)}") from None
    except YAMLError as error:
        raise UserError(f"{source} is not valid YAML: {' '.join(str(error).split())}.") from None
    except (ValueError, LookupError) as error:  # a value that looks like a date or a number, but is not
        raise UserError(f"{source} holds a value that cannot be read: {error}.") from None
    if _is_larger(content, LARGEST):
        raise UserError(f"{source} holds more than {LARGEST:,} values, with aliases expanded.")
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise UserError(f"{source} must hold keys with values, `key: value`; it holds {found}.")
    return content


def _hint(text: str, error: MarkedYAMLError) -> str:
    """What probably caused the error, and what to do; empty if that is not known."""
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if line.startswith(CONFLICT_MARKS):
            return (
                f" Line {number} is a mark of a merge conflict: keep one of the versions between "
                f"{CONFLICT_MARKS[0]} and {CONFLICT_MARKS[-1]}, and remove the lines with marks."
            )
    if error.problem_mark is None:
        return ""
    start = "".join(lines[error.problem_mark.line : error.problem_mark.line + 1])
    if "\t" in start[: len(start) - len(start.lstrip())]:
        return " A tab is in its indentation: use spaces."
    return " Check the indentation of this line and of the one before: keys of one section have the same."


def _is_larger(content: Any, limit: int) -> bool:
    """Whether there are more than `limit` values; a few nested aliases can stand for any number."""
    waiting, count = [content], 0
    while waiting and count <= limit:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return count > limit


def to_yaml(content: dict[str, Any]) -> str:
    """`content` as YAML text, with each innermost list or mapping on one line."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 110
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()
