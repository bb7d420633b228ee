"""What commands print: as wide as the terminal if that is possible, and never cut off."""

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

UNKNOWN_WIDTH = 80  # if the terminal says 0
LEAST_WIDTH = 20  # in a narrower terminal, lines wrap
LEAST_FIRST_COLUMN = 8


def open_console() -> Console:
    """A console that prints text as it is, whatever brackets and colons it has."""
    console = Console(markup=False, highlight=False, emoji=False)
    console.width = max(console.width or UNKNOWN_WIDTH, LEAST_WIDTH)
    return console


def make_table(title: str, *columns: str) -> Table:
    """An empty table; its first column holds text, the others numbers."""
    table = Table(
        title=title,
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold", no_wrap=number > 0)
    return table


def print_table(console: Console, table: Table) -> None:
    """Print a table of `make_table`; if the terminal is too narrow for its numbers, a list of its rows."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    words = " ".join(columns[0]).split()
    needed = max([LEAST_FIRST_COLUMN, *map(cell_len, words)]) + sum(
        1 + max(map(cell_len, cells)) for cells in columns[1:]
    )
    console.print(f"\n{table.title}")
    table.title = None  # it would be wrapped at the table's width
    if needed <= console.width:
        console.print(table)
        return
    for first, *others in list(zip(*columns, strict=True))[1:]:
        console.print(first, overflow="fold")
        for (header, *_), cell in zip(columns[1:], others, strict=True):
            if cell:
                console.print(f"  {header}: {cell}", overflow="fold")
