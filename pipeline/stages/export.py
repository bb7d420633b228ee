"""The export stage: the trained network in formats that other tools read, each in a folder to hand on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from threadpoolctl import threadpool_limits

from cnn import Examples, Processes, Sequential
from cnn.atomic import write_bytes, write_text
from cnn.engine.replicas import Replicas
from cnn.registry import unknown
from cnn.views import mean_over_views
from pipeline.artefacts.evaluate import Metrics, Model
from pipeline.artefacts.examples import StoredImages, load_examples
from pipeline.artefacts.train import Network
from pipeline.artefacts.trained import load_trained, probabilities_of
from pipeline.config.architectures import gives_probabilities
from pipeline.config.params import Format
from pipeline.cores import count_cores
from pipeline.errors import UserError, damage_reported
from pipeline.formats import hub, safetensors
from pipeline.formats.extra import require
from pipeline.paths import FIGURES, MODEL_CARD, MODELS

FILES = {"onnx": "model.onnx", "onnx_bytes": "model.onnx", "safetensors": "model.safetensors"}
DIFFERENT = 1e-3  # of all test images: from one processor to another, fewer answers change


def export(formats: Sequence[Format], folder: Path) -> None:
    """Write FOLDER/FORMAT for each format, after the file has been judged on all test images."""
    if any(kind.startswith("onnx") for kind in formats):
        require("onnx", "onnxruntime")
    if folder.resolve().is_relative_to(MODELS.resolve()):
        raise UserError(
            f"{MODELS}/ is what the train stage wrote, and another file in it would make that stage stale. "
            "Choose another folder: --to FOLDER"
        )
    model, network = load_trained()
    test = load_examples("test", network.data)
    metrics = Metrics.load()
    with damage_reported(MODEL_CARD, "report"):
        card = MODEL_CARD.read_text(encoding="utf-8")
    pictures = {name: _picture(FIGURES / name) for name in hub.PICTURES}
    with threadpool_limits(1, user_api="blas"), Replicas(model, Processes(count_cores())) as replicas:
        outputs = replicas.predict(test.images)
        _check_measured(metrics, model, network, test, outputs, replicas)
    for kind in formats:
        if kind == "safetensors":
            content, note = _safetensors(model, network)
        else:
            content, note = _onnx(model, network, test, outputs, from_bytes=kind == "onnx_bytes")
        place = folder / kind
        write_bytes(place / FILES[kind], content)
        write_text(place / "README.md", hub.readme(kind, network, metrics, card))
        for name, picture in pictures.items():
            write_bytes(place / name, picture)
        print(f"{place / FILES[kind]}: {len(content):,} bytes; {note}.")


def known_formats(names: Sequence[str]) -> list[Format]:
    """The names, each once; UserError if one is not that of a format."""
    known: tuple[Format, ...] = get_args(Format)
    for name in names:
        if name not in known:
            raise UserError(unknown("format", name, known))
    return [kind for kind in known if kind in names]


def provenance(network: Network) -> str:
    """The record of the network as JSON: its layers, its data, where it was trained."""
    return json.dumps(network.model_dump(mode="json"), sort_keys=True, allow_nan=False)


def _safetensors(model: Sequential, network: Network) -> tuple[bytes, str]:
    state = model.state_dict()
    content = safetensors.to_bytes(state, {"network": provenance(network)})
    read, _ = safetensors.from_bytes(content)
    assert all(np.array_equal(read[name], array) for name, array in state.items())
    return content, f"{len(state)} arrays, read back and compared"


def _onnx(
    model: Sequential,
    network: Network,
    test: Examples,
    outputs: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    *,
    from_bytes: bool,
) -> tuple[bytes, str]:
    from pipeline.formats import judge, onnx

    metadata = {
        "class_names": json.dumps(network.data.class_names),
        "network": provenance(network),
    }
    content = onnx.to_bytes(onnx.to_onnx(model, network.data, metadata, from_bytes=from_bytes))
    assert isinstance(test.images, StoredImages)
    judgement = judge.judge(
        content,
        test.images.pixels if from_bytes else judge.Fractions(test.images.pixels),
        lambda rows: (outputs[rows], probabilities_of(model, outputs[rows])),
        ends_in_softmax=gives_probabilities(model),
        threads=count_cores(),
    )
    return content, str(judgement)


def _check_measured(
    metrics: Metrics,
    model: Sequential,
    network: Network,
    test: Examples,
    outputs: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    replicas: Replicas,
) -> None:
    """UserError unless metrics.json was measured with this network: its accuracy is measured again."""
    if metrics.test_time_augmentation:
        views = metrics.test_time_augmentation.model_dump()
        outputs = mean_over_views(replicas.predict, test.images, **views)
    accuracy = float((outputs.argmax(axis=1) == test.targets.argmax(axis=1)).mean())
    same = (metrics.dataset, metrics.model) == (network.data.dataset, Model.of(model, network))
    if not same or abs(accuracy - metrics.test.accuracy) > DIFFERENT:
        raise UserError(
            f"{Metrics.path} does not belong to {Network.path}, and would be published with it. Make it for "
            "this network: python -m pipeline evaluate && python -m pipeline report"
        )


def _picture(path: Path) -> bytes:
    with damage_reported(path, "report"):
        return path.read_bytes()
