"""Whether an ONNX file computes what the network here computes: judged by onnxruntime, on test images."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.formats.onnx import INPUT, LOGITS, PROBABILITIES

BOUND = 1e-4  # of the largest output, or of 1: float32 rounds each sum to 6e-8 of it
BATCH = 256  # images
Outputs = NDArray[np.float32]


class Judgement(NamedTuple):
    """What was compared, and how far the outputs differ."""

    images: int
    difference: float  # the largest of all images and classes
    output: float  # the largest absolute value
    agree: int  # images with the same answer

    def __str__(self) -> str:
        answers = "all" if self.agree == self.images else f"{self.agree:,}"
        return (
            f"onnxruntime's outputs differ by at most {self.difference:.1e}, of up to {self.output:.1f}, on "
            f"{self.images:,} test images; {answers} answers are the same"
        )


class Fractions:
    """Bytes as numbers in [0, 1], converted as they are indexed."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        return self.pixels[rows].astype(np.float32) / np.float32(255)


def open_session(content: bytes, threads: int) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def judge(
    content: bytes,
    images: NDArray[np.uint8] | Fractions,
    expected: Callable[[slice], tuple[Outputs, Outputs]],
    *,
    ends_in_softmax: bool,
    threads: int,
) -> Judgement:
    """Compare an ONNX file's outputs for `images` with `expected(rows)`, (outputs, probabilities).

    UserError if they differ by more than rounding explains. Two answers can then differ only if the network
    itself was undecided between them.
    """
    session = open_session(content, threads)
    found = Judgement(0, 0.0, 0.0, 0)
    for start in range(0, len(images), BATCH):
        rows = slice(start, start + BATCH)
        logits, probabilities = session.run([LOGITS, PROBABILITIES], {INPUT: images[rows]})
        outputs, wanted = expected(rows)
        compared = probabilities if ends_in_softmax else logits
        parts = np.abs(compared - outputs), np.abs(probabilities - wanted)
        found = Judgement(
            found.images + len(outputs),
            float(np.max([found.difference, *(part.max() for part in parts)])),  # NaN if one is
            max(found.output, float(np.abs(outputs).max())),
            found.agree + int((compared.argmax(axis=1) == outputs.argmax(axis=1)).sum()),
        )
    if not found.difference <= BOUND * max(1.0, found.output):
        raise UserError(
            f"The ONNX file does not compute what the network does: {found}; the largest allowed difference "
            f"is {BOUND:g} of the largest output. Nothing was written. This is a bug: please report it."
        )
    return found
