"""A page with the curves of a training that is running: it loads itself again until the training has ended.

Browsers let no page on a disk read another file. So the whole page is written again, and needs no server.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from types import TracebackType

from cnn import EpochReport
from cnn.atomic import write_text
from pipeline import ranks
from pipeline.curves import STYLE, Curve, chart
from pipeline.paths import scratch

SECONDS = 1.0  # between two versions of the page, at least
REFRESH = 3  # seconds, after which the browser loads the page again
TRAIN, VALIDATION = "#8a8f98", "#12908a"  # as in the report
LATEST = 12  # epochs in the table


class LivePage:
    """.scratch/live.html, in a `with` block around a training; at the block's end, the page's last version.

    `history` is what the training appends its reports to. The page is no result: if it cannot be written,
    training goes on.
    """

    def __init__(self, title: str, epochs: int, history: Sequence[EpochReport]) -> None:
        self.path = scratch() / "live.html"
        self.title, self.epochs, self.history = title, epochs, history
        self._written = self._start = time.monotonic()
        self._epochs_before = len(history)

    def __enter__(self) -> "LivePage":
        self._write(is_running=True, state="The first epoch is running.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ended = "Training has ended" if error is None else "Training stopped"
        why = f": {error}" if error is not None and str(error) else ""
        self._write(is_running=False, state=f"{ended}, after epoch {len(self.history)}{why}")

    def update(self) -> None:
        """Show the epochs so far, unless the page was written less than SECONDS ago."""
        now = time.monotonic()
        if now - self._written < SECONDS:
            return
        done = len(self.history)
        seconds = (now - self._start) / max(done - self._epochs_before, 1)
        self._write(
            is_running=True,
            state=f"Epoch {done} of {self.epochs} has ended; {seconds:,.1f} s an epoch, "
            f"at most {seconds * (self.epochs - done):,.0f} s to go.",
        )
        self._written = now

    def _write(self, *, is_running: bool, state: str) -> None:
        if not ranks.is_first():
            return
        with suppress(OSError):
            write_text(self.path, render(self.title, self.history, state, is_running=is_running))


def render(title: str, history: Sequence[EpochReport], state: str, *, is_running: bool) -> str:
    """The page, which loads itself again as long as the training is running."""
    refresh = f'<meta http-equiv="refresh" content="{REFRESH}">\n' if is_running else ""
    charts = "".join(
        chart(f"{key} by epoch", [train, validation], percent=key == "accuracy")
        for key, train, validation in (
            (
                key,
                Curve("training", _points(history, f"train_{key}"), TRAIN),
                Curve("validation", _points(history, f"validation_{key}"), VALIDATION),
            )
            for key in ("loss", "accuracy")
        )
    )
    rows = "".join(
        f"<tr><td>{report.epoch}</td><td>{report.train_loss:.4f}</td><td>{report.train_accuracy:.2%}</td>"
        f"<td>{report.validation_loss:.4f}</td><td>{report.validation_accuracy:.2%}</td></tr>\n"
        for report in list(reversed(history))[:LATEST]
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
{refresh}<meta name="color-scheme" content="light dark">
<title>{len(history)} epochs: {escape(title)}</title>
<style>{STYLE}.train {{ color: {TRAIN}; }} .validation {{ color: {VALIDATION}; }}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p>{escape(state)}</p>
<div class="charts">{charts}</div>
<p class="soft"><span class="train">━</span> training images &ensp;
<span class="validation">━</span> validation images</p>
<table>
<thead>
<tr><th>epoch</th><th>train loss</th><th>accuracy</th><th>validation loss</th><th>accuracy</th></tr>
</thead>
<tbody>
{rows}</tbody>
</table>
</main>
</body>
</html>
"""


def _points(history: Sequence[EpochReport], key: str) -> list[tuple[float, float]]:
    return [(report.epoch, getattr(report, key)) for report in history]
