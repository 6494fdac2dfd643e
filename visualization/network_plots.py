"""Published errors against the sizes of networks, and error and depth over the years."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from configs.papers import Entry
from visualization import pictures

# Inches, and pixels of an inch: 840 pixels wide, of which a telephone shows every second.
_WIDTH, _DPI = 6.0, 140
_MARKS = {"center_crop": ("o", "one crop"), "ten_view": ("s", "ten views")}
_DENSE = ("D", "many views, or whole images")
_COLOURS = {
    "alexnet": "#4c72b0", "zfnet": "#64b5cd", "overfeat": "#937860", "nin": "#8c8c8c",
    "vgg": "#dd8452", "googlenet": "#55a868", "inception": "#2e7d42", "resnet": "#c44e52",
    "preact": "#8172b3", "plain": "#da8bc3",
}  # fmt: skip
_OTHER = "#444444"
_BY_HAND = "#bbbbbb"
_DIRECTIONS = 16
_REACHES = (7.0, 12.0, 18.0, 26.0, 36.0, 48.0, 62.0, 78.0)  # points from a mark to its label
_NEAR = 12.0  # no line to a label that is nearer


class Point(NamedTuple):
    """A network with a published error.

    Attributes:
      network: its name.
      multiply_adds, parameters: see `vision_models.analysis.Totals`.
      data, protocol: of the error.
      top1, top5: errors in percent; None where not given.
    """

    network: str
    multiply_adds: int
    parameters: int
    data: str
    protocol: str
    top1: float | None
    top5: float | None


def draw(
    points: Sequence[Point], entries: Sequence[tuple[Entry, int | None]], directory: Path
) -> Iterator[Path]:
    """Writes networks_error.png, if anything was published of the networks, and networks_depth.png.

    Args:
      points: networks; those with an error on the dataset of most are drawn.
      entries: of challenges, each with its number of layers, None without a network.
      directory: where they go; it is there.
    """
    if points:
        yield pictures.save_figure(errors(points), directory / "networks_error.png", dpi=_DPI)
    yield pictures.save_figure(depths(entries), directory / "networks_depth.png", dpi=_DPI)


def errors(points: Sequence[Point]) -> Figure:
    """The error against multiply-adds, and below it against parameters."""
    data = Counter(point.data for point in points).most_common(1)[0][0]
    points = [point for point in points if point.data == data]
    kind = "top5" if any(point.top5 is not None for point in points) else "top1"
    points = [point for point in points if getattr(point, kind) is not None]
    values = [getattr(point, kind) for point in points]
    figure = pictures.figure(_WIDTH, 10)
    panels = figure.subplots(2, 1)
    titles = ("multiply-adds for one image", "parameters")
    for axes, field, title in zip(panels, ("multiply_adds", "parameters"), titles, strict=True):
        axes.set_xscale("log")
        axes.set_yscale("log")
        sizes = [getattr(point, field) / 1e6 for point in points]
        for point, x, y in zip(points, sizes, values, strict=True):
            axes.plot(x, y, _mark(point)[0], color=_colour(point.network), markersize=6)
        axes.set_xlim(min(sizes) / 1.6, max(sizes) * 1.6)
        axes.set_ylim(min(values) / 1.12, max(values) * 1.12)
        axes.set_xlabel(f"{title}, millions")
        axes.set_ylabel(f"{'top-5' if kind == 'top5' else 'top-1'} error, %")
        for axis in (axes.xaxis, axes.yaxis):
            pictures.label_decades(axis)
        axes.grid(alpha=0.25)
    marks = dict.fromkeys(_mark(point) for point in points)
    handles = [Line2D([], [], color=_OTHER, marker=m, linestyle="", label=w) for m, w in marks]
    panels[0].set_title(f"Published errors on {data}", loc="left")
    panels[0].legend(handles=handles, frameon=False, loc="upper right", fontsize=8)
    for axes, field in zip(panels, ("multiply_adds", "parameters"), strict=True):
        places = [
            (getattr(point, field) / 1e6, y, point.network)
            for point, y in zip(points, values, strict=True)
        ]
        _label(axes, places)
    return figure


def depths(entries: Sequence[tuple[Entry, int | None]]) -> Figure:
    """The "revolution of depth": errors of challenges' entries, and below them their layers."""
    figure = pictures.figure(_WIDTH, 5.4)
    above, below = figure.subplots(2, 1, height_ratios=[1.3, 1], sharex=True)
    places = np.arange(len(entries))
    colours = [_colour(entry.network) if entry.network else _BY_HAND for entry, _ in entries]
    bars = above.bar(places, [entry.top5 for entry, _ in entries], color=colours)
    above.bar_label(bars, [f"{entry.top5:g}" for entry, _ in entries], padding=2)
    above.set_ylabel("top-5 error, %")
    above.set_title("Entries of the ImageNet challenges, test set", loc="left")
    bars = below.bar(places, [layers or 0 for _, layers in entries], color=colours)
    below.bar_label(bars, [str(layers or "none") for _, layers in entries], padding=2)
    below.set_ylabel("layers with weights")
    below.set_ylim(0, 1.15 * max(layers or 0 for _, layers in entries))
    below.set_xticks(places, [f"{entry.name}\n{entry.year}" for entry, _ in entries], fontsize=8)
    below.tick_params(axis="x", length=0)
    return figure


def _mark(point: Point) -> tuple[str, str]:
    return _MARKS.get(point.protocol, _DENSE)


def _colour(network: str) -> str:
    starts = [start for start in _COLOURS if network.startswith(start)]
    return _COLOURS[max(starts, key=len)] if starts else _OTHER


def _label(axes: Axes, places: Sequence[tuple[float, float, str]]) -> None:
    """Writes a name beside each mark, where it covers neither marks nor other names.

    A name further off has a line to its mark.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()
    pixels = axes.transData.transform([(x, y) for x, y, _ in places])
    point = figure.dpi / 72
    edge = 4.5 * point
    taken = [(x - edge, y - edge, x + edge, y + edge) for x, y in pixels]
    if (legend := axes.get_legend()) is not None:
        taken.append(tuple(legend.get_window_extent().extents))
    inside = tuple(axes.get_window_extent().extents)
    for (x, y, name), (left, top) in zip(places, pixels, strict=True):
        text = axes.annotate(
            name, (x, y), (0, 0), textcoords="offset points", ha="center", va="center",
            fontsize=7.5, color=_colour(name),
        )  # fmt: skip
        text.set_in_layout(False)
        extent = text.get_window_extent()
        around = _around(left, top, extent.width, extent.height, point)
        box = min(around, key=lambda tried: _covered(tried, taken, inside))  # the first of equals
        taken.append(box)
        text.set_position(
            (
                ((box[0] + box[2]) / 2 - left) / point,
                ((box[1] + box[3]) / 2 - top) / point,
            )
        )
        end = min(max(left, box[0]), box[2]), min(max(top, box[1]), box[3])
        if math.dist(end, (left, top)) > _NEAR * point:
            ends = axes.transData.inverted().transform([(left, top), end])
            axes.plot(*ends.T, color=_colour(name), linewidth=0.6, alpha=0.7, zorder=1)


Box = tuple[float, ...]


def _around(x: float, y: float, width: float, height: float, point: float) -> Iterator[Box]:
    """Boxes of a size around a place, near ones first; `point` is in pixels."""
    for reach in _REACHES:
        for turn in range(_DIRECTIONS):
            angle = 2 * math.pi * turn / _DIRECTIONS
            middle = x + math.cos(angle) * (reach * point + width / 2)
            level = y + math.sin(angle) * (reach * point + height / 2)
            yield (
                middle - width / 2, level - height / 2, middle + width / 2, level + height / 2,
            )  # fmt: skip


def _covered(box: Box, taken: Sequence[Box], inside: Box) -> float:
    """How many square pixels of a box lie on others or outside."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return sum(_common(box, other) for other in taken) + area - _common(box, inside)


def _common(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)
