"""Whole programs on MNIST: training against PyTorch, time to an accuracy, each stage of the pipeline."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import cases
from benchmarks.processes import torch_processes
from benchmarks.report import Section, ratio_columns
from benchmarks.suite import Suite
from benchmarks.timing import fastest, paired_ratio
from cnn import SGD, Adam, Processes, augmentation, fit_by_epoch, schedules
from cnn.engine.replicas import Replicas
from cnn.engine.shards import count_correct
from cnn.random import Stream, derive_rng
from pipeline.artefacts.examples import load_examples
from pipeline.artefacts.preprocess import Description
from pipeline.config.params import load_params
from pipeline.data.sources import MIRROR_VARIABLE
from pipeline.paths import PARAMS, RAW

BATCH_SIZE, SHARD_SIZE, WORKERS, SEED = 64, 32, 2, 0
EPOCHS = 10
LEARNING_RATE = 0.1

# A good configuration; the milestones are test accuracies.
MILESTONES = (0.98, 0.99, 0.995)
GOOD_NETWORK, GOOD_EPOCHS = "residual", 8
PEAK_RATE = 0.005
SHIFT = 1.0  # pixels

STAGES = ("fetch", "preprocess", "train", "evaluate", "report")


def training(suite: Suite, quick: bool) -> Section:
    """Epochs of `baseline` in alternation, on the same batches."""
    epochs = 1 if quick else EPOCHS
    section = Section(
        "Training on MNIST",
        f"`baseline`, SGD with batches of {BATCH_SIZE} in the same order, each epoch with its validation, "
        "epoch by epoch in alternation, on data/processed as it is. Our side is `cnn.fit`, on "
        "memory-mapped arrays; PyTorch runs eagerly, on tensors in memory. Accuracy: our and PyTorch's, on "
        "validation images.",
    )
    if not suite.starts(section.title, "baseline"):
        return section
    description = Description.load()
    train, validation = (load_examples(part, description) for part in ("train", "validation"))
    model, _ = cases.make_network("baseline")
    times: dict[str, list[float]] = defaultdict(list)
    accuracies: dict[str, float] = {}
    with torch_processes() as torch:
        for peer in torch.values():
            peer.prepare_epochs(model, BATCH_SIZE, LEARNING_RATE, WORKERS)
        reports = fit_by_epoch(
            model,
            train,
            validation,
            optimizer=SGD(model.parameters(), LEARNING_RATE),
            epochs=epochs,
            batch_size=BATCH_SIZE,
            shard_size=SHARD_SIZE,
            seed=SEED,
            executor=Processes(WORKERS),
        )
        for epoch in range(1, epochs + 1):
            start = time.perf_counter()
            accuracies["ours"] = next(reports).validation_accuracy
            times["ours"].append(time.perf_counter() - start)
            order = derive_rng(SEED, Stream.SHUFFLE, epoch).permutation(len(train.images))
            for (memory, peer), layout in product(torch.items(), ("NCHW", "channels_last")):
                variant = f"{layout}, {memory}"
                seconds, accuracies[variant] = peer.run_epoch(layout, order)
                times[variant].append(seconds)
        reports.close()
    mine = times.pop("ours")
    variant = fastest(times)
    section.rows.append(
        {
            "network": "baseline",
            "epochs": epochs,
            "threads": WORKERS,
            "ours, s": sum(mine),
            "PyTorch, s": sum(times[variant]),
            "its variant": variant,
            **ratio_columns("PyTorch / ours", paired_ratio(mine, times[variant])),
            "accuracy": f"{accuracies['ours']:.4f}, {accuracies[variant]:.4f}",
        }
    )
    return section


def time_to_accuracy(suite: Suite, quick: bool) -> Section:
    """Seconds of training until the test accuracy first reaches each milestone."""
    epochs = 2 if quick else GOOD_EPOCHS
    section = Section(
        "Time to an accuracy on MNIST",
        f"`{GOOD_NETWORK}`, {epochs} epochs of Adam, one cycle with its peak at {PEAK_RATE:g}, shifts up to "
        f"{SHIFT:g} pixel, seed {SEED}; {WORKERS} threads. The test images are evaluated after every epoch "
        "for this table alone, while the clock is stopped. The first epoch that reaches an accuracy counts; "
        "the last row is what a run would report.",
    )
    if not suite.starts(section.title, GOOD_NETWORK):
        return section
    description = Description.load()
    train, validation, test = (load_examples(part, description) for part in ("train", "validation", "test"))
    model, _ = cases.make_network(GOOD_NETWORK)

    def augment(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        return augmentation.random_shift(images, rng, SHIFT)

    reports = fit_by_epoch(
        model,
        train,
        validation,
        optimizer=Adam(model.parameters(), PEAK_RATE),
        schedule=schedules.one_cycle(PEAK_RATE, epochs=epochs),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        shard_size=SHARD_SIZE,
        seed=SEED,
        augment=augment,
        executor=Processes(WORKERS),
    )
    seconds, curve = 0.0, []
    for epoch in range(1, epochs + 1):
        suite.say(f"{section.title}: epoch {epoch} of {epochs}")
        start = time.perf_counter()
        next(reports)
        seconds += time.perf_counter() - start
        with Replicas(model, Processes(WORKERS)) as replicas:
            accuracy = count_correct(replicas.predict(test.images), test.targets) / len(test.images)
        curve.append((epoch, seconds, accuracy))
    reports.close()
    for name, milestone in [*((f"{m:.1%}", m) for m in MILESTONES), ("the end", 0.0)]:
        reached = [point for point in curve if point[2] >= milestone]
        point = curve[-1] if milestone == 0 else reached[0] if reached else None
        section.rows.append(
            {
                "test accuracy": name,
                "epoch": str(point[0]) if point else "not reached",
                "training, s": f"{point[1]:.1f}" if point else "",
                "accuracy then": f"{point[2]:.2%}" if point else "",
            }
        )
    return section


def stages(suite: Suite, quick: bool) -> Section:
    """Time and memory of each stage alone, in a copy of the project."""
    section = Section(
        "The pipeline by stage",
        "`python -m pipeline STAGE` with the settings of params.yaml"
        + (", but for 1 epoch" if quick else "")
        + ", in a copy of the project, with the start of Python; fetch takes its files from data/raw, not "
        "from the network. Memory is the peak of the process and its workers together, "
        "memory-mapped data included; pages that they share count once.",
    )
    if not suite.wanted(section.title):
        return section
    dataset, network = load_params().data.dataset, load_params().model.architecture
    if not (RAW / dataset).exists() and dataset != "digits":
        sys.exit(f"error: {RAW} is missing. Make it with: dvc repro fetch")
    with TemporaryDirectory() as folder:
        copy_project(Path(folder))
        if quick:
            params = Path(folder) / PARAMS
            params.write_text(
                re.sub(r"(?m)^  epochs: \d+", "  epochs: 1", params.read_text(encoding="utf-8"))
            )
        for stage in STAGES:
            suite.say(f"{section.title}: {stage}")
            used = measure([sys.executable, "-m", "pipeline", stage], Path(folder))
            section.rows.append(
                {
                    "stage": stage,
                    "of": f"{dataset}, {network}",
                    "s": used["seconds"],
                    "peak memory, MB": used["megabytes"],
                }
            )
    return section


def copy_project(folder: Path) -> None:
    """Copy the files that Git tracks or does not ignore, in their present state."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=cases.ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source, target = cases.ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def measure(command: list[str], folder: Path) -> dict[str, float]:
    """Seconds and peak memory of a command that runs in `folder`; RuntimeError if it fails."""
    environment = os.environ | {MIRROR_VARIABLE: str(RAW.resolve())}
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("usage.py")), *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout)
