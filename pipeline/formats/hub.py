"""The README beside an exported network, with the front matter that model hubs read.

Source: https://huggingface.co/docs/hub/model-cards, for the keys and for `model-index`.
"""

from pathlib import Path
from typing import Any

from pipeline.artefacts.evaluate import Metrics
from pipeline.artefacts.train import Network
from pipeline.config.yaml_files import to_yaml
from pipeline.report.rendering import fill

TEMPLATE = Path(__file__).parent / "templates/hub.md"
PICTURES = ("confusion_matrix.png", "training_curves.png", "misclassified.png")  # of reports/figures


def readme(kind: str, network: Network, metrics: Metrics, card: str) -> str:
    """The text for the format `kind`: front matter, the model card, how to open the file, pictures."""
    return fill(
        TEMPLATE,
        kind=kind,
        front=to_yaml(_front_matter(kind, network, metrics)).strip(),
        card=card.strip(),
        data=network.data,
        architecture=network.architecture,
        pictures=PICTURES,
    )


def _front_matter(kind: str, network: Network, metrics: Metrics) -> dict[str, Any]:
    views = f" (outputs are {metrics.test_time_augmentation})" if metrics.test_time_augmentation else ""
    measured = {
        "accuracy": ("Accuracy", metrics.test.accuracy),
        "f1": ("Macro F1", metrics.test.macro_f1),
        "loss": ("Cross-entropy", metrics.test.loss),
    }
    result = {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {"type": metrics.dataset, "name": network.data.title, "split": "test"},
        "metrics": [
            {"type": key, "name": f"{name}{views}", "value": value} for key, (name, value) in measured.items()
        ],
    }
    return {
        "license": "mit",
        "library_name": "numpy-cnn" if kind == "safetensors" else "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "numpy", "cnn"],
        "model-index": [{"name": f"{network.architecture}-{metrics.dataset}", "results": [result]}],
    }
