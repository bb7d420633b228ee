"""The page that a training shows while it runs, its charts, and the accuracy below which it stops."""

import re
import time
from math import inf, nan
from xml.etree import ElementTree

import pytest
from browsers import opened
from playwright.sync_api import expect

from cnn import EpochReport
from pipeline.curves import MOST_TICKS, Curve, chart, ticks
from pipeline.stages import live
from pipeline.stages.live import LivePage, render
from pipeline.stages.train import too_low, until_too_low


def report(epoch, accuracy=0.5, loss=1.0):
    return EpochReport(epoch, 0.1, loss, accuracy, loss, accuracy)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """page(history): a live page in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda history: LivePage("small <b> on digits", 9, history)


def text_of(page):
    return page.path.read_text(encoding="utf-8")


def test_it_loads_itself_again_while_training_runs_and_no_longer(page, monkeypatch):
    monkeypatch.setattr(live, "SECONDS", 0)
    history = []
    with page(history) as shown:
        assert "no epoch has ended" in text_of(shown)
        for epoch in (1, 2):
            history.append(report(epoch))
            shown.update()
            assert f"Epoch {epoch} of 9 has ended" in text_of(shown)
            assert 'http-equiv="refresh"' in text_of(shown)
    assert 'http-equiv="refresh"' not in text_of(shown)
    assert "Training has ended, after epoch 2" in text_of(shown)
    assert "<b>" not in text_of(shown)


def test_it_says_why_training_stopped(page):
    with pytest.raises(RuntimeError), page([report(1)]) as shown:
        raise RuntimeError("x > 3")
    assert "Training stopped, after epoch 1: x &gt; 3" in text_of(shown)
    assert 'http-equiv="refresh"' not in text_of(shown)


def test_short_epochs_do_not_write_it_each_time(page, monkeypatch):
    written, now = [], 0.0
    monkeypatch.setattr(live, "write_text", lambda path, text: written.append(now))
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    with page([report(1)]) as shown:
        for now in (0.1, 0.2, 1.1, 1.2, 2.2):  # noqa: B007  (the clock reads it)
            shown.update()
    assert written == [0.0, 1.1, 2.2, 2.2]


def test_a_page_that_cannot_be_written_stops_no_training(page, tmp_path):
    (tmp_path / ".scratch").write_text("a file where the folder should be")
    with page([report(1)]) as shown:
        shown.update()


def test_a_page_of_a_hundred_epochs_is_written_in_milliseconds(page):
    history = [report(epoch, epoch / 100) for epoch in range(1, 101)]
    start = time.process_time()
    render("small", history, "", is_running=True)
    assert time.process_time() - start < 0.05  # 2 ms; a busy machine may take longer


def test_a_browser_shows_the_next_version_by_itself(page, monkeypatch):
    monkeypatch.setattr(live, "SECONDS", 0)
    monkeypatch.setattr(live, "REFRESH", 1)
    history = [report(1)]
    with page(history) as shown, opened(shown.path.resolve(), color_scheme="dark") as tab:
        history.append(report(2))
        shown.update()
        expect(tab).to_have_title(re.compile("^2 epochs"), timeout=30_000)
        assert tab.locator("tbody tr").count() == 2


@pytest.mark.parametrize("points", [[], [(1, 0.5)], [(1, 0.5), (2, 0.5)], [(1, nan), (2, inf), (3, -1e9)]])
def test_a_chart_of_any_points_is_well_formed_and_keeps_within_its_frame(points):
    for percent in (False, True):
        svg = ElementTree.fromstring(chart("a < b", [Curve("c & d", points, "#000", "'\"")], percent=percent))
        found = [
            float(number)
            for line in svg.iter("polyline")
            for number in re.findall(r"[\d.]+", line.get("points"))
        ]
        found += [float(dot.get(key)) for dot in svg.iter("circle") for key in ("cx", "cy")]
        assert all(0 <= number <= 460 for number in found)
        assert bool(found) == any(abs(y) < inf for _, y in points)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.93, 0.97, [0.93, 0.94, 0.95, 0.96, 0.97]),
        (5, 5, None),
        (-3, 1e6, None),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low, high, expected):
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= MOST_TICKS + 2
    assert expected in (None, found)


def test_epochs_have_whole_ticks():
    assert ticks(1, 4, whole=True) == [1, 2, 3, 4]
    assert ticks(1, 100, whole=True) == [1, 20, 40, 60, 80, 100]


def test_training_stops_after_the_epoch_whose_best_accuracy_so_far_is_too_low():
    history = []
    reports = (report(epoch, accuracy) for epoch, accuracy in enumerate([0.4, 0.3, 0.2, 0.9], start=1))
    for found in until_too_low(reports, history, [0.4, 0.4, 0.5]):
        history.append(found)
    assert [found.epoch for found in history] == [1, 2, 3]
    assert "0.4000, and train.minimum_accuracy asks for 0.5." in too_low(history, [0.4, 0.4, 0.5])
    assert next(reports, None) is None  # it is closed, and its processes with it


def test_a_run_that_stopped_too_low_stays_stopped_when_it_continues():
    assert list(until_too_low(iter_of(report(2)), [report(1, 0.1)], [0.5])) == []


def test_epochs_beyond_the_list_have_no_minimum():
    assert too_low([report(1, 0.9), report(2, 0.0)], [0.5]) is None
    assert too_low([], [0.5]) is None


def iter_of(*reports):
    yield from reports
