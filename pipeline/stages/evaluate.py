"""The evaluate stage: how good the trained network is, on validation and, once, on test images."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import classification_report, confusion_matrix, precision_recall_fscore_support
from threadpoolctl import threadpool_limits

from cnn import Examples, cross_entropy, softmax_cross_entropy
from cnn.atomic import write_text
from cnn.engine.replicas import Replicas
from cnn.engine.shards import Loss
from cnn.views import mean_over_views
from pipeline import device, ranks
from pipeline.artefacts.evaluate import (
    LARGEST_MATRIX,
    MANY_CLASSES,
    ClassMeasures,
    Measures,
    Metrics,
    Model,
    Prediction,
    Views,
    largest_confusions,
)
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.files import load_files
from pipeline.artefacts.train import Network
from pipeline.artefacts.trained import load_trained, probabilities_of
from pipeline.config.architectures import gives_probabilities
from pipeline.paths import CLASSIFICATION_REPORT, PROCESSED

if TYPE_CHECKING:
    from pipeline.config.params import Evaluate

LISTED = 50  # confusions
LONGEST_COLUMN = 14  # characters of a class's name above a column


def evaluate(options: "Evaluate", where: device.Device = "cpu") -> None:
    """Write metrics, predictions and the classification report."""
    model, network = load_trained()
    executor = ranks.make_executor(where)
    device.place(model, where)
    ranks.same_everywhere("other params", f"{options.model_dump()} {where}")
    ranks.check_same(
        "another network or other data",
        [Network.path, *sorted({*PROCESSED.glob("test_*.npy"), *PROCESSED.glob("validation_*.npy")})],
    )
    names = network.data.class_names
    validation, test = load_examples("validation", network.data), load_examples("test", network.data)
    chosen = options.test_time_augmentation.model_dump()
    averaged = Views(**chosen) if any(chosen.values()) else None
    with threadpool_limits(1, user_api="blas"), Replicas(model, executor) as replicas:
        predict = partial(replicas.predict, batch_size=options.batch_size)
        validation_outputs = mean_over_views(predict, validation.images, **chosen)
        test_outputs = mean_over_views(predict, test.images, **chosen)
    if not ranks.is_first():
        return

    loss = cross_entropy if gives_probabilities(model) else softmax_cross_entropy
    test_metrics, per_class, text = measure(test_outputs, test, loss, names, options.confidence_level)
    validation_metrics, _, _ = measure(validation_outputs, validation, loss, names, options.confidence_level)
    metrics = Metrics(
        dataset=network.data.dataset,
        model=Model.of(model, network),
        test=test_metrics,
        validation=validation_metrics,
        per_class=per_class,
        test_time_augmentation=averaged,
    )
    actual, predicted = test.targets.argmax(axis=1), test_outputs.argmax(axis=1)
    matrix = confusion_matrix(actual, predicted, labels=range(len(names)))
    files = load_files("test", network.data)
    Prediction.save(to_predictions(probabilities_of(model, test_outputs), actual, names, files))
    write_text(CLASSIFICATION_REPORT, f"{text}\n{format_matrix(matrix, names)}")
    metrics.save()
    print(
        f"{metrics.dataset}, {network.architecture}: test accuracy {metrics.test.accuracy:.2%} "
        f"of {len(actual):,} images{f' (outputs are {averaged})' if averaged else ''}. "
        f"Metrics are in {Metrics.path}."
    )


def measure(
    outputs: NDArray[np.float32], examples: Examples, loss: Loss, names: Sequence[str], level: float
) -> tuple[Measures, dict[str, ClassMeasures], str]:
    """(measures, measures of each class, scikit-learn's classification report as text), to six digits.

    The accuracy has Wilson's score interval at the confidence level `level`.

    The loss is the mean cross-entropy, whichever loss was minimised. Macro figures are means over classes.
    """
    actual, predicted = examples.targets.argmax(axis=1), outputs.argmax(axis=1)
    arguments: dict[str, Any] = {"labels": range(len(names)), "zero_division": 0.0}
    scores = precision_recall_fscore_support(actual, predicted, **arguments)
    correct = int((actual == predicted).sum())
    interval = binomtest(correct, len(actual)).proportion_ci(level, method="wilson")
    macro_precision, macro_recall, macro_f1 = (round(float(score.mean()), 6) for score in scores[:3])
    measures = Measures(
        accuracy=round(correct / len(actual), 6),
        accuracy_low=round(interval.low, 6),
        accuracy_high=round(interval.high, 6),
        loss=round(loss(outputs, examples.targets)[0], 6),
        macro_precision=macro_precision,
        macro_recall=macro_recall,
        macro_f1=macro_f1,
        examples=len(actual),
        top_5_accuracy=round(top_accuracy(outputs, actual, 5), 6) if len(names) > MANY_CLASSES else None,
    )
    per_class = {
        name: ClassMeasures(
            precision=round(float(precision), 6),
            recall=round(float(recall), 6),
            f1=round(float(f1), 6),
            support=int(support),
        )
        for name, precision, recall, f1, support in zip(names, *scores, strict=True)
    }
    text = classification_report(actual, predicted, digits=4, target_names=names, **arguments)
    return measures, per_class, text


def top_accuracy(outputs: NDArray[np.floating[Any]], actual: NDArray[np.intp], count: int) -> float:
    """The fraction of images whose class is among the `count` with the largest outputs.

    Of equal outputs the first come first, so that with `count` 1 it is the accuracy of argmax.
    """
    likeliest = np.argsort(-outputs, axis=1, kind="stable")[:, :count]
    return float((likeliest == actual[:, None]).any(axis=1).mean())


def to_predictions(
    probabilities: NDArray[np.float32], actual: NDArray[np.intp], names: Sequence[str], files: Sequence[str]
) -> list[Prediction]:
    """For each test image, the class with the highest probability, beside the actual class."""
    best = probabilities.argmax(axis=1)
    return [
        Prediction(
            index=index, actual=names[label], predicted=names[answer], probability=row[answer], file=file
        )
        for index, (label, answer, row, file) in enumerate(
            zip(actual, best, probabilities, files, strict=True)
        )
    ]


def format_matrix(matrix: NDArray[np.int_], names: Sequence[str]) -> str:
    """The confusion matrix as a table of text; of many classes, only the largest confusions.

    Classes with long names have numbers, in the order of the classification report.
    """
    if len(names) > LARGEST_MATRIX:
        lines = [
            f"{count:8,}  {names[actual]} taken for {names[predicted]}"
            for actual, predicted, count in largest_confusions(matrix, LISTED)
        ]
        return "\n".join(["The largest confusions", *(lines or ["There are none."])]) + "\n"
    titles, columns = list(names), list(names)
    if max(map(len, names)) > LONGEST_COLUMN:
        columns = [str(number) for number in range(len(names))]
        titles = [f"{name}  {number}" for number, name in enumerate(names)]
    width = max(6, *(len(column) + 1 for column in columns))
    left = max(18, *map(len, titles))
    header = "actual \\ predicted".ljust(left + 2) + "".join(column.rjust(width) for column in columns)
    rows = [
        title.rjust(left).ljust(left + 2) + "".join(str(n).rjust(width) for n in row)
        for title, row in zip(titles, matrix, strict=True)
    ]
    return "\n".join([header, *rows]) + "\n"
