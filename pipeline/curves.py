"""Line charts as SVG text, for pages that have to be written quickly: without matplotlib."""

from collections.abc import Sequence
from html import escape
from math import floor, isfinite, log10
from pathlib import Path
from typing import NamedTuple

WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 34  # margins, for labels
MOST_TICKS = 6

# legible on light and on dark pages:
SERIES = ("#12908a", "#b0509a", "#7d68c8", "#c44b4b", "#5d8c2f", "#a08000", "#6b7fa3", "#8a8f98")
STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")


class Curve(NamedTuple):
    """A named line; `key` identifies it for a page's script. Points that are not finite are left out."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    key: str = ""


def chart(title: str, curves: Sequence[Curve], *, percent: bool = False) -> str:
    """An SVG element with the curves by epoch; with `percent`, fractions are labelled as percentages.

    A curve of one point is a dot. Without any point, the chart says that there is none yet.
    """
    finite = [
        curve._replace(points=[(x, y) for x, y in curve.points if isfinite(x) and isfinite(y)])
        for curve in curves
    ]
    points = [point for curve in finite for point in curve.points]
    parts = [f'<text class="title" x="{LEFT}" y="14">{escape(title)}</text>']
    if not points:
        parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">no epoch has ended</text>')
    else:
        x_ticks = ticks(1, max(2, *(x for x, _ in points)), whole=True)
        y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))
        low_x, high_x = 1, max(x_ticks[-1], *(x for x, _ in points))
        low_y, high_y = y_ticks[0], y_ticks[-1]

        def place(x: float, y: float) -> tuple[float, float]:
            return (
                LEFT + (WIDTH - LEFT - RIGHT) * (x - low_x) / (high_x - low_x),
                HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low_y) / (high_y - low_y),
            )

        for tick in y_ticks:
            _, y = place(low_x, tick)
            text = f"{100 * tick:.6g} %" if percent else f"{tick:.6g}"
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        for tick in x_ticks:
            x, _ = place(tick, low_y)
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 18}" text-anchor="middle">{tick:g}</text>')
        for curve in finite:
            places = [place(x, y) for x, y in curve.points]
            named = f'data-run="{escape(curve.key)}"><title>{escape(curve.name)}</title>'
            if len(places) == 1:
                x, y = places[0]
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{curve.colour}" {named}</circle>'
                )
            elif places:
                line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
                parts.append(f'<polyline points="{line}" stroke="{curve.colour}" {named}</polyline>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">epoch</text>')
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers, at most about MOST_TICKS, from `low` or below to `high` or above; whole ones: from low.

    Their distance is 1, 2 or 5 times a power of ten.
    """
    span = max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-9)
    power = 10.0 ** floor(log10(span / MOST_TICKS))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= MOST_TICKS)
    if whole:
        step = max(1.0, step)
        return [float(tick) for tick in range(int(low), int(high) + 1) if tick == low or tick % step == 0]
    first = floor(low / step + 1e-9)
    last = max(first + 1, -floor(-high / step + 1e-9))
    return [round(number * step, 12) for number in range(first, last + 1)]
