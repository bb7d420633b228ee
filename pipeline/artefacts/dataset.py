"""What preprocess wrote: its description, and how the later stages read it."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from cnn import Examples
from pipeline.errors import UserError
from pipeline.paths import DATASET, PROCESSED


class Description(BaseModel):
    """dataset.json: what the arrays beside it are. Their pixels are (byte / 255 − mean) / deviation."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    dataset: str
    class_names: list[str]
    image_shape: tuple[int, int, int]
    mean: float
    deviation: float
    examples: dict[Literal["train", "validation", "test"], int]


def load_description() -> dict[str, Any]:
    """The checked content of dataset.json."""
    try:
        return Description.model_validate_json(DATASET.read_bytes()).model_dump(mode="json")
    except FileNotFoundError:
        raise _missing(DATASET) from None
    except (ValidationError, OSError):
        raise _damaged(DATASET) from None


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
    other = "" if path == DATASET else f", or does not belong to {DATASET}"
    return UserError(f"{path} is damaged{other}. Make it again with: dvc repro --force preprocess")
