"""How an interrupted training run continues: checkpoints that belong to exactly one run, and signals."""

import json
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from hashlib import file_digest, sha256
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from filelock import FileLock, Timeout
from numpy.typing import NDArray

from cnn import EpochReport, checkpoint
from cnn.checkpoint import CheckpointError
from cnn.state import Stateful
from pipeline import ranks
from pipeline.artefacts.preprocess import Description
from pipeline.config.yaml_files import read_mapping
from pipeline.errors import UserError
from pipeline.paths import PROCESSED, SCRATCH, scratch

PROJECT = Path(__file__).parents[2]
KEPT = 3  # runs whose checkpoints are kept: the latest ones
SECONDS_TO_WAIT = 5  # for the workers of a training that was killed


def only_training() -> AbstractContextManager[Any]:
    """A lock to hold, in a `with` block, while training; UserError if another process has it.

    DVC has its own lock, but a training can outlive a DVC that was killed, and would then overwrite the
    results of the next training.
    """
    path = SCRATCH / "lock"
    path.parent.mkdir(exist_ok=True)
    try:
        return FileLock(path).acquire(timeout=SECONDS_TO_WAIT)
    except Timeout:
        raise UserError(
            "Another training is still running in this folder, and would overwrite the results of this one. "
            "Wait until it ends, or stop it. To find it: pgrep -af 'pipeline train'"
        ) from None


def fingerprint(settings: Mapping[str, Any]) -> str:
    """16 characters that identify what a run depends on: `settings` (as JSON), the data, the code."""
    digest = sha256(json.dumps(settings, sort_keys=True).encode())
    data = [
        Description.path,
        *sorted(PROCESSED.glob("train_*.npy")),
        *sorted(PROCESSED.glob("validation_*.npy")),
    ]
    for path in [*_code(), *data]:
        with path.open("rb") as file:
            digest.update(f"{path.name} {file_digest(file, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()[:16]


def _code() -> list[Path]:
    """The files of the code that dvc.yaml lists as dependencies of the train stage."""
    deps = read_mapping(PROJECT / "dvc.yaml")["stages"]["train"]["deps"]
    listed = [PROJECT / dep for dep in deps if dep.startswith(("cnn", "pipeline"))]
    return sorted(file for path in listed for file in ([path] if path.is_file() else path.rglob("*.py")))


class RunCheckpoint:
    """The last checkpoint of a run, in .scratch/FINGERPRINT; the run continues from it with the same bits.

    It lies in the checkout even if DVC runs the experiment in a temporary folder, which goes with the run.
    `parts` are everything that the run changes: model, optimizer and so on.
    """

    def __init__(self, key: str, parts: Mapping[str, Stateful], seconds: float) -> None:
        self.path = scratch() / key / "training.npz"
        self.parts = parts
        self.seconds = seconds
        self.history: list[EpochReport] = []
        self.statistics: list[dict[str, Any]] = []  # rows of reports/statistics.csv
        self.kept_state: dict[str, NDArray[Any]] = {}  # the model's, of the epoch to keep so far
        self._saved_at = self._started_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last checkpoint is older than `seconds`."""
        return time.monotonic() - self._saved_at >= self.seconds

    @property
    def training_seconds(self) -> float:
        """How long the run has trained; what was trained again after an interruption counts once."""
        return time.monotonic() - self._started_at

    def save(self) -> None:
        """Replace the last checkpoint by the present state, which all ranks have; rank 0 writes it."""
        if not ranks.is_first():
            return
        arrays = {f"kept.{name}": array for name, array in self.kept_state.items()}
        for part, stateful in self.parts.items():
            arrays |= {f"{part}.{name}": array for name, array in stateful.state_dict().items()}
        checkpoint.save(
            self.path,
            arrays,
            {
                "run": self.path.parent.name,
                "history": [asdict(report) for report in self.history],
                "statistics": self.statistics,
                "seconds": self.training_seconds,
            },
        )
        self._saved_at = time.monotonic()
        others = set(self.path.parent.parent.glob("*/training.npz")) - {self.path}
        for old in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT - 1 :]:
            shutil.rmtree(old.parent, ignore_errors=True)

    def restore(self) -> bool:
        """Load the last checkpoint, if there is one; CheckpointError, and no change, if it does not fit.

        All ranks load that of the first one.
        """
        content = ranks.shared(self._read)
        if content is None:
            return False
        arrays, metadata = checkpoint.parse(content, self.path)
        states = {part: _part(arrays, part) for part in (*self.parts, "kept")}
        before = {part: stateful.state_dict() for part, stateful in self.parts.items()}
        try:
            if metadata["run"] != self.path.parent.name:
                raise ValueError("it belongs to another run.")
            history = [EpochReport(**report) for report in metadata["history"]]
            statistics = list(metadata["statistics"])
            started_at = self._started_at - float(metadata["seconds"])
            for part, stateful in self.parts.items():
                stateful.load_state_dict(states[part])
        except (KeyError, TypeError, ValueError) as error:
            for part, stateful in self.parts.items():
                stateful.load_state_dict(before[part])
            raise CheckpointError(f"The checkpoint {self.path} does not fit this run: {error}") from None
        self.history, self.statistics, self.kept_state = history, statistics, states["kept"]
        self._started_at = started_at
        return True

    def _read(self) -> bytes | None:
        return checkpoint.read(self.path) if self.path.exists() else None

    def remove(self) -> None:
        """Delete the checkpoint of a run that has finished."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


def _part(arrays: Mapping[str, NDArray[Any]], part: str) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(f"{part}."): array for name, array in arrays.items() if name.startswith(f"{part}.")
    }


class StopSignal:
    """In its `with` block, Ctrl-C and SIGTERM set `received`, so that the run can stop after a step.

    A second signal stops the run at once, by KeyboardInterrupt.
    """

    SIGNALS: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignal":
        self._before = {number: signal.signal(number, self._receive) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
