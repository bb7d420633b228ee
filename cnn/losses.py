"""Losses: functions (outputs, targets) -> (mean loss over the batch, dL/d(outputs)).

The 1/N of the mean appears here, once, and nowhere else in a gradient.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from jaxtyping import Float, Shaped

from cnn.checks import Fraction, Given, NotNegative
from cnn.ops.arrays import place
from cnn.ops.softmax import log_softmax
from cnn.registry import LOSSES


@LOSSES.register
def softmax_cross_entropy(
    logits: Annotated[Float[np.ndarray, "n k"], Given],
    targets: Annotated[Shaped[np.ndarray, "n k"], Given],
    *,
    label_smoothing: Fraction = 0.0,
    class_weights: Sequence[NotNegative] | None = None,
) -> tuple[float, Float[np.ndarray, "n k"]]:
    """Cross-entropy of softmax(logits): how improbable the prediction makes the targets.

        L = −1/N · Σ_n Σ_k t[n, k] · log ŷ[n, k],    ŷ = softmax(logits)
        ∂L/∂logits = (ŷ · Σ_k t − t) / N,    which is (ŷ − t) / N if Σ_k t = 1
        t[n, k] = class_weights[k] · ((1 − label_smoothing) · targets[n, k] + label_smoothing / K)

    The gradient is this simple because the exponential in softmax and the logarithm in the loss cancel:
    with z = logits of one example, −Σ_k t_k log ŷ_k = −Σ_k t_k z_k + Σ_k t_k · log Σ_j exp(z_j), and the
    derivative of log Σ_j exp(z_j) is ŷ. With or without weights, the mean is over the N examples.
    Source: Bishop, "Pattern Recognition and Machine Learning" (2006), equations 4.108 and 4.109; for label
    smoothing, Szegedy, Vanhoucke, Ioffe, Shlens & Wojna, "Rethinking the Inception architecture" (2016).

    Args:
        logits: any real numbers; one row for each example, one column for each class.
        targets: one-hot rows, or any rows of probabilities that sum to 1, of any dtype.
        label_smoothing: the fraction of each target that is spread evenly over all K classes.
        class_weights: the weight of each class; None is 1 for all.

    Raises: ValueError if shapes differ, there is no example, or an option is out of its range.
    """
    targets = _checked_targets("Logits", logits, targets)
    if label_smoothing:
        targets = (1 - label_smoothing) * targets + label_smoothing / targets.shape[1]
    if class_weights is not None:
        targets = targets * _checked_weights(class_weights, targets)
    log_p = log_softmax(logits)
    loss = -float((targets * log_p).sum()) / len(logits)
    return loss, (np.exp(log_p) * targets.sum(axis=1, keepdims=True) - targets) / len(logits)


@LOSSES.register
def cross_entropy(
    probabilities: Annotated[Float[np.ndarray, "n k"], Given],
    targets: Annotated[Shaped[np.ndarray, "n k"], Given],
) -> tuple[float, Float[np.ndarray, "n k"]]:
    """Cross-entropy of predicted probabilities, for networks that end in Softmax.

        L = −1/N · Σ_n Σ_k targets[n, k] · log ŷ[n, k]
        ∂L/∂ŷ = −targets / ŷ / N

    A probability that is 0 in floating point counts as the smallest positive number, and softmax passes no
    gradient back from it. `softmax_cross_entropy` on logits does not have this weakness.
    Source: Goodfellow, Bengio & Courville, "Deep Learning" (2016), section 6.2.2.

    Raises: ValueError if the two shapes differ, there is no example, or a probability is negative.
    """
    targets = _checked_targets("Probabilities", probabilities, targets)
    if probabilities.min() < 0:
        raise ValueError(
            f"Probabilities must be >= 0; received {probabilities.min():g}. Does the network end in Softmax?"
        )
    p = np.maximum(probabilities, np.finfo(probabilities.dtype).tiny)
    loss = -float((targets * np.log(p)).sum()) / len(p)
    return loss, targets / p / -len(p)


@LOSSES.register
def mean_squared_error(
    outputs: Annotated[Float[np.ndarray, "n k"], Given],
    targets: Annotated[Shaped[np.ndarray, "n k"], Given],
) -> tuple[float, Float[np.ndarray, "n k"]]:
    """The mean squared distance of each output from its target.

        L = 1/(N·K) · Σ_n Σ_k (outputs[n, k] − targets[n, k])²
        ∂L/∂outputs = 2 · (outputs − targets) / (N·K)

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006), equation 5.14, as a mean.
    Raises: ValueError if the two shapes differ or there is no example.
    """
    targets = _checked_targets("Outputs", outputs, targets)
    difference = outputs - targets
    return float(np.square(difference).mean()), difference * (2 / difference.size)


def _checked_targets(
    name: str, outputs: Float[np.ndarray, "*a"], targets: Shaped[np.ndarray, "*b"]
) -> Float[np.ndarray, "n k"]:
    """`targets` in the dtype of `outputs`, so that the gradient also has this dtype."""
    if outputs.ndim != 2 or outputs.shape != targets.shape or not len(outputs):
        raise ValueError(
            f"{name} and one-hot targets must both have shape (examples, classes), with at least one "
            f"example; received {name.lower()} {outputs.shape} and targets {targets.shape}."
        )
    return targets.astype(outputs.dtype, copy=False)


def _checked_weights(weights: Sequence[float], targets: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    with np.errstate(over="ignore"):  # overflow is detected below
        array = np.asarray(weights, targets.dtype)
    classes = targets.shape[1]
    if array.shape != (classes,) or not np.isfinite(array).all() or array.min() < 0 or not array.any():
        raise ValueError(
            f"class_weights must be {classes} finite numbers >= 0, one for each class and not all 0; "
            f"received {np.asarray(weights).tolist()}."
        )
    return place(array, like=targets)
