"""What the tests of documents share."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def names_in_readme(row):
    """The names in a row of README's table of layers, losses and so on; options in brackets left out."""
    (cell,) = re.findall(rf"^\| {row} \| (.*) \|$", README, re.MULTILINE)
    return re.sub(r" \([^)]*\)", "", cell.partition(";")[0]).split(", ")
