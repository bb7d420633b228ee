"""Whether probabilities can be trusted: answers with 80 % confidence should be right 8 times in 10.

Source: Guo, Pleiss, Sun & Weinberger, "On calibration of modern neural networks" (2017), equations 2 to 5.
"""

from statistics import NormalDist
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

BINS = 15


class Bin(TypedDict):
    """The answers with a confidence in (`low`, `high`]: their number, mean confidence and accuracy.

    The accuracy has Wilson's 95 % interval.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float
    low_accuracy: float
    high_accuracy: float


def calibration_bins(confidence: NDArray[np.floating[Any]], right: NDArray[np.bool_]) -> list[Bin]:
    """Bins of equal width, without the empty ones; `confidence` is the probability of each answer."""
    bins: list[Bin] = []
    numbers = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    for number in range(BINS):
        inside = numbers == number
        if inside.any():
            low, high = wilson_interval(float(right[inside].mean()), int(inside.sum()))
            bins.append(
                {
                    "low": number / BINS,
                    "high": (number + 1) / BINS,
                    "count": int(inside.sum()),
                    "confidence": float(confidence[inside].mean(dtype=np.float64)),
                    "accuracy": float(right[inside].mean()),
                    "low_accuracy": low,
                    "high_accuracy": high,
                }
            )
    return bins


def wilson_interval(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for a share that was found among `count` answers.

    (p + z²/2n ± z √(p (1 − p)/n + z²/4n²)) / (1 + z²/n)        with the normal quantile z
    Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = share + z**2 / (2 * count)
    reach = z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return (middle - reach) / (1 + z**2 / count), (middle + reach) / (1 + z**2 / count)


def expected_calibration_error(bins: list[Bin]) -> float:
    """ECE = Σ (count / all) · |accuracy − confidence|: by how much confidence is wrong on average."""
    total = sum(b["count"] for b in bins)
    return sum(b["count"] / total * abs(b["accuracy"] - b["confidence"]) for b in bins)
