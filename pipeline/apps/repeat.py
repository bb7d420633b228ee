"""`python -m pipeline repeat`: one configuration with several seeds, each an experiment of DVC."""

import re
import shlex
from collections.abc import Sequence

from pydantic import ValidationError

from cnn.atomic import write_text
from pipeline.apps.experiments import (
    NAME,
    Configuration,
    check_setting,
    check_workspace,
    find_run,
    images_to_copy,
    run_experiment,
    training_seconds,
)
from pipeline.apps.recipe import settings_of
from pipeline.apps.run import check_git, git, repair_dvc
from pipeline.apps.seeds import CONFIDENCE_LEVEL, FEWEST, Repetition, Seed, Summary, compare_paired
from pipeline.apps.terminal import make_table, open_console, print_table
from pipeline.artefacts.evaluate import Metrics
from pipeline.config.yaml_files import read_mapping
from pipeline.errors import UserError, reason
from pipeline.paths import PARAMS

HEADER = ("seed", "validation", "test", "test loss", "epoch", "training")


def repeat(seeds: range, settings: Sequence[str] = (), name: str = "", recipe: str | None = None) -> None:
    """Run params.yaml or a recipe, changed by `settings` (of `dvc exp run -S`), with each seed; record it.

    A seed whose experiment exists already, with the same params, networks and code, is not run again.
    """
    check_git()
    check_workspace()
    params = read_mapping(PARAMS)
    for setting in settings:
        check_setting(setting, params, {"seed": "Use --first-seed and --seeds"})
    if recipe is not None:
        changes = settings_of(recipe, settings)
        settings = [setting for setting in changes if not setting.startswith("seed=")]  # each run has its own
        name = name or recipe
    configuration = Configuration(params, settings)
    options = images_to_copy(configuration.own_images())
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
    message = f"repeat {inputs}"
    for seed in seeds:
        find_run(_experiment(name, seed), message)  # refuses another configuration's before anything runs
    repair_dvc()
    found, metrics = [], []
    for number, seed in enumerate(seeds, start=1):
        if configuration.fingerprint() != inputs:
            raise UserError(
                "All seeds must run with the same params, networks and code; these changed before seed "
                f"{seed}. Run the command again: seeds that are finished are kept if you undo the changes."
            )
        experiment = _experiment(name, seed)
        revision = find_run(experiment, message)
        print(
            f"Seed {seed} ({number} of {len(seeds)}): {experiment}{' is there' if revision else ''}",
            flush=True,
        )
        revision = revision or run_experiment(experiment, message, [*options, "-S", f"seed={seed}"])
        metrics.append(_read_metrics(revision, experiment))
        found.append(
            Seed(
                seed=seed,
                epoch=metrics[-1].model.epoch,
                validation_accuracy=metrics[-1].validation.accuracy,
                test_accuracy=metrics[-1].test.accuracy,
                test_loss=metrics[-1].test.loss,
                training_seconds=training_seconds(revision),
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


def _experiment(name: str, seed: int) -> str:
    return f"{name}-seed{seed}"


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
