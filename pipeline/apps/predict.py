"""`python -m pipeline predict FILE…`: the digit that the trained network sees in an image."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cnn import Sequential
from pipeline.apps.photograph import find_digit
from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.trained import load_model, probabilities_of
from pipeline.data.dataset import DIGITS
from pipeline.errors import UserError
from pipeline.report.figures import digit_figure, save_figure

BAR = 40  # characters for a probability of 1


def predict(files: Sequence[Path], *, as_json: bool, pictures: Path | None) -> None:
    """Print the prediction for each file; a bad file is reported and skipped.

    Exit with code 1 if a file was bad. If `pictures` is given, pictures of what the network saw go there.
    """
    if pictures is not None and pictures.exists() and not pictures.is_dir():
        raise UserError(f"--show needs a folder for its pictures; {pictures} is a file.")
    model, network = load_model()
    names = network.data.class_names
    if tuple(names) != DIGITS:
        print(
            f"note: The network was trained on {network.data.dataset}, not on handwritten digits. "
            "The ink is framed as a digit, and the network answers with the most probable of its own "
            "classes.",
            file=sys.stderr,
        )
    document: list[dict[str, Any]] = []
    for number, path in enumerate(files, start=1):
        try:
            digit = find_digit(path)
        except Exception as error:  # of any type: one bad file must not lose the answers for the others
            text = str(error)
            if not isinstance(error, UserError):
                text = f"{path}: {type(error).__name__}: {error}. This is a bug: please report it."
            print(f"error: {text}", file=sys.stderr)
            document.append({"file": str(path), "error": text})
            continue
        probabilities = dict(zip(names, classify(model, digit.image, network.data), strict=True))
        prediction = max(names, key=probabilities.__getitem__)
        document.append({"file": str(path), "prediction": prediction, "probabilities": probabilities})
        if not as_json:
            print_chart(path, prediction, probabilities)
        if pictures is not None:
            title = f"{prediction}, probability {probabilities[prediction]:.1%}"
            figure = digit_figure(digit.photograph, digit.box, digit.image, title)
            save_figure(figure, pictures / f"{number}-{path.stem}.png")
    if as_json:
        print(json.dumps(document, indent=2))
    if any("error" in result for result in document):
        sys.exit(1)


def classify(model: Sequential, image: NDArray[np.float32], data: Description) -> list[float]:
    """The probability of each class for an image in [0, 1]; `data` describes what it was trained on."""
    outputs = model.predict(data.normalise(image[np.newaxis, :, :, np.newaxis]))
    return [float(probability) for probability in probabilities_of(model, outputs)[0]]


def print_chart(path: Path, prediction: str, probabilities: dict[str, float]) -> None:
    """Print the prediction and a bar for each class."""
    console = Console(markup=False)
    full = "#" if console.options.ascii_only else "█"
    table = Table.grid(padding=(0, 2))
    for name, probability in probabilities.items():
        mark = ">" if name == prediction else ""
        table.add_row(mark, name, f"{probability:.1%}".rjust(6), full * round(BAR * probability))
    shown = str(path).encode(errors="replace").decode()  # a name may hold bytes that are not text
    console.print(f"{shown}: {prediction}", highlight=False, soft_wrap=True)
    console.print(table, highlight=False)
