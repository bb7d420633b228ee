"""What a dataset is: its files, their hashes, where to get them, and how they become arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError

DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
LARGEST_FILE = 2**26  # bytes; the largest known is 26 MB


@dataclass(frozen=True)
class DataFile:
    """A file, its published SHA-256, and the SHA-256 of the array bytes that it unpacks to.

    A file that `Dataset.write_files` makes has no published SHA-256.
    """

    name: str
    sha256: str | None
    content_sha256: str


@dataclass(frozen=True)
class RawData:
    """Images as bytes (n, 28, 28), labels as class indices (n,)."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


@dataclass(frozen=True)
class Dataset:
    """Labelled images. `files` come from `mirrors`, or `write_files` makes them in a folder."""

    title: str
    class_names: tuple[str, ...]
    read_files: Callable[[Path, Sequence[DataFile]], RawData]
    files: tuple[DataFile, ...]
    mirrors: tuple[str, ...] = ()
    write_files: Callable[[Path], None] | None = None

    image_shape = (28, 28, 1)  # of an image after preprocess, for every dataset

    def read(self, folder: Path) -> RawData:
        """The arrays in the `folder` that fetch filled; UserError if a file is damaged."""
        raw = self.read_files(folder, self.files)
        parts = {
            "training": (raw.train_images, raw.train_labels),
            "test": (raw.test_images, raw.test_labels),
        }
        for part, (images, labels) in parts.items():
            classes, largest = len(self.class_names), int(labels.max(initial=0))
            if len(images) != len(labels) or largest >= classes:
                raise UserError(
                    f"The {part} files of {folder.name} do not fit together: {len(images):,} images, "
                    f"{len(labels):,} labels, of which the largest is {largest}, and {classes} classes. "
                    f"In pipeline/data/catalogue/{folder.name}.py: files and class_names."
                )
        return raw
