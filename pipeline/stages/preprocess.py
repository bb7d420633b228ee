"""The preprocess stage: bring all images to one shape, and split them into parts."""

from collections.abc import Iterator
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from cnn.atomic import write_array, write_rows
from pipeline.artefacts.files import Files
from pipeline.artefacts.preprocess import Description, Part
from pipeline.data.dataset import OWN, Bytes, Fit, Images, Labels
from pipeline.data.own import choose_dataset
from pipeline.data.pictures import Shape, fit_array, say_change, target_shape
from pipeline.data.progress import progress_bar
from pipeline.data.readers.folder import Pictures
from pipeline.errors import UserError, printable
from pipeline.paths import PROCESSED, RAW

if TYPE_CHECKING:
    from pipeline.config.params import Data

PARTS: tuple[Part, ...] = ("train", "validation", "test")
ROWS, LARGEST_CHUNK = 1024, 2**26  # images in memory at a time, and their bytes (or one image)
TEST_SPLIT = 1  # keeps the random numbers of this split apart from those of the validation split
Selected = tuple[Images, NDArray[np.intp]]  # images, and which of them


def preprocess(data: "Data", seed: int) -> None:
    """Write images (n, h, w, channels) and one-hot targets (n, classes) for train, validation and test.

    They are bytes, a quarter of the size of float32. The mean and deviation by which they are normalised go
    to dataset.json; `Description.normalise` applies them when training reads the images. The names of
    pictures in files go to files.json.
    """
    dataset = choose_dataset(data)
    raw = dataset.read(RAW / data.dataset)
    selected, labels = split_parts(raw.parts(), data, seed)
    shape = target_shape(raw.train_images, data)
    if data.dataset != OWN and (change := say_change(raw.train_images, shape)):
        print(f"note: {dataset.title}'s {change}.")

    for record in (Description, Files):  # they would describe new arrays wrongly if this ended early
        record.path.unlink(missing_ok=True)
    statistics = Statistics(shape)
    for part, (images, rows) in selected.items():
        chunks = read_in_chunks(images, rows, shape, data.fit)
        write_rows(
            PROCESSED / f"{part}_images.npy",
            (len(rows), *shape),
            np.uint8,
            statistics.gather(chunks) if part == "train" else chunks,
        )
        write_array(PROCESSED / f"{part}_targets.npy", one_hot(labels[part], len(dataset.class_names)))
    mean, deviation = statistics.constants(data.standardize)
    if files := names_of_files(selected, Path(data.path)):
        files.save()
    Description(
        dataset=data.dataset,
        title=dataset.title,
        class_names=list(dataset.class_names),
        image_shape=shape,
        framing=dataset.framing or data.fit,
        background=statistics.background(),
        mean=mean,
        deviation=deviation,
        examples={part: len(rows) for part, (_, rows) in selected.items()},
    ).save()
    print(
        ", ".join(f"{part} {len(rows):,}" for part, (_, rows) in selected.items()),
        f"images of {shape[1]}x{shape[0]} pixels, {'grey' if shape[2] == 1 else 'colour'}, in {PROCESSED}.",
    )


def split_parts(
    parts: dict[str, tuple[Images, Labels]], data: "Data", seed: int
) -> tuple[dict[Part, Selected], dict[Part, Labels]]:
    """(images and chosen rows of each part, the labels of these rows).

    From the training images, missing parts are split off: first for testing, then for validation. Of the
    rest, `data.train_size` are chosen.
    """
    images, labels = parts["train"]
    rows = np.arange(len(labels))
    rows_of: dict[Part, NDArray[np.intp]] = {}
    if "test" not in parts:
        (random_state,) = np.random.SeedSequence(seed, spawn_key=(TEST_SPLIT,)).generate_state(1)
        train, rows_of["test"] = split(labels, None, data.test_size, int(random_state), "test", data)
        rows = train
    if "validation" not in parts:
        train, taken = split(labels[rows], data.train_size, data.validation_size, seed, "validation", data)
        rows, rows_of["validation"] = rows[train], rows[taken]
    elif data.train_size is not None and data.train_size != len(rows):
        train, _ = split(labels[rows], data.train_size, len(rows) - data.train_size, seed, None, data)
        rows = rows[train]
    rows_of["train"] = rows
    selected: dict[Part, Selected] = {}
    chosen: dict[Part, Labels] = {}
    for part in PARTS:
        source, all_labels = (images, labels) if part in rows_of else parts[part]
        own_rows = rows_of.get(part, np.arange(len(all_labels)))
        selected[part], chosen[part] = (source, own_rows), all_labels[own_rows]
    return selected, chosen


def split(
    labels: Labels, train_size: int | None, size: float, seed: int, part: str | None, data: "Data"
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(training, `part` or left out): disjoint indices into `labels`, with all classes in proportion.

    A fractional `size` is a fraction of all labels, rounded; `train_size` does not change it. Each class has
    at least one in both.
    """
    count = size if isinstance(size, int) else round(size * len(labels))
    if train_size is None:
        train_size = len(labels) - count
    counts = np.unique(labels, return_counts=True)[1]
    classes = len(counts)
    if min(train_size, count) < classes or train_size + count > len(labels) or counts.min() < 2:
        if part is None:
            raise UserError(
                f"data.train_size must be null, or from {classes} to {len(labels) - classes}, with at least "
                f"2 images in each class, for these {len(labels):,} training images of {classes} classes; "
                f"received {train_size:,}.\nIn params.yaml: data.train_size."
            )
        share = ceil(100 * classes / len(labels)) / 100
        hint = f" data.{part}_size must be at least {share:g}, or {classes}." if count < classes else ""
        raise UserError(
            f"The {len(labels):,} training images of {data.dataset} cannot be split into {train_size:,} for "
            f"training and {count:,} for {part}: each part needs at least one image of each of the "
            f"{classes} classes, and both together at most as many as there are.{hint}\n"
            f"In params.yaml: data.train_size and data.{part}_size."
        )
    train, taken = train_test_split(
        np.arange(len(labels)), train_size=train_size, test_size=count, stratify=labels, random_state=seed
    )
    _add_missing_classes(taken, train, labels)
    _add_missing_classes(train, taken, labels)
    return np.sort(train), np.sort(taken)


def _add_missing_classes(rows: NDArray[np.intp], others: NDArray[np.intp], labels: Labels) -> None:
    """Exchange one of `rows` for one of each rare class, which has no share in proportion.

    It comes from the images that are in neither part, else from `others`; it replaces one of the largest
    class.
    """
    for label in np.setdiff1d(labels, labels[rows]):
        place = np.flatnonzero(labels[rows] == np.bincount(labels[rows]).argmax())[0]
        free = np.setdiff1d(np.flatnonzero(labels == label), others)
        if len(free):
            rows[place] = free[0]
        else:
            other = np.flatnonzero(labels[others] == label)[0]
            rows[place], others[other] = others[other], rows[place]


def names_of_files(selected: dict[Part, Selected], folder: Path) -> Files | None:
    """The path below `folder` of each selected picture; None if the images are not pictures in files."""
    names: dict[Part, list[str]] = {}
    for part, (images, rows) in selected.items():
        if not isinstance(images, Pictures):
            return None
        names[part] = [printable(images.paths[row].relative_to(folder).as_posix()) for row in rows]
    return Files(train=names["train"], validation=names["validation"], test=names["test"])


def read_in_chunks(images: Images, rows: NDArray[np.intp], shape: Shape, fit: Fit) -> Iterator[Bytes]:
    """The images `rows` in this shape, some at a time, with a progress bar."""
    count = max(1, min(ROWS, LARGEST_CHUNK // prod(shape)))
    with progress_bar(f"{len(rows):,} images", len(rows)) as advance:
        for start in range(0, len(rows), count):
            chunk = fit_array(images[rows[start : start + count]], shape, fit)
            yield chunk
            advance(len(chunk))


def one_hot(labels: Labels, classes: int) -> Bytes:
    """Row n has a 1 in column labels[n], and 0 elsewhere."""
    targets = np.zeros((len(labels), classes), np.uint8)
    targets[np.arange(len(labels)), labels] = 1
    return targets


class Statistics:
    """How often each byte occurs in each channel: of all pixels, and of those on the images' borders.

    Counts are whole numbers, so that the order of the images does not matter.
    """

    def __init__(self, shape: Shape) -> None:
        height, width, channels = shape
        self.counts = np.zeros((2, channels, 256), np.int64)
        self._border = np.ones((height, width), bool)
        self._border[1:-1, 1:-1] = False

    def gather(self, chunks: Iterator[Bytes]) -> Iterator[Bytes]:
        """Yield `chunks` unchanged, and count their bytes."""
        for chunk in chunks:
            for kind, pixels in enumerate((chunk, chunk[:, self._border])):
                for channel, counts in enumerate(self.counts[kind]):
                    counts += np.bincount(pixels[..., channel].ravel(), minlength=256)
            yield chunk

    def background(self) -> list[float]:
        """For each channel, the median of the border pixels, as a fraction."""
        totals = self.counts[1].cumsum(axis=1)
        return [float(np.searchsorted(total, total[-1] / 2)) / 255 for total in totals]

    def constants(self, standardize: str) -> tuple[list[float], list[float]]:
        """For each channel, the mean and deviation of fractions; UserError if a deviation is 0."""
        counts = self.counts[0]
        if standardize == "none":
            return [0.0] * len(counts), [1.0] * len(counts)
        if standardize == "global":
            counts = np.tile(counts.sum(axis=0), (len(counts), 1))
        values, totals = np.arange(256) / 255, counts.sum(axis=1)
        mean = counts @ values / totals
        deviation = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(axis=1) / totals)
        if not deviation.all():
            what = (
                "pixels are equal"
                if standardize == "global"
                else f"pixels of channel {deviation.argmin()} are equal"
            )
            raise UserError(
                f"The training images cannot be standardised: all their {what}, so the standard deviation "
                "is 0.\nIn params.yaml: set data.standardize to none."
            )
        return mean.tolist(), deviation.tolist()
