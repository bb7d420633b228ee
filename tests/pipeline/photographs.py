"""Pictures of digits as from a camera or a scanner, for the tests of predict.

`python -m tests.pipeline.photographs` counts how many of MNIST's test digits the trained network recognises
in them.
"""

import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from pipeline.apps.predict import classify, look_at
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.trained import load_trained
from pipeline.errors import UserError


def photograph(digit, rng):
    """A 28x28 digit in [0, 1] as a grey photograph (h, w), 200 to 900 pixels, in bytes, in dark or light ink.

    The digit is enlarged, rotated by up to 5 degrees and placed at random on unevenly lit paper; then blur
    and noise of a camera and the losses of JPEG are added.
    """
    height, width = rng.integers(200, 901, 2)
    size = int(min(height, width) * rng.uniform(0.4, 0.9))
    ink = enlarge(digit, size, rng.uniform(-5, 5))
    top, left = rng.integers(0, height - size + 1), rng.integers(0, width - size + 1)
    ink = np.pad(ink, ((top, height - size - top), (left, width - size - left)))

    light = uneven_light(height, width, rng)
    paper, pen = rng.uniform(0.55, 0.95), rng.uniform(0.05, 0.3)
    if rng.random() < 0.3:  # chalk
        paper, pen = pen, paper
    picture = light * (paper + (pen - paper) * ink)
    picture = gaussian_filter(picture, rng.uniform(0, 0.005) * size)
    picture += rng.normal(0, rng.uniform(0.005, 0.04), picture.shape)
    return jpeg(to_bytes(picture), quality=int(rng.integers(30, 95)))


def enlarge(digit, size, degrees=0.0):
    """The digit at `size` pixels, rotated, with sharp edges like those of ink."""
    image = Image.fromarray(np.asarray(digit, np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    turned = np.asarray(image.rotate(degrees, Image.Resampling.BICUBIC), float)
    return np.clip((turned - 0.5) * 4 + 0.5, 0, 1)


def uneven_light(height, width, rng):
    """Factors (h, w) in about [0.5, 1]: light that falls from one side, and a soft-edged shadow."""
    y, x = np.linspace(-1, 1, height)[:, np.newaxis], np.linspace(-1, 1, width)
    angle, place = rng.uniform(0, 2 * np.pi, 2)
    slope = 1 - rng.uniform(0, 0.15) * (1 + np.cos(angle) * x + np.sin(angle) * y)
    edge = np.cos(place) * x + np.sin(place) * y - rng.uniform(-0.8, 0.8)
    return slope * (1 - rng.uniform(0, 0.25) / (1 + np.exp(-edge / rng.uniform(0.05, 0.3))))


def to_bytes(picture):
    """Grey values in [0, 1] as bytes; others are clipped."""
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


def jpeg(pixels, quality):
    """`pixels` after compression as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def drawn_seven(size=400, *, paper=230, ink=40, pen=30, place=(0, 0)):
    """A clean 7, a bar and a slanted stroke, on a sheet 600 pixels high and 800 wide at size=400."""
    picture = Image.new("L", (2 * size, 3 * size // 2), paper)
    x, y = place[0] + size // 2, place[1] + size // 4
    points = [(x, y), (x + size // 2, y), (x + size // 5, y + 3 * size // 4)]
    ImageDraw.Draw(picture).line(points, fill=ink, width=pen * size // 400, joint="curve")
    return picture


def count_recognised(count=500):
    """Print how many of the first test digits the network recognises: as photographs, and as they are."""
    model, network = load_trained()
    images, targets = load_examples("test", network.data)
    digits = network.data.brightness(images[:count])
    labels = targets[:count].argmax(axis=1)

    def answer(image):
        return np.argmax(classify(model, image, network.data))

    photographed = 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "photograph.png"
        for number, (digit, label) in enumerate(zip(digits, labels, strict=True)):
            Image.fromarray(photograph(digit[..., 0], np.random.default_rng(number))).save(file)
            try:
                photographed += answer(look_at(file, network.data)[0]) == label
            except UserError:  # no digit was found, or several
                continue
    as_they_are = sum(answer(digit) == label for digit, label in zip(digits, labels, strict=True))
    for what, right in {"as photographs": photographed, "as they are": as_they_are}.items():
        print(f"{what}: {right} of {len(digits)} recognised, {right / len(digits):.1%}")


if __name__ == "__main__":
    count_recognised()
