"""The small digits that come with scikit-learn: 8x8 pixels, with values from 0 to 16.

Source: Alpaydin & Kaynak, "Optical recognition of handwritten digits" (UCI, 1998), its test part.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnn.atomic import write_array
from pipeline.data.dataset import DIGITS, DataFile, Dataset, RawData
from pipeline.data.readers.arrays import read_array

TEST_SIZE = 360  # the last of 1,797 images


def write_files(folder: Path) -> None:
    """Write images (1797, 8, 8) and labels (1797,) as bytes."""
    from sklearn.datasets import load_digits  # imported here, since it takes a second

    digits = load_digits()
    for file, array in zip(DATASET.files, (digits.images, digits.target), strict=True):
        write_array(folder / file.name, array.astype(np.uint8))


def read_files(folder: Path, files: Sequence[DataFile]) -> RawData:
    """Enlarge pixels to 3x3 blocks, scale values to 0…255, add a border of 2 pixels: (n, 28, 28)."""
    images, labels = (read_array(folder / file.name, file.content_sha256) for file in files)
    images = (images.astype(np.uint16) * 255 // 16).astype(np.uint8)
    images = np.kron(images, np.ones((1, 3, 3), np.uint8))  # 8x8 -> 24x24
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))  # -> 28x28
    split = len(images) - TEST_SIZE
    return RawData(images[:split], labels[:split], images[split:], labels[split:])


DATASET = Dataset(
    title="digits, from scikit-learn",
    class_names=DIGITS,
    read_files=read_files,
    write_files=write_files,
    framing="digit",
    files=(
        DataFile("images.npy", None, "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"),
        DataFile("labels.npy", None, "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"),
    ),
)
