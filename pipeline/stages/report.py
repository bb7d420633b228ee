"""The report stage: a page about the trained network, its figures as PNG files, and a model card."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix
from threadpoolctl import threadpool_limits

from cnn import Examples, Processes, Sequential
from cnn.atomic import write_text
from cnn.engine.replicas import Replicas
from cnn.inspection import kernels, occlusion
from cnn.layers.trace import trace_forward
from pipeline.artefacts.evaluate import Metrics, Model, Prediction, Predictions, load_predictions
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.train import Epoch, Network, ParameterStatistics
from pipeline.artefacts.trained import load_trained, probabilities_of
from pipeline.cores import count_cores
from pipeline.errors import UserError
from pipeline.paths import FIGURES, MODEL_CARD, REPORT
from pipeline.report import figures
from pipeline.report.calibration import calibration_bins
from pipeline.report.figures import save_figure
from pipeline.report.model_card import model_card
from pipeline.report.page import Example, Findings, build

if TYPE_CHECKING:
    from pipeline.config.params import Params

WRONG, HARD = 20, 10  # images shown
MAPS = 12  # shown of a layer: the first ones
KERNELS = (4, 16)  # shown of a convolution: input channels, output channels
SHOWN = 0  # the test image that is followed through the layers


def report(params: "Params") -> None:
    """Write report.html, model_card.md and the figures to reports/."""
    model, network = load_trained()
    names = network.data.class_names
    metrics, predictions = Metrics.load(), load_predictions(names)
    measured = metrics.dataset, metrics.model, set(metrics.per_class)
    if measured != (network.data.dataset, Model.of(model, network), set(names)):
        raise UserError(f"{Metrics.path} does not belong to {Network.path}. Update both with: dvc repro")
    history, statistics = ([dict(row) for row in rows] for rows in (Epoch.load(), ParameterStatistics.load()))
    test = load_examples("test", network.data)
    if not np.array_equal(predictions.actual, test.targets.argmax(axis=1)):
        raise UserError(f"{Prediction.path} does not belong to data/processed. Update both with: dvc repro")
    matrix = confusion_matrix(predictions.actual, predictions.predicted, labels=range(len(names)))
    bins = calibration_bins(predictions.probability, predictions.actual == predictions.predicted)

    with threadpool_limits(1, user_api="blas"), Replicas(model, Processes(count_cores())) as replicas:

        def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
            return probabilities_of(model, replicas.predict(images))

        wrong, hard = select(predictions, test, predict)
        arguments = [
            occlude(example, predict, network.data)
            for example in one_of_each_class(predictions, test, predict)
        ]
        (followed,) = _examples(np.array([SHOWN]), predictions, test, predict)
        maps = feature_maps(model, followed.image)
    filters = kernel_tiles(model)
    title = f"{network.data.dataset}, {network.architecture}"
    drawn = {
        "confusion_matrix": figures.confusion_matrix_figure(
            matrix,
            names,
            f"{title}: test accuracy {metrics.test.accuracy:.2%} of {len(test.images):,} images",
        ),
        "training_curves": figures.training_curves_figure(history),
        "calibration": figures.calibration_figure(bins),
        "statistics": figures.statistics_figure(statistics),
        "misclassified": figures.tiles_figure(
            [
                ("", [(_caption(e, names), e.image[..., 0]) for e in wrong[start : start + 10]])
                for start in range(0, max(len(wrong), 1), 10)
            ],
            [figures.GREY] * -(-max(len(wrong), 1) // 10),
        ),
        "feature_maps": figures.tiles_figure(maps, [figures.GREY] * len(maps)),
        "occlusion": figures.tiles_figure(
            [
                ("image", [(names[e.actual], e.image[..., 0]) for e, _ in arguments]),
                ("for, against", [("", heat / (np.abs(heat).max() or 1)) for _, heat in arguments]),
            ],
            [figures.GREY, figures.DIVERGING],
        ),
        "filters": figures.tiles_figure(
            filters or [("no kernel", [])], [figures.DIVERGING] * max(len(filters), 1)
        ),
    }
    for name, figure in drawn.items():
        save_figure(figure, FIGURES / f"{name}.png")
    write_text(MODEL_CARD, model_card(network, metrics, bins, params))
    described = {
        "training_curves": "Loss, accuracy and learning rate by epoch",
        "calibration": "Accuracy by confidence, beside the diagonal of perfect calibration",
        "statistics": "Length of gradients and spread of weights by epoch",
    }
    page = build(
        Findings(
            network=network,
            metrics=metrics,
            params=params,
            model=model,
            matrix=matrix,
            bins=bins,
            svgs={name: figures.to_svg(drawn[name], text) for name, text in described.items()},
            wrong=wrong,
            hard=hard,
            confused=confused(predictions, test),
            filters=filters,
            maps=maps,
            followed=followed,
            arguments=arguments,
        )
    )
    write_text(REPORT, page)
    print(f"{REPORT} shows what the network learnt; its figures are in {FIGURES}.")


Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def select(predictions: Predictions, test: Examples, predict: Predict) -> tuple[list[Example], list[Example]]:
    """(the most confident wrong answers, the least confident right answers)."""
    right = predictions.actual == predictions.predicted
    order = np.argsort(predictions.probability, kind="stable")
    wrong = order[~right[order]][::-1][:WRONG]
    hard = order[right[order]][:HARD]
    return _examples(wrong, predictions, test, predict), _examples(hard, predictions, test, predict)


def one_of_each_class(predictions: Predictions, test: Examples, predict: Predict) -> list[Example]:
    """The first correctly recognised image of each class."""
    right = predictions.actual == predictions.predicted
    indices = [np.flatnonzero(right & (predictions.actual == c))[:1] for c in range(test.targets.shape[1])]
    return _examples(np.concatenate(indices), predictions, test, predict)


def occlude(
    example: Example, predict: Predict, description: Description
) -> tuple[Example, NDArray[np.floating[Any]]]:
    """The example, and by how much each place raises (+) or lowers (−) the margin of its class."""

    def margin(images: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        logs = np.log(np.maximum(predict(images.astype(np.float32)), np.finfo(np.float32).tiny))
        return logs[:, example.actual] - np.delete(logs, example.actual, axis=1).max(axis=1)

    return example, occlusion(margin, example.image, background=description.normalised_background)


def confused(predictions: Predictions, test: Examples) -> dict[tuple[int, int], list[NDArray[np.float32]]]:
    """Up to three images for each pair (actual, predicted) of different classes."""
    found: dict[tuple[int, int], list[NDArray[np.float32]]] = {}
    for index in np.flatnonzero(predictions.actual != predictions.predicted):
        pair = int(predictions.actual[index]), int(predictions.predicted[index])
        if len(found.setdefault(pair, [])) < 3:
            found[pair].append(test.images[index])
    return found


def kernel_tiles(model: Sequential) -> list[tuple[str, list[tuple[str, NDArray[np.floating[Any]]]]]]:
    """A row for each of the first input channels of each convolution: its kernels."""
    return [
        (f"layer {name}" + (f", in {channel}" if kernel.shape[2] > 1 else ""), tiles)
        for name, kernel in kernels(model)
        if kernel.shape[0] * kernel.shape[1] > 1
        for channel in range(min(kernel.shape[2], KERNELS[0]))
        for tiles in [[("", kernel[:, :, channel, out]) for out in range(min(kernel.shape[3], KERNELS[1]))]]
    ]


def feature_maps(
    model: Sequential, image: NDArray[np.float32]
) -> list[tuple[str, list[tuple[str, NDArray[np.floating[Any]]]]]]:
    """The image, and a row of maps for each layer whose output is an image."""
    rows = [("image", [("", image[..., 0])])]
    for name, layer, y in trace_forward(model, image[None]):
        if y.ndim == 4:
            maps = [("", y[0, :, :, channel]) for channel in range(min(y.shape[3], MAPS))]
            rows.append((f"{name} {type(layer).__name__}", maps))
    return rows


def _examples(
    indices: NDArray[np.intp], predictions: Predictions, test: Examples, predict: Predict
) -> list[Example]:
    images = np.asarray(test.images[indices])
    return [
        Example(int(index), image, int(predictions.actual[index]), p)
        for index, image, p in zip(indices, images, predict(images), strict=True)
    ]


def _caption(example: Example, names: list[str]) -> str:
    return f"{names[example.actual]} as {names[int(example.probabilities.argmax())]}"
