"""The model card: what a network is, what it is for, how good it is, and when it must not be trusted.

Source: Mitchell et al., "Model cards for model reporting" (2019).
"""

from pathlib import Path

from pipeline.artefacts.evaluate import Metrics
from pipeline.artefacts.train import Network
from pipeline.config.params import Params
from pipeline.config.yaml_files import to_yaml
from pipeline.report.calibration import Bin, expected_calibration_error
from pipeline.report.rendering import fill

TEMPLATE = Path(__file__).parent / "templates/model_card.md"


def model_card(network: Network, metrics: Metrics, bins: list[Bin], params: Params) -> str:
    """The card in Markdown."""
    return fill(
        TEMPLATE,
        network=network,
        metrics=metrics,
        params=params,
        title=network.data.title,
        worst=min(metrics.per_class, key=lambda name: metrics.per_class[name].recall),
        calibration_error=expected_calibration_error(bins),
        layers=to_yaml({network.architecture: network.layers}).strip(),
    )
