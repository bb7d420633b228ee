"""Initial values that follow from the data."""

import numpy as np

from cnn.engine.replicas import Rows
from cnn.initializers import WHITENING_EPSILON, whitening
from cnn.layers import Conv2D, Sequential
from cnn.ops.windows import im2col, pad

IMAGES = 5_000  # that are looked at, at most
_AT_ONCE = 250  # images, or fewer if they have more than so many numbers in their patches:
_NUMBERS_AT_ONCE = 2**22


def whiten(model: Sequential, images: Rows) -> None:
    """Fit the first convolution of `model` to `images`, if its initialiser is `initializers.whitening`.

        Σ = mean of p pᵀ over the patches p of all images = V diag(λ) Vᵀ,    λ in descending order
        kernel = [K, −K],    K = V / sqrt(λ + epsilon),    epsilon = 0.0005

    so that the mean of y yᵀ over the outputs y = Kᵀ p is diag(λ / (λ + epsilon)): nearly the identity. Of the
    two eigenvectors ±v, the one whose entry of the largest magnitude (of equals the first) is positive is
    taken.
    Source: Coates & Ng, "Learning feature representations with k-means" (2012), section 3.2; as a first layer
    of fixed weights, Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024), section 3.2.

    Args:
        model: a network that takes `images`; other initial values stay.
        images: (n, h, w, c); the first 5,000 are used, a few at a time, so they may be on disk.

    Raises: ValueError if `layer_to_whiten` refuses the network, or if there is no image, or none of finite
    numbers.
    """
    layer = layer_to_whiten(model)
    if layer is None:
        return
    height, width, _ = layer.output_shape(images.shape[1:])
    patch = layer.kernel.value.size // layer.out_channels
    at_once = max(1, min(_AT_ONCE, _NUMBERS_AT_ONCE // (height * width * patch)))
    moments, count = np.zeros((patch, patch)), 0
    for start in range(0, min(len(images), IMAGES), at_once):
        batch = np.asarray(images[start : min(start + at_once, IMAGES)], np.float64)
        patches = im2col(pad(batch, layer.window.pads(*batch.shape[1:3])), layer.window)[0]
        moments, count = moments + patches.T @ patches, count + len(patches)
    if count == 0 or not np.isfinite(moments).all():
        raise ValueError(
            f"whiten needs images of finite numbers; received {'some that are not' if count else 'no image'}."
        )
    variances, directions = np.linalg.eigh(moments / count)  # in ascending order
    half = layer.out_channels // 2
    variances, directions = variances[::-1][:half], directions[:, ::-1][:, :half]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, range(half)])
    kernel = directions / np.sqrt(np.maximum(variances, 0) + WHITENING_EPSILON)
    fitted = np.concatenate([kernel, -kernel], axis=1).reshape(layer.kernel.value.shape)
    layer.kernel.value[...] = layer.place(fitted)


def layer_to_whiten(model: Sequential) -> Conv2D | None:
    """The first layer, if its initialiser is `initializers.whitening`; None if no layer has it.

    Raises: ValueError if a later layer has it, since what that one sees changes while the network learns; or
    one that is no convolution, or has its channels in groups.
    """
    layers = [layer for _, layer in model.walk() if not isinstance(layer, Sequential)]
    waiting = [layer for layer in layers if getattr(layer, "initializer", None) is whitening]
    if not waiting:
        return None
    first, *others = waiting
    if others or first is not layers[0] or not isinstance(first, Conv2D) or first.groups != 1:
        raise ValueError(
            "The initializer whitening is for a convolution that is the first layer, without groups; "
            f"received it in {(others or waiting)[0]!r}. Use another initializer there."
        )
    return first
