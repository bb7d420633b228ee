"""The train stage: the network of the best validation epoch into models/."""

import csv
import io
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from joblib import cpu_count
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from threadpoolctl import threadpool_info, threadpool_limits

from cnn import EpochReport, MovingAverage, NonFiniteLossError, Sequential, checkpoint, fit
from cnn.atomic import write_text
from cnn.training import BatchReport
from pipeline.architectures import build_chosen
from pipeline.errors import UserError
from pipeline.methods import make_augmentation, make_loss, make_optimizer, make_schedule
from pipeline.params import Params, load_params
from pipeline.paths import HISTORY, MODEL, MODELS
from pipeline.processed import load_description, load_examples
from pipeline.yaml_files import to_yaml


def train() -> None:
    """Train as params.yaml says, rewrite the history after each epoch, and write the best network at the end.

    The best epoch is the one with the highest validation accuracy; of equals, the first.
    """
    params = load_params()
    architecture = params.model.architecture
    description = load_description()
    if description["dataset"] != params.data.dataset:
        raise UserError(
            f"data/processed holds {description['dataset']}, but params.yaml says {params.data.dataset}. "
            "Bring them together with: dvc repro"
        )
    image_shape = tuple(description["image_shape"])
    model, layers = build_chosen(params, image_shape, len(description["class_names"]))
    console = Console(markup=False)
    console.print(model.summary(image_shape), highlight=False, soft_wrap=True)

    history: list[EpochReport] = []
    best, best_state = -1.0, model.state_dict()
    for report in _fit_with_progress(model, params, description, console):
        history.append(report)
        write_text(HISTORY, _to_csv(history))
        if report.validation_accuracy > best:
            best, best_state = report.validation_accuracy, model.state_dict()
            best_epoch = report.epoch

    metadata = {"architecture": architecture, "layers": layers, "data": description, "epoch": best_epoch}
    checkpoint.save(MODEL, best_state, metadata)
    write_text(MODELS / "architecture.yaml", to_yaml({architecture: layers}))
    write_text(MODELS / "environment.json", json.dumps(environment(), indent=2) + "\n")
    console.print(
        f"Best epoch: {best_epoch}, with validation accuracy {best:.4f}. Its weights are in {MODEL}.",
        highlight=False,
        soft_wrap=True,
    )


def environment() -> dict[str, Any]:
    """What decides the last bits of a result, besides params, data and code."""
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    return {
        "machine": platform.machine(),
        "numpy": np.__version__,
        "numpy_simd": simd["baseline"] + simd["found"],
        "blas": [
            {key: library.get(key) for key in ("internal_api", "version", "architecture")}
            for library in threadpool_info()
            if library["user_api"] == "blas" and "numpy.libs" in library["filepath"]
        ],
    }


def _fit_with_progress(
    model: Sequential, params: Params, description: dict[str, Any], console: Console
) -> Iterator[EpochReport]:
    """`fit`, with a moving bar on a terminal, and a line for each epoch anywhere."""
    options = params.train
    images = description["examples"]["train"]
    progress = Progress(
        TextColumn("epoch {task.fields[epoch]}/" + str(options.epochs)),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.4f}"),
        TextColumn("{task.fields[speed]:,.0f} images/s"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = progress.add_task("", total=options.epochs * images, epoch=1, loss=0.0, accuracy=0.0, speed=0.0)
    epoch_start = time.perf_counter()

    def on_batch(batch: BatchReport) -> None:
        progress.update(
            task,
            completed=(batch.epoch - 1) * images + batch.examples,
            epoch=batch.epoch,
            loss=batch.loss_sum / batch.examples,
            accuracy=batch.correct / batch.examples,
            speed=batch.examples / max(time.perf_counter() - epoch_start, 1e-9),
        )

    decay = options.moving_average
    optimizer = make_optimizer(options.optimizer, model.parameters())
    learning_rate = optimizer.learning_rate
    reports = fit(
        model,
        make_loss(options.loss, len(description["class_names"])),
        optimizer,
        make_schedule(options.schedule, learning_rate, options.epochs),
        load_examples("train", description),
        load_examples("validation", description),
        epochs=options.epochs,
        batch_size=options.batch_size,
        shard_size=options.shard_size,
        seed=params.seed,
        augment=make_augmentation(options.augmentation, -description["mean"] / description["deviation"]),
        clip_norm=options.clip_norm,
        clip_value=options.clip_value,
        moving_average=None if decay is None else MovingAverage(model.parameters(), decay),
        patience=options.patience,
        workers=cpu_count(),
        on_batch=on_batch,
    )
    # One BLAS thread: with more, the order of sums would depend on how many cores there are.
    # Overflows show in the loss, which is checked at each step.
    with threadpool_limits(1, user_api="blas"), np.errstate(over="ignore", invalid="ignore"), progress:
        try:
            for report in reports:
                seconds = time.perf_counter() - epoch_start
                console.print(
                    f"epoch {report.epoch:>{len(str(options.epochs))}}/{options.epochs}"
                    f"  train loss {report.train_loss:.4f} accuracy {report.train_accuracy:.4f}"
                    f"  validation loss {report.validation_loss:.4f}"
                    f" accuracy {report.validation_accuracy:.4f}  {seconds:.1f} s",
                    highlight=False,
                    soft_wrap=True,
                )
                yield report
                epoch_start = time.perf_counter()
        except NonFiniteLossError as error:
            smaller = min(learning_rate / 10, 0.1)
            name = options.optimizer.name
            decayed = f" and train.optimizer.{name}.weight_decay" if optimizer.weight_decay else ""
            raise UserError(
                f"{error} Try: dvc exp run -S train.optimizer.learning_rate={smaller:g}\n"
                f"In params.yaml: train.optimizer.learning_rate, else train.optimizer.{name}.learning_rate"
                f"{decayed}."
            ) from None


def _to_csv(history: list[EpochReport]) -> str:
    """A header and a line for each epoch."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in fields(EpochReport)], lineterminator="\n")
    writer.writeheader()
    for report in history:
        writer.writerow({k: float(f"{v:.6g}") if k != "epoch" else v for k, v in asdict(report).items()})
    return stream.getvalue()
