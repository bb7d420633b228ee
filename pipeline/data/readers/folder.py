"""A folder with a folder of pictures for each class, also below train/, validation/ and test/."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from pipeline.cores import count_cores
from pipeline.data.dataset import Bytes, Fit
from pipeline.data.pictures import Shape, read_fitted, read_picture
from pipeline.data.progress import progress_bar
from pipeline.errors import UserError, printable

PARTS = {  # by folder, in small letters or capitals
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
NO_PICTURES = {".bufr", ".grib", ".h5", ".hdf", ".mpeg", ".mpg", ".pdf"}  # which Pillow writes or hands on
PICTURES_OF_OTHERS = {".heic", ".heif", ".jxl", ".svg"}  # which Pillow does not read
NAMED = 10  # classes in a message
T = TypeVar("T")


class Picture(NamedTuple):
    """A file that may be a picture, and what its place says of it."""

    path: Path
    part: str
    class_name: str


class Facts(NamedTuple):
    """What is known of a picture once it has been read."""

    sha256: str  # of the file
    size: tuple[int, int]  # height, width, upright
    is_grey: bool


class Listing(NamedTuple):
    """The files of a `folder`: pictures to be read, names that are passed over, and problems."""

    folder: Path
    pictures: list[Picture]
    parts: list[str]
    class_names: list[str]
    passed_over: list[str]
    problems: list[str]

    def name(self, path: Path) -> str:
        """The path of a file below the folder."""
        return printable(path.relative_to(self.folder).as_posix())


def find_misplaced(folder: Path) -> str | None:
    """What is wrong if `folder` holds neither classes nor parts, but is above or below the one that does."""
    folders, pictures = _visible(folder)
    if pictures and not folders:
        return (
            f"no folder of a class, but {len(pictures):,} picture{'s' if len(pictures) > 1 else ''} outside "
            "of one. Name the folder above it if this is one class."
        )
    inner = folder
    while len(folders) == 1 and not pictures and folders[0].name.lower() not in PARTS:
        deeper, pictures = _visible(folders[0])
        if folders[0].is_symlink() or not deeper or pictures:
            break
        inner, folders = folders[0], deeper
    if inner == folder:
        return None
    return printable(f'{inner.relative_to(folder)} is the only folder: name it in data.path: "{inner}".')


def _visible(folder: Path) -> tuple[list[Path], list[Path]]:
    """(folders, files that may be pictures) in `folder`."""
    entries = [entry for entry in _entries(folder) if not _is_hidden(entry)]
    folders = [entry for entry in entries if entry.is_dir()]
    return folders, [entry for entry in entries if not entry.is_dir() and may_be_picture(entry)]


def _and_more(names: Sequence[str]) -> str:
    return f"{names[0]} and {len(names) - 1:,} more" if len(names) > 1 else names[0]


def list_pictures(folder: Path) -> Listing:
    """Find the classes, and the files that may be pictures, without reading those."""
    found = Listing(folder, [], [], [], [], [])
    folders = _visible_folders(folder, found)
    parts = {name: PARTS.get(name.lower(), "") for name in folders}
    if "train" in parts.values() and all(parts.values()):
        for part in sorted(set(parts.values())):
            same = [name for name in parts if parts[name] == part]
            if len(same) > 1:
                found.problems.append(f"{', '.join(same)}: {len(same)} folders of one part. Merge them.")
            found.parts.append(part)
        classes: dict[str, set[str]] = {part: set() for part in found.parts}
        for name, part_folder in folders.items():
            own = _list_classes(parts[name], _visible_folders(part_folder, found), found)
            classes[parts[name]].update(own)
        trained = classes.pop("train")
        for part, tested in classes.items():
            lacking = (
                [f"train has {_names(trained - tested)}, which {part} lacks"] if trained - tested else []
            )
            if tested - trained:
                lacking.append(f"{part} has {_names(tested - trained)}, which train lacks")
                found.problems.append(f"{'; '.join(lacking)}. Each class needs the same name in both.")
    else:
        found.parts.append("train")
        _list_classes("train", folders, found)
        if len(folders) == 1 and any(entry.is_dir() for entry in _entries(*folders.values())):
            (inner,) = folders
            found.problems.insert(
                0, f"{inner}: the only folder here. If it holds the classes, name it in data.path."
            )
    found.class_names[:] = sorted(set(found.class_names))
    found.parts.sort(key=list(PARTS.values()).index)
    found.pictures.sort(key=lambda picture: found.parts.index(picture.part))  # else by class and name
    return found


def _names(classes: Iterable[str]) -> str:
    *names, last = sorted(classes)
    if len(names) >= NAMED:
        names, last = names[:NAMED], f"{len(names) + 1 - NAMED:,} more"
    return f"{', '.join(names)} and {last}" if names else last


def _visible_folders(folder: Path, found: Listing) -> dict[str, Path]:
    """The folders in `folder` by name; files beside them are passed over, unless they are pictures."""
    folders, pictures = {}, []
    for entry in _entries(folder):
        if _is_hidden(entry):
            found.passed_over.append(found.name(entry))
        elif entry.is_dir():
            folders[entry.name] = entry
            if entry.is_symlink():
                found.problems.append(
                    f"{found.name(entry)}: a link to a folder, in which DVC sees no changes. Put the folder "
                    "itself here."
                )
        elif may_be_picture(entry):
            pictures.append(found.name(entry))
        else:
            found.passed_over.append(found.name(entry))
    if pictures:
        what = "pictures" if len(pictures) > 1 else "a picture"
        found.problems.append(
            f"{_and_more(pictures)}: {what} outside of the classes' folders. Move or remove "
            f"{'them' if len(pictures) > 1 else 'it'}."
        )
    return folders


def _list_classes(part: str, folders: dict[str, Path], found: Listing) -> list[str]:
    """Add the classes in `folders`, and their pictures; the names of these classes."""
    classes = []
    for name, class_folder in folders.items():
        class_name = unicodedata.normalize("NFC", name)  # some systems store é as e and an accent
        if not class_name.isprintable() or class_name != class_name.strip():
            found.problems.append(
                f"{found.name(class_folder)!r}: a class's name must consist of visible characters. Rename "
                "the folder."
            )
            continue
        classes.append(class_name)
        count, inner = 0, []
        for entry in _entries(class_folder):
            if _is_hidden(entry):
                found.passed_over.append(found.name(entry))
            elif entry.is_dir():
                inner.append(found.name(entry))
            elif may_be_picture(entry):
                found.pictures.append(Picture(entry, part, class_name))
                count += 1
            else:
                found.passed_over.append(found.name(entry))
        if inner:
            what = "folders" if len(inner) > 1 else "a folder"
            found.problems.append(
                f"{_and_more(inner)}: {what} inside a class's folder. Move the pictures up, or remove "
                f"{'them' if len(inner) > 1 else 'it'}."
            )
        if count == 0:
            found.problems.append(f"{found.name(class_folder)}: no pictures.")
    found.class_names.extend(classes)
    return classes


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda entry: (unicodedata.normalize("NFC", entry.name), entry.name))


def _is_hidden(entry: Path) -> bool:
    """Whether it is no data, or a backup, of which .dvcignore keeps DVC from seeing the changes."""
    name = entry.name
    return name.startswith((".", "__MACOSX")) or name.endswith("~") or name[0] == "#" == name[-1]


def may_be_picture(path: Path) -> bool:
    """Whether the name or the content is that of a picture; it may still be damaged."""
    if path.suffix.lower() in (Image.registered_extensions().keys() | PICTURES_OF_OTHERS) - NO_PICTURES:
        return True
    if not path.is_file():  # a pipe would never end
        return False
    try:
        with Image.open(path):
            return True
    except Exception:  # of any type: this only asks
        return False


def read_facts(pictures: Sequence[Picture]) -> list[Facts | str]:
    """For each picture what is known of it, or why it cannot be read."""

    def read(picture: Picture) -> Facts | str:
        try:
            image = read_picture(picture.path)
            with picture.path.open("rb") as file:
                digest = sha256(file.read()).hexdigest()
        except UserError as error:
            return str(error)
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        return Facts(digest, (image.height, image.width), image.mode == "L")

    with progress_bar("checking pictures", len(pictures)) as advance:
        facts = []
        for fact in in_threads(read, pictures):
            facts.append(fact)
            advance(1)
    return facts


def in_threads(function: Callable[[Any], T], items: Iterable[Any]) -> Iterator[T]:
    """`map` in threads: Pillow lets others run while it decodes and resizes."""
    with ThreadPoolExecutor(count_cores()) as pool:
        yield from pool.map(function, items)


class Pictures:
    """Pictures in files, read and fitted when they are indexed: bytes (n, height, width, channels)."""

    def __init__(self, paths: Sequence[Path], shape: Shape, fit: Fit) -> None:
        self.paths, self.fit = paths, fit
        self.shape = (len(paths), *shape)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Any) -> Bytes:
        numbers = np.arange(len(self.paths))[rows]
        images = list(in_threads(self._read, numbers))
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)

    def _read(self, number: int) -> Bytes:
        path = self.paths[number]
        try:
            return read_fitted(path, self.shape[1:], self.fit)
        except UserError as error:  # it has changed since it was checked
            raise UserError(f"{path}: {error}.") from None


def count_sizes(facts: Iterable[Facts]) -> Counter[tuple[int, int]]:
    """How many pictures there are of each size."""
    return Counter(fact.size for fact in facts)
