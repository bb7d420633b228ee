"""`python -m pipeline search`: settings searched by validation accuracy; each trial is an experiment of DVC.

Trials run one after the other, up to the stage `train`: no trial evaluates, so none sees a test image. Which
settings the next trial gets, and when it stops early, follows from the seed and the trials before it. So a
search that was stopped goes on from the experiments that are there; nothing else is kept.
"""

import json
import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from cnn.atomic import write_text
from cnn.registry import unknown
from pipeline.apps.experiments import (
    NAME,
    Configuration,
    check_setting,
    check_workspace,
    epochs_of,
    find_run,
    images_to_copy,
    kept_accuracy,
    run_experiment,
    training_seconds,
)
from pipeline.apps.recipe import in_hydras_grammar, overlay
from pipeline.apps.run import check_git, check_network, git, repair_dvc
from pipeline.apps.runs import flat
from pipeline.apps.terminal import make_table, open_console, print_table
from pipeline.artefacts.record import Record
from pipeline.artefacts.train import DIVERGED_VARIABLE, Epoch
from pipeline.config.params import Params, validate
from pipeline.config.sections import Section
from pipeline.config.yaml_files import parse_mapping, read_mapping
from pipeline.errors import UserError
from pipeline.paths import PARAMS, SEARCHES, SEARCHES_FILE, scratch

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

PACKAGE = "optuna>=5,<6"  # as in pyproject.toml
FEWEST = 3  # finished trials, before a trial is stopped for lagging behind their median
DIGITS = 3  # of a number that is chosen from a range
OWN = {"train.minimum_accuracy": "It stops trials that lag behind.", "seed": f"Write it in {PARAMS}."}
Settings = dict[str, Any]  # values by key, as in "train.epochs"


class Range(Section):
    """The numbers from `low` to `high`; with `log`, their logarithms are searched evenly."""

    low: int | float = Field(description="the smallest value: a number")
    high: int | float = Field(description="the largest value: a number")
    log: bool = Field(default=False, description="true: search by factors; or false")

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"needs low < high, and with log low > 0; received low {self.low:g} and high {self.high:g}."
            )
        return self

    def distribution(self) -> "BaseDistribution":
        """What Optuna calls it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def value(self, chosen: Any) -> int | float:
        """The chosen number with few digits, for people to read, within the range."""
        if isinstance(chosen, int):
            return chosen
        return min(max(float(f"{chosen:.{DIGITS}g}"), self.low), self.high)

    def place(self, value: Any) -> Any:
        """What stands for a value in Optuna."""
        return value


class Choices(list[Any]):
    """Values of any kind; Optuna sees their places in the list."""

    def distribution(self) -> "BaseDistribution":
        """What Optuna calls it."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(range(len(self)))

    def value(self, chosen: int) -> Any:
        """The chosen value."""
        return self[chosen]

    def place(self, value: Any) -> int:
        """What stands for a value in Optuna."""
        return self.index(value)


class Search(Section):
    """A search in search.yaml."""

    title: str = Field(min_length=1, description="what it is for, in a few words")
    trials: Annotated[int, Field(ge=1)] = Field(description="how many trials: a whole number >= 1")
    seed: Annotated[int, Field(ge=0)] = Field(description="the seed of the choices: a whole number >= 0")
    params: dict[str, Any] = Field(default={}, description="keys of params.yaml with values, for all trials")
    space: dict[str, Annotated[list[Any], Field(min_length=2)] | Range] = Field(
        min_length=1,
        description="keys of params.yaml, such as train.batch_size, each with a list of values or a range "
        "{low, high, log}",
    )

    @property
    def dimensions(self) -> dict[str, Range | Choices]:
        """The space, with lists as Choices."""
        return {
            key: Choices(values) if isinstance(values, list) else values for key, values in self.space.items()
        }


class Trial(Record):
    """One trial: what it changed, and the validation accuracy of the network that it kept.

    A trial that lags behind stops before all epochs have run. One whose loss became infinite has no accuracy.
    """

    number: int
    experiment: str
    settings: Settings
    validation_accuracy: float | None
    by_epoch: list[float]  # the best validation accuracy so far
    is_finished: bool
    training_seconds: float | None


class Result(Record):
    """The content of reports/search/NAME.json; the trials with the best validation accuracy first."""

    name: str
    title: str
    inputs: str  # identifies the space, its seed, params, networks and code
    seed: int
    epochs: int
    trials: list[Trial]


def list_searches() -> None:
    """Print all searches of search.yaml."""
    table = make_table("Searches", "search", "trials", "settings")
    for name in read_mapping(SEARCHES_FILE):
        search = load_search(str(name))
        table.add_row(f"{name}: {search.title}", str(search.trials), ", ".join(search.space))
    console = open_console()
    print_table(console, table)
    console.print(f"To run one: python -m pipeline search NAME. {SEARCHES_FILE} explains them.")


def load_search(name: str) -> Search:
    """The search of this name; UserError if there is none, or if it is not written as a search."""
    searches = {str(key): content for key, content in read_mapping(SEARCHES_FILE).items()}
    if name not in searches:
        raise UserError(f"{unknown('search', name, searches)} They are in {SEARCHES_FILE}.")
    if not NAME.fullmatch(name):
        raise UserError(
            "The name of a search must consist of letters, digits, - and _, and begin with a letter or "
            f"digit, since files and experiments get it; received {name!r} in {SEARCHES_FILE}."
        )
    return validate(Search, searches[name], f"{SEARCHES_FILE}: {name}")


def search(name: str, trials: int | None = None) -> None:
    """Run the trials of a search that are not there yet; record all of them.

    A trial whose experiment exists already, with the same space, params, networks and code, is not run again.
    """
    check_git()
    check_workspace()
    _check_optuna()
    chosen = load_search(name)
    params = read_mapping(PARAMS)
    checked = _check(chosen, params, f"{SEARCHES_FILE}: {name}")
    shared = [f"{key}={in_hydras_grammar(value)}" for key, value in flat(chosen.params)]
    definition = json.dumps([chosen.seed, chosen.model_dump(mode="json")["space"]])
    configuration = Configuration(params, [*shared, definition])
    inputs = configuration.fingerprint()
    message, epochs, keep = f"search {inputs}", checked.train.epochs, checked.train.keep
    options = images_to_copy(configuration.own_images())
    for setting in shared:
        options += ["-S", setting]
    count = trials or chosen.trials
    for number in range(count):
        find_run(_experiment(name, number), message)  # refuses another configuration's before anything runs
    repair_dvc()
    found: list[Trial] = []
    for number in range(count):
        if configuration.fingerprint() != inputs:
            raise UserError(
                "All trials must run with the same params, networks and code; these changed before trial "
                f"{number}. Run the command again: trials that are finished are kept if you undo the changes."
            )
        experiment = _experiment(name, number)
        note = (scratch() / "diverged" / f"{inputs}-{number}").resolve()
        revision = find_run(experiment, message)
        ran = _params_of(revision) if revision else {}
        settings = {key: _at(ran, key) for key in chosen.space} if ran else suggest(chosen, found, number)
        shown = ", ".join(f"{key}={in_hydras_grammar(value)}" for key, value in settings.items())
        print(
            f"Trial {number} ({number + 1} of {count}): {shown}{' is there' if revision else ''}", flush=True
        )
        if revision is None and not note.exists():
            minimum = minimum_accuracy(found, epochs)
            changes = settings | ({"train.minimum_accuracy": minimum} if minimum else {})
            each = [f"{key}={in_hydras_grammar(value)}" for key, value in changes.items()]
            try:
                revision = run_experiment(
                    experiment,
                    message,
                    [*options, *(part for setting in each for part in ("-S", setting)), "train"],
                    **{DIVERGED_VARIABLE: str(note)},
                )
            except UserError:
                if not note.exists():
                    raise
        found.append(_read(revision, experiment, number, settings, keep))
    result = Result(
        name=name,
        title=chosen.title,
        inputs=inputs,
        seed=chosen.seed,
        epochs=epochs,
        trials=sorted(found, key=lambda trial: (-(trial.validation_accuracy or 0.0), trial.number)),
    )
    _write(result, {key: isinstance(kind, Range) and kind.log for key, kind in chosen.space.items()})
    _print(result)


def suggest(search: Search, found: Sequence[Trial], number: int) -> Settings:
    """The settings of trial `number`, by the tree-structured Parzen estimator after the trials before it.

    The first ten trials are random. Then, with l and g the densities of settings among good trials and among
    the others, it is the draw from l with the largest l / g (Bergstra et al. 2011, "Algorithms for
    hyper-parameter optimization").
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    dimensions = search.dimensions
    distributions = {key: kind.distribution() for key, kind in dimensions.items()}
    for trial in found:
        accuracy = trial.validation_accuracy
        state = "PRUNED" if accuracy is not None and not trial.is_finished else "COMPLETE"
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[state],
                value=accuracy or 0.0,  # what diverged is as bad as can be
                params={key: dimensions[key].place(value) for key, value in trial.settings.items()},
                distributions=distributions,
                intermediate_values=dict(enumerate(trial.by_epoch, start=1)),
            )
        )
    chosen = study.ask(distributions).params
    return {key: kind.value(chosen[key]) for key, kind in dimensions.items()}


def minimum_accuracy(found: Sequence[Trial], epochs: int) -> list[float]:
    """The validation accuracy that a trial must have reached after each epoch but the last, or be stopped.

    It is the median of what the finished trials had reached by then (the median stopping rule of Golovin et
    al. 2017, "Google Vizier"); empty as long as these are few.
    """
    finished = [trial.by_epoch for trial in found if trial.is_finished]
    if len(finished) < FEWEST:
        return []
    return [
        math.floor(1e4 * median(best[min(epoch, len(best) - 1)] for best in finished)) / 1e4
        for epoch in range(epochs - 1)
    ]


def _check_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            f'A search needs Optuna, which is not installed. Install it: python -m pip install "{PACKAGE}"'
        ) from None


def _check(search: Search, params: dict[str, Any], source: str) -> Params:
    """The params that all trials share; UserError if a value of the space cannot be used with them."""
    for key in dict(flat(search.params)) | search.space:
        check_setting(f"{key}=", params, OWN)
    base = overlay(params, search.params)
    for key, kind in search.space.items():
        values = kind if isinstance(kind, list) else [kind.low, kind.high]
        for value in values:
            changed: Any = value
            for part in reversed(key.split(".")):
                changed = {part: changed}
            check_network(validate(Params, overlay(base, changed), f"{source}, with {key}={value}"))
    return validate(Params, base, source)


def _experiment(name: str, number: int) -> str:
    return f"{name}-trial{number}"


def _params_of(revision: str) -> dict[str, Any]:
    return parse_mapping(git("show", f"{revision}:./{PARAMS}"), f"{PARAMS} of {revision}")


def _at(params: Any, key: str) -> Any:
    for part in key.split("."):
        params = params[part]
    return params


def _read(revision: str | None, experiment: str, number: int, settings: Settings, keep: str) -> Trial:
    """What came of a trial; without a commit, it diverged."""
    rows: list[Epoch] = []
    minimum: list[float] = []
    if revision is not None:
        rows, minimum = epochs_of(revision), _at(_params_of(revision), "train.minimum_accuracy")
    best = [max(row.validation_accuracy for row in rows[: k + 1]) for k in range(len(rows))]
    return Trial(
        number=number,
        experiment=experiment,
        settings=settings,
        validation_accuracy=kept_accuracy(rows, keep) if rows else None,
        by_epoch=best,
        is_finished=bool(rows) and (len(best) > len(minimum) or best[-1] >= minimum[len(best) - 1]),
        training_seconds=None if revision is None else training_seconds(revision),
    )


def _header(result: Result) -> tuple[str, ...]:
    return (
        "trial",
        *(key.removeprefix("train.") for key in result.trials[0].settings),
        "validation",
        "epochs",
        "seconds",
    )


def _rows(result: Result) -> list[tuple[str, ...]]:
    rows = []
    for trial in result.trials:
        accuracy, seconds = trial.validation_accuracy, trial.training_seconds
        rows.append(
            (
                str(trial.number),
                *map(in_hydras_grammar, trial.settings.values()),
                "diverged" if accuracy is None else f"{accuracy:.2%}",
                f"{len(trial.by_epoch)}{'' if trial.is_finished or accuracy is None else ', stopped'}",
                "" if seconds is None else f"{seconds:,.1f}",
            )
        )
    return rows


def _explained(result: Result) -> str:
    return (
        f"Seed {result.seed}; at most {result.epochs} epochs. A trial stopped if after an epoch its best "
        "validation accuracy was below the median of the finished trials. No test image was read. The best "
        "of many validation accuracies is a little too good; the test accuracy of the chosen one is not."
    )


def _write(result: Result, logarithmic: Mapping[str, bool]) -> None:
    """The record, a page for people, and a picture, all beside each other."""
    from pipeline.report.figures import save_figure, search_figure

    path = SEARCHES / result.name
    curves = {trial.number: (trial.by_epoch, trial.is_finished) for trial in result.trials}
    panels = {
        key.removeprefix("train."): (
            [
                (trial.settings[key], trial.validation_accuracy, trial.is_finished)
                for trial in sorted(result.trials, key=lambda trial: trial.number)
                if trial.validation_accuracy is not None
            ],
            logarithmic[key],
        )
        for key in result.trials[0].settings
    }
    save_figure(search_figure(curves, panels, result.name), path.with_suffix(".png"))
    header = _header(result)
    table = "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---"] * len(header), *_rows(result)))
    write_text(
        path.with_suffix(".md"),
        f"# {result.name}\n\n{result.title}\n\n{table}\n{_explained(result)}\n\n"
        f"![Validation accuracy by epoch and by setting]({result.name}.png)\n",
    )
    write_text(path.with_suffix(".json"), json.dumps(result.model_dump(mode="json"), indent=2) + "\n")


def _print(result: Result) -> None:
    console = open_console()
    table = make_table(f"{result.name}: {result.title}", *_header(result))
    for row in _rows(result):
        table.add_row(*row)
    print_table(console, table)
    best = result.trials[0]
    path = SEARCHES / result.name
    console.print(
        f"\n{_explained(result)}\nWritten: {path}.json, .md, .png. To keep them: git add {path}.*\n"
        f"To take over the best one, and evaluate it: dvc exp apply {best.experiment} && dvc repro"
    )
