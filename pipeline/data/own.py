"""The user's own images: what they are, what is wrong with them, and how they become a dataset."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.catalogue import DATASETS
from pipeline.data.dataset import OWN, Dataset, RawData
from pipeline.data.pictures import shape_of
from pipeline.data.readers.folder import (
    Facts,
    Listing,
    Picture,
    Pictures,
    count_sizes,
    find_misplaced,
    list_pictures,
    read_facts,
)
from pipeline.data.readers.npz import read_npz
from pipeline.errors import UserError
from pipeline.paths import FIGURES, MODELS, PROCESSED, RAW

if TYPE_CHECKING:
    from pipeline.config.params import Data

SHOWN = 50  # problems in an error message
SIZES_NAMED = 3  # of pictures; of more, the smallest and the largest
PLACEHOLDER = "data/README.md"  # what data.path names if it names no images


@dataclass(frozen=True)
class Survey:
    """What was found: the `problems`, and the images that have none. Sizes are (height, width)."""

    path: Path
    class_names: list[str]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    usable: RawData | None = None

    def dataset(self, data: "Data") -> Dataset:
        """The images as a dataset; UserError with all problems if there are some."""
        raw = self.usable
        if self.problems or raw is None:
            more = len(self.problems) - SHOWN
            lines = [f"- {problem}" for problem in self.problems[:SHOWN]]
            if more > 0:
                lines.append(f"- and {more:,} more: python -m pipeline check-data lists them all.")
            raise UserError("\n".join([f"{self.path} cannot be used:", *lines]))
        for note in self.notes:
            print(f"note: {note}")
        return Dataset(
            title=f"own images: {self.path.name.removesuffix('.npz')}",
            class_names=tuple(self.class_names),
            read_files=lambda folder, files: raw,
            files=(),
        )


def choose_dataset(data: "Data") -> Dataset:
    """The dataset that params.yaml chooses; UserError with all problems of own images."""
    return survey(data).dataset(data) if data.dataset == OWN else DATASETS[data.dataset]


def survey(data: "Data") -> Survey:
    """Read the images in `data.path`, and find all that is wrong with them; UserError if there are none."""
    path = find_images(data)
    return _survey_folder(path, data) if path.is_dir() else _survey_npz(path, data)


def find_images(data: "Data") -> Path:
    """`data.path`, which is a folder or an .npz file; UserError if it is not."""
    path = Path(data.path)
    if data.path == PLACEHOLDER:
        raise UserError(
            "data.dataset is own, but data.path does not name your images. Set it to a folder with a folder "
            "of pictures for each class, or to an .npz file, for example with: "
            "dvc exp run -S data.dataset=own -S data.path=data/own"
        )
    for folder in (RAW, PROCESSED, MODELS, FIGURES):
        if path.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"{path} lies in {folder}, which DVC empties before a stage fills it: images of yours in it "
                "would be lost. Move them, for example to data/own, and set data.path in params.yaml to it."
            )
    if path.is_dir() or (path.is_file() and path.suffix == ".npz"):
        return path
    what = "is neither a folder nor an .npz file" if path.exists() else "does not exist"
    raise UserError(
        f"{path} {what}. Own images (data.path in params.yaml) are a folder with a folder of pictures for "
        "each class, or an .npz file."
    )


def _survey_folder(path: Path, data: "Data") -> Survey:
    if misplaced := find_misplaced(path):
        return Survey(path, [], [misplaced])
    listing = list_pictures(path)
    facts = read_facts(listing.pictures)
    problems = list(listing.problems)
    good: list[tuple[Picture, Facts]] = []
    for picture, fact in zip(listing.pictures, facts, strict=True):
        if isinstance(fact, str):
            problems.append(f"{listing.name(picture.path)}: {fact}.")
        else:
            good.append((picture, fact))
    notes = [f"{name} is not a picture, and is passed over." for name in listing.passed_over]
    if not data.allow_duplicates:
        numbers, copies, wrong = find_copies(
            [fact.sha256 for _, fact in good],
            [(picture.part, picture.class_name) for picture, _ in good],
            [listing.name(picture.path) for picture, _ in good],
            listing.parts,
        )
        good, problems, notes = [good[number] for number in numbers], problems + wrong, notes + copies
    problems += _few(
        Counter((p.part, p.class_name) for p, _ in good),
        listing.class_names,
        listing.parts,
        {picture.class_name for picture in listing.pictures if picture.part == "train"},
    )
    problems += _mixed([fact for _, fact in good], data)
    sizes = count_sizes(fact for _, fact in good)
    channels = Counter(1 if fact.is_grey else 3 for _, fact in good)
    usable = _pictures(good, listing, data) if good else None
    return Survey(path, listing.class_names, problems, notes, sizes, channels, usable)


def _pictures(good: Sequence[tuple[Picture, Facts]], listing: Listing, data: "Data") -> RawData:
    """The pictures of each part."""
    first = good[0][1]
    height, width = data.size or first.size
    shape = height, width, data.channels or (1 if first.is_grey else 3)
    number = {name: k for k, name in enumerate(listing.class_names)}
    parts: dict[str, Any] = {}
    for part in listing.parts:
        own = [picture for picture, _ in good if picture.part == part]
        parts[f"{part}_images"] = Pictures([picture.path for picture in own], shape, data.fit)
        parts[f"{part}_labels"] = np.array([number[picture.class_name] for picture in own], np.intp)
    return RawData(**parts)


def _survey_npz(path: Path, data: "Data") -> Survey:
    raw, names, problems = read_npz(path)
    if raw is None:
        return Survey(path, names, problems)
    notes: list[str] = []
    parts = raw.parts()
    if not data.allow_duplicates:
        keys = [
            sha256(images[k].tobytes()).digest() for images, _ in parts.values() for k in range(len(images))
        ]
        places = [(part, names[label]) for part, (_, labels) in parts.items() for label in labels]
        texts = [f"{part} image {k}" for part, (images, _) in parts.items() for k in range(len(images))]
        numbers, notes, problems = find_copies(keys, places, texts, list(parts))
        kept = np.zeros(len(keys), bool)
        kept[numbers] = True
        arrays: dict[str, Any] = {}
        start = 0
        for part, (images, labels) in parts.items():
            own, start = kept[start : start + len(labels)], start + len(labels)
            arrays |= {f"{part}_images": images[own], f"{part}_labels": labels[own]}
        raw = RawData(**arrays)
        parts = raw.parts()
    counts = Counter((part, names[label]) for part, (_, labels) in parts.items() for label in labels)
    problems += _few(counts, names, list(parts), set(names))
    height, width, channels = shape_of(raw.train_images)
    count = sum(len(labels) for _, labels in parts.values())
    sizes = Counter({(height, width): count})
    return Survey(path, names, problems, notes, sizes, Counter({channels: count}), raw)


def find_copies(
    keys: Sequence[Hashable],
    places: Sequence[tuple[str, str]],
    texts: Sequence[str],
    parts: Sequence[str],
) -> tuple[list[int], list[str], list[str]]:
    """(the images to use, notes on copies within a class, problems), for images with these `keys`.

    Images with equal keys are copies. `places` are their parts and classes, `texts` what they are called,
    `parts` those that there are. If other parts are split off the training images, only the first of copies
    in one class is used, since a split could put them on both sides.
    """
    is_split = len(parts) < 3
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        groups[key].append(number)
    used, notes, problems = [], [], []
    for numbers in groups.values():
        used.append(numbers[0])
        first = numbers[0]
        for number in numbers[1:]:
            pair = f"{texts[number]}: the same image as {texts[first]}"
            (part, class_name), (first_part, first_class) = places[number], places[first]
            if class_name != first_class:
                problems.append(
                    f"{pair}, under another label ({class_name}, {first_class}). Remove one of them."
                )
            elif part != first_part:
                problems.append(
                    f"{pair}: a leak between {first_part} and {part}. Remove one of them, or set "
                    "data.allow_duplicates to true."
                )
            elif part == "train" and is_split:
                notes.append(f"{pair}; it is used once.")
            else:
                used.append(number)
    return sorted(used), notes, problems


def _few(
    counts: Counter[tuple[str, str]], names: Sequence[str], parts: Sequence[str], trained: set[str]
) -> list[str]:
    """What is wrong with the numbers of classes and of their images.

    Another problem names the classes that are not in `trained`, of which no training image was found.
    """
    if len(names) < 2:
        found = f"one class, {names[0]}" if names else "no class"
        return [f"{found}: a network needs at least two classes to tell apart. Each is a folder of pictures."]
    missing = [part for part in ("validation", "test") if part not in parts]
    needed = 1 + len(missing)
    purposes = " and ".join([", ".join(["training", *missing[:-1]]), *missing[-1:]])
    return [
        f"{name}: {number} usable training images; at least {needed} are needed, one for {purposes} each."
        for name in names
        if name in trained and (number := counts["train", name]) < needed
    ]


def _mixed(facts: Sequence[Facts], data: "Data") -> list[str]:
    """What keeps pictures from having one shape by themselves."""
    problems = []
    grey = sum(fact.is_grey for fact in facts)
    if data.channels is None and 0 < grey < len(facts):
        problems.append(
            f"{grey:,} pictures are grey and {len(facts) - grey:,} are in colour. Set data.channels to 1 or "
            "3: they are converted."
        )
    sizes = sorted({fact.size for fact in facts}, key=lambda size: (size[0] * size[1], size))
    if data.size is None and len(sizes) > 1:
        named = [f"{width}x{height}" for height, width in sizes]
        which = f"from {named[0]} to {named[-1]}" if len(sizes) > SIZES_NAMED else " and ".join(named)
        problems.append(
            f"the pictures have {len(sizes)} sizes, {which} pixels. Set "
            "data.image_size, for example to 32: they are fitted to it."
        )
    return problems
