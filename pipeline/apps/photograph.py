"""Photographs and scans of one handwritten digit: find its ink, and frame it as MNIST frames digits.

All lengths below are fractions of the photograph's longer side, or of the digit's, so that neither the
number of pixels nor the distance of the camera matters.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy import ndimage

from pipeline.data.pictures import Source, open_picture
from pipeline.errors import UserError

Grey = NDArray[np.float64]  # (h, w) in [0, 1]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice]  # rows, columns

LONGER_SIDE = 640  # pixels, to which every photograph is brought
SMALLEST_DIGIT = 0.04  # of the longer side
LARGEST_SPECK = 0.012  # of the longer side
WIDEST_STROKE = 0.25  # of the longer side: anything wider in every direction is light or shadow
BORDER = 0.04  # of each side: where the paper's edge or the table may be visible
LEAST_CONTRAST = 0.06  # of the range from black to white
LEAST_SIGNAL = 4  # contrast over the paper's deviation; pure noise, split by its threshold, has 2.8
JOINED = 0.12  # of the digit's size: parts with smaller gaps belong together, such as a 5 and its bar

FIELD, BOX, CENTRE = 28, 20, 14  # pixels: MNIST's images, a digit's box, its centre of mass
THINNEST_STROKE = 0.12  # of the digit's size; MNIST's strokes have 0.14 on average


@dataclass(frozen=True)
class Digit:
    """What was found, and where: `box` holds rows and columns of `photograph`."""

    photograph: Grey
    box: Box
    image: NDArray[np.float32]  # (28, 28) in [0, 1], the ink bright


def find_digit(source: Source) -> Digit:
    """The one digit in the image file; UserError, with the reason alone, if there is not exactly one."""
    photograph = read_photograph(source)
    strength, mask = find_ink(photograph)
    digit = select_digit(mask)
    return Digit(photograph, _box(digit), frame(strength, digit))


def read_photograph(source: Source) -> Grey:
    """The image in grey, upright according to its EXIF data, with a longer side of LONGER_SIDE pixels."""
    with open_picture(source) as image:
        grey = to_grey(ImageOps.exif_transpose(image))
    scale = LONGER_SIDE / max(grey.shape)
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    return np.clip(_resize(grey, height, width, Image.Resampling.BICUBIC), 0.0, 1.0)


def to_grey(image: Image.Image) -> Grey:
    """Grey values in [0, 1] of an image of any mode, with paper behind transparent parts."""
    if image.mode.startswith(("I", "F")):  # 16 bits and more, which Pillow would clip at 255
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
        return (values - values.min()) / (float(np.ptp(values)) or 1.0)
    if not image.has_transparency_data:
        return np.asarray(image.convert("L"), np.float64) / 255
    bands = image.convert("RGBA").convert("LA").split()
    grey, opacity = (np.asarray(band, np.float64) / 255 for band in bands)
    if not opacity.any():
        return np.ones_like(grey)
    visible = grey[opacity > 0]
    middle = float(np.median(visible))
    # If most of it is visible, it shows paper. Otherwise it is ink alone, and the paper must differ from it.
    behind = middle if visible.size > grey.size / 2 else float(middle < 0.5)
    return opacity * grey + (1 - opacity) * behind


def find_ink(photograph: Grey) -> tuple[Grey, Mask]:
    """How much each pixel differs from the paper around it, in the direction of ink; and where ink is.

    A morphological closing fills dark, narrow parts with the brightness around them. So it shows the paper,
    with its light and shadows, without dark ink; a closing of the negative shows it without light ink.
    Both may find something: dark strokes, and also the light paper that they enclose. The one that differs
    more from the rest of the paper is ink.
    """
    if np.ptp(photograph) < LEAST_CONTRAST:
        raise _blank()
    grey = crop_to_paper(ndimage.gaussian_filter(photograph, 1.5))
    window = int(WIDEST_STROKE * LONGER_SIDE)
    strengths = [ndimage.grey_closing(g, (window, window)) - g for g in (grey, -grey)]
    masks = [strength > otsu_threshold(strength) for strength in strengths]
    masks = [mask & stands_out(strength, mask) for strength, mask in zip(strengths, masks, strict=True)]
    if not (masks[0] | masks[1]).any():
        raise _blank()

    rest = np.float64(~(masks[0] | masks[1]))
    share = ndimage.uniform_filter(rest, 2 * window)
    paper = ndimage.uniform_filter(grey * rest, 2 * window) / np.maximum(share, 1e-6)
    kept = [drop_border_and_specks(mask) for mask in masks]
    differences = [abs((grey - paper)[mask].mean()) if mask.any() else 0.0 for mask in kept]
    polarity = int(np.argmax(differences))
    return strengths[polarity], kept[polarity]


def stands_out(strength: Grey, mask: Mask) -> bool:
    """Whether the pixels of `mask` are more than the paper's noise, or rounding errors."""
    if np.ptp(strength) < LEAST_CONTRAST:
        return False
    around = strength[~mask]
    deviation = 1.4826 * np.median(abs(around - np.median(around)))  # estimated as for normal noise
    return bool(strength[mask].mean() - around.mean() >= max(LEAST_CONTRAST, LEAST_SIGNAL * deviation))


def crop_to_paper(grey: Grey) -> Grey:
    """Replace everything around a sheet of paper, for example a table, by the nearest paper.

    A sheet is a large, nearly rectangular patch on one side of the threshold, with ink in it; all four
    corners of the photograph lie outside it. If there is no sheet, `grey` is returned unchanged.
    """
    light = grey > otsu_threshold(grey)
    for side in (light, ~light):
        labels, _ = ndimage.label(side)
        patch = labels == np.bincount(labels[side]).argmax()
        sheet = ndimage.binary_fill_holes(patch)
        ink = 1 - patch.sum() / sheet.sum()
        if (
            not sheet[[0, 0, -1, -1], [0, -1, 0, -1]].any()
            and sheet.mean() > 0.2
            and sheet[_box(sheet)].mean() > 0.8
            and 0.002 < ink < 0.3
        ):
            inside = ndimage.distance_transform_edt(sheet) > BORDER / 3 * LONGER_SIDE
            nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
            return grey[tuple(nearest)]
    return grey


def otsu_threshold(values: Grey) -> float:
    """The threshold with the largest variance between the two classes that it makes.

    Source: Otsu, "A threshold selection method from gray-level histograms" (1979), equation 18.
    """
    counts, edges = np.histogram(values, 256)
    sums = np.cumsum(counts * (edges[1:] + edges[:-1]) / 2)
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][(below * above * (means[1] - means[0]) ** 2).argmax()])


def drop_border_and_specks(mask: Mask) -> Mask:
    """What may be a digit: everything that is larger than a speck and does not touch the border.

    If everything large touches the border, the photograph may be cropped to the digit; then only what lies
    along the border is dropped.
    """
    labels, boxes = _label(mask)
    sizes = np.array([0, *map(_size, boxes)])
    large = sizes >= LARGEST_SPECK * LONGER_SIDE
    clear = large.copy()
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        clear[side] = False
    if (sizes[clear] >= 0.1 * LONGER_SIDE).any():
        return clear[labels]
    strip = np.ones_like(mask)
    rows, columns = (max(1, int(BORDER * side)) for side in mask.shape)
    strip[rows:-rows, columns:-columns] = False
    along = ndimage.mean(strip, labels, np.arange(len(sizes))) > 0.5
    return (large & ~along)[labels]


def select_digit(mask: Mask) -> Mask:
    """The one digit in `mask`, with all its parts; UserError if there is none, or more than one."""
    _, boxes = _label(mask)
    if not boxes:
        raise UserError(
            "there is ink only at the image's border, or in specks. Crop the image to the digit, with some "
            "paper around it."
        )
    size = max(map(_size, boxes))
    joined = ndimage.distance_transform_edt(~mask) <= JOINED / 2 * size
    labels = np.where(mask, ndimage.label(joined)[0], 0)
    boxes = ndimage.find_objects(labels)
    sizes = np.array([_size(box) for box in boxes])
    size = sizes.max()
    if size < SMALLEST_DIGIT * LONGER_SIDE:
        raise UserError(
            f"the largest mark in it measures {size / LONGER_SIDE:.1%} of the image's longer side: too "
            "small for a digit. Crop the image to the digit, with some paper around it."
        )
    if (things := int((sizes > size / 2).sum())) > 1:
        raise UserError(
            f"{things} marks that may be digits were found. Crop the image to one of them, with some paper "
            "around it."
        )
    largest = int(sizes.argmax()) + 1
    rows, columns = boxes[largest - 1]
    if columns.stop - columns.start > 2 * (rows.stop - rows.start):  # no digit in MNIST is that wide
        raise UserError(
            "the mark in it is more than twice as wide as it is high: a line, digits that touch, or a "
            "photograph on its side. Crop the image to one digit, and turn it upright."
        )
    # A part may be farther away if it is too large for a speck and too small for a digit.
    gaps = ndimage.distance_transform_edt(labels != largest)
    nearest = ndimage.minimum(gaps, labels, np.arange(1, len(sizes) + 1))
    parts = np.flatnonzero((nearest < 2 * JOINED * size) & (sizes > 0.1 * size)) + 1
    return np.isin(labels, parts)


def frame(strength: Grey, digit: Mask) -> NDArray[np.float32]:
    """The digit as in MNIST: bright on black, 28x28 in [0, 1].

    The digit keeps its proportions and fits a box of 20x20; averaging makes only its edges grey. Its centre
    of mass is at pixel (14, 14), rounded to whole pixels, as measured on MNIST's test images. The strokes of
    thin pens are widened: averaging would turn them grey, which MNIST's strokes never are.
    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    """
    near = ndimage.binary_dilation(digit, iterations=3)
    # The edge of ink is where it has half its strength, whatever blurred it.
    ink = np.where(near, np.clip(2 * strength / np.median(strength[digit]) - 0.5, 0, 1), 0.0)
    size = _size(_box(digit))
    stroke = 4 * (
        ndimage.distance_transform_edt(digit)[digit].mean() - 0.5
    )  # pixels are w / 4 from the edges on average
    if stroke < THINNEST_STROKE * size:
        radius = (THINNEST_STROKE * size - stroke) / 2
        outside = ndimage.distance_transform_edt(~np.pad(digit, int(radius) + 2))
        ink = np.clip(radius + 1 - outside, 0, 1)
    ink = ink[_box(ink > 0.5)]
    height, width = (max(1, round(side * BOX / max(ink.shape))) for side in ink.shape)
    small = np.clip(_resize(ink, height, width, Image.Resampling.BOX), 0, 1)
    row, column = ndimage.center_of_mass(small)
    top = min(max(round(CENTRE - row), 0), FIELD - height)
    left = min(max(round(CENTRE - column), 0), FIELD - width)
    image = np.zeros((FIELD, FIELD), np.float32)
    image[top : top + height, left : left + width] = small
    return image


def _blank() -> UserError:
    return UserError(
        "no ink stands out from the paper. A digit needs strokes that are clearly darker, or clearly "
        "lighter, than the paper."
    )


def _label(mask: Mask) -> tuple[NDArray[np.int32], list[Box]]:
    """Connected parts, diagonals included: their labels, counted from 1, and their boxes."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    return labels, ndimage.find_objects(labels)


def _box(mask: Mask) -> Box:
    """The smallest box around all of `mask`."""
    box: Box = ndimage.find_objects(mask.astype(np.uint8))[0]
    return box


def _size(box: Box) -> int:
    """The longer side of a box, in pixels."""
    return max(side.stop - side.start for side in box)


def _resize(values: Grey, height: int, width: int, method: Image.Resampling) -> Grey:
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((width, height), method), np.float64)
