"""`python -m pipeline repeat`: one configuration with several seeds, each an experiment of DVC.

DVC runs each seed in a temporary folder (`dvc exp run --temp`), with what Git tracks as it is now, committed
or not. So params.yaml, models/ and reports/ stay as they are; `dvc exp apply` takes over one of the runs.
"""

import re
import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cnn.atomic import write_text
from cnn.registry import did_you_mean
from pipeline.apps.recipe import settings_of
from pipeline.apps.run import check_git, dvc, git, repair_dvc
from pipeline.apps.seeds import CONFIDENCE_LEVEL, FEWEST, Repetition, Seed, Summary, compare_paired
from pipeline.apps.terminal import make_table, open_console, print_table
from pipeline.artefacts.evaluate import Metrics
from pipeline.artefacts.train import SECONDS_VARIABLE
from pipeline.config.yaml_files import read_mapping
from pipeline.data.dataset import OWN
from pipeline.errors import StoppedError, UserError, reason
from pipeline.paths import ARCHITECTURES, PARAMS, SCRATCH

# What a run depends on, besides the images:
INPUTS = ("cnn", "pipeline", "dvc.yaml", str(PARAMS), str(ARCHITECTURES))
SETTING = re.compile(r"(?:(?P<file>[^:=]+):)?(?P<key>[^=]+)=(?P<value>.*)", re.DOTALL)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # of a file, and of an experiment
HEADER = ("seed", "validation", "test", "test loss", "epoch", "training")


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


def repeat(seeds: range, settings: Sequence[str] = (), name: str = "", recipe: str | None = None) -> None:
    """Run params.yaml or a recipe, changed by `settings` (of `dvc exp run -S`), with each seed; record it.

    A seed whose experiment exists already, with the same params, networks and code, is not run again.
    """
    check_git()
    _check_workspace()
    params = read_mapping(PARAMS)
    for setting in settings:
        _check_setting(setting, params)
    if recipe is not None:
        changes = settings_of(recipe, settings)
        settings = [setting for setting in changes if not setting.startswith("seed=")]  # each run has its own
        name = name or recipe
    configuration = Configuration(params, settings)
    options = _images_to_copy(configuration.own_images())
    for setting in settings:
        options += ["-S", setting]
    inputs = configuration.fingerprint()
    architecture = re.sub(r"[^A-Za-z0-9_-]", "-", configuration.chosen("model.architecture"))
    name = name or f"{architecture.lstrip('_-')}-{inputs[:6]}".lstrip("-")
    if not NAME.fullmatch(name):
        raise UserError(
            "--name must consist of letters, digits, - and _, and begin with a letter or digit, since files "
            f"and experiments get it; received {name!r}."
        )
    for seed in seeds:
        _find_run(_experiment(name, seed), inputs)  # refuses another configuration's before anything runs
    repair_dvc()
    found, metrics = [], []
    for number, seed in enumerate(seeds, start=1):
        if configuration.fingerprint() != inputs:
            raise UserError(
                "All seeds must run with the same params, networks and code; these changed before seed "
                f"{seed}. Run the command again: seeds that are finished are kept if you undo the changes."
            )
        experiment, note = _experiment(name, seed), (SCRATCH / "seconds" / f"{inputs}-{seed}").resolve()
        revision = _find_run(experiment, inputs)
        print(
            f"Seed {seed} ({number} of {len(seeds)}): {experiment}{' is there' if revision else ''}",
            flush=True,
        )
        revision = revision or _run(experiment, inputs, [*options, "-S", f"seed={seed}"], note)
        metrics.append(_read_metrics(revision, experiment))
        found.append(
            Seed(
                seed=seed,
                epoch=metrics[-1].model.epoch,
                validation_accuracy=metrics[-1].validation.accuracy,
                test_accuracy=metrics[-1].test.accuracy,
                test_loss=metrics[-1].test.loss,
                training_seconds=float(note.read_text()) if note.exists() else None,
            )
        )
    result = Repetition(
        name=name,
        settings=list(settings),
        inputs=inputs,
        dataset=metrics[0].dataset,
        architecture=metrics[0].model.architecture,
        parameters=metrics[0].model.parameters,
        test_images=metrics[0].test.examples,
        confidence_level=CONFIDENCE_LEVEL,
        validation_accuracy=Summary.of([run.validation_accuracy for run in found]),
        test_accuracy=Summary.of([run.test_accuracy for run in found]),
        seeds=found,
    )
    _write(result)
    _print(result)


def compare(first: str, second: str) -> None:
    """Print the accuracies of two repetitions, and a paired test over the seeds that both have."""
    names = (first, second)
    repetitions = [Repetition.load(name) for name in names]
    images = [(found.dataset, found.test_images) for found in repetitions]
    if images[0] != images[1]:
        raise UserError(
            "Only repetitions on the same images can be compared; received "
            + " and ".join(
                f"{name}: {dataset}, {count:,} test images"
                for name, (dataset, count) in zip(names, images, strict=True)
            )
            + ". Run one of them again with the data of the other: -S data.dataset=…"
        )
    runs = [{run.seed: run for run in found.seeds} for found in repetitions]
    common = sorted(runs[0].keys() & runs[1].keys())
    if len(common) < 2:
        raise UserError(
            "A paired test needs at least 2 seeds that both repetitions have; received "
            + " and ".join(
                f"{name}: {', '.join(map(str, own))}" for name, own in zip(names, runs, strict=True)
            )
            + ". Run one of them again with the other's seeds: --seeds and --first-seed"
        )
    console = open_console()
    console.print(f"A is {first}: {_described(repetitions[0])}\nB is {second}: {_described(repetitions[1])}")
    for title, key in (("Validation accuracy", "validation_accuracy"), ("Test accuracy", "test_accuracy")):
        a, b = ([getattr(own[seed], key) for seed in common] for own in runs)
        paired = compare_paired(a, b)
        table = make_table(title, "seed", "A", "B", "B - A")
        for seed, *pair in zip(common, a, b, strict=True):
            table.add_row(str(seed), *map(_percent, pair), _points(pair[1] - pair[0]))
        difference = paired.differences
        table.add_row("mean", *(_percent(Summary.of(own).mean) for own in (a, b)), _points(difference.mean))
        table.add_row("standard deviation", "", "", _points(difference.standard_deviation).lstrip("+"))
        print_table(console, table)
        if paired.t is None:
            console.print("All differences are equal, so that there is no scatter to test the mean against.")
        else:
            console.print(
                f"Confidence interval ({CONFIDENCE_LEVEL:.0%}) of the mean difference: "
                f"{_points(difference.low)} to {_points(difference.high)}. "
                f"Paired t test: t = {paired.t:.2f} with {len(common) - 1} degrees of freedom, "
                f"p = {paired.p:.3g}."
            )
    if len(common) < FEWEST:
        console.print(
            f"\nnote: {len(common)} seeds are too few for the test to mean anything; use at least {FEWEST}, "
            "better 5."
        )
    console.print(
        "\nChoose by the validation accuracy. If you choose by the test accuracy, it becomes too good."
    )


def _check_workspace() -> None:
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


def _check_setting(setting: str, params: dict[str, Any]) -> None:
    """UserError unless this is KEY=VALUE with a key of params.yaml, or FILE:KEY=VALUE, which DVC checks."""
    match = SETTING.fullmatch(setting)
    if match is None:
        raise UserError(
            f"-S takes KEY=VALUE, as `dvc exp run` does; received {setting!r}. Example: -S train.epochs=3"
        )
    file, key = match["file"], match["key"]
    if file not in (None, str(PARAMS)) or key.startswith(("+", "~")):
        return
    if key == "seed":
        raise UserError(f"repeat sets the seed itself; received -S {setting}. Use --first-seed and --seeds")
    section: Any = params
    parents: list[str] = []
    for part in key.split("."):
        if not isinstance(section, dict) or part not in section:
            known = section if isinstance(section, dict) else {}
            hint = did_you_mean(part, map(str, known), "".join(f"{parent}." for parent in parents))
            raise UserError(f"-S needs a key of {PARAMS}; received {key!r}, which is not there.{hint}")
        section = section[part]
        parents.append(part)


def _images_to_copy(path: Path | None) -> list[str]:
    """The option of DVC by which a temporary folder gets own images that Git does not keep."""
    if path is None or path.is_absolute() or not path.exists():
        return []
    if not path.resolve().is_relative_to(Path.cwd()):
        raise UserError(
            f"repeat needs own images inside the project, or an absolute data.path; received {path}. Write "
            f"the whole path: -S data.path={path.resolve()}"
        )
    tracked, others = (git("ls-files", *kind, "--", str(path)) for kind in ((), ("--others",)))
    if tracked and others:
        raise UserError(
            f"Git must keep all of the own images or none of them; in {path} it keeps some, but not "
            f"{others.splitlines()[0]}. Either: git add {path}, or write the whole path: "
            f"-S data.path={path.resolve()}"
        )
    return ["--copy-paths", str(path)] if others else []


def _experiment(name: str, seed: int) -> str:
    return f"{name}-seed{seed}"


def _message(inputs: str) -> str:
    """The message of an experiment's commit, by which it is found again."""
    return f"repeat {inputs}"


def _find_run(experiment: str, inputs: str) -> str | None:
    """The commit of an experiment on top of HEAD; None if there is none, UserError if it has other inputs."""
    head = git("rev-parse", "HEAD")
    ref = f"refs/exps/{head[:2]}/{head[2:]}/{experiment}"
    revision = git("for-each-ref", "--format=%(objectname)", ref)
    if not revision:
        return None
    if git("log", "-1", "--format=%s", revision) != _message(inputs):
        raise UserError(
            f"A name stands for one configuration, but an experiment {experiment!r} exists, which has other "
            f"params, networks, code or settings. Choose another --name, or: dvc exp remove {experiment}"
        )
    return revision


def _run(experiment: str, inputs: str, options: Sequence[str], note: Path) -> str:
    """Run a seed, which leaves its training time in the file `note`; the commit of its experiment."""
    named = ["--name", experiment, "--message", _message(inputs)]
    try:
        code = dvc("exp", "run", "--temp", *named, *options, folder=Path(), **{SECONDS_VARIABLE: str(note)})
    except KeyboardInterrupt:
        raise StoppedError(
            "Stopped. Nothing in this folder has changed. To continue, run the same command again: finished "
            "seeds are kept, and the training that was stopped goes on from its last checkpoint.",
            signal.SIGINT,
        ) from None
    revision = _find_run(experiment, inputs)
    if code != 0 or revision is None:
        raise UserError(
            f"Every seed has to run to its end, but {experiment} failed; the reason is above. Nothing in "
            "this folder has changed. Correct it, and run the same command again: finished seeds are kept."
        )
    return revision


def _read_metrics(revision: str, experiment: str) -> Metrics:
    try:
        return Metrics.model_validate_json(git("show", f"{revision}:./{Metrics.path}"))
    except ValidationError as error:
        raise UserError(
            f"{Metrics.path} of the experiment {experiment} is damaged: {reason(error)}. Run it again: "
            f"dvc exp remove {experiment}, then the same command"
        ) from None


def _rows(result: Repetition) -> list[tuple[str, ...]]:
    """The lines of the table, below HEADER."""
    rows: list[tuple[str, ...]] = [
        (
            str(run.seed),
            _percent(run.validation_accuracy),
            _percent(run.test_accuracy),
            f"{run.test_loss:.4f}",
            str(run.epoch),
            "" if run.training_seconds is None else f"{run.training_seconds:,.1f} s",
        )
        for run in result.seeds
    ]
    both = result.validation_accuracy, result.test_accuracy
    rows.append(("mean", *(_percent(found.mean) for found in both)))
    rows.append(("standard deviation", *(_points(found.standard_deviation)[1:] for found in both)))
    interval = (f"{100 * found.low:.2f} to {100 * found.high:.2f}" for found in both)
    rows.append((f"{result.confidence_level:.0%} interval", *interval))
    return [(*row, *[""] * (len(HEADER) - len(row))) for row in rows]


def _described(result: Repetition) -> str:
    settings = "".join(f" -S {shlex.quote(setting)}" for setting in result.settings)
    return (
        f"{result.architecture}, {result.parameters:,} parameters, on {result.dataset}"
        f"{';' if settings else ''}{settings}"
    )


def _write(result: Repetition) -> None:
    """The record, a page for people, and a picture, all beside each other."""
    from pipeline.report.figures import save_figure, seeds_figure

    panels = {}
    for title, key in (("validation accuracy", "validation_accuracy"), ("test accuracy", "test_accuracy")):
        found: Summary = getattr(result, key)
        values = {run.seed: getattr(run, key) for run in result.seeds}
        panels[title] = (values, found.mean, found.low, found.high)
    save_figure(seeds_figure(panels, result.name), result.path(result.name, ".png"))
    table = "".join(f"| {' | '.join(row)} |\n" for row in (HEADER, ["---"] * len(HEADER), *_rows(result)))
    write_text(
        result.path(result.name, ".md"),
        f"# {result.name}\n\n{_described(result)}\n\n"
        f"{table}\n{_explained(result)}\n\n![A dot for each seed, mean and interval]({result.name}.png)\n",
    )
    result.save()


def _explained(result: Repetition) -> str:
    return (
        f"Accuracies on {result.test_images:,} test images, which were read once for each seed, and on the "
        "validation images, by which to choose. Standard deviation in percentage points; interval of the "
        "mean over seeds, by Student's t. Training: seconds with validation, without evaluation and report; "
        "empty if DVC had the network already."
    )


def _print(result: Repetition) -> None:
    console = open_console()
    table = make_table(f"{result.name}: {_described(result)}", *HEADER)
    for row in _rows(result):
        table.add_row(*row)
    print_table(console, table)
    path = result.path(result.name)
    console.print(
        f"\n{_explained(result)}\n"
        f"Written: {path}, .md, .png. To keep them: git add {path.with_suffix('')}.*\n"
        "The runs are in: python -m pipeline runs. To take one over: dvc exp apply "
        f"{_experiment(result.name, result.seeds[0].seed)}\n"
        f"To compare it with another: python -m pipeline repeat --compare {result.name} OTHER"
    )


def _percent(fraction: float) -> str:
    return f"{fraction:.2%}"


def _points(fraction: float) -> str:
    """A difference in percentage points, with its sign."""
    return f"{100 * fraction:+.2f}"
