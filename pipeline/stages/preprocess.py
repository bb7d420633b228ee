"""The preprocess stage: convert the dataset's own files to arrays that training can map into memory."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from cnn.atomic import write_array
from pipeline.artefacts.preprocess import Description, Part
from pipeline.data.catalogue import DATASETS
from pipeline.errors import UserError
from pipeline.paths import PROCESSED, RAW

if TYPE_CHECKING:
    from pipeline.config.params import Data


def preprocess(data: "Data", seed: int) -> None:
    """Write images (n, 28, 28, 1) and one-hot targets (n, classes), float32, for train, validation and test.

    Pixels are scaled to [0, 1]; with `data.standardize`, the mean of the training images is then
    subtracted and the result divided by their standard deviation, both one number for all pixels.
    """
    dataset = DATASETS[data.dataset]
    raw = dataset.read(RAW / data.dataset)
    train, validation = split(raw.train_labels, data, seed)

    mean, deviation = 0.0, 1.0
    if data.standardize:
        pixels = scale(raw.train_images[train])
        mean, deviation = float(pixels.mean(dtype=np.float64)), float(pixels.std(dtype=np.float64))
        if deviation == 0:
            raise UserError(
                "The training images cannot be standardised: all their pixels are equal, so the standard "
                "deviation is 0.\nIn params.yaml: set data.standardize to false."
            )

    parts: dict[Part, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {
        "train": (raw.train_images[train], raw.train_labels[train]),
        "validation": (raw.train_images[validation], raw.train_labels[validation]),
        "test": (raw.test_images, raw.test_labels),
    }
    for part, (images, labels) in parts.items():
        write_array(PROCESSED / f"{part}_images.npy", (scale(images) - mean) / deviation)
        write_array(PROCESSED / f"{part}_targets.npy", one_hot(labels, len(dataset.class_names)))
    Description(
        dataset=data.dataset,
        class_names=list(dataset.class_names),
        image_shape=dataset.image_shape,
        mean=mean,
        deviation=deviation,
        examples={part: len(labels) for part, (_, labels) in parts.items()},
    ).save()
    print(
        ", ".join(f"{part} {len(labels):,}" for part, (_, labels) in parts.items()), f"images in {PROCESSED}."
    )


def split(labels: NDArray[np.uint8], data: "Data", seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(train, validation): disjoint indices into `labels`, with all classes in proportion.

    A fractional `validation_size` is a fraction of all labels, rounded; `train_size` does not change it.
    """
    validation_size = data.validation_size
    count = validation_size if isinstance(validation_size, int) else round(validation_size * len(labels))
    train_size = len(labels) - count if data.train_size is None else data.train_size
    classes = len(np.unique(labels))
    if min(train_size, count) < classes or train_size + count > len(labels):
        raise UserError(
            f"The {len(labels):,} training images of {data.dataset} cannot be split into {train_size:,} for "
            f"training and {count:,} for validation: each part needs at least one image of each of the "
            f"{classes} classes, and both together at most as many as there are.\n"
            "In params.yaml: data.train_size and data.validation_size."
        )
    train, validation = train_test_split(
        np.arange(len(labels)), train_size=train_size, test_size=count, stratify=labels, random_state=seed
    )
    return np.sort(train), np.sort(validation)


def scale(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bytes (n, h, w) to float32 in [0, 1] with a channel axis, (n, h, w, 1)."""
    return images[..., np.newaxis].astype(np.float32) / np.float32(255)


def one_hot(labels: NDArray[np.uint8], classes: int) -> NDArray[np.float32]:
    """Row n has a 1 in column labels[n], and 0 elsewhere."""
    return np.eye(classes, dtype=np.float32)[labels]
