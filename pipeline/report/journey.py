"""One image through the network, and the gradient's way back: pictures and numbers of every layer."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnn import Conv2D, Dense, Sequential, cross_entropy, softmax_cross_entropy
from cnn.engine.shards import assigned
from cnn.gradient_check import numeric_gradient
from cnn.layers.layer import Layer, Shape
from cnn.layers.trace import Traced, trace_backward
from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.trained import probabilities_of
from pipeline.config.architectures import gives_probabilities
from pipeline.report.facts import plain, size_in_words
from pipeline.report.images import Pixels, grey, largest, marked, visible

Array = NDArray[np.floating[Any]]
STEPS, MAPS = 40, 8  # layers and channels shown: the first ones
NUMBERS, COLUMNS = 1024, 32  # of a vector: at most as many, so many in a row
CLASSES = 10  # shown at the end, if there are more
RATE = 0.01  # of the step of gradient descent
NUDGE = 1e-5
COLOURS = ("red", "green", "blue")


class Pair(NamedTuple):
    """A picture of numbers, and one of the loss's gradient with respect to them."""

    caption: str
    forward: Pixels
    backward: Pixels


class Strip(NamedTuple):
    """Pairs of one kind: what they show, and the scales of the pictures on both sides."""

    what: str
    symbol: str  # dL/d…
    scale: str
    gradient_scale: str
    pairs: list[Pair]


class Step(NamedTuple):
    """What a layer does with the image; `strips` has its weights, if it has kernels, and its output."""

    name: str
    kind: str
    size: str
    strips: list[Strip]


class Outcome(NamedTuple):
    """A class at the end: its logit z (NaN if the network gives none), ŷ, target y, and ŷ − y = dL/dz."""

    k: int
    logit: float
    probability: float
    target: int
    difference: float


class Update(NamedTuple):
    """What a step of gradient descent does to a parameter; sizes are root mean squares."""

    parameter: str
    size: int
    value: float
    gradient: float
    ratio: float  # size of the change over that of the value


class Weight(NamedTuple):
    """The weight with the largest gradient of the first parameter: by formula, and by nudging the weight."""

    parameter: str
    place: str
    value: float
    formula: float
    nudged: float


class Journey(NamedTuple):
    """The way of an image to the loss −log ŷ of its class, and back."""

    steps: list[Step]
    loss: float
    outcomes: list[Outcome]
    all_classes: bool  # whether `outcomes` has all of them
    updates: list[Update]
    rate: float
    change: float  # of the loss by this step
    promised: float  # by the slope alone: −rate · Σ (dL/dθ)²
    weight: Weight | None


def journey(model: Sequential, image: Array, label: int, description: Description) -> Journey:
    """Send an image (h, w, c) of class `label` through the network in evaluation, and the gradient back.

    It is computed in float64, since ŷ − y is all rounding in float32 if the network is very sure.
    """
    model = copy.deepcopy(model)
    for parameter in model.parameters().values():
        parameter.value = parameter.value.astype(np.float64)
    x = image[None].astype(np.float64)
    target = np.eye(len(description.class_names))[[label]]
    loss_of = partial(cross_entropy if gives_probabilities(model) else softmax_cross_entropy, targets=target)
    loss, trace = trace_backward(model, x, loss_of)
    kinds = dict(model.walk())
    steps = [_image_step(image, trace.network.grad_x[0], description)]
    before: Shape = image.shape
    for layer in _as_finished(trace.layers):
        kind, y = kinds[layer.name], layer.y[0]
        same = y.size == layer.x[0].size and np.array_equal(y.ravel(), layer.x[0].ravel())
        if len(steps) <= STEPS and not same and not kind.is_list:
            strips = _weights(kind, before, label, description, first=len(steps) == 1)
            is_end = layer.y is trace.network.y
            steps.append(
                Step(
                    layer.name,
                    type(kind).__name__,
                    size_in_words(y.shape),
                    strips if is_end else [*strips, *_output(layer)],
                )
            )
        before = y.shape if y.ndim == 3 else before
    gradients = {name: assigned(parameter.grad) for name, parameter in model.parameters().items()}
    weight = _nudge(model, gradients, lambda: loss_of(model.forward(x))[0])
    updates = []
    for name, parameter in model.parameters().items():
        value, gradient = (float(np.sqrt(np.square(a).mean())) for a in (parameter.value, gradients[name]))
        ratio = RATE * gradient / value if value else float("inf")
        updates.append(Update(name, parameter.value.size, value, gradient, ratio))
        parameter.value -= RATE * gradients[name]
    squares = sum(float(np.square(gradient).sum()) for gradient in gradients.values())
    outcomes = _outcomes(model, trace.network.y[0], label)
    return Journey(
        steps=steps,
        loss=loss,
        outcomes=outcomes,
        all_classes=len(outcomes) == target.size,
        updates=updates,
        rate=RATE,
        change=loss_of(model.forward(x))[0] - loss,
        promised=-RATE * squares,
        weight=weight,
    )


def _as_finished(layers: Sequence[Traced]) -> list[Traced]:
    """The layers in the order in which their outputs exist: each one after those inside it."""
    found: list[Traced] = []
    open_: list[Traced] = []
    for layer in layers:
        while open_ and not layer.name.startswith(f"{open_[-1].name}."):
            found.append(open_.pop())
        open_.append(layer)
    return found + open_[::-1]


def round_scale(limit: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `limit`, so that scales recur."""
    if not limit or not np.isfinite(limit):
        return 0.0
    power = 10.0 ** np.floor(np.log10(limit))
    return next(float(m * power) for m in (1, 2, 5, 10) if m * power >= limit * (1 - 1e-9))


def _image_step(image: Array, gradient: Array, description: Description) -> Step:
    channels = image.shape[2]
    names = COLOURS if channels == 3 else [str(k) for k in range(channels)] if channels > 1 else [""]
    bright, limit = description.brightness(image), round_scale(largest([gradient]))
    pairs = [
        Pair(name, visible(bright[..., k : k + 1]), marked(gradient[..., k], limit))
        for k, name in enumerate(names[:MAPS])
    ]
    strip = Strip("pixels", "dL/dpixel", "0 to 1", f"±{plain(limit)}", pairs)
    return Step("", "image", size_in_words(image.shape), [strip])


def _output(layer: Traced) -> list[Strip]:
    """The output's maps, or all numbers of a vector in one picture; nothing of very long vectors."""
    y, grad_y = layer.y[0], layer.grad_y[0]
    if y.ndim == 3:
        shown = range(min(y.shape[2], MAPS))
        arrays, gradients = ([a[..., k] for k in shown] for a in (y, grad_y))
        captions = [str(k) for k in shown]
    elif y.size <= NUMBERS:
        arrays, gradients, captions = [_rows(y)], [_rows(grad_y)], [f"all {y.size:,} numbers"]
    else:
        return []
    low, limit, shade = map_scale(arrays)
    return [_strip("output", "dL/d(output)", arrays, gradients, captions, (low, limit, shade))]


def map_scale(arrays: Sequence[Array]) -> tuple[float, float, Callable[[Array, float], Pixels]]:
    """(smallest, largest, shade) of one scale: from 0, black, if none is negative, else around 0, white."""
    limit = largest(list(arrays))
    negative = min((float(a.min(initial=0)) for a in arrays), default=0) < 0
    return (-limit, limit, marked) if negative else (0.0, limit, grey)


def _weights(
    layer: Layer, before: Shape, label: int, description: Description, *, first: bool
) -> list[Strip]:
    """The kernels of a convolution; of a layer that gives the classes, the true one's weights as maps."""
    if isinstance(layer, Conv2D):
        value, gradient = layer.kernel.value[:, :, 0], assigned(layer.kernel.grad)[:, :, 0]
        channels = layer.kernel.value.shape[2]
        what, symbol = "kernel", "dL/dkernel"
        if channels > 1:
            what += ", input channel 0" if not (first and channels == 3) else ", for red"
        captions = [str(k) for k in range(min(value.shape[-1], MAPS))]
    elif (
        isinstance(layer, Dense)
        and len(before) == 3
        and layer.weight.value.shape == (np.prod(before), len(description.class_names))
    ):
        value, gradient = (
            a[:, label].reshape(before) for a in (layer.weight.value, assigned(layer.weight.grad))
        )
        what, symbol = f"weights for {description.class_names[label]}, by input channel", "dL/dweight"
        captions = [str(k) for k in range(min(before[-1], MAPS))]
    else:
        return []
    arrays, gradients = ([a[..., k] for k in range(len(captions))] for a in (value, gradient))
    limit = largest(arrays)
    return [_strip(what, symbol, arrays, gradients, captions, (-limit, limit, marked))]


def _strip(
    what: str,
    symbol: str,
    arrays: list[Array],
    gradients: list[Array],
    captions: list[str],
    scale: tuple[float, float, Callable[[Array, float], Pixels]],
) -> Strip:
    low, limit, shade = scale
    gradient_limit = round_scale(largest(gradients))
    pairs = [
        Pair(caption, shade(array, limit), marked(gradient, gradient_limit))
        for caption, array, gradient in zip(captions, arrays, gradients, strict=True)
    ]
    text = f"±{plain(limit)}" if low else f"0 to {plain(limit)}"
    return Strip(what, symbol, text, f"±{plain(gradient_limit)}", pairs)


def _rows(vector: Array) -> Array:
    """A vector as rows of numbers; the last one is filled up with 0."""
    columns = min(len(vector), COLUMNS)
    rows = np.zeros((-(-len(vector) // columns), columns))
    rows.flat[: len(vector)] = vector
    return rows


def _outcomes(model: Sequential, outputs: Array, label: int) -> list[Outcome]:
    """All classes, or the most probable ones and the true one."""
    p = probabilities_of(model, outputs[None])[0]
    logits = np.full_like(p, np.nan) if gives_probabilities(model) else outputs
    shown = list(range(len(p)))
    if len(p) > CLASSES:
        shown = [int(k) for k in np.argsort(-p, kind="stable")[:CLASSES]]
        shown += [label] * (label not in shown)
    # Σ of the others instead of p − 1, in which most digits cancel
    difference = [-float(np.delete(p, k).sum()) if k == label else float(p[k]) for k in shown]
    return [
        Outcome(k, float(logits[k]), float(p[k]), int(k == label), d)
        for k, d in zip(shown, difference, strict=True)
    ]


def _nudge(model: Sequential, gradients: dict[str, Array], loss: Callable[[], float]) -> Weight | None:
    """The steepest weight of the first parameter, with its gradient by formula and by central difference."""
    for name, parameter in model.parameters().items():
        gradient = gradients[name]
        index = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        place = parameter.value[tuple(slice(i, i + 1) for i in index)]  # a view
        value = float(place.item())
        nudged = float(numeric_gradient(loss, place, NUDGE).item())
        where = ", ".join(str(int(i)) for i in index)
        return Weight(name, where, value, float(gradient[index]), nudged)
    return None
