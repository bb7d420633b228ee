"""Losses: functions (outputs, targets) -> (mean loss over the batch, dL/d(outputs)).

The 1/N of the mean appears here, once, and nowhere else in a gradient.
"""

import numpy as np
from jaxtyping import Float

from cnn.ops.softmax import log_softmax


def softmax_cross_entropy(
    logits: Float[np.ndarray, "n k"],
    targets: Float[np.ndarray, "n k"],
    *,
    label_smoothing: float = 0.0,
    class_weights: Float[np.ndarray, " k"] | None = None,
) -> tuple[float, Float[np.ndarray, "n k"]]:
    """How surprised the prediction softmax(logits) is by the targets.

        L = −1/N · Σ_n Σ_k t[n, k] · log ŷ[n, k],    ŷ = softmax(logits)
        ∂L/∂logits = (ŷ · Σ_k t − t) / N,    which is (ŷ − t) / N where Σ_k t = 1
        t[n, k] = class_weights[k] · ((1 − label_smoothing) · targets[n, k] + label_smoothing / K)

    The gradient is that simple because the exponential in softmax and the logarithm in the loss cancel:
    with z = logits of one example, −Σ_k t_k log ŷ_k = −Σ_k t_k z_k + Σ_k t_k · log Σ_j exp(z_j), and the
    derivative of log Σ_j exp(z_j) is ŷ. Weighted or not, the mean is over the N examples.
    Source: Bishop, "Pattern Recognition and Machine Learning" (2006), equations 4.108 and 4.109; for label
    smoothing, Szegedy, Vanhoucke, Ioffe, Shlens & Wojna, "Rethinking the Inception architecture" (2016).

    Args:
        logits: any real numbers; one row for each example, one column for each class.
        targets: one-hot rows, or any rows of probabilities that sum to 1.
        label_smoothing: the part of each target that goes to all K classes alike, in [0, 1].
        class_weights: how much each class counts, >= 0; None is 1 for all.

    Raises: ValueError where shapes differ, there is no example, or an option is out of its range.
    """
    _check_shapes("Logits", logits, targets)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1]; received {label_smoothing!r}.")
    if label_smoothing:
        targets = (1 - label_smoothing) * targets + label_smoothing / targets.shape[1]
    if class_weights is not None:
        targets = targets * _check_weights(class_weights, targets.shape[1]).astype(targets.dtype)
    log_p = log_softmax(logits)
    loss = -float((targets * log_p).sum()) / len(logits)
    return loss, (np.exp(log_p) * targets.sum(axis=1, keepdims=True) - targets) / len(logits)


def cross_entropy(
    probabilities: Float[np.ndarray, "n k"], targets: Float[np.ndarray, "n k"]
) -> tuple[float, Float[np.ndarray, "n k"]]:
    """How surprised the predicted probabilities are by the targets: for networks that end in Softmax.

        L = −1/N · Σ_n Σ_k targets[n, k] · log ŷ[n, k]
        ∂L/∂ŷ = −targets / ŷ / N

    A probability that is 0 in floating point counts as the smallest positive number, and no gradient comes
    back from it through softmax; `softmax_cross_entropy` on logits does not have that weakness.
    Source: Goodfellow, Bengio & Courville, "Deep Learning" (2016), section 6.2.2.

    Raises: ValueError where the two shapes differ, there is no example, or a probability is negative.
    """
    _check_shapes("Probabilities", probabilities, targets)
    if probabilities.min() < 0:
        raise ValueError(
            f"Probabilities must be >= 0; received {probabilities.min():g}. Does the network end in Softmax?"
        )
    p = np.maximum(probabilities, np.finfo(probabilities.dtype).tiny)
    loss = -float((targets * np.log(p)).sum()) / len(p)
    return loss, targets / p / -len(p)


def mean_squared_error(
    outputs: Float[np.ndarray, "n k"], targets: Float[np.ndarray, "n k"]
) -> tuple[float, Float[np.ndarray, "n k"]]:
    """The mean squared distance of each output from its target.

        L = 1/(N·K) · Σ_n Σ_k (outputs[n, k] − targets[n, k])²
        ∂L/∂outputs = 2 · (outputs − targets) / (N·K)

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006), equation 5.14, as a mean.
    Raises: ValueError where the two shapes differ or there is no example.
    """
    _check_shapes("Outputs", outputs, targets)
    difference = outputs - targets
    return float(np.square(difference).mean()), difference * (2 / difference.size)


def _check_shapes(name: str, outputs: Float[np.ndarray, "*a"], targets: Float[np.ndarray, "*b"]) -> None:
    if outputs.ndim != 2 or outputs.shape != targets.shape or not len(outputs):
        raise ValueError(
            f"{name} and one-hot targets must both have shape (examples, classes), with at least one "
            f"example; received {name.lower()} {outputs.shape} and targets {targets.shape}."
        )


def _check_weights(weights: Float[np.ndarray, " k"], classes: int) -> Float[np.ndarray, " k"]:
    if weights.shape != (classes,) or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(
            f"class_weights must be {classes} finite numbers >= 0, one for each class; "
            f"received {weights.tolist()}."
        )
    return weights
