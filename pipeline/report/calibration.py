"""Whether probabilities can be trusted: answers with 80 % confidence should be right 8 times in 10.

Source: Guo, Pleiss, Sun & Weinberger, "On calibration of modern neural networks" (2017), equations 2 to 5.
"""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

BINS = 15


class Bin(TypedDict):
    """The answers with a confidence in (`low`, `high`]: their number, mean confidence and accuracy."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def calibration_bins(confidence: NDArray[np.floating[Any]], right: NDArray[np.bool_]) -> list[Bin]:
    """Bins of equal width, without the empty ones; `confidence` is the probability of each answer."""
    bins: list[Bin] = []
    numbers = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    for number in range(BINS):
        inside = numbers == number
        if inside.any():
            bins.append(
                {
                    "low": number / BINS,
                    "high": (number + 1) / BINS,
                    "count": int(inside.sum()),
                    "confidence": float(confidence[inside].mean(dtype=np.float64)),
                    "accuracy": float(right[inside].mean()),
                }
            )
    return bins


def expected_calibration_error(bins: list[Bin]) -> float:
    """ECE = Σ (count / all) · |accuracy − confidence|: by how much confidence is wrong on average."""
    total = sum(b["count"] for b in bins)
    return sum(b["count"] / total * abs(b["accuracy"] - b["confidence"]) for b in bins)
