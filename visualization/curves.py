"""Line charts as SVG, in the colours of the page that they stand in."""

import dataclasses
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from matplotlib.ticker import LogLocator, MaxNLocator

# Pixels. Narrow, so that letters can be read on a telephone, which shows them at three quarters.
_WIDTH, _HEIGHT = 480.0, 290.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 10.0, 10.0, 42.0
_COLOURS = 8
# Beyond it, points are left out at equal distances: a curve has no more pixels.
_MOST_POINTS = 1000
# Points are marked as long as the marks do not touch.
_MARKED = 40

Point = tuple[float, float | None]


@dataclasses.dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
      name: in the legend; "" for a curve that shares the entry of another.
      points: (x, y), ascending in x; the curve is interrupted where y is None.
      colour: number of a colour, from 0 on; those of the page repeat.
      thin: drawn thin and pale, for what is noisy.
      marks: whether each point is marked, if there are few.
    """

    name: str
    points: Sequence[Point]
    colour: int = 0
    thin: bool = False
    marks: bool = False


def thinned(points: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """At most `most` points at equal distances, the last among them."""
    if len(points) <= most:
        return list(points)
    every = math.ceil(len(points) / (most - 1))
    return [*points[:-1:every], points[-1]]


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x: str,
    unit: str = "",
    logarithmic: bool = False,
    steps: bool = False,
    level: tuple[str, float] | None = None,
) -> str:
    """A figure with caption, legend and the curves; "" where no series has a number.

    Args:
      title: what is drawn, such as `Loss`.
      series: the curves; those without a number are left out.
      x: name of the horizontal axis.
      unit: after the numbers of the vertical axis, such as `%`.
      logarithmic: the vertical axis; values of 0 and less are left out.
      steps: y keeps its value until the next point.
      level: name and height of a horizontal line.
    """
    shown = [
        dataclasses.replace(s, points=_drawable(s.points, logarithmic)) for s in series if s.points
    ]
    shown = [s for s in shown if any(y is not None for _, y in s.points)]
    if not shown:
        return ""
    heights = [y for s in shown for _, y in s.points if y is not None]
    if level is not None:
        heights.append(level[1])
    places = [place for s in shown for place, _ in s.points]
    vertical = _Axis.logarithmic(heights) if logarithmic else _Axis.from_zero(heights)
    horizontal = _Axis.from_zero(places)
    ink = _grid(horizontal, vertical, x, unit)
    if level is not None:
        height = _y(vertical, level[1])
        ink.append(
            f'<line class="level" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" '
            f'y2="{height:.1f}"/>'
        )
    for s in shown:
        ink += _curve(s, horizontal, vertical, unit, x, steps)
    last = [
        f"{s.name or 'it'} ends at {number(s.points[-1][1])}{unit}"
        for s in shown
        if (s.name or len(shown) == 1) and s.points[-1][1] is not None
    ]
    if level is not None:
        last.append(f"{level[0]}, a line at {number(level[1])}{unit}")
    said = escape(f"{title} against {x}: {'; '.join(last)}.")
    return "\n".join(
        [
            '<figure class="chart">',
            f"<figcaption>{escape(title)}{_legend(shown, level, unit)}</figcaption>",
            f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{said}">',
            *ink,
            "</svg>",
            "</figure>",
        ]
    )


def number(value: Any) -> str:
    """A number with three digits or so, as on an axis; a dash for what is none."""
    if not isinstance(value, int | float):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Values to 0..1."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    @classmethod
    def from_zero(cls, values: Sequence[float]) -> "_Axis":
        low, high = min(0.0, *values), max(values)
        high = high if high > low else low + 1.0
        ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        return cls(low, high, tuple(t for t in map(float, ticks) if low <= t <= high))

    @classmethod
    def logarithmic(cls, values: Sequence[float]) -> "_Axis":
        low, high = min(values) / 1.3, max(values) * 1.3
        decades = math.log10(high / low)
        subs = (1.0,) if decades > 2 else (1.0, 2.0, 5.0)
        for locator in (LogLocator(subs=subs), MaxNLocator(4)):
            ticks = tuple(t for t in map(float, locator.tick_values(low, high)) if low <= t <= high)
            if len(ticks) > 1:  # by one alone no height can be read
                break
        return cls(low, high, ticks, log=True)

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return (value - low) / (high - low)


def _x(axis: _Axis, value: float) -> float:
    return _LEFT + axis(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: _Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis(value) * (_HEIGHT - _TOP - _BOTTOM)


def _drawable(points: Sequence[Point], logarithmic: bool) -> list[Point]:
    few = thinned(points)
    return [(x, None if y is None or (logarithmic and y <= 0) else y) for x, y in few]


def _grid(horizontal: _Axis, vertical: _Axis, x: str, unit: str) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    ink = []
    for tick in vertical.ticks:
        y = _y(vertical, tick)
        ink.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        text = f"{number(tick)}{unit}"
        ink.append(f'<text class="end" x="{_LEFT - 6}" y="{y + 4.5:.1f}">{text}</text>')
    ink.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    for tick in horizontal.ticks:
        place = _x(horizontal, tick)
        style = "end" if place > right - 16 else "middle"
        place = right if style == "end" else place
        text = number(tick)
        ink.append(f'<text class="{style}" x="{place:.1f}" y="{bottom + 17}">{text}</text>')
    middle = (_LEFT + right) / 2
    ink.append(f'<text class="middle" x="{middle}" y="{_HEIGHT - 6}">{escape(x)}</text>')
    return ink


def _style(series: Series) -> str:
    thin = " thin" if series.thin else ""
    dashes = " dashes" if series.colour // _COLOURS % 2 else ""
    return f"s{series.colour % _COLOURS}{thin}{dashes}"


def _curve(
    series: Series, horizontal: _Axis, vertical: _Axis, unit: str, x: str, steps: bool
) -> list[str]:
    commands, pen, before = [], "M", 0.0
    for place, value in series.points:
        if value is None:
            pen = "M"
            continue
        there = _x(horizontal, place), _y(vertical, value)
        if steps and pen == "L":
            commands.append(f"L{there[0]:.1f} {before:.1f}")
        commands.append(f"{pen}{there[0]:.1f} {there[1]:.1f}")
        pen, before = "L", there[1]
    style = _style(series)
    ink = [f'<path class="{style}" d="{"".join(commands)}"/>']
    known = [(place, value) for place, value in series.points if value is not None]
    if len(known) == 1 or (series.marks and len(known) <= _MARKED):
        ink += [
            f'<circle class="{style}" cx="{_x(horizontal, place):.1f}" '
            f'cy="{_y(vertical, value):.1f}" r="3"><title>'
            + escape(f"{x} {number(place)}: {number(value)}{unit}")
            + "</title></circle>"
            for place, value in known
        ]
    return ink


def _legend(shown: Sequence[Series], level: tuple[str, float] | None, unit: str) -> str:
    entries = [
        f'<span class="key"><i class="{_style(s)}"></i>{escape(s.name)}</span>'
        for s in shown
        if s.name
    ]
    if level is not None:
        text = escape(f"{level[0]}: {number(level[1])}{unit}")
        entries.append(f'<span class="key"><i class="level"></i>{text}</span>')
    return f'<span class="legend">{"".join(entries)}</span>'
