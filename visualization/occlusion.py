"""Occlusion by a grey square, as in Zeiler and Fergus 2014, Figure 7: a row of five columns.

The square slides over the image. (a) The image, with the square where the true class loses most
probability. (b) The activation, summed over positions, of the map that is strongest without a
square. (c) That map's strongest unit projected to pixels, framed, beside those of other images.
(d) The probability of the true class, or of the first guess if the true class is unknown. (e) The
most probable class. (b), (d) and (e) place each value at the centre of the square. The paper does
not give the square's size; here it is 50 of 224 pixels and moves by about 10, in proportion to the
image's side. (The figure's number is that of the arXiv version.)
"""

import argparse
import itertools
from collections.abc import Generator, Iterable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from configs.common import ConfigError
from evaluation.words import words
from vision_models.analysis import layer_table
from visualization import command_line, pictures
from visualization.command_line import positive
from visualization.deconvnet import Strongest, projections, strongest
from visualization.guesses import short
from visualization.opening import Opened

_GREY = 128
_SHARE, _STEP = 50 / 224, 10 / 224
_CLASSES = 8  # that the legend of (e) has room for
_PIXELS = 48


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    command_line.add_image_flags(parser)
    parser.add_argument("--layer", help="Of the maps; the last convolution or block by default.")
    parser.add_argument("--truth", help="Name or number of the true class, if it is not known.")
    parser.add_argument("--square", type=positive, help="Pixels of its side.")
    parser.add_argument("--stride", type=positive, help="Pixels between its places, at most.")
    parser.add_argument("--others", type=int, help="Images beside it in (c); 3 of a dataset.")
    parser.add_argument("--limit", type=positive, default=500, help="Images searched for (c).")


def last_maps(opened: Opened) -> str:
    """The last layer that makes maps and is not a pool, after any addition and activation.

    Raises:
      ConfigError: there is none.
    """
    pools = {"Pool", "Subsample", "GlobalAveragePool", "AdaptiveAveragePool"}
    skipped = pools | {"Dropout", "Exchange"}
    kinds = {row.name: row.kind for row in layer_table(opened.model)}
    shapes = opened.shapes
    able = [n for n in shapes if len(shapes[n]) == 3 and kinds.get(n) not in skipped]
    if not able:
        raise ConfigError(
            f"{opened.trained.source}: no layer but pools makes maps; choose a network with a "
            "convolution, or name a pool with --layer"
        )
    large = [n for n in able if shapes[n][0] > 1 and "/" not in n]
    return (large or able)[-1]


def places(size: int, square: int, stride: int) -> np.ndarray:
    """First pixels of a square that slides along a side of the image, from end to end.

    Args:
      size, square: sides of the image and of the square, in pixels.
      stride: largest step in pixels; steps are as even as whole pixels allow.
    """
    count = -(-(size - square) // stride) + 1
    return np.rint(np.linspace(0, size - square, count)).astype(int)


def hidden(
    image: np.ndarray, corner: np.ndarray, firsts: np.ndarray, square: int
) -> Generator[np.ndarray, None, None]:
    """Yields the image with a grey square at every place, row by row.

    Args:
      image: uint8 [s, s, 3].
      corner: row and column of the network's crop in it; `firsts` count from there.
      firsts: first pixels of the square along each side, from `places`.
      square: its side in pixels.
    """
    for row in firsts + corner[0]:
        for column in firsts + corner[1]:
            shown = image.copy()
            shown[row : row + square, column : column + square] = _GREY
            yield shown


def measured(
    opened: Opened, layer: str, number: int, squares: Iterable[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Measures a network's response to images.

    Args:
      opened: the network.
      layer, number: layer and number of a map.
      squares: n images, see `Opened.recorded`.

    Returns:
      The map's activations, summed over positions, [n]; and probabilities [n, classes].
    """
    sums, chances = [], []
    for _, logits, record in opened.recorded([layer], squares):
        sums.append(record[layer][..., number].sum(axis=(1, 2)))
        chances.append(probabilities(logits))
    return np.concatenate(sums), np.concatenate(chances)


def class_number(said: str | None, label: int, names: tuple[str, ...], guess: int) -> int:
    """The true class: from --truth, else from the dataset, else the network's first guess.

    Args:
      said: value of --truth; None if it is not given.
      label: of the dataset; -1 if it has none.
      names: class names.
      guess: the network's first guess.

    Raises:
      ConfigError: --truth is not a class.
    """
    if said is None:
        return label if 0 <= label < len(names) else guess
    matching = [n for n, name in enumerate(names) if said in (name, words([name])[0], str(n))]
    if not matching:
        raise ConfigError(
            f"--truth={said}: no such class; there are {len(names)}, "
            f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}, or their numbers from 0"
        )
    return matching[0]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax of [..., classes]."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def count_others(arguments: argparse.Namespace, opened: Opened) -> int:
    """The number of other images in (c); a photograph alone needs no dataset.

    Raises:
      ConfigError: --others is negative.
    """
    if arguments.others is None:
        there = (arguments.data_name, arguments.data_dir, arguments.config, opened.workdir)
        return 3 if not arguments.image or any(there) else 0
    if arguments.others < 0:
        raise ConfigError(f"--others={arguments.others}: at least 0")
    return int(arguments.others)


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes occlusion.png and prints how much probability the square takes away."""
    layer = opened.layer(arguments.layer or last_maps(opened), maps=True)
    content, label = opened.labelled()
    image = opened.square(content)
    seen = opened.shown(image[None])[0]
    size = len(seen)
    square = arguments.square or max(round(size * _SHARE), 1)
    stride = arguments.stride or max(round(size * _STEP), 1)
    if square > size:
        raise ConfigError(f"--square={square}: the network sees {size} pixels; choose fewer")
    others = count_others(arguments, opened)
    names = opened.named_classes() if others or label >= 0 else opened.class_names

    _, logits, found = next(opened.recorded([layer], [image]))
    strongest_map = int(found[layer][0].sum(axis=(0, 1)).argmax())
    truth = class_number(arguments.truth, label, names, int(logits[0].argmax()))

    firsts = places(size, square, stride)
    squares = hidden(image, opened.view[:2], firsts, square)
    sums, chance = measured(opened, layer, strongest_map, squares)
    grid = len(firsts), len(firsts)
    sums, true = sums.reshape(grid), chance[:, truth].reshape(grid)
    best = chance.argmax(axis=1).reshape(grid)

    row, column = np.unravel_index(true.argmin(), grid)
    whose = "true class" if arguments.truth or label >= 0 else "first guess"
    before = probabilities(logits)[0, truth]
    print(
        f"{whose}, {short(words([names[truth]])[0])}: probability {before:.3f}, "
        f"{true.min():.3f} with the square at row {firsts[row]}, column {firsts[column]}; "
        f"strongest map of {layer}: {strongest_map}"
    )
    tiles = _projected(opened, layer, strongest_map, image, others, arguments.limit)

    figure = pictures.figure(13, 2.6)
    axes = figure.subplots(1, 5)
    axes[0].imshow(seen)
    corner = firsts[column] - 0.5, firsts[row] - 0.5
    axes[0].add_patch(Rectangle(corner, square, square, color=(_GREY / 255,) * 3))
    axes[2].imshow(tiles)
    apart = (firsts[-1] - firsts[0]) / max(len(firsts) - 1, 1) or 1.0
    ends = (square - 1 - apart) / 2, firsts[-1] + (square - 1 + apart) / 2
    extent = (ends[0], ends[1], ends[1], ends[0])
    for axis, values, most in ((axes[1], sums, None), (axes[3], true, 1)):
        drawn = axis.imshow(values, extent=extent, cmap="jet", vmin=0 if most else None, vmax=most)
        figure.colorbar(drawn, cax=axis.inset_axes((1.03, 0, 0.05, 1)))
    _draw_classes(axes[4], best, extent, names)
    titles = (
        "(a) " + short(words([names[truth]])[0]), f"(b) {layer}, map {strongest_map}: sum",
        "(c) projections of the map", f"(d) {whose}: probability", "(e) most probable class",
    )  # fmt: skip
    for number, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        axis.set_title(title, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(number != 2)
        if number in (1, 3, 4):  # the whole image, as in (a)
            axis.set_xlim(-0.5, size - 0.5)
            axis.set_ylim(size - 0.5, -0.5)
    yield pictures.save_figure(figure, opened.out("occlusion.png"))


def _draw_classes(
    axes: Axes, best: np.ndarray, extent: tuple[float, float, float, float], names: tuple[str, ...]
) -> None:
    """(e): a colour for each class, named beside it, those at most places first."""
    numbers, counts = np.unique(best, return_counts=True)
    numbers = numbers[np.argsort(-counts, kind="stable")]
    colours = matplotlib.colormaps["tab10"](range(10))[:, :3]
    shown = np.zeros((*best.shape, 3))
    handles = []
    for place, number in enumerate(numbers):
        colour = colours[place] if place < _CLASSES else (0.2, 0.2, 0.2)
        shown[best == number] = colour
        if place < _CLASSES:
            handles.append(Patch(color=colour, label=short(words([names[number]])[0])))
    if len(numbers) > _CLASSES:
        handles.append(Patch(color=(0.2, 0.2, 0.2), label=f"{len(numbers) - _CLASSES} others"))
    axes.imshow(shown, extent=extent, interpolation="nearest")
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False, fontsize=8,
        handlelength=1, borderaxespad=0,
    )  # fmt: skip


def _projected(
    opened: Opened, layer: str, number: int, image: np.ndarray, others: int, limit: int
) -> np.ndarray:
    """(c): the map's projection of the image, in a black frame, beside those of other images."""
    found = strongest(opened, layer, [number], 1, [image])
    among = (
        other
        for batch in opened.images(limit)
        for other in batch["image"]
        if not np.array_equal(other, image)
    )
    first = next(among, None) if others else None
    if first is not None:
        beside = strongest(opened, layer, [number], others, itertools.chain([first], among))
        found = Strongest(
            *(np.concatenate(pair, axis=1) for pair in zip(found, beside, strict=True))
        )
    ((projected, _),) = projections(opened, layer, found)
    tiles = pictures.as_bytes(pictures.enlarged(projected, _PIXELS))
    edge = max(len(tiles[0]) // 24, 2)
    framed = np.pad(tiles, [(0, 0), (edge, edge), (edge, edge), (0, 0)], constant_values=255)
    framed[0] = 0
    framed[0, edge:-edge, edge:-edge] = tiles[0]
    return pictures.grid(framed, gap=edge)


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw)
