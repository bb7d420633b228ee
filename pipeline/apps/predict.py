"""`python -m pipeline predict FILE…`: what the trained network sees in pictures."""

import base64
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from rich.cells import cell_len
from rich.table import Table

from cnn import Sequential
from cnn.atomic import atomic_path
from pipeline.apps.photograph import Digit, find_digit
from pipeline.apps.terminal import open_console
from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.trained import load_model, probabilities_of
from pipeline.data.dataset import Bytes
from pipeline.data.pictures import Source, fit_picture, middle, read_fitted, read_picture
from pipeline.errors import UserError, printable

BAR, SHORTEST_BAR = 40, 10  # characters for a probability of 1
LEAST_WIDTH_FOR_BARS = 40  # characters of the terminal
SHOWN = 5  # classes, if there are more than FEW
FEW = 10
SIDE, GAP = 512, 16  # pixels, of the pictures that --show saves
FRAME = "#2f7fd1"


def predict(files: Sequence[Path], *, as_json: bool, pictures: Path | None) -> None:
    """Print the prediction for each file; a bad file is reported and skipped.

    Exit with code 1 if a file was bad. If `pictures` is given, pictures of what the network saw go there.
    """
    if pictures is not None and pictures.exists() and not pictures.is_dir():
        raise UserError(f"--show needs a folder for its pictures; {pictures} is a file.")
    model, network = load_model()
    document: list[dict[str, Any]] = []
    for path in files:
        try:
            found = list(pictures_in(path, network.data))
        except Exception as error:  # of any type: one bad file must not lose the answers for the others
            document.append(problem(str(path), error))
            print(f"error: {printable(document[-1]['error'])}", file=sys.stderr)
            continue
        for name, image, digit in found:
            document.append(answer(str(name), model, image, network.data))
            if not as_json:
                print_chart(name, document[-1]["prediction"], document[-1]["probabilities"])
            if pictures is not None:
                shown = (
                    side_by_side(path, image, digit, network.data)
                    if name == path
                    else _enlarge(_picture(image))
                )
                with atomic_path(pictures / f"{len(document)}-{name.stem}.png") as temporary:
                    shown.save(temporary, "PNG")
    if as_json:
        print(json.dumps(document, indent=2))
    if any("error" in result for result in document):
        sys.exit(1)


def pictures_in(path: Path, data: Description) -> Iterator[tuple[Path, Bytes, Digit | None]]:
    """(name, image, digit) of the picture in the file; or, of a file of drawings, of each.

    A drawing "drawings.json/1-7" is the first one, kept as a 7; its image is what the playground's network
    received. UserError, with the reason alone, if the file cannot be read.
    """
    if path.suffix.lower() != ".json":
        yield path, *look_at(path, data)
        return
    try:
        drawings = json.loads(path.read_text(encoding="utf-8"))["drawings"]
        decoded = [(str(one["label"]), base64.b64decode(one["png"].partition(",")[2])) for one in drawings]
        height, width, channels = data.image_shape
        images = []
        for number, (label, png) in enumerate(decoded, start=1):
            picture = Image.open(io.BytesIO(png))  # which reads its size alone
            if picture.size != (width, height):
                size = "{}x{}".format(*picture.size)
                raise UserError(
                    f"drawing {number} has {size} pixels, and this network receives {width}x{height}"
                )
            images.append((label, np.asarray(picture.convert("RGB"))[..., :channels]))
    except Image.DecompressionBombError:
        raise UserError("a drawing in it is far too large") from None
    except OSError as error:
        raise UserError(f"it cannot be read: {error.strerror or 'a drawing in it is no picture'}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError("a .json file must be one of drawings that the playground has saved") from None
    for number, (label, image) in enumerate(images, start=1):
        safe = re.sub(r"[^\w-]", "_", label)
        yield path / f"{number}-{safe}", image, None


def answer(name: str, model: Sequential, image: Bytes, data: Description) -> dict[str, Any]:
    """The entry of the JSON document for an image that `look_at` gave."""
    probabilities = dict(zip(data.class_names, classify(model, image, data), strict=True))
    prediction = max(probabilities, key=probabilities.__getitem__)
    return {"file": name, "prediction": prediction, "probabilities": probabilities}


def problem(name: str, error: Exception) -> dict[str, Any]:
    """The entry of the JSON document for a picture that could not be read."""
    text = f"{name}: {str(error).removesuffix('.')}."
    if not isinstance(error, UserError):
        text = f"{name}: {type(error).__name__}: {error}. This is a bug: please report it."
    return {"file": name, "error": text}


def look_at(source: Source, data: Description) -> tuple[Bytes, Digit | None]:
    """(the picture as the training images were prepared, the digit in it if `data` are digits).

    UserError, with the reason alone, if there is none.
    """
    if data.framing != "digit":
        return read_fitted(source, data.image_shape, data.framing), None
    digit = find_digit(source)
    return fit_picture(_grey(digit.image), data.image_shape, "crop"), digit


def classify(model: Sequential, image: NDArray[Any], data: Description) -> list[float]:
    """The probability of each class for an image (h, w, channels), of bytes or of numbers in [0, 1]."""
    outputs = model.predict(data.normalise(image[np.newaxis]))
    return [float(probability) for probability in probabilities_of(model, outputs)[0]]


def print_chart(path: Path, prediction: str, probabilities: dict[str, float]) -> None:
    """Print the prediction, and bars: of the most probable classes, or of all if they are few."""
    console = open_console()
    console.print(f"{printable(path)}: {prediction}", soft_wrap=True)
    shown = list(probabilities)
    if len(shown) > FEW:
        shown = sorted(shown, key=probabilities.__getitem__, reverse=True)[:SHOWN]
    full = "#" if console.options.ascii_only else "█"
    bar = 0
    if console.width >= LEAST_WIDTH_FOR_BARS:
        room = console.width - max(map(cell_len, shown)) - len(">    100.0%  ")
        bar = min(max(room, SHORTEST_BAR), BAR)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    for name in shown:
        mark = ">" if name == prediction else ""
        p = probabilities[name]
        table.add_row(mark, name, f"{p:.1%}".rjust(6), *([full * round(bar * p)] if bar else []))
    console.print(table)
    if others := len(probabilities) - len(shown):
        rest = 1 - sum(probabilities[name] for name in shown)
        console.print(f"   and {others:,} other classes, together {max(rest, 0):.1%}", soft_wrap=True)


def side_by_side(path: Path, image: Bytes, digit: Digit | None, data: Description) -> Image.Image:
    """The picture, with a frame around what was used of it; beside it the image that the network received."""
    if digit is not None:
        picture = _grey(digit.photograph)
        rows, columns = digit.box
        box: tuple[float, ...] = columns.start, rows.start, columns.stop, rows.stop
    else:
        picture = read_picture(path, SIDE)
        box = middle(picture, *data.image_shape[:2]) if data.framing == "crop" else (0, 0, *picture.size)
    whole = box == (0, 0, *picture.size)
    left, right = (_enlarge(part.convert("RGB")) for part in (picture, _picture(image)))
    if not whole:
        scale = left.width / picture.width
        corners = [min(round(scale * x), side - 1) for x, side in zip(box, 2 * left.size, strict=True)]
        draw = ImageDraw.Draw(left)
        draw.rectangle(corners, outline="white", width=5)  # visible on any picture
        draw.rectangle(corners, outline=FRAME, width=3)
    both = Image.new("RGB", (left.width + GAP + right.width, max(left.height, right.height)), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP, 0))
    return both


def _enlarge(picture: Image.Image) -> Image.Image:
    """The picture with a longer side of SIDE pixels; small ones keep their pixels visible."""
    small = max(picture.size) < SIDE
    method = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    return ImageOps.contain(picture, (SIDE, SIDE), method)


def _picture(image: Bytes) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _grey(fractions: NDArray[Any]) -> Image.Image:
    return Image.fromarray(np.rint(255 * fractions).astype(np.uint8))
