"""The evaluate stage: how good the trained network is, on validation and, once, on test images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import classification_report, confusion_matrix
from threadpoolctl import threadpool_limits

from cnn import Examples, Processes, cross_entropy, softmax_cross_entropy
from cnn.atomic import write_text
from cnn.engine.replicas import Replicas
from cnn.engine.shards import Loss
from pipeline.artefacts.evaluate import ClassMeasures, Measures, Metrics, Model, Prediction
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.trained import load_trained, probabilities_of
from pipeline.config.architectures import gives_probabilities
from pipeline.cores import count_cores
from pipeline.paths import CLASSIFICATION_REPORT

if TYPE_CHECKING:
    from pipeline.config.params import Evaluate


def evaluate(options: "Evaluate") -> None:
    """Write metrics, predictions and the classification report."""
    model, network = load_trained()
    names = network.data.class_names
    validation, test = load_examples("validation", network.data), load_examples("test", network.data)
    with threadpool_limits(1, user_api="blas"), Replicas(model, Processes(count_cores())) as replicas:
        validation_outputs = replicas.predict(validation.images, options.batch_size)
        test_outputs = replicas.predict(test.images, options.batch_size)

    loss = cross_entropy if gives_probabilities(model) else softmax_cross_entropy
    test_metrics, per_class, text = measure(test_outputs, test, loss, names, options.confidence_level)
    validation_metrics, _, _ = measure(validation_outputs, validation, loss, names, options.confidence_level)
    metrics = Metrics(
        dataset=network.data.dataset,
        model=Model.of(model, network),
        test=test_metrics,
        validation=validation_metrics,
        per_class=per_class,
    )
    actual, predicted = test.targets.argmax(axis=1), test_outputs.argmax(axis=1)
    matrix = confusion_matrix(actual, predicted, labels=range(len(names)))
    Prediction.save(to_predictions(probabilities_of(model, test_outputs), actual, names))
    write_text(CLASSIFICATION_REPORT, f"{text}\n{format_matrix(matrix, names)}")
    metrics.save()
    print(
        f"{metrics.dataset}, {network.architecture}: test accuracy {metrics.test.accuracy:.2%} "
        f"of {len(actual):,} images. Metrics are in {Metrics.path}."
    )


def measure(
    outputs: NDArray[np.float32], examples: Examples, loss: Loss, names: Sequence[str], level: float
) -> tuple[Measures, dict[str, ClassMeasures], str]:
    """(measures, measures of each class, scikit-learn's classification report as text), to six digits.

    The accuracy has Wilson's score interval at the confidence level `level`.

    The loss is the mean cross-entropy, whichever loss was minimised. Macro figures are means over classes.
    """
    actual, predicted = examples.targets.argmax(axis=1), outputs.argmax(axis=1)
    arguments: dict[str, Any] = {"labels": range(len(names)), "target_names": names, "zero_division": 0.0}
    report = classification_report(actual, predicted, output_dict=True, **arguments)
    correct = int((actual == predicted).sum())
    interval = binomtest(correct, len(actual)).proportion_ci(level, method="wilson")
    measures = Measures(
        accuracy=round(correct / len(actual), 6),
        accuracy_low=round(interval.low, 6),
        accuracy_high=round(interval.high, 6),
        loss=round(loss(outputs, examples.targets)[0], 6),
        macro_precision=round(report["macro avg"]["precision"], 6),
        macro_recall=round(report["macro avg"]["recall"], 6),
        macro_f1=round(report["macro avg"]["f1-score"], 6),
        examples=len(actual),
    )
    per_class = {
        name: ClassMeasures(
            precision=round(report[name]["precision"], 6),
            recall=round(report[name]["recall"], 6),
            f1=round(report[name]["f1-score"], 6),
            support=int(report[name]["support"]),
        )
        for name in names
    }
    text = classification_report(actual, predicted, digits=4, **arguments)
    return measures, per_class, text


def to_predictions(
    probabilities: NDArray[np.float32], actual: NDArray[np.intp], names: Sequence[str]
) -> list[Prediction]:
    """For each test image, the class with the highest probability, beside the actual class."""
    best = probabilities.argmax(axis=1)
    return [
        Prediction(index=index, actual=names[label], predicted=names[answer], probability=row[answer])
        for index, (label, answer, row) in enumerate(zip(actual, best, probabilities, strict=True))
    ]


def format_matrix(matrix: NDArray[np.int_], names: Sequence[str]) -> str:
    """The confusion matrix as a table of text."""
    width = max(6, *(len(name) + 1 for name in names))
    header = "actual \\ predicted".ljust(20) + "".join(name.rjust(width) for name in names)
    rows = [
        name.rjust(18).ljust(20) + "".join(str(n).rjust(width) for n in row)
        for name, row in zip(names, matrix, strict=True)
    ]
    return "\n".join([header, *rows]) + "\n"
