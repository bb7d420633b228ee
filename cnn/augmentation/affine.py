"""Affine maps: shift, rotation, zoom, aspect and shear, alone or several at once.

An affine map p ↦ A (p − c) + c + b is a matrix that acts on (p − c, 1), the position from the centre:

    M = [[A, b],
         [0, 1]]

Let y[p] = x(M p) and z[p] = y(M' p). Then z[p] = x(M M' p): one after the other, maps are multiplied in the
order in which they are applied. So the images need to be sampled only once, which blurs them only once, and
what leaves the image on the way and comes back is not lost.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Annotated

import numpy as np
from jaxtyping import Float

from cnn.augmentation.images import Colour, GivenImages, Images, Pixels, Rng, check_images
from cnn.augmentation.sampling import sample
from cnn.checks import Kept, Range
from cnn.ops.arrays import place
from cnn.registry import AUGMENTATIONS

Maps = Float[np.ndarray, "n 3 3"]  # M of each image
Draw = Callable[[int, np.random.Generator, float], Maps]
Turn = Annotated[float, Range("[0, 180]")]
Slant = Annotated[float, Range("[0, 90)")]


@AUGMENTATIONS.register
def random_shift(images: GivenImages, rng: Rng, pixels: Pixels, *, fill: Colour = 0.0) -> Images:
    """Shift each image by t, uniform on ±pixels vertically and, independently, horizontally.

        y[p] = x(p − t)

    t may be a fraction of a pixel. Positive t moves the content down and to the right.

    Args:
        pixels: the largest displacement along either axis, in pixels.
        fill: the value beyond the border.
    """
    return warp(images, rng, [(shifts, pixels)], fill)


@AUGMENTATIONS.register
def random_rotation(images: GivenImages, rng: Rng, degrees: Turn, *, fill: Colour = 0.0) -> Images:
    """Rotate each image about its centre by an angle θ, uniform on ±degrees.

        y[p] = x(A (p − c) + c),    A = [[ cos θ, sin θ],
                                         [−sin θ, cos θ]]

    Positive θ turns the content counter-clockwise, as np.rot90 does.

    Args:
        degrees: the largest angle, in degrees.
        fill: the value beyond the border.
    """
    return warp(images, rng, [(rotations, degrees)], fill)


@AUGMENTATIONS.register
def random_zoom(images: GivenImages, rng: Rng, fraction: Kept, *, fill: Colour = 0.0) -> Images:
    """Scale each image about its centre by a factor s, uniform on [1 − fraction, 1 + fraction].

        y[p] = x((p − c) / s + c)

    s > 1 enlarges the content; the image keeps its size.

    Args:
        fraction: the largest change of the zoom factor.
        fill: the value beyond the border.
    """
    return warp(images, rng, [(zooms, fraction)], fill)


@AUGMENTATIONS.register
def random_aspect(images: GivenImages, rng: Rng, fraction: Kept, *, fill: Colour = 0.0) -> Images:
    """Multiply the height of each image's content by eᵘ and its width by e⁻ᵘ, u uniform on ±fraction.

        y[p] = x(A (p − c) + c),    A = [[e⁻ᵘ, 0 ],
                                         [0,   eᵘ]]

    Areas stay the same. Positive u makes the content tall and narrow; the image keeps its size.

    Args:
        fraction: the largest change of the logarithms of height and width, about the largest relative change.
        fill: the value beyond the border.
    """
    return warp(images, rng, [(aspects, fraction)], fill)


@AUGMENTATIONS.register
def random_shear(images: GivenImages, rng: Rng, degrees: Slant, *, fill: Colour = 0.0) -> Images:
    """Slant each image sideways by an angle φ, uniform on ±degrees.

        y[p] = x(A (p − c) + c),    A = [[1,     0],
                                         [tan φ, 1]]

    The middle row stays in place; positive φ moves the rows above it to the right, as in italics.

    Args:
        degrees: the largest angle from the vertical, in degrees.
        fill: the value beyond the border.
    """
    return warp(images, rng, [(shears, degrees)], fill)


def shifts(n: int, rng: np.random.Generator, pixels: float) -> Maps:
    """The maps of `random_shift`."""
    maps = _identities(n)
    maps[:, :2, 2] = -rng.uniform(-pixels, pixels, (n, 2))
    return maps


def rotations(n: int, rng: np.random.Generator, degrees: float) -> Maps:
    """The maps of `random_rotation`."""
    theta = np.radians(rng.uniform(-degrees, degrees, n))
    maps = _identities(n)
    maps[:, 0, 0] = maps[:, 1, 1] = np.cos(theta)
    maps[:, 0, 1] = np.sin(theta)
    maps[:, 1, 0] = -maps[:, 0, 1]
    return maps


def zooms(n: int, rng: np.random.Generator, fraction: float) -> Maps:
    """The maps of `random_zoom`."""
    maps = _identities(n)
    maps[:, :2, :2] /= rng.uniform(1 - fraction, 1 + fraction, (n, 1, 1))
    return maps


def aspects(n: int, rng: np.random.Generator, fraction: float) -> Maps:
    """The maps of `random_aspect`."""
    taller = np.exp(rng.uniform(-fraction, fraction, n))
    maps = _identities(n)
    maps[:, 0, 0], maps[:, 1, 1] = 1 / taller, taller
    return maps


def shears(n: int, rng: np.random.Generator, degrees: float) -> Maps:
    """The maps of `random_shear`."""
    maps = _identities(n)
    maps[:, 1, 0] = np.tan(np.radians(rng.uniform(-degrees, degrees, n)))
    return maps


# What draws the maps of each affine augmentation.
DRAWS: dict[Callable[..., Images], Draw] = {
    random_shift: shifts,
    random_rotation: rotations,
    random_zoom: zooms,
    random_aspect: aspects,
    random_shear: shears,
}


def warp(
    images: Images, rng: np.random.Generator, draws: Sequence[tuple[Draw, float]], fill: Colour
) -> Images:
    """Sample each image once, under the product of the maps that are drawn, each up to its amount."""
    check_images(images, fill=fill)
    maps = [draw(len(images), rng, amount) for draw, amount in draws if amount != 0]
    return sample_under(images, reduce(np.matmul, maps), fill) if maps else images.copy()


def sample_under(images: Images, maps: Maps, fill: Colour) -> Images:
    """y[p] = x(M p), with a map M for each image."""
    _, h, w, _ = images.shape
    centre = np.array([(h - 1) / 2, (w - 1) / 2])
    origin = centre + maps[:, :2, 2]
    down = maps[:, :2, :1] * (np.arange(h) - centre[0]) + origin[:, :, None]  # (n, 2, h)
    right = maps[:, :2, 1:2] * (np.arange(w) - centre[1])  # (n, 2, w)
    down, right = (place(part.astype(images.dtype), like=images) for part in (down, right))
    rows, columns = (down[:, axis, :, None] + right[:, axis, None, :] for axis in (0, 1))
    return sample(images, rows, columns, fill)


def _identities(n: int) -> Maps:
    return np.tile(np.eye(3), (n, 1, 1))
