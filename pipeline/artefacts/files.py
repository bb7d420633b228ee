"""The names of the files that the images come from, if each comes from a file of its own."""

from pipeline.artefacts.preprocess import Description, Part
from pipeline.artefacts.record import JsonFile
from pipeline.errors import damage_reported
from pipeline.paths import PROCESSED


class Files(JsonFile):
    """files.json: for each image of a part, in their order, the path of its file below data.path."""

    path = PROCESSED / "files.json"
    stage = "preprocess"

    train: list[str]
    validation: list[str]
    test: list[str]


def load_files(part: Part, description: Description) -> list[str]:
    """The name of each image's file; empty names if the images do not come from files of their own."""
    count = description.examples[part]
    if not Files.path.exists():
        return [""] * count
    names: list[str] = getattr(Files.load(), part)
    with damage_reported(Files.path, Files.stage):
        if len(names) != count:
            raise ValueError(
                f"{Description.path} says {count:,} images for {part}, but it names {len(names):,}"
            )
    return names
