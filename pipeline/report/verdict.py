"""What the test says, in one sentence."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artefacts.evaluate import ClassMeasures, largest_confusions

LONGEST_NAME = 40  # characters


def verdict(
    matrix: NDArray[np.integer[Any]], names: Sequence[str], per_class: Mapping[str, ClassMeasures]
) -> str:
    """How often the answers are wrong, for which class most often, and what is confused most often.

    It also says if they are no better than those of a rule that looks at no image: the most frequent class.
    """
    total, right = int(matrix.sum()), int(matrix.trace())
    if right == total:
        return f"Right on all {total:,} test images."
    if not right:
        return f"Wrong on all {total:,} test images."
    counts = matrix.sum(axis=1)
    no_better = right <= counts.max()
    wrong = total - right
    if no_better or right < wrong:
        rate = f"Right on {right:,} of {total:,}"
    elif wrong <= total / 10:
        rate = f"Wrong on 1 in {_number(total / wrong)}"
    else:
        rate = f"Wrong on {wrong:,} of {total:,}"
    rule = f"; no better than always answering {_quoted(names[counts.argmax()])}" if no_better else ""
    worst = worst_classes(per_class)[0]
    actual, predicted, count = largest_confusions(matrix, 1)[0]
    often = "once" if count == 1 else f"{count:,} times"
    return (
        f"{rate} test images{rule}; worst at {_quoted(worst)}, of which it finds "
        f"{per_class[worst].recall:.1%}; most often {_quoted(names[actual])} is taken for "
        f"{_quoted(names[predicted])} ({often})."
    )


def worst_classes(per_class: Mapping[str, ClassMeasures]) -> list[str]:
    """The classes that have test images, that with the lowest recall first; equal ones in their order."""
    tested = [name for name, measures in per_class.items() if measures.support]
    return sorted(tested, key=lambda name: per_class[name].recall)


def _number(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 9.95 else f"{ratio:,.0f}"


def _quoted(name: str) -> str:
    """The name in a sentence: in quotation marks, unless it is one word or number.

    Unicode's isolates keep the words around a name that is read from right to left in their places.
    """
    if name.isalnum() and name.isascii():
        return name
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    if any(unicodedata.bidirectional(character) in ("R", "AL") for character in short):
        short = f"\N{FIRST STRONG ISOLATE}{short}\N{POP DIRECTIONAL ISOLATE}"
    return f"“{short}”"
