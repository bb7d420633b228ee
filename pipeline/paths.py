"""Where things lie, seen from the project's folder, in which all commands run."""

from pathlib import Path

PARAMS = Path("params.yaml")
ARCHITECTURES = Path("architectures.yaml")
RAW = Path("data/raw")
PROCESSED = Path("data/processed")
MODELS = Path("models")
REPORTS = Path("reports")
SCRATCH = Path(".scratch")  # checkpoints of runs that have not finished

DATASET = PROCESSED / "dataset.json"
MODEL = MODELS / "model.npz"
ENVIRONMENT = MODELS / "environment.json"
HISTORY = REPORTS / "history.csv"
STATISTICS = REPORTS / "statistics.csv"
METRICS = REPORTS / "metrics.json"
PREDICTIONS = REPORTS / "predictions.csv"
CLASSIFICATION_REPORT = REPORTS / "classification_report.txt"
REPORT = REPORTS / "report.html"
MODEL_CARD = REPORTS / "model_card.md"
FIGURES = REPORTS / "figures"
