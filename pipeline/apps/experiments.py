"""Experiments that a command makes with DVC, each in a temporary folder: seeds, or trials of a search.

DVC runs them with what Git tracks as it is now, committed or not (`dvc exp run --temp`). So params.yaml,
models/ and reports/ stay as they are; `dvc exp apply` takes over one of the runs.
"""

import csv
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cnn.registry import did_you_mean
from pipeline.apps.run import dvc, git
from pipeline.artefacts.train import Epoch, noted_seconds
from pipeline.data.dataset import OWN
from pipeline.errors import StoppedError, UserError, damage_reported
from pipeline.paths import ARCHITECTURES, PARAMS

# What a run depends on, besides the images:
INPUTS = ("cnn", "pipeline", "dvc.yaml", str(PARAMS), str(ARCHITECTURES))
SETTING = re.compile(r"(?:(?P<file>[^:=]+):)?(?P<key>[^=]+)=(?P<value>.*)", re.DOTALL)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # of a file, and of an experiment


@dataclass(frozen=True)
class Configuration:
    """params.yaml, changed by `settings` as `dvc exp run -S` changes it, with the networks and the code."""

    params: dict[str, Any]
    settings: Sequence[str]

    def chosen(self, key: str) -> str:
        """The value of a key, as text."""
        value: Any = self.params
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        for setting in self.settings:
            name, _, new = setting.removeprefix(f"{PARAMS}:").partition("=")
            value = new.strip("'\"") if name.lstrip("+") == key else value
        return str(value)

    def own_images(self) -> Path | None:
        """The path of the user's own images, if these are chosen."""
        return Path(self.chosen("data.path")) if self.chosen("data.dataset") == OWN else None

    def fingerprint(self) -> str:
        """16 characters that identify all that its runs depend on, besides the seed."""
        files = [Path(name) for name in git("ls-files", "-z", "--", *INPUTS).split("\0") if name]
        digest = sha256("\0".join(self.settings).encode())
        for file in files:
            content = file.read_bytes() if file.is_file() else b""
            digest.update(f"\0{file} {sha256(content).hexdigest()}".encode(errors="surrogateescape"))
        if (images := self.own_images()) is not None:
            for file in sorted(images.rglob("*")) if images.is_dir() else [images]:
                if file.is_file():
                    found = file.stat()
                    text = f"\0{file} {found.st_size} {found.st_mtime_ns}"
                    digest.update(text.encode(errors="surrogateescape"))
        return digest.hexdigest()[:16]


def check_workspace() -> None:
    """UserError if DVC cannot make an experiment of these files; a note about what it leaves out."""
    if unmerged := git("diff", "--name-only", "--diff-filter=U"):
        raise UserError(
            f"DVC's experiments need files without conflicts of a merge; Git finds some in: "
            f"{', '.join(unmerged.splitlines())}. Resolve them, and git add the files, or: git merge --abort"
        )
    if untracked := git("ls-files", "--others", "--exclude-standard", "--", *INPUTS):
        print(
            f"note: The runs hold what Git tracks. These files are left out, unless you git add them: "
            f"{', '.join(untracked.splitlines())}"
        )


def check_setting(setting: str, params: dict[str, Any], own: dict[str, str]) -> None:
    """UserError unless this is KEY=VALUE with a key of params.yaml, or FILE:KEY=VALUE, which DVC checks.

    `own` are the keys that the command sets itself, each with what the user can do instead.
    """
    match = SETTING.fullmatch(setting)
    if match is None:
        raise UserError(
            f"-S takes KEY=VALUE, as `dvc exp run` does; received {setting!r}. Example: -S train.epochs=3"
        )
    file, key = match["file"], match["key"]
    if file not in (None, str(PARAMS)) or key.startswith(("+", "~")):
        return
    if key in own:
        raise UserError(f"{key} is set by the command itself; received -S {setting}. {own[key]}")
    section: Any = params
    parents: list[str] = []
    for part in key.split("."):
        if not isinstance(section, dict) or part not in section:
            known = section if isinstance(section, dict) else {}
            hint = did_you_mean(part, map(str, known), "".join(f"{parent}." for parent in parents))
            raise UserError(f"-S needs a key of {PARAMS}; received {key!r}, which is not there.{hint}")
        section = section[part]
        parents.append(part)


def images_to_copy(path: Path | None) -> list[str]:
    """The option of DVC by which a temporary folder gets own images that Git does not keep."""
    if path is None or path.is_absolute() or not path.exists():
        return []
    if not path.resolve().is_relative_to(Path.cwd()):
        raise UserError(
            "An experiment needs own images inside the project, or an absolute data.path; received "
            f"{path}. Write the whole path: -S data.path={path.resolve()}"
        )
    tracked, others = (git("ls-files", *kind, "--", str(path)) for kind in ((), ("--others",)))
    if tracked and others:
        raise UserError(
            f"Git must keep all of the own images or none of them; in {path} it keeps some, but not "
            f"{others.splitlines()[0]}. Either: git add {path}, or write the whole path: "
            f"-S data.path={path.resolve()}"
        )
    return ["--copy-paths", str(path)] if others else []


def find_run(experiment: str, message: str) -> str | None:
    """The commit of an experiment on top of HEAD; None if there is none, UserError if its message is another.

    The message identifies what the experiment depends on.
    """
    head = git("rev-parse", "HEAD")
    ref = f"refs/exps/{head[:2]}/{head[2:]}/{experiment}"
    revision = git("for-each-ref", "--format=%(objectname)", ref)
    if not revision:
        return None
    if git("log", "-1", "--format=%s", revision) != message:
        raise UserError(
            f"A name stands for one configuration, but an experiment {experiment!r} exists, which has other "
            f"params, networks, code or settings. Choose another --name, or: dvc exp remove {experiment}"
        )
    return revision


def run_experiment(experiment: str, message: str, options: Sequence[str], **variables: str) -> str:
    """Run an experiment with these options of `dvc exp run`, and return its commit."""
    named = ["--name", experiment, "--message", message]
    try:
        code = dvc("exp", "run", "--temp", *named, *options, folder=Path(), **variables)
    except KeyboardInterrupt:
        raise StoppedError(
            "Stopped. Nothing in this folder has changed. To continue, run the same command again: finished "
            "runs are kept, and the training that was stopped goes on from its last checkpoint.",
            signal.SIGINT,
        ) from None
    revision = find_run(experiment, message)
    if code != 0 or revision is None:
        raise UserError(
            f"Every run has to reach its end, but {experiment} failed; the reason is above. Nothing in "
            "this folder has changed. Correct it, and run the same command again: finished runs are kept."
        )
    return revision


def epochs_of(revision: str) -> list[Epoch]:
    """The lines of an experiment's history.csv."""
    with damage_reported(Epoch.path, Epoch.stage):
        lines = csv.DictReader(_history(revision).splitlines())
        return [Epoch.model_validate(line) for line in lines]


def kept_accuracy(epochs: Sequence[Epoch], keep: str) -> float:
    """The validation accuracy of the epoch whose weights were kept: by train.keep, the best or the last."""
    return max(epoch.validation_accuracy for epoch in (epochs[-1:] if keep == "last" else epochs))


def training_seconds(revision: str) -> float | None:
    """How long the training of an experiment took, if it ran in this checkout."""
    return noted_seconds(_history(revision).encode())


def _history(revision: str) -> str:
    return git("show", f"{revision}:./{Epoch.path}")
