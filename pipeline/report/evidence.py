"""What argued for an answer: how the odds of a class change if a patch of the image is covered.

The playground has the same definition, in pipeline/apps/page/evidence.js.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.inspection import Occlusion, occlusion
from pipeline.artefacts.preprocess import Description

Array = NDArray[np.floating[Any]]
LEAST = 1.1  # times the odds, for a patch to be worth a frame, as on the playground
LARGEST = 1_000_000  # factor that is given as a number


def evidence(
    log_probabilities: Callable[[Array], Array], image: Array, k: int, description: Description
) -> Occlusion:
    """For each patch of an image (h, w, c): log-odds of class `k` with it − without it.

    `log_probabilities` maps images to log p, or to logits.
    """
    return occlusion(
        lambda images: log_odds(log_probabilities(images), k),
        image,
        background=description.normalised_background,
    )


def times(found: Occlusion) -> str:
    """By how much the strongest patch multiplies the odds of the class; empty if none argues for it."""
    *_, gain = found.strongest
    factor = np.exp(min(gain, np.log(LARGEST)))
    if factor < LEAST:
        return ""
    if factor < 10:
        return f"{factor:.2f}"
    return f"{float(f'{factor:.3g}'):,g}" if gain < np.log(LARGEST) else f"over {LARGEST:,}"


def log_odds(logs: Array, k: int) -> Array:
    """log(p_k / (1 − p_k)) = log p_k − log Σ_{j≠k} p_j for rows of log p, or of logits.

    Logits differ from log p by a constant. Unlike p_k, log-odds do not saturate near 1.
    """
    logs = logs.astype(np.float64)
    return logs[:, k] - np.logaddexp.reduce(np.delete(logs, k, axis=1), axis=1)
