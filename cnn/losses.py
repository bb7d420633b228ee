"""Losses: functions (outputs, targets) -> (mean loss over the batch, dL/d(outputs))."""

import numpy as np
from jaxtyping import Float

from cnn.ops.softmax import log_softmax


def softmax_cross_entropy(
    logits: Float[np.ndarray, "n k"], targets: Float[np.ndarray, "n k"]
) -> tuple[float, Float[np.ndarray, "n k"]]:
    """How surprised the prediction softmax(logits) is by the targets.

        L = −1/N · Σ_n Σ_k targets[n, k] · log ŷ[n, k],    ŷ = softmax(logits)
        ∂L/∂logits = (ŷ − targets) / N

    The gradient is that simple because the exponential in softmax and the logarithm in the loss cancel:
    with z = logits of one example, −Σ_k t_k log ŷ_k = −Σ_k t_k z_k + log Σ_j exp(z_j) when Σ_k t_k = 1;
    its derivative is −t_k + ŷ_k. The 1/N of the mean appears here and nowhere else.
    Source: Bishop, "Pattern Recognition and Machine Learning" (2006), equations 4.108 and 4.109.

    Args:
        logits: any real numbers; one row for each example, one column for each class.
        targets: one-hot rows, or any rows of probabilities that sum to 1.

    Raises: ValueError where the two shapes differ or there is no example.
    """
    if logits.ndim != 2 or logits.shape != targets.shape or not len(logits):
        raise ValueError(
            "Logits and one-hot targets must both have shape (examples, classes), with at least one example; "
            f"received logits {logits.shape} and targets {targets.shape}."
        )
    log_p = log_softmax(logits)
    loss = -float((targets * log_p).sum()) / len(logits)
    return loss, (np.exp(log_p) - targets) / len(logits)
