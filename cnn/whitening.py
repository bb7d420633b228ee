"""Initial values that follow from the data."""

import numpy as np
from jaxtyping import Float

from cnn.initializers import WHITENING_EPSILON, whitening
from cnn.layers import Conv2D, Layer, Sequential
from cnn.ops.windows import im2col, pad

_AT_ONCE = 250  # images


def whiten(model: Sequential, images: Float[np.ndarray, "n h w c"]) -> None:
    """Fit the first convolution of `model` to `images`, if its initialiser is `initializers.whitening`.

        Σ = mean of p pᵀ over the patches p of all images = V diag(λ) Vᵀ,    λ in descending order
        kernel = [K, −K],    K = V / sqrt(λ + epsilon),    epsilon = 0.0005

    so that the mean of y yᵀ over the outputs y = Kᵀ p is diag(λ / (λ + epsilon)): nearly the identity. Of the
    two eigenvectors ±v, the one whose entry of the largest magnitude (of equals the first) is positive is
    taken. Later layers with this initialiser are refused: what they see changes while the network learns.
    Source: Coates & Ng, "Learning feature representations with k-means" (2012), section 3.2; as a first layer
    of fixed weights, Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024), section 3.2.

    Args:
        model: a network that takes `images`; other initial values stay.
        images: a few thousand images are enough.

    Raises: ValueError if another layer than the first one has this initialiser, if its channels are in
    groups, or if there is no image.
    """
    waiting = [layer for _, layer in model.walk() if getattr(layer, "initializer", None) is whitening]
    if not waiting:
        return
    first: Layer = model
    while isinstance(first, Sequential):
        first = first[0]
    others = [layer for layer in waiting if layer is not first]
    if others or not isinstance(first, Conv2D) or first.groups != 1:
        raise ValueError(
            "The initializer whitening is for a convolution that is the first layer, without groups; "
            f"received it in {(others or waiting)[0]!r}. Use another initializer there."
        )
    if len(images) == 0:
        raise ValueError("whiten needs images; received none.")
    first.output_shape(images.shape[1:])
    half = first.out_channels // 2
    total, count = np.zeros(()), 0
    for start in range(0, len(images), _AT_ONCE):
        batch = np.asarray(images[start : start + _AT_ONCE], np.float64)
        patches = im2col(pad(batch, first.window.pads(*batch.shape[1:3])), first.window)[0]
        total, count = total + patches.T @ patches, count + len(patches)
    variances, directions = np.linalg.eigh(total / count)  # in ascending order
    variances, directions = variances[::-1][:half], directions[:, ::-1][:, :half]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, range(half)])
    kernel = directions / np.sqrt(np.maximum(variances, 0) + WHITENING_EPSILON)
    first.kernel.value[...] = np.concatenate([kernel, -kernel], axis=1).reshape(first.kernel.value.shape)
