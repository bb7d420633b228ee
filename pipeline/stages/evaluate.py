"""The evaluate stage: how good the trained network is, on validation and, once, on test images."""

import csv
import io
import json
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import classification_report, confusion_matrix
from threadpoolctl import threadpool_limits

from cnn import Examples, cross_entropy, softmax_cross_entropy
from cnn.atomic import write_text
from cnn.gradients import Loss
from cnn.layers.sequential import count_parameters
from cnn.parallel import Workers
from pipeline.artefacts.dataset import load_examples
from pipeline.artefacts.trained import load_trained, probabilities_of
from pipeline.config.architectures import gives_probabilities
from pipeline.config.params import Evaluate, load_params
from pipeline.cores import count_cores
from pipeline.paths import CLASSIFICATION_REPORT, METRICS, PREDICTIONS


def evaluate() -> None:
    """Write metrics, predictions and the classification report."""
    params = load_params().evaluate
    model, metadata, description = load_trained()
    names = description["class_names"]
    validation, test = load_examples("validation", description), load_examples("test", description)
    with threadpool_limits(1, user_api="blas"), Workers(model, count_cores()) as workers:
        validation_outputs = workers.predict(validation.images, params.batch_size)
        test_outputs = workers.predict(test.images, params.batch_size)

    loss = cross_entropy if gives_probabilities(model) else softmax_cross_entropy
    test_metrics, per_class, text = measure(test_outputs, test, loss, names, params)
    validation_metrics, _, _ = measure(validation_outputs, validation, loss, names, params)
    metrics = {
        "dataset": description["dataset"],
        "model": {
            "architecture": metadata["architecture"],
            "parameters": count_parameters(model),
            "epoch": metadata["epoch"],
        },
        "test": test_metrics,
        "validation": validation_metrics,
        "per_class": per_class,
    }
    actual, predicted = test.targets.argmax(axis=1), test_outputs.argmax(axis=1)
    matrix = confusion_matrix(actual, predicted, labels=range(len(names)))
    write_text(PREDICTIONS, predictions_csv(probabilities_of(model, test_outputs), actual, names))
    write_text(CLASSIFICATION_REPORT, f"{text}\n{format_matrix(matrix, names)}")
    write_text(METRICS, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    print(
        f"{description['dataset']}, {metadata['architecture']}: test accuracy {test_metrics['accuracy']:.2%} "
        f"of {len(actual):,} images. Metrics are in {METRICS}."
    )


def measure(
    outputs: NDArray[np.float32], examples: Examples, loss: Loss, names: Sequence[str], params: Evaluate
) -> tuple[dict[str, float], dict[str, dict[str, float]], str]:
    """(metrics, the same for each class, scikit-learn's classification report as text).

    The loss is the mean cross-entropy, whatever was minimised. Macro figures are plain means over classes.
    """
    actual, predicted = examples.targets.argmax(axis=1), outputs.argmax(axis=1)
    arguments: dict[str, Any] = {"labels": range(len(names)), "target_names": names, "zero_division": 0.0}
    report = classification_report(actual, predicted, output_dict=True, **arguments)
    correct = int((actual == predicted).sum())
    low, high = wilson_interval(correct, len(actual), params.confidence_level)
    metrics = {
        "accuracy": correct / len(actual),
        "accuracy_low": low,
        "accuracy_high": high,
        "loss": loss(outputs, examples.targets)[0],
        "macro_precision": report["macro avg"]["precision"],
        "macro_recall": report["macro avg"]["recall"],
        "macro_f1": report["macro avg"]["f1-score"],
        "examples": len(actual),
    }
    per_class = {
        name: {
            "precision": round(report[name]["precision"], 6),
            "recall": round(report[name]["recall"], 6),
            "f1": round(report[name]["f1-score"], 6),
            "support": int(report[name]["support"]),
        }
        for name in names
    }
    text = classification_report(actual, predicted, digits=4, **arguments)
    return {key: round(value, 6) for key, value in metrics.items()}, per_class, text


def wilson_interval(correct: int, total: int, level: float) -> tuple[float, float]:
    """The score interval for a fraction, p̂ = correct / total, at the confidence level `level`.

        (p̂ + z²/2n ± z·sqrt(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n),    z the normal quantile of (1 + level)/2

    Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    z = -NormalDist().inv_cdf((1 - level) / 2)
    fraction = correct / total
    centre = fraction + z * z / (2 * total)
    margin = z * (fraction * (1 - fraction) / total + z * z / (4 * total * total)) ** 0.5
    scale = 1 + z * z / total
    return (centre - margin) / scale, (centre + margin) / scale


def predictions_csv(
    probabilities: NDArray[np.float32], actual: NDArray[np.intp], names: Sequence[str]
) -> str:
    """A line for each test image: its place in the test set, actual and predicted class, and probability.

    The probability is what the network gave to what it predicted.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["index", "actual", "predicted", "probability"])
    for index, (label, row) in enumerate(zip(actual, probabilities, strict=True)):
        best = int(row.argmax())
        writer.writerow([index, names[label], names[best], f"{row[best]:.4f}"])
    return stream.getvalue()


def format_matrix(matrix: NDArray[np.int_], names: Sequence[str]) -> str:
    """The confusion matrix as a table of text."""
    width = max(6, *(len(name) + 1 for name in names))
    header = "actual \\ predicted".ljust(20) + "".join(name.rjust(width) for name in names)
    rows = [
        name.rjust(18).ljust(20) + "".join(str(n).rjust(width) for n in row)
        for name, row in zip(names, matrix, strict=True)
    ]
    return "\n".join([header, *rows]) + "\n"
