"""Paths relative to the project's folder, in which all commands run.

The paths of files that one stage writes and another reads are in `pipeline.artefacts`.
"""

import os
from pathlib import Path

CHECKOUT_VARIABLE = "DVC_ROOT"  # set by DVC for its stages

PARAMS = Path("params.yaml")
ARCHITECTURES = Path("architectures.yaml")
RECIPES = Path("recipes.yaml")
SEARCHES_FILE = Path("search.yaml")
RAW = Path("data/raw")
PROCESSED = Path("data/processed")
MODELS = Path("models")
REPORTS = Path("reports")
SCRATCH = Path(".scratch")  # checkpoints of runs that have not finished; see scratch()

CLASSIFICATION_REPORT = REPORTS / "classification_report.txt"
REPORT = REPORTS / "report.html"
MODEL_CARD = REPORTS / "model_card.md"
FIGURES = REPORTS / "figures"
EXPORT = Path("export")
REPETITIONS = REPORTS / "repeat"
SEARCHES = REPORTS / "search"


def scratch() -> Path:
    """The checkout's folder for what is neither a result nor in Git: checkpoints, the page of a training."""
    root = checkout()
    return SCRATCH if root == Path.cwd() else root / SCRATCH


def checkout() -> Path:
    """The folder of the user's checkout: of its sources of data, and of checkpoints.

    It is this folder, except in an experiment that `dvc exp run` runs with --temp or --queue: DVC then copies
    what Git keeps to a folder within the checkout's .dvc/tmp, and tells the stage where the checkout is.
    """
    here, root = Path.cwd(), Path(os.environ.get(CHECKOUT_VARIABLE, "")).resolve()
    return root if here.is_relative_to(root / ".dvc" / "tmp") else here
