"""What `make run` does: the whole pipeline, and a summary of what came out."""

import json
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cnn.random import Stream, derive_rng
from pipeline.architectures import build_model
from pipeline.datasets import DATASETS
from pipeline.errors import UserError
from pipeline.fetch import can_be_had
from pipeline.params import load_layers, load_params
from pipeline.paths import ARCHITECTURES, CLASSIFICATION_REPORT, FIGURES, METRICS

REFERENCE_ACCURACY = 0.8540  # a published CNN in NumPy, of the same architecture, on MNIST after 10 epochs


def run() -> None:
    """Check params.yaml and the network, look whether the dataset can be had, run the pipeline, sum it up."""
    params = load_params()
    architecture = params.model.architecture
    dataset = DATASETS[params.data.dataset]
    build_model(
        load_layers(architecture),
        f"{ARCHITECTURES}: {architecture}",
        dataset.image_shape,
        len(dataset.class_names),
        derive_rng(params.seed, Stream.INITIALIZATION),
    )
    if not _git_has_commits():
        raise UserError(
            "DVC's experiments need a Git repository with a commit, and this folder is none. Clone the "
            "project instead of downloading it, or: git init && git add . && git commit -m start"
        )
    fallback = params.data.dataset == "mnist" and not can_be_had("mnist") and _dvc("repro", "fetch") != 0
    if fallback:
        print(
            "\nMNIST cannot be reached from here (see above), so this run is on the digits of scikit-learn:\n"
            "    dvc exp run -S data.dataset=digits\n",
            flush=True,
        )
    code = _dvc("exp", "run", "-S", "data.dataset=digits") if fallback else _dvc("repro")
    if code != 0:
        raise UserError("The pipeline stopped; the reason stands above.")
    _print_summary()


def _dvc(*arguments: str) -> int:
    """Run DVC with this Python first on the path, so that its stages run on the same; its exit code."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], env=os.environ | {"PATH": path}
    ).returncode


def _git_has_commits() -> bool:
    try:
        return subprocess.run(["git", "rev-parse", "--verify", "HEAD"], capture_output=True).returncode == 0
    except FileNotFoundError:
        raise UserError("Git is not installed; DVC needs it.") from None


def _print_summary() -> None:
    metrics = json.loads(METRICS.read_text(encoding="utf-8"))
    dataset, test = metrics["dataset"], metrics["test"]
    table = Table(show_header=False, title="Result", title_justify="left")
    table.add_row("dataset", DATASETS[dataset].title)
    table.add_row(
        "network", f"{metrics['model']['architecture']}, {metrics['model']['parameters']:,} parameters"
    )
    table.add_row(
        "test accuracy",
        f"{test['accuracy']:.2%}  (interval {test['accuracy_low']:.2%} to {test['accuracy_high']:.2%}, "
        f"{test['examples']:,} images)",
    )
    if dataset == "mnist":
        table.add_row("for comparison", f"{REFERENCE_ACCURACY:.2%}, a published NumPy CNN after 10 epochs")
    table.add_row("reports", f"{METRICS}\n{CLASSIFICATION_REPORT}\n{FIGURES}/")
    if dataset == "digits":
        table.add_row("try next", "dvc exp run -S data.dataset=mnist")
    else:
        table.add_row("try next", "dvc exp run -S model.architecture=sample\ndvc exp show --only-changed")
    table.add_row("", "once per shell, so that `dvc` is found: source .venv/bin/activate")
    Console().print(table, highlight=False)
