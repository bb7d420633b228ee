"""Test-time augmentation: a network's outputs, averaged over several views of each image.

    y = Σ_v w_v · f(v(x)),    Σ_v w_v = 1

f(·) are the outputs of the network, logits or probabilities. The views v(x) are the image in place, with half
of the weight, and the image shifted by s pixels down and right, and up and left, with a quarter each; without
a shift, the image in place has all of the weight. Each may be mirrored as well, which halves its weight:

    v(x)[i, j] = x(i − s, j − s)    or, mirrored,    v(x)[i, j] = x(i − s, w − 1 − j − s)

Beyond the border, x(·) is the mirror image about the border pixel, as in `random_crop`; if the shift is
larger than the image, it is mirrored again and again.
Sources: Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks"
(2012), section 4.1, for the mean over crops and mirror images; Jordan, "94% on CIFAR-10 in 3.29 seconds on a
single GPU" (2024), section 3, for these views and weights.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cnn.augmentation.crop import reflect
from cnn.augmentation.images import Images
from cnn.checks import Whole, checked
from cnn.engine.replicas import Rows


class View(NamedTuple):
    """A view of an image, and the weight of the outputs for it."""

    weight: float
    shift: int  # pixels down and to the right
    mirrored: bool

    def of(self, images: Images) -> Images:
        """The images as this view shows them."""
        _, h, w, _ = images.shape
        rows, columns = reflect(np.arange(h) - self.shift, h), reflect(np.arange(w) - self.shift, w)
        return images.take(rows, axis=1).take(columns[::-1] if self.mirrored else columns, axis=2)


@checked
def views(mirror: bool = False, shift: Annotated[int, Whole(0, 1000)] = 0) -> list[View]:
    """The views of an image; the first one is the image itself.

    Args:
        mirror: whether each view is mirrored left to right as well. Not for digits or letters.
        shift: how many pixels the image is shifted by; 0 for no shifted views.
    """
    shifts = [(1 / 2, 0), (1 / 4, shift), (1 / 4, -shift)] if shift else [(1.0, 0)]
    sides = (False, True) if mirror else (False,)
    return [View(weight / len(sides), s, mirrored) for weight, s in shifts for mirrored in sides]


def mean_over_views(
    predict: Callable[[Rows], Float[np.ndarray, "n *out"]],
    images: Rows,
    *,
    mirror: bool = False,
    shift: int = 0,
) -> Float[np.ndarray, "n *out"]:
    """The weighted mean of predict(view) over the `views` of all images, added up in their order.

    Each view is made in the parts that `predict` asks for, such as the batches of `Replicas.predict`. Without
    `mirror` and `shift`, this is predict(images). The weights are powers of two, so no product is rounded.

    Raises:
        ValueError: if `images` do not have shape (images, height, width, channels), or an argument is out of
            its range.
    """
    if len(images.shape) != 4:
        raise ValueError(
            f"images must have shape (images, height, width, channels); received {tuple(images.shape)}."
        )
    itself, *others = views(mirror, shift)
    y = itself.weight * predict(images)
    for view in others:
        y += view.weight * predict(_Viewed(images, view))
    return y


class _Viewed:
    """Images as a view shows them; those that are indexed are made."""

    def __init__(self, images: Rows, view: View) -> None:
        self.images, self.view = images, view
        self.shape, self.dtype = images.shape, images.dtype

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> Images:
        return self.view.of(np.asarray(self.images[rows]))
