"""Files that one stage writes and another reads: each has a type, a path and a stage."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict

from cnn.atomic import write_text
from pipeline.errors import damage_reported


class Record(BaseModel):
    """The content of a file, or of a part of it: exactly these keys, with these types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class File(Record):
    """The record of a whole file at `path`, which `stage` writes."""

    path: ClassVar[Path]
    stage: ClassVar[str]


class JsonFile(File):
    """A JSON file that holds this record."""

    @classmethod
    def load(cls) -> Self:
        """The record in the file; UserError if there is none."""
        with damage_reported(cls.path, cls.stage):
            return cls.model_validate_json(cls.path.read_bytes())

    def save(self) -> None:
        """Write the file, atomically."""
        write_text(self.path, json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False) + "\n")


class CsvRow(File):
    """A line of a CSV file, whose columns are the fields."""

    model_config = ConfigDict(strict=False)  # a CSV file holds numbers as text

    @classmethod
    def load(cls) -> list[Self]:
        """The lines of the file, at least one; UserError if there are none."""
        with damage_reported(cls.path, cls.stage):
            lines = csv.DictReader(cls.path.read_text(encoding="utf-8").splitlines())
            if rows := [cls.model_validate(line) for line in lines]:
                return rows
            raise ValueError("it has no lines")

    @classmethod
    def save(cls, rows: Sequence[Self]) -> None:
        """Write a header and these lines, atomically."""
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(cls.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.model_dump() for row in rows)
        write_text(cls.path, stream.getvalue())
