"""The trained network, read and checked."""

import json

import numpy as np
from numpy.typing import NDArray

from cnn import Sequential, checkpoint
from cnn.ops.softmax import softmax
from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.train import Network
from pipeline.config.architectures import build_model, gives_probabilities
from pipeline.errors import UserError, reason


def load_model() -> tuple[Sequential, Network]:
    """The trained network and train's record of it, from models/ alone: never from architectures.yaml."""
    path = Network.path
    if not path.exists():
        raise UserError(f"{path} is missing. Make it with: dvc repro {Network.stage}")
    try:
        state, metadata = checkpoint.load(path)
    except checkpoint.CheckpointError as error:
        raise UserError(f"{error} Restore it with: dvc checkout --force models") from None
    try:
        network = Network.model_validate_json(json.dumps(metadata))
        model = build_model(
            network.layers,
            str(path),
            network.data.image_shape,
            len(network.data.class_names),
            np.random.default_rng(0),  # the initial values are replaced at once
        )
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} was not written by this train stage ({reason(error)}). "
            f"Make it with: dvc repro --force {Network.stage}"
        ) from None
    return model, network


def load_trained() -> tuple[Sequential, Network]:
    """`load_model`; UserError if the network was trained on other data than data/processed holds."""
    model, network = load_model()
    description = Description.load()
    if network.data != description:
        raise UserError(
            f"{Network.path} was not trained on what data/processed holds now ({description.dataset}) but on "
            "another dataset, or on the same one prepared differently. Update both with: dvc repro"
        )
    return model, network


def probabilities_of(model: Sequential, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The outputs themselves if the network ends in softmax, else their softmax."""
    return outputs if gives_probabilities(model) else softmax(outputs)
