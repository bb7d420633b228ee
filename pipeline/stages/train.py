"""The train stage: write the network of the best or the last epoch to models/."""

import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from math import ceil, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL
from PIL import features
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from threadpoolctl import threadpool_info, threadpool_limits

from cnn import (
    EpochReport,
    NonFiniteError,
    Progress,
    Sequential,
    checkpoint,
    fit_by_epoch,
    whiten,
)
from cnn.atomic import write_text
from cnn.checkpoint import CheckpointError
from cnn.engine.executors import Executor
from cnn.engine.shards import Loss
from cnn.inspection import EpochStatistics
from pipeline import device, ranks
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.preprocess import Description
from pipeline.artefacts.train import (
    DIVERGED_VARIABLE,
    Environment,
    Epoch,
    Network,
    ParameterStatistics,
    seconds_note,
)
from pipeline.bits import NATIVE_VARIABLE, is_native
from pipeline.config.architectures import build_chosen
from pipeline.config.groups import group_rows, group_table, make_optimizer
from pipeline.config.yaml_files import to_yaml
from pipeline.errors import StoppedError, UserError
from pipeline.paths import MODELS
from pipeline.stages.live import LivePage
from pipeline.stages.resume import RunCheckpoint, StopSignal, fingerprint, only_training

if TYPE_CHECKING:
    from pipeline.config.params import Params

BAR_SECONDS = 0.1  # between updates of the bar
STEPS_TO_LEARN = 100  # after which the loss should have fallen


def train(params: "Params") -> None:
    """Train as `params` say; at the end, write the network of the epoch to keep, and the history.

    `train.keep` says which: the best epoch is the one with the highest validation accuracy, of equals the
    first; the last epoch needs no luck, and suits a schedule that ends near zero. With a moving average, or
    lookahead, the weights are the average at the end of that epoch. An interrupted run continues from its
    last checkpoint, and writes the same bytes.
    """
    description = Description.load()
    if description.dataset != params.data.dataset:
        raise UserError(
            f"data/processed holds {description.dataset}, but params.yaml says {params.data.dataset}. "
            "Update it with: dvc repro"
        )
    console = Console(markup=False, highlight=False, soft_wrap=True, quiet=not ranks.is_first())
    if several := ranks.describe():
        console.print(several)
    if note := portability_note(environment(params.device)):
        console.print(note)
    executor = ranks.make_executor(params.device)
    model, layers = build_chosen(params, description.image_shape, len(description.class_names))
    loss = params.train.loss.make(len(description.class_names))
    console.print(model.summary(description.image_shape))
    if rows := group_rows(params.train, model):
        console.print(f"\n{group_table(rows)}")

    # One BLAS thread: with more, the order of sums would depend on how many cores there are.
    # Overflows show in losses and gradients, which are checked at each step.
    with (
        only_training() if ranks.is_first() else nullcontext(),
        threadpool_limits(1, user_api="blas"),
        np.errstate(over="ignore", invalid="ignore"),
    ):
        whiten(model, load_examples("train", description).images)
        device.place(model, params.device)
        run, kept = _fit(model, layers, loss, params, description, executor, console)
        if ranks.is_first():
            _write_results(run, kept, params, layers, description)
            write_text(seconds_note(Epoch.path.read_bytes()), f"{run.training_seconds:.3f}\n")
            run.remove()
    console.print(
        f"{params.train.keep.capitalize()} epoch: {kept.epoch}, with validation accuracy "
        f"{kept.validation_accuracy:.4f}. "
        f"Its weights are in {Network.path}."
    )


def environment(where: device.Device) -> Environment:
    """The environment of this process, which computes there."""
    simd = np.show_config(mode="dicts").get("SIMD Extensions", {})  # leaves out empty lists
    libraries = [
        f"{library['internal_api']} {library['version']} {library.get('architecture')}"
        for library in threadpool_info()
        if library["user_api"] == "blas" and "numpy" in library["filepath"]
    ]
    return Environment(
        machine=platform.machine().lower().replace("amd64", "x86_64"),
        numpy=np.__version__,
        numpy_simd=" ".join([*simd.get("baseline", []), *simd.get("found", [])]),
        pillow=f"{PIL.__version__}, libjpeg {features.version('jpg')}",
        blas=device.describe(where) or ", ".join(libraries) or "unknown",
    )


def portability_note(here: Environment) -> str | None:
    """What to expect if this process does not compute the bits that all x86-64 processors with AVX2 share."""
    if here.is_portable:
        return None
    if here.blas.startswith("CuPy"):
        return (
            f"note: This run is computed by {here.blas}. They repeat on this kind of GPU, but their last "
            "bits differ from those of a processor."
        )
    if is_native():
        why = f"{NATIVE_VARIABLE} is set, so this run uses all that the processor has"
    elif here.machine != "x86_64":
        why = f"This processor ({here.machine}) is not an x86-64 processor"
    elif "X86_V3" not in here.numpy_simd:
        why = f"NumPy finds no AVX2 here, only {here.numpy_simd}"
    else:
        why = f"NumPy runs other code here than recorded ({here.blas}; {here.numpy_simd})"
    return (
        f"note: {why}. The last bits of the results are this kind of machine's own: they repeat here, but "
        "differ from those recorded in Git."
    )


def _fit(
    model: Sequential,
    layers: list[Any],
    loss: Loss,
    params: "Params",
    description: Description,
    executor: Executor,
    console: Console,
) -> tuple[RunCheckpoint, EpochReport]:
    """`fit` from the last checkpoint on, with a progress bar and a line per epoch; (run, epoch to keep)."""
    options = params.train
    optimizer = make_optimizer(options, model)
    average = options.make_average(optimizer.ever_trained, description.examples["train"])
    at, statistics = Progress(), EpochStatistics(model.parameters())
    settings = params.model_dump(include={"seed", "data", "train"}, exclude={"train": {"checkpoint_seconds"}})
    settings |= {"layers": layers, "environment": environment(params.device).model_dump()}
    run = RunCheckpoint(
        ranks.same_everywhere("other code, packages, params or data", fingerprint(settings)),
        {"model": model, "optimizer": optimizer, "progress": at, "statistics": statistics}
        | ({"average": average} if average else {}),
        options.checkpoint_seconds,
    )
    try:
        if run.restore():
            console.print(
                f"Continuing from {run.path}: "
                f"after {len(run.history)} epochs and {int(at.examples):,} images."
            )
    except CheckpointError as error:
        console.print(f"{error} Training starts from scratch.")

    bar = _Bar(options.epochs, description.examples["train"], console)
    page = LivePage(f"{params.model.architecture} on {description.title}", options.epochs, run.history)
    console.print(f"Curves while it trains, for a browser: {page.path}")
    with bar.progress, page, StopSignal() as stop:

        def on_step(at: Progress) -> None:
            bar.update(at)
            received = ranks.largest(stop.received or 0)  # once: a signal may arrive between two looks
            if received or run.is_due():
                run.save()
            if received:
                raise StoppedError(
                    f"Stopped in epoch {at.epoch} of {options.epochs}, after {int(at.examples):,} images. "
                    "To continue from there: dvc repro",
                    received,
                )

        try:
            reports = fit_by_epoch(
                model,
                load_examples("train", description),
                load_examples("validation", description),
                loss=loss,
                optimizer=optimizer,
                epochs=options.epochs,
                batch_size=options.batch_size,
                shard_size=options.shard_size,
                seed=params.seed,
                augment=options.augmentation.make(
                    description.normalised_background,
                    description.normalised_black,
                    description.normalised_white,
                ),
                clip_norm=options.clip_norm,
                clip_value=options.clip_value,
                moving_average=average,
                patience=options.patience,
                executor=executor,
                progress=at,
                statistics=statistics,
                on_step=on_step,
            )
        except ValueError as error:
            raise UserError(f"{error}\nIn params.yaml: train.batch_size and train.shard_size.") from None
        try:
            for report in until_too_low(reports, run.history, options.minimum_accuracy):
                bar.print_line(report)
                run.history.append(report)
                run.statistics += [{"epoch": report.epoch} | row for row in statistics.finish_epoch()]
                if options.keep == "last" or at.best_epoch == report.epoch:
                    with nullcontext() if average is None else average.applied():
                        run.kept_state = model.state_dict()
                run.save()
                page.update()
                _warn_if_nothing_is_learnt(report, params, description, console)
        except NonFiniteError as error:
            if (note := os.environ.get(DIVERGED_VARIABLE)) and ranks.is_first():
                write_text(Path(note), f"{error}\n")
            if options.groups:
                raise UserError(
                    f"{error}\nIn params.yaml: the learning rates in train.optimizer and train.groups."
                ) from None
            chosen, name = options.optimizer.options(), options.optimizer.name
            smaller = min(chosen["learning_rate"] / 10, 0.1)
            decayed = f" and train.optimizer.{name}.weight_decay" if chosen.get("weight_decay") else ""
            raise UserError(
                f"{error} Try: dvc exp run -S train.optimizer.learning_rate={smaller:g}\n"
                f"In params.yaml: train.optimizer.learning_rate, else train.optimizer.{name}.learning_rate"
                f"{decayed}."
            ) from None
    if note := too_low(run.history, options.minimum_accuracy):
        console.print(f"Stopped: {note}")
    return run, run.history[-1 if options.keep == "last" else int(at.best_epoch) - 1]


def until_too_low(
    reports: Iterator[EpochReport], history: Sequence[EpochReport], minimum: Sequence[float]
) -> Iterator[EpochReport]:
    """The reports, as long as `history`, to which the caller appends each of them, is not too low."""
    with closing(reports):  # type: ignore[type-var]  # a generator, whose processes end with it
        while not too_low(history, minimum) and (report := next(reports, None)):
            yield report


def too_low(history: Sequence[EpochReport], minimum: Sequence[float]) -> str | None:
    """Why training stops after the last epoch of `history`; None if it goes on.

    The highest validation accuracy in n epochs must be at least minimum[n - 1], if there is such a number.
    """
    if not 1 <= len(history) <= len(minimum):
        return None
    best, needed = max(report.validation_accuracy or 0.0 for report in history), minimum[len(history) - 1]
    if best >= needed:
        return None
    return (
        f"after epoch {len(history)} the best validation accuracy is {best:.4f}, and "
        f"train.minimum_accuracy asks for {needed:g}."
    )


def _write_results(
    run: RunCheckpoint, kept: EpochReport, params: "Params", layers: list[Any], description: Description
) -> None:
    """Write the network of the epoch `kept`, and the history of all epochs."""
    network = Network(
        architecture=params.model.architecture,
        layers=layers,
        data=description,
        epoch=kept.epoch,
        environment=environment(params.device),
    )
    checkpoint.save(Network.path, run.kept_state, network.model_dump(mode="json"))
    write_text(MODELS / "architecture.yaml", to_yaml({network.architecture: layers}))
    network.environment.save()
    ParameterStatistics.save([ParameterStatistics(**row) for row in run.statistics])
    Epoch.save([Epoch(**asdict(report)) for report in run.history])


class _Bar:
    """The progress of a run, on the terminal."""

    def __init__(self, epochs: int, images: int, console: Console) -> None:
        self.epochs, self.images, self.console = epochs, images, console
        self.progress = ProgressBar(
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.4f}"),
            TextColumn("{task.fields[speed]:,.0f} images/s"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=console.quiet or not sys.stdout.isatty(),  # FORCE_COLOR does not make a log a terminal
            auto_refresh=False,  # by a thread, which would make forks unsafe
        )
        self._task = self.progress.add_task(
            "", total=epochs * images, epoch=1, loss=0.0, accuracy=0.0, speed=0.0
        )
        self._epoch_start, self._first, self._shown = time.perf_counter(), 0, 0.0

    def update(self, at: Progress) -> None:
        """Show the progress after a step."""
        examples = int(at.examples)
        self._first = self._first or examples
        self.progress.update(
            self._task,
            completed=(int(at.epoch) - 1) * self.images + examples,
            epoch=int(at.epoch),
            loss=float(at.loss_sum) / examples,
            accuracy=int(at.correct) / examples,
            speed=(examples - self._first) / max(time.perf_counter() - self._epoch_start, 1e-9),
        )
        if time.perf_counter() - self._shown > BAR_SECONDS:
            self.progress.refresh()
            self._shown = time.perf_counter()

    def print_line(self, report: EpochReport) -> None:
        """Print a summary of an epoch."""
        self.console.print(
            f"epoch {report.epoch:>{len(str(self.epochs))}}/{self.epochs}"
            f"  train loss {report.train_loss:.4f} accuracy {report.train_accuracy:.4f}"
            f"  validation loss {report.validation_loss:.4f}"
            f" accuracy {report.validation_accuracy:.4f}  {time.perf_counter() - self._epoch_start:.1f} s"
        )
        self._epoch_start, self._first = time.perf_counter(), 0


def _warn_if_nothing_is_learnt(
    report: EpochReport, params: "Params", description: Description, console: Console
) -> None:
    """Warn if the loss is still ln(classes), that of equal probabilities, after an epoch and some steps."""
    classes = len(description.class_names)
    guessing = log(classes)
    steps = report.epoch * ceil(description.examples["train"] / params.train.batch_size)
    if params.train.loss.name == "mean_squared_error" or steps < STEPS_TO_LEARN:
        return
    if report.train_accuracy > 2 / classes:
        return
    if report.train_loss > 0.98 * guessing:
        console.print(
            f"warning: After epoch {report.epoch} the loss is {report.train_loss:.4f}; equal "
            f"probabilities for all classes give ln({classes}) = {guessing:.4f}. The network learns nothing. "
            "Try another learning rate (train.optimizer.learning_rate), or other initial values (seed, or "
            "an initializer in architectures.yaml)."
        )
