"""A run that is interrupted anywhere continues to the same bytes."""

from functools import partial

import numpy as np
import pytest

from cnn import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Examples,
    Flatten,
    MaxPool2D,
    MovingAverage,
    Muon,
    Progress,
    ReLU,
    RMSProp,
    Sequential,
    augmentation,
    checkpoint,
    fit_by_epoch,
    schedules,
)

OPTIMIZERS = {
    "sgd": lambda parameters: SGD(parameters, 0.05),
    "nesterov": lambda parameters: SGD(parameters, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "rmsprop": lambda parameters: RMSProp(parameters, 0.01),
    "adagrad": lambda parameters: Adagrad(parameters, 0.01),
    "adam": lambda parameters: Adam(parameters, 0.01),
    "adamw": lambda parameters: AdamW(parameters, 0.01, weight_decay=0.1),
    "muon": lambda parameters: Muon(parameters, 0.01, normalize=True),
}
EXAMPLES, BATCH_SIZE, EPOCHS = 23, 5, 3
AUGMENT = augmentation.compose(
    partial(augmentation.random_shift, pixels=1.0),
    partial(augmentation.alternating_flip, on=True),
    partial(augmentation.random_erasing, probability=0.3),
)
STEPS = 5  # of an epoch; the last batch has three images


class StopError(Exception):
    pass


class Run:
    """All that is random or has a state at once: batch norm, dropout, augmentation, average, one-cycle."""

    def __init__(self, optimizer):
        rng = np.random.default_rng(0)
        layers = [
            *(Conv2D(1, 3, 3, rng=rng), BatchNorm(3), ReLU(), MaxPool2D(2)),
            *(Dropout(0.3), Flatten(), Dense(27, 10, rng=rng)),
        ]
        model = Sequential(layers)
        self.parts = {
            "model": model,
            "optimizer": OPTIMIZERS[optimizer](model.parameters()),
            "average": MovingAverage(model.parameters(), 0.9),
            "progress": Progress(),
        }
        images = np.random.default_rng(1).random((EXAMPLES, 8, 8, 1), dtype=np.float32)
        self.examples = Examples(images, np.eye(10, dtype=np.float32)[np.arange(EXAMPLES) % 10])

    def reports(self, stop_after=None, **options):
        """Reports until the end, or until the run has done `stop_after` steps."""
        model, optimizer, average, progress = self.parts.values()

        def on_step(at):
            if at.step == stop_after:
                raise StopError

        reports = []
        settings = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "shard_size": 2, "seed": 0} | options
        try:
            for report in fit_by_epoch(
                model,
                self.examples,
                self.examples,
                optimizer=optimizer,
                schedule=schedules.one_cycle(0.05, epochs=EPOCHS),
                augment=AUGMENT,
                clip_norm=1.0,
                moving_average=average,
                progress=progress,
                on_step=on_step,
                **settings,
            ):
                reports.append(report)
        except StopError:
            pass
        return reports

    def save(self, path):
        arrays = {}
        for part, stateful in self.parts.items():
            arrays |= {f"{part}/{name}": array for name, array in stateful.state_dict().items()}
        checkpoint.save(path, arrays, {})

    def load(self, path):
        arrays, _ = checkpoint.load(path)
        for part, stateful in self.parts.items():
            names = [name for name in arrays if name.startswith(f"{part}/")]
            stateful.load_state_dict({name.removeprefix(f"{part}/"): arrays[name] for name in names})

    def bytes(self):
        return [array.tobytes() for part in self.parts.values() for array in part.state_dict().values()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_cut_off_after_any_step_ends_with_the_same_bytes(optimizer, tmp_path):
    whole = Run(optimizer)
    reports = whole.reports()
    assert len(reports) == EPOCHS
    for stop_after in range(1, EPOCHS * STEPS + 1):
        cut_off, resumed = Run(optimizer), Run(optimizer)
        before = cut_off.reports(stop_after)
        cut_off.save(tmp_path / "training.npz")
        resumed.load(tmp_path / "training.npz")
        assert before + resumed.reports() == reports
        assert resumed.bytes() == whole.bytes()


def test_a_run_cut_off_after_every_single_step_ends_with_the_same_bytes(tmp_path):
    whole = Run("adam")
    reports = whole.reports()
    parts, run = [], Run("adam")
    for stop_after in [*range(1, EPOCHS * STEPS + 1), None]:
        parts += run.reports(stop_after)
        run.save(tmp_path / "training.npz")
        run = Run("adam")
        run.load(tmp_path / "training.npz")
    assert parts == reports
    assert run.bytes() == whole.bytes()


def test_patience_counts_on_after_a_resumption(tmp_path):
    whole = Run("sgd")
    whole.parts["optimizer"].learning_rate = 1e-9
    reports = whole.reports(patience=1)
    for stop_after in range(1, len(reports) * STEPS + 1):
        cut_off, resumed = Run("sgd"), Run("sgd")
        before = cut_off.reports(stop_after, patience=1)
        cut_off.save(tmp_path / "training.npz")
        resumed.load(tmp_path / "training.npz")
        assert before + resumed.reports(patience=1) == reports


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    run = Run("sgd")
    run.reports()
    run.save(tmp_path / "training.npz")
    again = Run("sgd")
    again.load(tmp_path / "training.npz")
    assert again.reports() == []
