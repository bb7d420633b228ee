"""The model card: what a network is, what it is for, how good it is, and when it must not be trusted.

Source: Mitchell et al., "Model cards for model reporting" (2019).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artefacts.evaluate import Metrics
from pipeline.artefacts.train import Network
from pipeline.config.params import Params
from pipeline.config.yaml_files import to_yaml
from pipeline.report.calibration import Bin, expected_calibration_error
from pipeline.report.facts import FRAMINGS, scale_in_words, shape_in_words
from pipeline.report.rendering import fill
from pipeline.report.verdict import verdict, worst_classes

TEMPLATE = Path(__file__).parent / "templates/model_card.md"


def model_card(
    network: Network, metrics: Metrics, matrix: NDArray[np.int_], bins: list[Bin], params: Params
) -> str:
    """The card in Markdown."""
    return fill(
        TEMPLATE,
        network=network,
        metrics=metrics,
        params=params,
        title=network.data.title,
        names=network.data.class_names,
        facts=(shape_in_words(network.data), scale_in_words(network.data), FRAMINGS[network.data.framing]),
        verdict=verdict(matrix, network.data.class_names, metrics.per_class),
        worst=worst_classes(metrics.per_class)[0],
        calibration_error=expected_calibration_error(bins),
        layers=to_yaml({network.architecture: network.layers}).strip(),
    )
