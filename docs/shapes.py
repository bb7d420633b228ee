"""Draw pictures to try own images with: `python docs/shapes.py FOLDER`.

Circles, squares and triangles in colour, 80 of each, of mixed sizes and formats. The same ones each time.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

FORMATS = ("png", "jpg", "webp", "bmp", "tiff", "gif")
CORNERS = {"circle": 60, "square": 4, "triangle": 3}


def draw(corners: int, rng: np.random.Generator) -> Image.Image:
    """A regular polygon, turned at random, light on dark or dark on light."""
    width, height = (int(side) for side in rng.integers(40, 160, 2))
    colours = [tuple(rng.integers(low, low + 110, 3).tolist()) for low in (10, 140)]
    behind, before = colours if rng.random() < 0.5 else colours[::-1]
    image = Image.new("RGB", (width, height), behind)
    radius = rng.uniform(0.25, 0.4) * min(width, height)
    angles = rng.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
    points = np.stack([width / 2 + radius * np.cos(angles), height / 2 + radius * np.sin(angles)], axis=1)
    ImageDraw.Draw(image).polygon([tuple(point) for point in points.tolist()], fill=before)
    return image


def main(folder: Path) -> None:
    """Write the pictures."""
    rng = np.random.default_rng(0)
    for name, corners in CORNERS.items():
        (folder / name).mkdir(parents=True)
        for number in range(80):
            suffix = FORMATS[number % len(FORMATS)]
            draw(corners, rng).save(folder / name / f"{name}{number:02}.{suffix}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
