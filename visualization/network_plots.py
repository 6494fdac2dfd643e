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

from configs.papers import CHALLENGES, Entry
from visualization import pictures

# Inches, and pixels of an inch: 750 pixels wide, of which a telephone shows every second.
_WIDTH, _DPI = 5.0, 150
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


def draw(points: Sequence[Point], directory: Path) -> Iterator[Path]:
    """Writes networks_error.png, if anything was published of the networks, and networks_depth.png.

    Args:
      points: networks; those with an error on the dataset of most are drawn.
      directory: where they go; it is there.
    """
    if points:
        yield pictures.save_figure(errors(points), directory / "networks_error.png", dpi=_DPI)
    yield pictures.save_figure(depths(CHALLENGES), directory / "networks_depth.png", dpi=_DPI)


def errors(points: Sequence[Point]) -> Figure:
    """The error against multiply-adds, and below it against parameters."""
    data = Counter(point.data for point in points).most_common(1)[0][0]
    points = [point for point in points if point.data == data]
    kind = "top5" if any(point.top5 is not None for point in points) else "top1"
    points = [point for point in points if getattr(point, kind) is not None]
    values = [getattr(point, kind) for point in points]
    figure = pictures.figure(_WIDTH, 9)
    panels = figure.subplots(2, 1)
    titles = ("multiply-adds for one image", "parameters")
    for axes, field, title in zip(panels, ("multiply_adds", "parameters"), titles, strict=True):
        axes.set_xscale("log")
        axes.set_yscale("log")
        sizes = [getattr(point, field) / 1e6 for point in points]
        for point, x, y in zip(points, sizes, values, strict=True):
            axes.plot(x, y, _mark(point)[0], color=_colour(point.network), markersize=6)
        axes.set_xlim(min(sizes) / 1.8, max(sizes) * 1.8)
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


def depths(entries: Sequence[Entry]) -> Figure:
    """The "revolution of depth": errors of challenges' entries, and below them their layers."""
    figure = pictures.figure(_WIDTH, 5)
    above, below = figure.subplots(2, 1, height_ratios=[1.3, 1], sharex=True)
    places = np.arange(len(entries))
    colours = [_colour(entry.network) if entry.network else _BY_HAND for entry in entries]
    bars = above.bar(places, [entry.top5 for entry in entries], color=colours)
    above.bar_label(bars, [f"{entry.top5:g}" for entry in entries], padding=2)
    above.set_ylim(0, 1.12 * max(entry.top5 for entry in entries))
    above.tick_params(axis="x", length=0)
    above.set_ylabel("top-5 error, %")
    above.set_title("Entries of the ImageNet challenges, test set", loc="left")
    bars = below.bar(places, [entry.layers for entry in entries], color=colours)
    below.bar_label(bars, [str(entry.layers or "none") for entry in entries], padding=2)
    below.set_ylabel("layers with weights")
    below.set_ylim(0, 1.15 * max(entry.layers for entry in entries))
    below.set_xticks(places, [f"{entry.name}\n{entry.year}" for entry in entries], fontsize=7.5)
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
    point = figure.dpi / 72
    marks = axes.transData.transform([(x, y) for x, y, _ in places])
    texts = [
        axes.annotate(
            name, (x, y), (0, 0), textcoords="offset points", ha="center", va="center",
            fontsize=8, color=_colour(name),
        )
        for x, y, name in places
    ]  # fmt: skip
    for text in texts:
        text.set_in_layout(False)
    legend = axes.get_legend()
    fixed = [tuple(legend.get_window_extent().extents)] if legend is not None else []
    inside = tuple(axes.get_window_extent().extents)
    extents = [text.get_window_extent() for text in texts]
    sizes = [(extent.width, extent.height) for extent in extents]
    boxes = _arranged(marks, sizes, fixed, inside, point)
    for text, (left, low), box in zip(texts, marks, boxes, strict=True):
        middle = (box[0] + box[2]) / 2 - left, (box[1] + box[3]) / 2 - low
        text.set_position((middle[0] / point, middle[1] / point))
        end = min(max(left, box[0]), box[2]), min(max(low, box[1]), box[3])
        if math.dist(end, (left, low)) > _NEAR * point:
            ends = axes.transData.inverted().transform([(left, low), end])
            axes.plot(*ends.T, color=text.get_color(), linewidth=0.6, alpha=0.7, zorder=1)


Box = tuple[float, ...]


def _arranged(
    marks: np.ndarray,
    sizes: Sequence[tuple[float, float]],
    fixed: Sequence[Box],
    inside: Box,
    point: float,
) -> list[Box]:
    """A box for each mark, near it and on no others; the best of several orders of placing them.

    Args:
      marks: [n, 2], in pixels, as all here.
      sizes: width and height of the boxes.
      fixed: boxes that are there already.
      inside: what holds all.
      point: pixels of a point.
    """
    edge = 4.5 * point
    around = [(x - edge, y - edge, x + edge, y + edge) for x, y in marks]
    best: tuple[float, list[Box]] = (math.inf, [])
    for key in (marks[:, 0], -marks[:, 0], marks[:, 1], -marks[:, 1]):
        taken, found, cost = [*fixed, *around], {}, 0.0
        for number in np.argsort(key, kind="stable"):
            (x, y), (width, height) = marks[number], sizes[number]
            tried = [
                (_fault(box, number, marks, taken, inside), box)
                for box in _around(x, y, width, height, point)
            ]
            fault, box = min(tried, key=lambda t: t[0])
            cost += fault
            taken.append((box[0] - edge, box[1], box[2] + edge, box[3]))
            found[int(number)] = box
        best = min(best, (cost, [found[n] for n in range(len(marks))]), key=lambda b: b[0])
    return best[1]


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


def _fault(box: Box, own: int, marks: np.ndarray, taken: Sequence[Box], inside: Box) -> float:
    """How bad a place is: above all what it covers, then how near it is to another's mark."""
    nearest = np.clip(marks, box[:2], box[2:])
    distances = np.hypot(*(nearest - marks).T)
    others = np.delete(distances, own)
    mistaken = max(1.5 * distances[own] - others.min(initial=math.inf), 0.0)
    return 100 * _covered(box, taken, inside) + 30 * mistaken + float(distances[own])


def _covered(box: Box, taken: Sequence[Box], inside: Box) -> float:
    """How many square pixels of a box lie on others or outside."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return sum(_common(box, other) for other in taken) + area - _common(box, inside)


def _common(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)
