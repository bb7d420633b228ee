"""A NumPy .npz file with images and labels, under the project's names or Keras's."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import RawData

NAMES = {  # Keras's names, and the project's
    "x_train": "train_images",
    "y_train": "train_labels",
    "x_validation": "validation_images",
    "y_validation": "validation_labels",
    "x_val": "validation_images",
    "y_val": "validation_labels",
    "x_test": "test_images",
    "y_test": "test_labels",
}
LARGEST_CLASS = 65_535


def read_npz(path: Path) -> tuple[RawData | None, list[str], list[str]]:
    """(images and labels, names of the classes, problems); there are no images if there are problems."""
    try:
        with path.open("rb") as content:
            if content.read(6) == b"\x93NUMPY":
                raise ValueError("it is an .npy file, of one array")
        with np.load(path, allow_pickle=False) as file:
            counts = Counter(NAMES.get(name, name) for name in file.files)
            if twice := [name for name, number in counts.items() if number > 1]:
                raise ValueError(f"{twice[0]} is in it twice, under its own name or Keras's")
            arrays = {NAMES.get(name, name): _read(file, name) for name in file.files}
    except Exception as error:  # of many types, for a file that is damaged or no archive
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return None, [], [f"it cannot be read as an .npz file ({reason}). Save it with np.savez."]
    problems = [text for text in arrays.values() if isinstance(text, str)]
    known = {*NAMES.values(), "class_names"}
    problems += [
        f"{name}: not a known name. Known: {', '.join(sorted(known))}; or Keras's x_train, y_train and so on."
        for name in arrays
        if name not in known
    ]
    parts = {}
    for part in ("train", "validation", "test"):
        images, labels = arrays.get(f"{part}_images"), arrays.get(f"{part}_labels")
        if images is None and labels is None:
            if part == "train":
                problems.append("train_images and train_labels are missing.")
        elif images is None or labels is None:
            problems.append(f"{part}_{'images' if images is None else 'labels'} is missing.")
        elif not isinstance(images, str) and not isinstance(labels, str):
            own = _check(part, images, labels := _flat(labels))
            problems += own
            if not own:
                parts[f"{part}_images"], parts[f"{part}_labels"] = images, labels.astype(np.intp)
    shapes = {array.shape[1:] for name, array in parts.items() if name.endswith("images")}
    if len(shapes) > 1:
        problems.append(f"the images of the parts differ in shape: {' and '.join(map(str, sorted(shapes)))}.")
    names, own = _class_names(arrays.get("class_names"), parts)
    problems += own
    return None if problems else RawData(**parts), names, problems


def _read(file: Any, name: str) -> NDArray[Any] | str:
    try:
        return np.asarray(file[name])
    except ValueError as error:
        text = "it holds Python objects" if "allow_pickle" in str(error) else str(error)
        return f"{name}: {text}. Save numbers or texts alone."


def _flat(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels (n, 1) as (n,); Keras keeps them like this."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _check(part: str, images: NDArray[Any], labels: NDArray[Any]) -> list[str]:
    """What is wrong with the images and labels of a part."""
    problems = []
    if images.dtype != np.uint8:
        problems.append(
            f"{part}_images: numbers of type {images.dtype}; bytes (uint8) from 0 to 255 are needed. Numbers "
            "in [0, 1] become bytes with np.rint(255 * images).astype(np.uint8)."
        )
    if (
        images.ndim not in (3, 4)
        or 0 in images.shape[1:]
        or (images.ndim == 4 and images.shape[3] not in (1, 3))
    ):
        hint = ""
        if images.ndim == 4 and images.shape[1] in (1, 3):
            hint = " Put the channels last: images.transpose(0, 2, 3, 1)."
        problems.append(
            f"{part}_images: shape {images.shape}; (images, height, width) or (images, height, width, "
            f"channels) with 1 or 3 channels is needed.{hint}"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        hint = ""
        if labels.dtype.kind in "US":
            hint = (
                " For the labels of all parts together, names, labels = np.unique(labels, "
                "return_inverse=True) makes numbers of texts; save the names as class_names."
            )
        elif labels.ndim == 2:
            hint = " One-hot targets become labels with targets.argmax(axis=1)."
        problems.append(
            f"{part}_labels: {_kind(labels)} of shape {labels.shape}; one whole number for each image is "
            f"needed.{hint}"
        )
    elif len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) <= LARGEST_CLASS:
        problems.append(
            f"{part}_labels: numbers from {labels.min()} to {labels.max()}; classes count from 0 to at most "
            f"{LARGEST_CLASS}."
        )
    if not images.ndim or not labels.ndim:
        return problems
    if len(images) != len(labels):
        problems.append(f"{part}: {len(images):,} images and {len(labels):,} labels; each image needs one.")
    if len(images) == 0:
        problems.append(f"{part}_images: no images.")
    return problems


def _kind(array: NDArray[Any]) -> str:
    return {"U": "texts", "S": "texts as bytes"}.get(array.dtype.kind, str(array.dtype))


def _class_names(given: NDArray[Any] | str | None, parts: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(the names of the classes, problems): those in the file, else the labels themselves."""
    if "train_labels" not in parts:
        return [], []
    count = int(parts["train_labels"].max()) + 1
    problems = []
    names = [str(number) for number in range(count)]
    if isinstance(given, np.ndarray):
        if given.ndim != 1 or given.dtype.kind != "U":
            return names, [f"class_names: {_kind(given)} of shape {given.shape}; a list of texts is needed."]
        names = [str(name) for name in given]
        if len(set(names)) != len(names) or not all(n.isprintable() and n.strip() == n != "" for n in names):
            problems.append("class_names: each must be different, and consist of visible characters.")
    trained = np.bincount(parts["train_labels"], minlength=len(names))
    if missing := [number for number, images in enumerate(trained[: len(names)]) if not images]:
        hint = " Do they count from 1? Then subtract 1." if missing == [0] else ""
        problems.append(
            f"train_labels: no image of class {', '.join(map(str, missing[:10]))}"
            f"{' and so on' if len(missing) > 10 else ''}; each of the {len(names)} classes needs some.{hint}"
        )
    for name, labels in parts.items():
        if name.endswith("labels") and int(labels.max()) >= len(names):
            problems.append(
                f"{name}: labels up to {labels.max()}, but there are {len(names)} classes, counted from 0."
            )
    return names, problems
