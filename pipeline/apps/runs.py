"""`python -m pipeline runs`: all runs of DVC's experiments, in a table that fits an ordinary terminal."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from pipeline.apps.run import check_git, environment_outside_hooks
from pipeline.apps.terminal import open_console
from pipeline.artefacts.evaluate import Metrics
from pipeline.errors import UserError
from pipeline.paths import ARCHITECTURES, PARAMS

LEAST_WIDTH = 60  # of the terminal; in a narrower one, each run is a list
NAMELESS = {"workspace": "(these files)"}


@dataclass(frozen=True)
class Run:
    """A line of the table: what differs from the last commit's settings, and what came of it."""

    name: str
    created: str
    accuracy: str
    changes: list[str]


def runs() -> None:
    """Print a table of the last commit, its experiments, and the files as they are now."""
    check_git()
    found = list(read_runs(_show()))
    console = open_console()
    if console.width < LEAST_WIDTH:
        for run in found:
            console.print(f"{run.name}: {run.accuracy} {run.created}".rstrip(), overflow="fold")
            for change in run.changes:
                console.print(f"  {change}", overflow="fold")
        return
    table = Table(
        Column("run", overflow="fold"),
        Column("created", no_wrap=True),
        Column("test", no_wrap=True, justify="right"),
        Column("changed against the last commit", overflow="fold"),
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for run in found:
        table.add_row(run.name, run.created, run.accuracy, "\n".join(run.changes))
    console.print(table)
    console.print("To take one over: dvc exp apply RUN. All numbers: dvc exp show")


def read_runs(shown: list[dict[str, Any]]) -> Iterator[Run]:
    """The runs in the JSON document of `dvc exp show`: the workspace, then commits, each with experiments."""
    workspace, *commits = shown
    base = _settings(commits[0]["data"]) if commits else {}
    for entry in (workspace, *commits):
        yield _read(entry, base, "")
        for experiment in entry.get("experiments") or []:
            state = (experiment.get("executor") or {}).get("state") or ""
            for revision in experiment["revs"][:1]:
                yield _read(revision, base, state if state != "success" else "")


def _read(entry: Mapping[str, Any], base: Mapping[str, Any], state: str) -> Run:
    data = entry.get("data") or {}
    name = entry.get("name") or NAMELESS.get(entry["rev"], entry["rev"][:7])
    metrics = (data.get("metrics") or {}).get(str(Metrics.path), {}).get("data") or {}
    accuracy = metrics.get("test", {}).get("accuracy")
    found = _settings(data)
    changes = [f"{key}={_shown(found[key])}" for key in found if found[key] != base.get(key)]
    if state.lower() == "failed":
        changes.append(f"why: dvc queue logs {name}")
    created = (data.get("timestamp") or "").replace("T", " ")[:16]
    answer = state.lower() or ("failed" if entry.get("error") else "none")
    return Run(name, created, answer if accuracy is None else f"{accuracy:.2%}", changes)


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
