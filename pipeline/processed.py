"""What preprocess wrote, for the stages that read it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn import Examples
from pipeline.errors import UserError
from pipeline.paths import DATASET, PROCESSED


def load_description() -> dict[str, Any]:
    """dataset.json: the dataset's name, class names, image shape, and how its pixels were scaled."""
    try:
        description = json.loads(DATASET.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(DATASET) from None
    except ValueError:
        raise _damaged(DATASET) from None
    if not isinstance(description, dict):
        raise _damaged(DATASET)
    return description


def load_examples(part: str, description: dict[str, Any]) -> Examples:
    """The images and targets of "train", "validation" or "test", memory-mapped."""
    count, classes = description["examples"][part], len(description["class_names"])
    return Examples(
        _map(PROCESSED / f"{part}_images.npy", (count, *description["image_shape"])),
        _map(PROCESSED / f"{part}_targets.npy", (count, classes)),
    )


def _map(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise _missing(path) from None
    except (ValueError, EOFError, OSError):
        raise _damaged(path) from None
    if array.shape != shape or array.dtype != np.float32:
        raise _damaged(path)
    return array


def _missing(path: Path) -> UserError:
    return UserError(f"{path} is missing. Make it with: dvc repro preprocess")


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path} is damaged, or does not belong to {DATASET}. Make both again with:\n"
        "dvc repro --force preprocess"
    )
