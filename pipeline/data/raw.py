"""The dataset's own files, as fetch left them, read into arrays."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnn.checkpoint import parse_array
from pipeline.data.catalogue import DATASETS, DIGITS_FILES, DIGITS_TEST_SIZE
from pipeline.data.readers.idx import read_idx
from pipeline.errors import UserError


@dataclass(frozen=True)
class RawData:
    """Images as bytes (n, 28, 28), labels as class indices (n,)."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


def load_raw(name: str, folder: Path) -> RawData:
    """The dataset `name` from the `folder` that fetch filled; UserError where a file is damaged."""
    dataset = DATASETS[name]
    if dataset.files:
        arrays = [
            _read_idx(folder / file.name, axes, file.content_sha256)
            for file, axes in zip(dataset.files, (3, 1, 3, 1), strict=True)
        ]
        for part, (images, labels) in {"training": arrays[:2], "test": arrays[2:]}.items():
            classes, largest = len(dataset.class_names), int(labels.max(initial=0))
            if len(images) != len(labels) or largest >= classes:
                raise UserError(
                    f"The {part} files of {name} do not fit together: {len(images):,} images, "
                    f"{len(labels):,} labels, of which the largest is {largest}, and {classes} classes. "
                    "In pipeline/data/catalogue.py: the files and class_names of this dataset."
                )
        return RawData(*arrays)
    images, labels = (_read_npy(folder / file, digest) for file, digest in DIGITS_FILES.items())
    images = (images.astype(np.uint16) * 255 // 16).astype(np.uint8)  # 0…16 -> 0…255
    images = np.kron(images, np.ones((1, 3, 3), np.uint8))  # 8x8 -> 24x24
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))  # -> 28x28
    split = len(images) - DIGITS_TEST_SIZE
    return RawData(images[:split], labels[:split], images[split:], labels[split:])


def _read_idx(path: Path, axes: int, content_sha256: str) -> NDArray[np.uint8]:
    with _damage_told(path):
        array, digest = read_idx(path, axes)
        if digest != content_sha256:
            raise ValueError("its content has another SHA-256 than the published one")
    return array


def _read_npy(path: Path, content_sha256: str) -> NDArray[np.uint8]:
    with _damage_told(path):
        array = parse_array(path.read_bytes())
        if array.dtype != np.uint8 or sha256(array.tobytes()).hexdigest() != content_sha256:
            raise ValueError("its content has another SHA-256 than the pinned one")
    return array


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Make a UserError, which says how to get the file again, of what is wrong with it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Get it with: dvc repro --force fetch") from None
    except (OSError, ValueError) as error:
        reason = f"it cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
        raise UserError(f"{path} is damaged: {reason}. Get it again with: dvc repro --force fetch") from None
