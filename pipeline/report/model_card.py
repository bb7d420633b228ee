"""The model card: what a network is, what it is for, how good it is, and where it must not be trusted.

Source: Mitchell et al., "Model cards for model reporting" (2019).
"""

from typing import Any

from pipeline.config.params import Params
from pipeline.config.yaml_files import to_yaml
from pipeline.data.catalogue import DATASETS
from pipeline.report.calibration import Bin, expected_calibration_error


def model_card(metadata: dict[str, Any], metrics: dict[str, Any], bins: list[Bin], params: Params) -> str:
    """The card in Markdown."""
    test, validation, data = metrics["test"], metrics["validation"], metadata["data"]
    level = f"{100 * params.evaluate.confidence_level:g}%"
    interval = {
        part: f"{metrics[part]['accuracy_low']:.2%} to {metrics[part]['accuracy_high']:.2%}"
        for part in ("test", "validation")
    }
    worst = min(metrics["per_class"], key=lambda name: metrics["per_class"][name]["recall"])
    dataset = DATASETS[data["dataset"]]
    height, width, _ = data["image_shape"]
    layers = to_yaml({metadata["architecture"]: metadata["layers"]}).strip()
    return f"""# {metadata["architecture"]} on {dataset.title}

A convolutional network of {metrics["model"]["parameters"]:,} parameters, written and trained in NumPy alone.

| | |
|---|---|
| input | one image of {height}x{width} grey pixels, scaled to [0, 1], bright on dark |
| output | one of {len(data["class_names"])} classes: {", ".join(data["class_names"])} |
| trained on | {data["examples"]["train"]:,} images, {metrics["model"]["epoch"]} epochs to the weights kept |
| chosen by | accuracy on {data["examples"]["validation"]:,} validation images |
| measured on | {test["examples"]:,} test images, which nothing else has seen |

## How good it is

| | test | validation |
|---|---|---|
| accuracy | {test["accuracy"]:.2%} | {validation["accuracy"]:.2%} |
| {level} confidence interval | {interval["test"]} | {interval["validation"]} |
| macro F1 | {test["macro_f1"]:.4f} | {validation["macro_f1"]:.4f} |
| cross-entropy | {test["loss"]:.4f} | {validation["loss"]:.4f} |

Its probabilities are off by {expected_calibration_error(bins):.2%} on average (expected calibration error).
The class that it recognises least is {worst}: recall {metrics["per_class"][worst]["recall"]:.2%}.

## What it is for, and what not

For learning how such networks work, and as a start for pipelines of one's own. It knows nothing but images
like those it was trained on: it gives one of its classes, often with great confidence, to anything. Nothing
that matters to people should be decided by it.

## How to make it again

Seed {params.seed}; `dvc repro` with the params in `params.yaml` and this network:

```yaml
{layers}
```
"""
