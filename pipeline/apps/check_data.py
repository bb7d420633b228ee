"""`python -m pipeline check-data`: what is wrong with own images, and what will happen to them."""

import base64
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cnn.atomic import write_text
from pipeline.apps.terminal import make_table, open_console, print_table
from pipeline.config.params import load_params
from pipeline.data.dataset import OWN, Bytes, Labels, RawData
from pipeline.data.own import SIZES_NAMED, Survey, survey
from pipeline.data.pictures import Shape, fit_array, target_shape
from pipeline.data.readers.folder import Pictures
from pipeline.errors import UserError, printable
from pipeline.paths import PROCESSED, REPORTS
from pipeline.report.rendering import fill
from pipeline.stages.preprocess import PARTS, split_parts

if TYPE_CHECKING:
    from pipeline.config.params import Data

PAGE = REPORTS / "check_data.html"
TEMPLATE = Path(__file__).with_name("check_data.html")
FEW = 10  # training images of a class
LARGE_RESULT = 1e9  # bytes
NOTES_SHOWN = 20  # in the terminal; the page has more
# What keeps the page below 5 MB:
LINES = 2000  # of problems, and of notes
CLASSES = 1000
PICTURES, PICTURES_OF_A_CLASS = 360, 12
LARGEST, SMALLEST = 96, 48  # pixels of a side; the smaller limit holds if there are more than PICTURES
LOSSLESS = 32  # pixels of a side
FITTED = {
    "crop": "cropped to its middle and resized",
    "pad": "resized, with borders where its shape differs,",
    "stretch": "stretched",
}


@dataclass(frozen=True)
class Tile:
    """A picture of the contact sheet, as an address that holds it."""

    title: str
    address: str


@dataclass(frozen=True)
class ClassOfImages:
    """A class, how many images each part has of it, and some of its images."""

    name: str
    counts: list[int]
    tiles: list[Tile]

    @property
    def total(self) -> int:
        """The images in all parts."""
        return sum(self.counts)


@dataclass(frozen=True)
class Findings:
    """All that the page shows."""

    path: str
    problems: list[str]
    notes: list[str]
    facts: dict[str, str]
    parts: list[str]
    classes: list[ClassOfImages]

    @property
    def has_pictures(self) -> bool:
        """Whether there are images to show."""
        return any(each.tiles for each in self.classes)


def check_data(path: Path | None) -> None:
    """Print and show on a page what is known of the images in `path`, or in params.yaml's data.path.

    Exit with code 1 if there are problems.
    """
    params = load_params()
    data = params.data
    if path is not None:
        data = data.model_copy(update={"dataset": OWN, "path": os.path.expanduser(path)})
    if data.dataset != OWN:
        raise UserError(
            f"params.yaml chooses the dataset {data.dataset}, whose files fetch checks. check-data is for "
            "your own images: python -m pipeline check-data FOLDER"
        )
    found = examine(survey(data), data, params.seed)
    print_findings(found)
    write_text(PAGE, fill(TEMPLATE, found=found, lines=LINES, shown_classes=CLASSES))
    shown = "Pictures of each class, as the network will receive them" if found.has_pictures else "As a page"
    print(f"\n{shown}: {PAGE}")
    if found.problems:
        sys.exit(1)
    print(f"To train on them: {how_to_train(data.path, params.data)}")


def examine(surveyed: Survey, data: "Data", seed: int) -> Findings:
    """What the survey says, with the counts after the split, and some pictures."""
    problems, raw = list(surveyed.problems), surveyed.usable
    labels: dict[str, Labels] = {}
    tiles: dict[int, list[Tile]] = {}
    if raw is not None:
        labels = {part: labels for part, (_, labels) in raw.parts().items()}
        if not problems:
            try:
                _, chosen = split_parts(raw.parts(), data, seed)
                labels = {part: chosen[part] for part in PARTS}
            except UserError as error:
                problems.append(str(error).replace("\n", " "))
        tiles = contact_sheet(raw, surveyed, data)
    counts = {part: Counter(own.tolist()) for part, own in labels.items()}
    classes = [
        ClassOfImages(name, [own[number] for own in counts.values()], tiles.get(number, []))
        for number, name in enumerate(surveyed.class_names)
    ]
    facts = describe(surveyed, data)
    size, notes = size_of_result(sum(map(len, labels.values())), surveyed, data)
    if size:
        facts[str(PROCESSED)] = size
    if raw is not None and not problems:  # else the split is not known
        notes += notes_on_classes(classes, list(labels))
    notes += surveyed.notes
    return Findings(
        path=printable(surveyed.path),
        problems=[printable(problem) for problem in problems],
        notes=[printable(note) for note in notes],
        facts=facts,
        parts=list(labels) if len(labels) > 1 else ["images"] * len(labels),
        classes=classes,
    )


def describe(surveyed: Survey, data: "Data") -> dict[str, str]:
    """What the images are, and what preprocess will make of them."""
    sizes, raw = surveyed.sizes, surveyed.usable
    facts = {"usable images": f"{sizes.total():,}", "classes": f"{len(surveyed.class_names):,}"}
    if raw is None:
        return facts
    if len(sizes) == 1:
        facts["size"] = f"{_by(*next(iter(sizes)))} pixels, all of them"
    elif len(sizes) <= SIZES_NAMED:
        named = [f"{_by(*size)} pixels ({count:,} images)" for size, count in sizes.most_common()]
        facts["sizes"] = ", ".join(named)
    else:
        by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
        ((frequent, count),) = sizes.most_common(1)
        facts["sizes"] = (
            f"{len(sizes):,}, from {_by(*by_area[0])} to {_by(*by_area[-1])} pixels; the most frequent is "
            f"{_by(*frequent)}, of {count:,} images"
        )
    kinds = [f"{n:,} {'grey' if k == 1 else 'in colour'}" for k, n in sorted(surveyed.channels.items())]
    facts["colours"] = " and ".join(kinds)
    shape = target_shape(raw.train_images, data)
    facts["each image"] = _what_happens(shape, surveyed, data)
    facts["parts"] = "; ".join(_how_split(raw, data))
    return facts


def _what_happens(shape: Shape, surveyed: Survey, data: "Data") -> str:
    height, width, channels = shape
    colour = "grey" if channels == 1 else "in colour"
    if missing := _missing(surveyed, data):
        needs = f"needs {' and '.join(missing)}"
        if len(missing) == 2:
            return needs
        if "data.image_size" in missing:
            return f"is {colour}, and {needs}"
    if set(surveyed.sizes) == {(height, width)}:
        size = f"stays at {_by(height, width)} pixels"
    else:
        same_form = all(h * width == w * height for h, w in surveyed.sizes)
        size = f"is {'resized' if same_form else FITTED[data.fit]} to {_by(height, width)} pixels"
    return f"{size}, and {needs}" if missing else f"{size}, {colour}"


def _missing(surveyed: Survey, data: "Data") -> list[str]:
    """The keys of params.yaml without which the images have no common shape."""
    needed = {
        "data.image_size": data.size is None and len(surveyed.sizes) > 1,
        "data.channels": data.channels is None and len(surveyed.channels) > 1,
    }
    return [key for key, is_missing in needed.items() if is_missing]


def size_of_result(count: int, surveyed: Survey, data: "Data") -> tuple[str, list[str]]:
    """How much preprocess will write for `count` images, if the keys are set, and a note if it is much."""
    if surveyed.usable is None or _missing(surveyed, data):
        return "", []
    pixels = prod(target_shape(surveyed.usable.train_images, data))
    size = count * (pixels + len(surveyed.class_names))  # labels are one-hot
    text = f"{size / 1e9:,.1f} GB" if size > LARGE_RESULT else f"{max(size / 1e6, 0.1):,.1f} MB"
    note = (
        f"{PROCESSED} will take {text}, and as much again in DVC's cache. A smaller data.image_size takes "
        "less."
    )
    fact = f"{text}: {count:,} images of {pixels:,} bytes, and their labels"
    return fact, [note] if size > LARGE_RESULT else []


def notes_on_classes(classes: Sequence[ClassOfImages], parts: Sequence[str]) -> Iterator[str]:
    """A note on each class that has few images, or none in a part."""
    for each in classes:
        counts = dict(zip(parts, each.counts, strict=True))
        training = counts.pop("train")
        lacking = [part for part, count in counts.items() if not count]
        if training < FEW or lacking:
            none = f", none for {' and '.join(lacking)}" if lacking else ""
            yield (
                f"{each.name}: {training:,} training image{'' if training == 1 else 's'}{none}; with so few, "
                "the figures for this class say little."
            )


def _how_split(raw: RawData, data: "Data") -> Iterator[str]:
    given = raw.parts()
    source = "all images" if len(given) == 1 else "the training images"
    for part, size in (("test", data.test_size), ("validation", data.validation_size)):
        if part in given:
            yield f"{part}: as given"
        else:
            yield f"{part}: {f'{size:,}' if isinstance(size, int) else f'{100 * size:g} %'} of {source}"
            source = "the rest"
    yield f"training: {'all' if data.train_size is None else f'{data.train_size:,}'} of {source}"


def contact_sheet(raw: RawData, surveyed: Survey, data: "Data") -> dict[int, list[Tile]]:
    """For each class a few of its images, spread over all of them, as the network will receive them."""
    shape = target_shape(raw.train_images, data)
    classes = min(len(surveyed.class_names), CLASSES)
    each = min(max(PICTURES // classes, 1), PICTURES_OF_A_CLASS)
    largest = LARGEST if classes * each <= PICTURES else SMALLEST
    parts = raw.parts()
    sheet: dict[int, list[Tile]] = {}
    for number in range(classes):
        sheet[number] = []
        places = [(p, row) for p, (_, labels) in parts.items() for row in np.flatnonzero(labels == number)]
        for k in np.linspace(0, len(places) - 1, min(each, len(places))).round().astype(int):
            part, row = places[k]
            images, _ = parts[part]
            if isinstance(images, Pictures):
                title = images.paths[row].relative_to(surveyed.path).as_posix()
            else:  # the rows of an .npz file have other numbers once copies have been left out
                title = part if surveyed.notes else f"{part} image {row}"
            (image,) = fit_array(images[row : row + 1], shape, data.fit)
            sheet[number].append(Tile(printable(title), to_address(image, largest)))
    return sheet


def to_address(image: Bytes, largest: int) -> str:
    """A small picture as a `data:` address."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    stream = io.BytesIO()
    if max(picture.size) <= LOSSLESS:
        kind = "png"
        picture.save(stream, "PNG", optimize=True)
    else:
        kind = "jpeg"
        picture.thumbnail((largest, largest))
        picture.save(stream, "JPEG", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def print_findings(found: Findings) -> None:
    """Print all of it but the pictures."""
    console = open_console()
    console.print(f"{found.path}:", soft_wrap=True)
    for what, text in found.facts.items():
        console.print(f"  {what}: {text}", soft_wrap=True)
    if found.parts:
        several = len(found.parts) > 1
        table = make_table("Images of each class", "class", *found.parts, *(["all"] if several else []))
        for each in found.classes:
            counts = [*each.counts, *([each.total] if several else [])]
            table.add_row(each.name, *(f"{count:,}" for count in counts))
        print_table(console, table)
    _print_list("Notes", found.notes, NOTES_SHOWN)
    _print_list("Problems, to be solved before training", found.problems)


def _print_list(title: str, lines: Sequence[str], shown: int | None = None) -> None:
    """Print lines as they are, the first `shown`."""
    if lines:
        print(f"\n{title} ({len(lines):,}):")
        for line in lines[:shown]:
            print(f"- {line}")
        if shown is not None and len(lines) > shown:
            print(f"- and {len(lines) - shown:,} more, which are on the page")


def how_to_train(path: str, data: "Data") -> str:
    """The command that trains on the images in `path`; `data` is what params.yaml says."""
    if data.dataset == OWN and data.path == path:
        return "dvc repro"
    if re.fullmatch(r"[\w./-]+", path):
        return f"dvc exp run -S data.dataset={OWN} -S data.path={path}"
    return f"in params.yaml, set data.dataset to {OWN} and data.path to {path!r}; then: dvc repro"


def _by(height: int, width: int) -> str:
    return f"{width}x{height}"
