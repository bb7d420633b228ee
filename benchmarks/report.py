"""Results as tables: on the terminal, in Markdown and in JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from benchmarks.machine import LOAD
from benchmarks.timing import Ratio

Row = dict[str, Any]  # from column to text or number

HOW_TO_READ = (
    "The contenders took turns, block by block, in one run. Times are medians over the rounds. A ratio is "
    "computed within each round, so that a busy machine affects both of its sides; tables show its median "
    "and quartiles. PyTorch / ours above 1: the library is faster. PyTorch runs in its own processes, with "
    "images and weights laid out as NCHW and as channels_last, whole networks eagerly and compiled by "
    "torch.compile, as it comes and with memory kept after it is freed, as our side keeps it "
    "(`cnn.keep_freed_memory`; and with tcmalloc or jemalloc if the machine has it). The fastest variant of "
    "each row counts. JAX, if installed (extra bench-jax), computes compiled steps (jit) in NHWC, also with "
    "kept memory; its process may use only as many cores as there are threads (sched_setaffinity)."
)
BUSY = 0.2  # cores
BUSY_NOTE = (
    "Caution: other programs were running. PyTorch's threads wait for one another in every operation, so "
    "another program delays two of them far more than one: ratios on 2 threads are then too high. Measure "
    "again on an idle machine."
)


@dataclass
class Section:
    """A table: its rows have the same columns."""

    title: str
    note: str
    rows: list[Row] = field(default_factory=list)


def is_busy(machine: Row) -> bool:
    """Whether other programs were running during the measurement."""
    return bool(machine.get(LOAD, 0.0) > BUSY)


def print_section(section: Section, console: Console) -> None:
    """Print a table and its note."""
    table = Table(title=section.title, title_justify="left", title_style="bold", caption=section.note)
    table.caption_justify = "left"
    for column in section.rows[0]:
        justify: Literal["left", "right"] = "right" if _is_number(section, column) else "left"
        table.add_column(column, justify=justify, overflow="fold")
    for row in section.rows:
        table.add_row(*map(format_value, row.values()))
    console.print(table, markup=False)


def write(folder: Path, machine: Row, settings: Row, sections: Sequence[Section]) -> tuple[Path, Path]:
    """Write results.json and results.md to `folder`; return their paths."""
    content = {"machine": machine, "settings": settings, "sections": [asdict(s) for s in sections]}
    paths = folder / "results.json", folder / "results.md"
    folder.mkdir(parents=True, exist_ok=True)
    paths[0].write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    paths[1].write_text(to_markdown(machine, settings, sections), encoding="utf-8")
    return paths


def to_markdown(machine: Row, settings: Row, sections: Sequence[Section]) -> str:
    """All results as a Markdown page."""
    parts = ["# Benchmarks", "Written by `make benchmark`.", HOW_TO_READ]
    described = [f"- {key}: {format_value(value)}" for key, value in (machine | settings).items()]
    parts.append("\n".join(described))
    if is_busy(machine):
        parts.append(f"**{BUSY_NOTE}**")
    for section in sections:
        parts += [f"## {section.title}", section.note, _markdown_table(section)]
    return "\n\n".join(parts) + "\n"


def ratio_columns(name: str, ratio: Ratio) -> Row:
    """Two columns: the median and the quartiles."""
    return {name: ratio.median, "quartiles": f"{format_value(ratio.low)} to {format_value(ratio.high)}"}


def format_value(value: Any) -> str:
    """A number with about three significant digits; other values as text."""
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _markdown_table(section: Section) -> str:
    columns = list(section.rows[0])
    lines = [
        columns,
        ["---:" if _is_number(section, column) else "---" for column in columns],
        *(list(map(format_value, row.values())) for row in section.rows),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _is_number(section: Section, column: str) -> bool:
    return isinstance(section.rows[0][column], int | float)
