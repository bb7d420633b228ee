"""Several augmentations as one, and the keywords with which an augmentation is called."""

from collections.abc import Callable, Iterable
from functools import partial
from inspect import Parameter, signature
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn.augmentation.affine import DRAWS, warp
from cnn.registry import options

Augmentation = Callable[..., NDArray[Any]]  # (images, rng), and of PLACE the keywords that it takes -> images

PLACE = ("examples", "epoch", "seed")  # what `fit` can say beyond the images


def compose(*steps: Augmentation) -> Augmentation:
    """Apply augmentations one after the other.

        augment = compose(
            partial(random_shift, pixels=2.0), partial(random_rotation, degrees=10.0), partial(cutout, size=8)
        )

    Neighbours that are affine maps (shift, rotation, zoom, aspect, shear), with the same `fill`, are
    multiplied to one map, and the images are sampled once. The random numbers are those of the functions
    called in turn.

    Args:
        steps: functions (images, rng) -> images, also with keywords as `fit` describes them. An affine map is
            recognised if it is a functools.partial with keywords.

    Raises: ValueError if a step cannot be called in this way, or if an amount is out of its range.
    """
    functions: list[Augmentation] = []
    for fill, neighbours in groupby(steps, _affine_fill):
        if fill is None:
            functions.extend(neighbours)
        else:
            functions.append(_multiplied(neighbours))
    calls = [(function, keywords_of(function)) for function in functions]

    def augment(
        images: NDArray[Any],
        rng: np.random.Generator,
        *,
        examples: NDArray[Any] | None = None,
        epoch: int | None = None,
        seed: int | None = None,
    ) -> NDArray[Any]:
        place = {"examples": examples, "epoch": epoch, "seed": seed}
        for function, keywords in calls:
            images = function(images, rng, **{name: place[name] for name in keywords})
        return images

    return augment


def keywords_of(augment: Augmentation) -> tuple[str, ...]:
    """The names in PLACE that `augment` has as keyword-only arguments; ValueError if it needs others.

    What a functools.partial sets itself is not among them.
    """
    fixed = augment.keywords if isinstance(augment, partial) else {}
    try:
        arguments = signature(augment)
        only = [name for name, each in arguments.parameters.items() if each.kind is Parameter.KEYWORD_ONLY]
        keywords = tuple(name for name in PLACE if name in only and name not in fixed)
        arguments.bind(None, None, **dict.fromkeys(keywords))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"An augmentation must be a function (images, rng), with the keyword-only arguments "
            f"{', '.join(PLACE)} if it needs them; this one cannot be called so: {error}. "
            "Give other arguments with functools.partial."
        ) from None
    return keywords


def _affine_fill(step: Augmentation) -> Any:
    """`fill` as a number or a list of numbers if `step` is an affine map, else None."""
    if isinstance(step, partial) and step.func in DRAWS and not step.args:
        return np.asarray(step.keywords.get("fill", 0.0)).tolist()
    return None


def _multiplied(steps: Iterable[Any]) -> Augmentation:
    """One function for affine maps with the same fill."""
    draws, fill = [], 0.0
    for step in steps:
        keywords_of(step)
        ((name, amount),) = ((name, value) for name, value in step.keywords.items() if name != "fill")
        rule = options(step.func)[name].rule
        fill = step.keywords.get("fill", fill)
        draws.append((DRAWS[step.func], amount if rule is None else rule.check(name, amount)))
    return partial(warp, draws=draws, fill=fill)
