"""A network as SVG: its layers laid out as boxes, and the edges between them."""

import dataclasses
import math
from typing import Any
from xml.sax.saxutils import escape

from vision_models.analysis import activation_shapes, layer_table
from vision_models.forward import sides
from vision_models.network import Auxiliary, Branches, Network, Sequential
from vision_models.towers import Exchange

# Pixels of a letter in a box, on an edge, and of a name beside one.
_LETTER, _SMALL, _BOLD = 6.0, 5.4, 7.5
_BOX, _SLAB, _GAP = 32, 15, 22  # heights of a box and of what sticks to it; between boxes
_TIMES = "\N{MULTIPLICATION SIGN}"
_FORK = 16  # height of what parts into branches
_BESIDE = 22  # between towers, branches and columns
_TOP = 30  # above the first box
_PAGE, _RATIO = 1200, 1.0  # a higher drawing has columns; height over width that they aim at
_STICKING = ("BatchNorm", "Neuron", "Dropout")

Offsets = tuple[float, ...]

_STYLE = """<style>
text { font-family: Helvetica, Arial, sans-serif; text-anchor: middle; fill: #222 }
.name { font-size: 11px; font-weight: bold }
.said { font-size: 10.5px }
.size { font-size: 10px; text-anchor: start; fill: #666 }
.left { text-anchor: end }
.between { text-anchor: middle }
.box { stroke: #777; stroke-width: .8 }
.join { fill: #fff; stroke: #444 }
.edge, .arrow, .side, .bar { fill: none; stroke: #444; stroke-width: 1 }
.side { stroke-dasharray: 4 3 }
.bar { stroke-width: 4 }
.arrow { marker-end: url(#head) }
</style>
<defs><marker id="head" markerWidth="7" markerHeight="7" refX="6" refY="3" orient="auto">
<path d="M0,0 L6,3 L0,6 z" fill="#444"/></marker></defs>
<rect width="100%" height="100%" fill="#fff"/>"""

# Words and colours by kind of layer.
_WORDS = {
    "Conv": "conv", "TowerConv": "conv", "LocallyConnected": "local", "SparseConv": "sparse conv",
    "Subsample": "subsample", "GlobalAveragePool": "global average pool", "Grayscale": "grey",
    "AdaptiveAveragePool": "average pool", "Dense": "fc", "TowerDense": "fc", "TowerHead": "fc",
    "RBFHead": "rbf", "BatchNorm": "batch norm", "LocalResponseNorm": "response norm",
    "SpatialResponseNorm": "contrast norm", "PadChannels": "pad maps", "Dropout": "dropout",
    "PyramidPool": "pyramid pool", "LocalContrastNorm": "contrast norm",
}  # fmt: skip
_CONV, _POOL, _FULL, _NORM, _NONE = "#cfe2f7", "#f7cfcf", "#d8efd0", "#f3e8c8", "#eeeeee"
_COLOURS = {
    "conv": _CONV, "local": _CONV, "sparse conv": _CONV, "fc": _FULL, "rbf": _FULL,
    "batch norm": _NORM, "response norm": _NORM, "contrast norm": _NORM,
    "subsample": _POOL, "average pool": _POOL, "global average pool": _POOL, "max pool": _POOL,
    "l2 pool": _POOL, "pyramid pool": _POOL,
}  # fmt: skip


def said(layer: Any, output: tuple[int, ...]) -> tuple[str, str]:
    """The label of a layer, such as `11x11 conv, 96, /4, relu`, and its colour.

    Args:
      layer: a module of `vision_models`.
      output: shape of its output.
    """
    kind = type(layer).__name__
    if kind == "Pool":
        word = f"{layer.kind} pool"
    elif kind == "Neuron":
        word = layer.name
    else:
        word = _WORDS.get(kind, kind)
    window, stride = getattr(layer, "window", 1), getattr(layer, "stride", 1)
    whole = kind in ("GlobalAveragePool", "PadChannels", "PyramidPool")
    shape = _TIMES.join(map(str, sides(window)))
    parts = [word if whole or not hasattr(layer, "window") else f"{shape} {word}"]
    if kind in ("Conv", "TowerConv", "LocallyConnected", "SparseConv", "Dense", "TowerDense"):
        parts.append(str(output[-1]))
    if kind in ("TowerHead", "RBFHead", "PadChannels"):
        parts.append(str(output[-1]))
    if stride > 1:
        parts.append(f"/{stride}")
    if kind == "Dropout":
        parts = [f"dropout {layer.rate:g}"]
    neuron = getattr(layer, "neuron", "identity")
    if neuron != "identity":
        parts.append(neuron)
    return ", ".join(parts), _COLOURS.get(word, _NONE)


@dataclasses.dataclass
class Part:
    """A piece of a drawing; coordinates are relative to its upper left corner.

    Attributes:
      width, height: in pixels.
      axis: where edges arrive and leave, in pixels from the left.
      ins, outs: offset from the axis of each edge, in pixels; two or more edges are towers.
      ink: SVG elements.
      size: size of each tower's output, as written on edges.
      crossing: every tower reads the outputs of all towers.
      pointed: the edge into its top ends in an arrowhead.
      sticks: it is attached to the part above it, without an edge.
      aside: an auxiliary classifier that reads what passes here.
    """

    width: float
    height: float
    axis: float
    ins: Offsets
    outs: Offsets
    ink: list[str]
    size: str
    crossing: bool = False
    pointed: bool = True
    sticks: bool = False
    aside: "Part | None" = None


def _text(x: float, y: float, words: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(words)}</text>'


def _line(*points: tuple[float, float], style: str = "edge") -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" class="{style}"/>'


def _placed(part: Part, x: float, y: float) -> str:
    inside = "\n".join(part.ink)
    return f'<g transform="translate({x:.1f},{y:.1f})">\n{inside}\n</g>'


def _width(name: str, words: str) -> float:
    return max(len(name), len(words)) * _LETTER + 14


def _box(name: str, words: str, colour: str, size: str, towers: int = 1, step: float = 0.0) -> Part:
    """A layer, once for each tower; without a name it sticks to the box above.

    Args:
      name: of the layer.
      words: what it is.
      colour: of the box.
      size: see `Part`.
      towers: how many.
      step: pixels between their middles.
    """
    width, height = _width(name, words), _BOX if name else _SLAB
    middles = [step * (n - (towers - 1) / 2) for n in range(towers)]
    whole = step * (towers - 1) + width
    ink = []
    for middle in middles:
        left = whole / 2 + middle - width / 2
        ink.append(
            f'<rect x="{left:.1f}" y="0" width="{width:.1f}" height="{height}" rx="3" '
            f'fill="{colour}" class="box"/>'
        )
        if name:
            ink.append(_text(whole / 2 + middle, 13, name, "name"))
        ink.append(_text(whole / 2 + middle, height - (6 if name else 4), words, "said"))
    ports = tuple(middles)
    return Part(whole, height, whole / 2, ports, ports, ink, size, sticks=not name)


def _edges(above: Part, below: Part, axis: float, top: float, bottom: float) -> list[str]:
    """From every tower to its own, or to all."""
    pairs = [
        (out, into)
        for i, out in enumerate(above.outs)
        for j, into in enumerate(below.ins)
        if i == j or above.crossing or len(above.outs) != len(below.ins)
    ]
    style = "arrow" if below.pointed else "edge"
    return [_line((axis + out, top), (axis + into, bottom), style=style) for out, into in pairs]


def _label(part: Part, axis: float, y: float, *, fork: bool) -> tuple[list[str], float]:
    """What is written beside the edges that leave a part, or between those of a fork.

    Returns:
      SVG elements, and how far right of the axis they reach.
    """
    if fork:
        return [_text(axis, y, part.size, "size between")], 0.0
    ink = [
        _text(axis + out - 4, y, part.size, "size left")
        if out < 0
        else _text(axis + out + 4, y, part.size, "size")
        for out in part.outs
    ]
    return ink, part.outs[-1] + 8 + len(part.size) * _SMALL


def _chain(parts: list[Part], size: str) -> Part:
    """Parts below one another; `size` is of what the first one reads."""
    axis = max(part.axis for part in parts)
    right = max(part.width - part.axis for part in parts)
    ink: list[str] = []
    asides: list[tuple[float, Part]] = []
    y, written = 0.0, size
    for number, part in enumerate(parts):
        if number and not part.sticks:
            above = parts[number - 1]
            ink += _edges(above, part, axis, y, y + _GAP)
            if above.size != written:
                fork = len(above.outs) < len(part.ins)
                label, reach = _label(above, axis, y + (_GAP - 2 if fork else 13), fork=fork)
                ink, right, written = ink + label, max(right, reach), above.size
            y += _GAP
        ink.append(_placed(part, axis - part.axis, y))
        if part.aside:
            asides.append((y, part.aside))
        y += part.height
    width, height = axis + right, y
    below = -math.inf
    for y, aside in asides:
        left, top = axis + right + _BESIDE, max(y + _GAP / 2, below)
        ink.append(_line((axis, y), (left + aside.axis, y), (left + aside.axis, top), style="side"))
        ink.append(_placed(aside, left, top))
        below = top + aside.height + _BESIDE
        width, height = max(width, left + aside.width), max(height, below)
    last = parts[-1]
    return Part(
        width, height, axis, parts[0].ins, last.outs, ink, last.size, last.crossing,
        parts[0].pointed,
    )  # fmt: skip


def _branches(
    name: str, branches: list[Part | None], join: str, sizes: list[str], size: str
) -> Part:
    """Branches beside one another; None is one without layers. One alone is joined with nothing.

    Args:
      name: of them all.
      branches: in the order of their maps.
      join: `add` or `concatenate`.
      sizes: of what each makes.
      size: of all together.
    """
    add = join == "add"
    middles: list[float] = []
    x = 0.0
    if add and branches[0]:  # the name has room beside the axis
        x = max(len(name) * _BOLD + 4 - branches[0].axis, 0.0)
    for branch, made in zip(branches, sizes, strict=True):
        label = 8 + len(made) * _SMALL if not add else 0.0
        middles.append(x + (branch.axis if branch else _BESIDE / 2))
        x = max(x + (branch.width if branch else _BESIDE), middles[-1] + label) + _BESIDE
    width = x - _BESIDE
    axis = middles[0] if add else (middles[0] + middles[-1]) / 2
    tallest = max(branch.height for branch in branches if branch)
    alone = len(branches) == 1
    end = _FORK + tallest + (0 if alone else _FORK if add else _GAP)
    ink = [_line((axis, 0), (axis, _FORK / 2)), _text(axis - 4, 3, name, "name left")]
    for branch, middle, made in zip(branches, middles, sizes, strict=True):
        fork = [(axis, _FORK / 2), (middle, _FORK / 2)]
        if branch:
            ink.append(_line(*fork, (middle, _FORK), style="arrow" if branch.pointed else "edge"))
            ink.append(_placed(branch, middle - branch.axis, _FORK))
            fork = [(middle, _FORK + branch.height)]
        if alone:
            continue
        if not add:
            ink.append(_line(*fork, (middle, end), style="arrow"))
            ink.append(_text(middle + 4, end - 10, made, "size"))
        elif middle == axis:
            ink.append(_line(*fork, (middle, end - 7), style="arrow"))
        else:
            ink.append(_line(*fork, (middle, end), (axis + 7, end), style="arrow"))
    if alone:
        return Part(width, end, axis, (0.0,), (0.0,), ink, size, pointed=False)
    if add:
        ink.append(f'<circle cx="{axis:.1f}" cy="{end:.1f}" r="7" class="join"/>')
        ink.append(_line((axis - 4, end), (axis + 4, end)))
        ink.append(_line((axis, end - 4), (axis, end + 4)))
        return Part(width, end + 7, axis, (0.0,), (0.0,), ink, size, pointed=False)
    ink.append(_line((middles[0] - 12, end), (middles[-1] + 12, end), style="bar"))
    return Part(width, end + 2, axis, (0.0,), (0.0,), ink, size, pointed=False)


def _in_towers(model: Network) -> list[tuple[str, Any]]:
    layers = [(name, getattr(model, name)) for name in model.names]
    return [pair for pair in layers if type(pair[1]).__name__ in ("TowerConv", "TowerDense")]


class _Layout:
    """Makes parts of layers, keeping account of towers."""

    def __init__(self, model: Network):
        self.shapes = activation_shapes(model) | {r.name: r.output for r in layer_table(model)}
        self.towers = model.towers
        self.step = _BESIDE + max(
            (_width(name, said(layer, self.own(name))[0]) for name, layer in _in_towers(model)),
            default=0.0,
        )
        self.split = False  # whether what flows are towers' own maps

    def own(self, path: str) -> tuple[int, ...]:
        """Shape of what one tower makes of a layer."""
        shape = self.shapes[path]
        return (*shape[:-1], shape[-1] // self.towers)

    def size(self, path: str) -> str:
        """Of what leaves a layer, of one tower."""
        shape = self.own(path) if self.split else self.shapes[path]
        return _TIMES.join(map(str, shape))

    def parts(self, sequence: Sequential, path: str, size: str) -> list[Part]:
        """The layers of a sequence that reads `size`."""
        found: list[Part] = []
        for name in sequence.names:
            layer, whole = getattr(sequence, name), f"{path}/{name}" if path else name
            before = found[-1].size if found else size
            if isinstance(layer, Exchange):
                found[-1].crossing, self.split = True, False
            elif isinstance(layer, Auxiliary):
                aside = _chain(self.parts(layer, whole, before), before)
                found.append(Part(0, 0, 0, (0.0,), (0.0,), [], before, pointed=False, aside=aside))
            elif isinstance(layer, Branches):
                found.append(self.branches(layer, whole, before))
            elif isinstance(layer, Sequential):
                found.append(_chain(self.parts(layer, whole, before), before))
            else:
                found.append(self.layer(layer, name, whole, sticks=bool(found)))
        return found

    def branches(self, layer: Branches, path: str, size: str) -> Part:
        """Branches that read `size`."""
        made: list[Part | None] = []
        for name in layer.names:
            parts = self.parts(getattr(layer, name), f"{path}/{name}", size)
            made.append(_chain(parts, size) if parts else None)
        sizes = [branch.size if branch else size for branch in made]
        return _branches(path.rpartition("/")[2], made, layer.join, sizes, self.size(path))

    def layer(self, layer: Any, name: str, path: str, *, sticks: bool) -> Part:
        """One layer; those without windows and weights of their own stick to the one above."""
        kind = type(layer).__name__
        if kind.startswith("Tower"):
            self.split = kind != "TowerHead"
        words, colour = said(layer, self.own(path) if self.split else self.shapes[path])
        shown = "" if sticks and kind in _STICKING else name
        towers = self.towers if self.split else 1
        return _box(shown, words, colour, self.size(path), towers, self.step)


def _columns(parts: list[Part]) -> list[list[Part]]:
    """Parts shared out to columns, so that the drawing is no more than a page high."""
    height = sum(part.height + _GAP for part in parts)
    width = max(part.width for part in parts) + 3 * _BESIDE
    count = max(round(math.sqrt(height / width / _RATIO)), 1) if height > _PAGE else 1
    columns: list[list[Part]] = [[]]
    used = 0.0
    for part in parts:
        above = columns[-1][-1] if columns[-1] else None
        can = above is not None and not (
            part.sticks or part.aside or len(above.outs + part.ins) > 2
        )
        if can and used + part.height / 2 > height / count and len(columns) < count:
            columns.append([])
            used = 0.0
        columns[-1].append(part)
        used += part.height + (0 if part.sticks else _GAP)
    return columns


def drawing(model: Network) -> str:
    """Draws a network, with or without weights, and returns the SVG text."""
    layout, image = _Layout(model), f"{model.image_size}{_TIMES}{model.image_size}{_TIMES}3"
    parts = layout.parts(model, "", image)
    parts = [_box("image", "red, green, blue", _NONE, image), *parts]
    x, bottom, read = float(_BESIDE), 0.0, ""
    ink: list[str] = []
    columns = _columns(parts)
    leaving: tuple[float, float, float] | None = None
    for column in columns:
        whole = _chain(column, read)
        place = x + whole.axis
        if leaving is not None:
            start, end, low = leaving
            turn = x - _BESIDE / 2
            ink.append(_line(
                (start, end), (start, low + 12), (turn, low + 12), (turn, 12), (place, 12),
                (place, _TOP), style="arrow" if whole.pointed else "edge",
            ))  # fmt: skip
            ink.append(_text(place + 4, _TOP - 8, read, "size"))
        ink.append(_placed(whole, x, _TOP))
        height = sum(p.height for p in column) + _GAP * sum(not p.sticks for p in column[1:])
        leaving = place, _TOP + height, _TOP + whole.height
        bottom = max(bottom, _TOP + whole.height)
        x += max(whole.width, whole.axis + 8 + len(whole.size) * _SMALL) + 2 * _BESIDE
        read = whole.size
    assert leaving is not None
    end_x, end_y, _ = leaving
    ink.append(_line((end_x, end_y), (end_x, end_y + _GAP), style="arrow"))
    ink.append(_text(end_x + 4, end_y + 14, f"{read} scores", "size"))
    width, height = x - _BESIDE, bottom + _GAP + 12
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}">',
            _STYLE,
            *ink,
            "</svg>\n",
        ]
    )
