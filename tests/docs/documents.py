"""What the tests of documents share."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def names_in_readme(row):
    """The names in a row of README's table of layers, losses and so on; options in brackets left out."""
    (cell,) = re.findall(rf"^\| {row} \| (.*) \|$", README, re.MULTILINE)
    return re.sub(r" \([^)]*\)", "", cell.partition(";")[0]).split(", ")


def commands(block):
    """(command, what the page shows below it) for each command of a block, or of all blocks of a page."""
    blocks = re.findall(r"^```\n(.*?)^```$", block, re.MULTILINE | re.DOTALL) or [block]
    for block in blocks:
        found = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
        yield from zip(found[::2], found[1::2], strict=True)


def matches(shown, printed):
    """Whether the page shows what was printed; … stands for anything."""
    pattern = re.escape(shown.strip()).replace(re.escape("…"), ".*")
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None
