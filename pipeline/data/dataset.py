"""What a dataset is: its files, their hashes, where to get them, and how they become arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError

OWN = "own"  # the name of the user's images in place of a dataset's
LARGEST_SIDE = 4096  # pixels of an image after preprocess
DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
LARGEST_FILE = 2**26  # bytes, of a file without a published size

Bytes = NDArray[np.uint8]
Labels = NDArray[np.integer[Any]]
Fit = Literal["crop", "pad", "stretch"]
Framing = Literal["digit"] | Fit  # how a picture becomes an image: its ink as MNIST's digits, or the whole


@dataclass(frozen=True)
class DataFile:
    """A file, its published SHA-256, the SHA-256 of what it unpacks to, and its published size.

    A file that `Dataset.write_files` makes has no published SHA-256; an archive has no `content_sha256`.
    """

    name: str
    sha256: str | None
    content_sha256: str | None = None
    size: int | None = None

    @property
    def largest(self) -> int:
        """The number of bytes that the file has at most."""
        return self.size or LARGEST_FILE


class Images(Protocol):
    """Images as bytes: an array (n, h, w) or (n, h, w, channels), or what reads them when it is indexed."""

    shape: tuple[int, ...]

    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any) -> Bytes: ...


@dataclass(frozen=True)
class RawData:
    """Images, and labels as class indices (n,). What a dataset does not separate is split off later."""

    train_images: Images
    train_labels: Labels
    test_images: Images | None = None
    test_labels: Labels | None = None
    validation_images: Images | None = None
    validation_labels: Labels | None = None

    def parts(self) -> dict[str, tuple[Images, Labels]]:
        """The images and labels of each part that there is."""
        parts = {
            "train": (self.train_images, self.train_labels),
            "validation": (self.validation_images, self.validation_labels),
            "test": (self.test_images, self.test_labels),
        }
        return {
            name: (images, labels)
            for name, (images, labels) in parts.items()
            if images is not None and labels is not None
        }


@dataclass(frozen=True)
class Dataset:
    """Labelled images. `files` come from `mirrors`, or `write_files` makes them in a folder.

    `framing` is how `predict` and the playground bring a picture to what the images look like; None: as
    `data.fit` says.
    """

    title: str
    class_names: tuple[str, ...]
    read_files: Callable[[Path, Sequence[DataFile]], RawData]
    files: tuple[DataFile, ...]
    image_shape: tuple[int, int, int] = (28, 28, 1)  # as read_files gives them
    mirrors: tuple[str, ...] = ()
    write_files: Callable[[Path], None] | None = None
    framing: Literal["digit"] | None = None

    def read(self, folder: Path) -> RawData:
        """The images in the `folder` that fetch filled; UserError if a file is damaged."""
        raw = self.read_files(folder, self.files)
        for part, (images, labels) in raw.parts().items():
            classes, largest = len(self.class_names), int(labels.max(initial=0))
            if len(images) != len(labels) or largest >= classes:
                raise UserError(
                    f"The {part} files of {folder.name} do not fit together: {len(images):,} images, "
                    f"{len(labels):,} labels, of which the largest is {largest}, and {classes} classes. "
                    f"In pipeline/data/catalogue/{folder.name}.py: files and class_names."
                )
        return raw
