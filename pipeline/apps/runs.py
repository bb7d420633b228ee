"""`python -m pipeline runs`: all runs of DVC's experiments, in a table that fits an ordinary terminal."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from cnn.atomic import write_text
from pipeline.apps.experiments import kept_accuracy
from pipeline.apps.run import check_git, environment_outside_hooks, git
from pipeline.apps.terminal import open_console
from pipeline.artefacts.evaluate import Metrics
from pipeline.artefacts.train import Epoch, noted_seconds
from pipeline.curves import SERIES, STYLE, Curve, chart
from pipeline.errors import UserError
from pipeline.paths import ARCHITECTURES, MODELS, PARAMS, REPORTS
from pipeline.report.rendering import fill

LEAST_WIDTH = 100  # of the terminal; in a narrower one, each run is a list
NAMELESS = {"workspace": "(these files)"}
PAGE = REPORTS / "runs.html"
TEMPLATE = Path(__file__).with_name("runs.html")


class Sort(StrEnum):
    """What runs are sorted by."""

    VALIDATION = "validation"
    TEST = "test"
    SECONDS = "seconds"
    CREATED = "created"


@dataclass(frozen=True)
class Run:
    """A line of the table: what differs from the last commit's settings, and what came of it.

    `state` is empty if the run has ended well. What is not known is None, and `history` is then empty.
    """

    name: str
    created: str
    state: str
    validation: float | None
    test: float | None
    seconds: float | None
    changes: list[str]
    history: list[Epoch]


def runs(sort: Sort | None = None, html: bool = False) -> None:
    """Print a table of the last commit, its experiments, and the files as they are now."""
    check_git()
    found = sorted_runs(list(read_runs(_show())), sort)
    console = open_console()
    if console.width < LEAST_WIDTH:
        for run in found:
            console.print(f"{run.name}: {run.created}".rstrip(": "), overflow="fold")
            for text in filter(None, (f"{key} {value}".strip() for key, value in _results(run).items())):
                console.print(f"  {text}", overflow="fold")
            for change in run.changes:
                console.print(f"  {change}", overflow="fold")
    else:
        table = Table(
            Column("run", overflow="fold"),
            Column("created", no_wrap=True),
            Column("validation", no_wrap=True, justify="right"),
            Column("test", no_wrap=True, justify="right"),
            Column("seconds", no_wrap=True, justify="right"),
            Column("changed against the last commit", overflow="fold"),
            box=SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 1, 0, 0),
        )
        for run in found:
            shown = _results(run)
            cells = (shown.get(key, "") for key in ("validation", "test", "seconds"))
            table.add_row(run.name, run.created, *cells, "\n".join(run.changes))
        console.print(table)
        console.print("To take one over: dvc exp apply RUN. All numbers: dvc exp show")
    if html:
        write_text(PAGE, render(found))
        console.print(f"With the curves over each other, for a browser: {PAGE}")


def sorted_runs(found: list[Run], sort: Sort | None) -> list[Run]:
    """The best first, the fastest first or the newest first; runs without the value at the end."""
    if sort is None:
        return found
    unknown = [run for run in found if getattr(run, sort) in (None, "")]
    known = [run for run in found if getattr(run, sort) not in (None, "")]
    return sorted(known, key=attrgetter(sort), reverse=sort is not Sort.SECONDS) + unknown


def render(found: Sequence[Run]) -> str:
    """The page: charts of all runs, and a table to sort by any column; one file, which sends no request."""
    coloured = [(run, str(number), SERIES[number % len(SERIES)]) for number, run in enumerate(found)]
    charts = [
        chart(
            f"{key.replace('_', ' ')} by epoch",
            [
                Curve(run.name, [(epoch.epoch, getattr(epoch, key)) for epoch in run.history], colour, number)
                for run, number, colour in coloured
            ],
            percent=key.endswith("accuracy"),
        )
        for key in ("validation_accuracy", "validation_loss")
    ]
    return fill(TEMPLATE, runs=coloured, charts=[Markup(text) for text in charts], style=Markup(STYLE))


def _results(run: Run) -> dict[str, str]:
    """What came of a run, as texts by column."""
    if run.state:
        return {"test": run.state}
    found = {"validation": run.validation, "test": run.test}
    texts = {key: f"{value:.2%}" for key, value in found.items() if value is not None}
    if run.seconds is not None:
        texts["seconds"] = f"{run.seconds:,.1f}"
    return texts or {"test": "none"}


def read_runs(shown: list[dict[str, Any]]) -> Iterator[Run]:
    """The runs in the JSON document of `dvc exp show`: the workspace, then commits, each with experiments."""
    workspace, *commits = shown
    base = _settings(commits[0]["data"]) if commits else {}
    for entry in (workspace, *commits):
        yield _read(entry, base, "")
        for experiment in entry.get("experiments") or []:
            state = (experiment.get("executor") or {}).get("state") or ""
            for revision in experiment["revs"][:1]:
                yield _read(revision, base, state.lower() if state.lower() != "success" else "")


def _read(entry: Mapping[str, Any], base: Mapping[str, Any], state: str) -> Run:
    data = entry.get("data") or {}
    name = entry.get("name") or NAMELESS.get(entry["rev"], entry["rev"][:7])
    log = [f"why: dvc queue logs {name}"] if state == "failed" else []  # what the queue ran has a log
    state = state or ("failed" if entry.get("error") else "")
    history = "" if state else _read_history(entry["rev"])
    epochs = _parse(history)
    metrics = {} if state or not _is_evaluated(data) else _metrics(data)
    validation = metrics.get("validation", {}).get("accuracy")
    if validation is None and epochs:
        validation = kept_accuracy(epochs, str(_settings(data).get("train.keep")))
    found = _settings(data)
    changes = [f"{key}={_shown(found[key])}" for key in found if found[key] != base.get(key)]
    return Run(
        name,
        created=(data.get("timestamp") or "").replace("T", " ")[:16],
        state=state,
        validation=validation,
        test=metrics.get("test", {}).get("accuracy"),
        seconds=noted_seconds(history.encode()) if history else None,
        changes=changes + log,
        history=epochs,
    )


def _metrics(data: Mapping[str, Any]) -> dict[str, Any]:
    return (data.get("metrics") or {}).get(str(Metrics.path), {}).get("data") or {}


def _is_evaluated(data: Mapping[str, Any]) -> bool:
    """Whether metrics.json is of the network that was trained.

    An experiment that ran only up to `train`, such as a trial of a search, still holds the last commit's.
    """
    measured, trained = (
        ((data.get(kind) or {}).get(str(MODELS)) or {}).get("hash") for kind in ("deps", "outs")
    )
    return measured == trained


def _read_history(revision: str) -> str:
    """history.csv of a commit, or of these files; empty if there is none."""
    try:
        if revision in NAMELESS:
            return Epoch.path.read_text(encoding="utf-8")
        return git("show", f"{revision}:./{Epoch.path}")
    except (UserError, OSError, ValueError):
        return ""


def _parse(history: str) -> list[Epoch]:
    """The epochs; none if another version of the program wrote the file with other columns."""
    try:
        return [Epoch.model_validate(line) for line in csv.DictReader(history.splitlines())]
    except (ValueError, csv.Error):
        return []


def _settings(data: Mapping[str, Any] | None) -> dict[str, Any]:
    """The values by key, as `dvc exp run -S` takes them."""
    params = (data or {}).get("params") or {}
    values = dict(flat((params.get(str(PARAMS)) or {}).get("data") or {}))
    networks = (params.get(str(ARCHITECTURES)) or {}).get("data") or {}
    return values | {f"{ARCHITECTURES}:{name}": layers for name, layers in networks.items()}


def flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values in all sections with their keys, as in "train.epochs"."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    is_network = isinstance(value, list) and any(isinstance(part, dict) and "type" in part for part in value)
    return "…" if is_network else json.dumps(value)


def _show() -> list[dict[str, Any]]:
    command = ["dvc", "exp", "show", "--json"]
    result = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, env=environment_outside_hooks()
    )
    if result.returncode != 0:
        raise UserError(f"{' '.join(command)} failed. DVC says:\n{result.stderr.strip()}")
    return json.loads(result.stdout)
