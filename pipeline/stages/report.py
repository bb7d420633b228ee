"""The report stage: a page about the trained network, its figures as PNG files, and a model card."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cnn import Examples, Processes, Sequential
from cnn.atomic import write_text
from cnn.engine.replicas import Replicas
from cnn.inspection import Occlusion, kernels
from cnn.views import mean_over_views
from pipeline.artefacts.evaluate import (
    LARGEST_MATRIX,
    Confusion,
    Metrics,
    Model,
    Prediction,
    Predictions,
    largest_confusions,
    load_predictions,
)
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.train import Epoch, Network, ParameterStatistics
from pipeline.artefacts.trained import load_trained, probabilities_of
from pipeline.config.architectures import gives_probabilities
from pipeline.cores import count_cores
from pipeline.errors import UserError
from pipeline.paths import FIGURES, MODEL_CARD, REPORT
from pipeline.report import figures
from pipeline.report.calibration import calibration_bins
from pipeline.report.evidence import evidence, times
from pipeline.report.facts import plain
from pipeline.report.figures import Row, labels, name_figure, save_figure
from pipeline.report.images import coloured, largest, marked, visible
from pipeline.report.journey import Journey, journey
from pipeline.report.model_card import model_card
from pipeline.report.page import Argument, Example, Findings, build

if TYPE_CHECKING:
    from pipeline.config.params import Params

WRONG, HARD = 10, 10  # images shown
SURE = 0.9  # the probability above which a right answer is no close call
ARGUMENTS = (10, 2)  # right answers, each of another class, and wrong ones, whose evidence is shown
CONFUSIONS = (12, 30)  # pairs of classes listed, beside a matrix and without one
IMAGES = 3  # shown of a pair
KERNELS = (4, 16)  # shown of a convolution: input channels, output channels
CONVOLUTIONS = 12  # shown
TINY = np.finfo(np.float32).tiny
Predict = Callable[[NDArray[np.floating[Any]]], NDArray[np.float32]]


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
    matrix = predictions.matrix(len(names))
    bins = calibration_bins(predictions.probability, predictions.actual == predictions.predicted)

    pairs = largest_confusions(matrix, CONFUSIONS[len(names) > LARGEST_MATRIX])

    averaged = metrics.test_time_augmentation.model_dump() if metrics.test_time_augmentation else {}

    with threadpool_limits(1, user_api="blas"), Replicas(model, Processes(count_cores())) as replicas:
        outputs_of = partial(replicas.predict, batch_size=params.evaluate.batch_size)

        def outputs_for(images: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
            return mean_over_views(outputs_of, images.astype(np.float32), **averaged)

        def predict(images: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
            return probabilities_of(model, outputs_for(images))

        def log_probabilities(images: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
            outputs = outputs_for(images)
            return np.log(np.maximum(outputs, TINY)) if gives_probabilities(model) else outputs

        wrong, hard = select(predictions, test, predict)
        argued = one_of_each_class(predictions, test, predict) + wrong[: ARGUMENTS[1]]
        arguments = [
            argument(e, evidence(log_probabilities, e.image, e.answers[0], network.data), network.data)
            for e in argued
        ]
        (followed,) = _examples(least_sure(predictions), predictions, test, predict)
        followed_through = journey(model, followed.image, followed.actual, network.data)
    filters = kernel_rows(model, network.data)
    title = f"{network.architecture} on {network.data.title}"
    sizes = {name: parameter.value.size for name, parameter in model.parameters().items()}
    short = labels(names, 11)  # under images
    wrong_tiles = [(_caption(e, short), visible(network.data.brightness(e.image))) for e in wrong]
    in_a_row = 10 if max(map(len, short)) <= 4 else 7
    drawn = {
        "confusion_matrix": figures.confusion_matrix_figure(
            matrix,
            names,
            f"Test accuracy {metrics.test.accuracy:.2%} of {len(test.images):,} images",
        ),
        "training_curves": figures.training_curves_figure(history, network.epoch),
        "calibration": figures.calibration_figure(bins),
        "statistics": figures.statistics_figure(statistics, sizes),
        "misclassified": figures.tiles_figure(
            [Row("", wrong_tiles[k : k + in_a_row]) for k in range(0, len(wrong_tiles), in_a_row)],
            "The most confident wrong answers on test images: class, and answer",
            width=0.62 if in_a_row == 10 else 0.9,
        ),
        "feature_maps": figures.tiles_figure(
            feature_maps(followed_through),
            f"Test image {followed.number} in the layers: "
            "0 is black, or white beside orange (−) and blue (+)",
        ),
        "occlusion": figures.tiles_figure(
            [
                Row("image", [(_caption(a.example, short), a.image) for a in arguments]),
                Row(
                    "for the answer (blue),\nagainst it (orange);\nodds multiplied by;\nscale of log-odds",
                    [(f"{a.times}\n±{a.scale}", a.heat) for a in arguments],
                ),
            ],
            "What argued for the answers: what covering a patch does to their odds",
            width=0.8,
        ),
        "filters": figures.tiles_figure(filters, "Kernels of the convolutions, by output channel"),
    }
    write_text(MODEL_CARD, model_card(network, metrics, matrix, bins, params))
    described = {
        "training_curves": "Loss and accuracy by epoch, and the learning rate if it changes",
        "calibration": "How often answers are right, by their confidence, beside the diagonal",
        "statistics": "Size of gradients and spread of weights by epoch",
    }
    svgs = {name: figures.to_svg(drawn[name], text) for name, text in described.items()}
    for name, figure in drawn.items():
        name_figure(figure, title)
        save_figure(figure, FIGURES / f"{name}.png")
    page = build(
        Findings(
            network=network,
            metrics=metrics,
            params=params,
            model=model,
            history=history,
            matrix=matrix,
            bins=bins,
            svgs=svgs,
            wrong=wrong,
            hard=hard,
            pairs=pairs,
            confused=confused(pairs, predictions, test),
            filters=filters,
            journey=followed_through,
            followed=followed,
            statistics=statistics,
            arguments=arguments,
            sure=SURE,
        )
    )
    write_text(REPORT, page)
    print(f"{REPORT} shows what the network learnt; its figures are in {FIGURES}.")


def select(predictions: Predictions, test: Examples, predict: Predict) -> tuple[list[Example], list[Example]]:
    """(the most confident wrong answers, the least confident right answers, none above `SURE`)."""
    right = predictions.actual == predictions.predicted
    order = np.argsort(predictions.probability, kind="stable")
    wrong = order[~right[order]][::-1][:WRONG]
    hard = order[right[order] & (predictions.probability[order] <= SURE)][:HARD]
    return _examples(wrong, predictions, test, predict), _examples(hard, predictions, test, predict)


def least_sure(predictions: Predictions) -> NDArray[np.intp]:
    """The test image that is followed through the layers: the least confident of the right answers.

    Where the network is sure, all gradients are nearly 0; and a mistake may be no fault of the network. If no
    answer is right, it is the least confident of all.
    """
    right = np.flatnonzero(predictions.actual == predictions.predicted)
    among = right if len(right) else np.arange(len(predictions.actual))
    return among[[np.argmin(predictions.probability[among])]]


def one_of_each_class(predictions: Predictions, test: Examples, predict: Predict) -> list[Example]:
    """The first correctly recognised image of each class, of the first classes that have one."""
    right = np.flatnonzero(predictions.actual == predictions.predicted)
    _, first = np.unique(predictions.actual[right], return_index=True)
    return _examples(right[first[: ARGUMENTS[0]]], predictions, test, predict)


def argument(example: Example, found: Occlusion, description: Description) -> Argument:
    """What argued for the answer, as images."""
    *patch, _ = found.strongest
    heat = found.per_pixel
    limit = largest([heat])
    return Argument(
        example=example,
        image=visible(description.brightness(example.image)),
        heat=marked(heat, limit),
        scale=plain(limit),
        side=found.side,
        times=times(found),
        patch=(patch[0], patch[1]),
    )


def confused(
    pairs: Sequence[Confusion], predictions: Predictions, test: Examples
) -> list[list[NDArray[np.float32]]]:
    """Up to three images of each pair of classes."""
    return [
        [
            test.images[index]
            for index in np.flatnonzero(
                (predictions.actual == pair.actual) & (predictions.predicted == pair.predicted)
            )[:IMAGES]
        ]
        for pair in pairs
    ]


def kernel_rows(model: Sequential, description: Description) -> list[Row]:
    """The kernels of each convolution: in colour if it sees the colours of the image.

    Others have a row for each of the first input channels, on one scale.
    """
    rows: list[Row] = []
    first = True
    shown = [(name, kernel) for name, kernel in kernels(model)]
    for name, kernel in shown[:CONVOLUTIONS]:
        sees_colours = first and kernel.shape[2] == description.image_shape[2] == 3
        first = False
        height, width, channels, count = kernel.shape
        if height * width == 1:
            continue
        numbers = range(min(count, KERNELS[1]))
        if sees_colours:
            rows.append(
                Row(f"layer {name}, in colour", [(str(k), coloured(kernel[..., k])) for k in numbers])
            )
            continue
        for channel in range(min(channels, KERNELS[0])):
            tiles = [kernel[:, :, channel, k] for k in numbers]
            limit = largest(tiles)
            source = f", in {channel}" if channels > 1 else ""
            rows.append(
                Row(
                    f"layer {name}{source}: ±{limit:.2g}",
                    [(str(k), marked(tile, limit)) for k, tile in zip(numbers, tiles, strict=True)],
                )
            )
    return rows


def feature_maps(found: Journey) -> list[Row]:
    """A row for each step of the journey, with its output."""
    rows = []
    for step in found.steps:
        for strip in step.strips:
            if strip.symbol in ("dL/dpixel", "dL/d(output)"):
                title = f"{step.name} {step.kind}\n{strip.scale}".lstrip()
                rows.append(Row(title, [(pair.caption, pair.forward) for pair in strip.pairs]))
    return rows


def _examples(
    indices: NDArray[np.intp], predictions: Predictions, test: Examples, predict: Predict
) -> list[Example]:
    if not len(indices):
        return []
    images = np.asarray(test.images[indices])
    return [
        Example(int(index), image, int(predictions.actual[index]), p, predictions.files[index])
        for index, image, p in zip(indices, images, predict(images), strict=True)
    ]


def _caption(example: Example, names: list[str]) -> str:
    actual, answer = names[example.actual], names[example.answers[0]]
    return f"{actual}\n" if actual == answer else f"{actual}\nas {answer}"
