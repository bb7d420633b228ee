"""Paths relative to the project's folder, in which all commands run.

The paths of files that one stage writes and another reads are in `pipeline.artefacts`.
"""

from pathlib import Path

PARAMS = Path("params.yaml")
ARCHITECTURES = Path("architectures.yaml")
RECIPES = Path("recipes.yaml")
RAW = Path("data/raw")
PROCESSED = Path("data/processed")
MODELS = Path("models")
REPORTS = Path("reports")
SCRATCH = Path(".scratch")  # checkpoints of runs that have not finished

CLASSIFICATION_REPORT = REPORTS / "classification_report.txt"
REPORT = REPORTS / "report.html"
MODEL_CARD = REPORTS / "model_card.md"
FIGURES = REPORTS / "figures"
