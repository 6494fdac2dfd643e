"""What excites a map, projected to pixels: Zeiler and Fergus 2014, Figure 2.

For each map, the strongest activations over a dataset, at most one per image, are projected through
a deconvolutional network (`--method=guided|gradient` for its relatives). The picture shows them
above the image patches in the units' receptive fields. Each map has its own rows, with its number
at the left and its strongest activation first.
"""

import argparse
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from configs.common import ConfigError
from input_pipeline import DataError
from visualization import command_line, pictures
from visualization.opening import Opened
from visualization.projection import RULES, Field, fields, projector

_PIXELS = 48  # of a patch in the picture, at least


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    positive = command_line.positive
    parser.add_argument("--layer", required=True, help="A layer that makes maps.")
    parser.add_argument("--maps", help="Numbers, as in 0,3,17; by default spread evenly.")
    parser.add_argument("--count", type=positive, default=6, help="Maps, without --maps.")
    parser.add_argument("--strongest", type=positive, default=9, help="Activations of a map.")
    parser.add_argument("--limit", type=positive, help="Images to look through.")
    parser.add_argument("--method", choices=list(RULES), default="deconv")
    parser.add_argument(
        "--normalization_derivative",
        action="store_true",
        help="Contrast normalisations send back by their derivative, not unchanged.",
    )


def chosen_maps(said: str | None, count: int, maps: int) -> list[int]:
    """Parses --maps.

    Args:
      said: its value, map numbers with commas between them; None for a choice by default.
      count: number of maps chosen by default.
      maps: number of maps that the layer has.

    Raises:
      ConfigError: --maps is not a list of valid map numbers.
    """
    if said is None:
        return sorted({int(n) for n in np.linspace(0, maps - 1, min(count, maps))})
    try:
        numbers = [int(part) for part in said.split(",")]
    except ValueError:
        numbers = [-1]
    if not all(0 <= number < maps for number in numbers):
        raise ConfigError(f"--maps={said}: numbers from 0 to {maps - 1}, with commas between")
    return numbers


def patch(image: np.ndarray, unit: np.ndarray, field: Field, ground: float) -> np.ndarray:
    """The part of an image [H, W, C] in the receptive field of a unit (row, column).

    Pixels outside the image are `ground`. If the field is larger than the image, the whole image
    is returned.
    """
    jump, low, high = field
    side = high - low + 1
    if side >= image.shape[0]:
        return image
    padded = np.pad(image, ((side, side), (side, side), (0, 0)), constant_values=ground)
    y, x = (int(place) * jump + low + side for place in unit)
    return padded[y : y + side, x : x + side]


class Strongest(NamedTuple):
    """The strongest activations of each map in descending order, at most one per image.

    Attributes:
      values: float32 [maps, n], the activations.
      units: int32 [maps, n, 3]: row, column and map of each.
      images: uint8 [maps, n, square, square, 3], the images that they come from.
    """

    values: np.ndarray
    units: np.ndarray
    images: np.ndarray


def strongest(
    opened: Opened, layer: str, maps: Sequence[int], count: int, squares: Iterable[np.ndarray]
) -> Strongest:
    """Searches images for the strongest activations of each map.

    Args:
      opened: the network.
      layer: name of a layer that makes maps.
      maps: numbers of the maps.
      count: number of activations per map; fewer if there are fewer images. Of equal activations
        the first is taken.
      squares: the images, see `Opened.recorded`. Only the images found are kept in memory.
    """
    values = np.zeros((len(maps), 0), np.float32)
    units, numbers = np.zeros((len(maps), 0, 3), np.int32), np.zeros((len(maps), 0), np.int64)
    kept: dict[int, np.ndarray] = {}
    begin = 0
    for images, _, record in opened.recorded([layer], squares):
        found = record[layer][..., maps]
        width = found.shape[2]
        flat = found.reshape(len(found), -1, len(maps))
        rows, columns = np.divmod(flat.argmax(axis=1).T, width)
        places = np.stack([rows, columns, np.broadcast_to(np.c_[list(maps)], rows.shape)], axis=-1)
        here = np.broadcast_to(begin + np.arange(len(images)), rows.shape)
        values = np.concatenate([values, flat.max(axis=1).T], axis=1)
        units = np.concatenate([units, places.astype(np.int32)], axis=1)
        numbers = np.concatenate([numbers, here], axis=1)
        best = np.argsort(-values, axis=1, kind="stable")[:, :count]
        values = np.take_along_axis(values, best, axis=1)
        numbers = np.take_along_axis(numbers, best, axis=1)
        units = np.take_along_axis(units, best[..., None], axis=1)
        # Copies: a view of an image would keep its whole batch.
        kept = {
            n: kept[n] if n in kept else images[n - begin].copy()
            for n in np.unique(numbers).tolist()
        }
        begin += len(images)
    if not begin:
        raise DataError("there are no images to look through; choose another --split")
    return Strongest(values, units, np.stack([np.stack([kept[n] for n in row]) for row in numbers]))


def projections(
    opened: Opened,
    layer: str,
    found: Strongest,
    method: str = "deconv",
    *,
    normalization_derivative: bool = False,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Projects the strongest activations to pixels, and cuts out their image patches.

    Args:
      opened, layer, found: see `strongest`.
      method, normalization_derivative: see `projection.rules`.

    Returns:
      For each map: projections [n, side, side, 3] in 0..1, zero at .5, each scaled by its own
      largest magnitude; and patches, uint8 [n, side, side, 3].
    """
    project = projector(
        opened.model, layer, method, normalization_derivative=normalization_derivative
    )
    field, pairs = fields(opened.model)[layer], []
    for images, units in zip(found.images, found.units, strict=True):
        pixels = np.asarray(project(opened.inputs(images), jnp.asarray(units)), np.float32)
        cut = [patch(p, u[:2], field, 0.0) for p, u in zip(pixels, units, strict=True)]
        shown = opened.shown(images)
        seen = [patch(i, u[:2], field, 128) for i, u in zip(shown, units, strict=True)]
        pairs.append((pictures.around_grey(np.stack(cut)), np.stack(seen)))
    return pairs


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes deconvnet_LAYER_METHOD.png, two rows per map, and prints the activations."""
    layer, method = opened.layer(arguments.layer, maps=True), arguments.method
    maps = chosen_maps(arguments.maps, arguments.count, opened.shapes[layer][-1])
    images = (image for batch in opened.images(arguments.limit) for image in batch["image"])
    found = strongest(opened, layer, maps, arguments.strongest, images)
    for number, values in zip(maps, found.values, strict=True):
        strengths = ", ".join(f"{value:.3g}" for value in values)
        print(f"{layer} map {number}: {strengths if values.max() > 0 else 'never above 0'}")
    rows = []
    for pair in projections(
        opened, layer, found, method, normalization_derivative=arguments.normalization_derivative
    ):
        both = [pictures.grid(pictures.enlarged(p, _PIXELS), columns=len(p)) for p in pair]
        rows.append(pictures.stacked(both, gap=1))
    rows = pictures.named(rows, [str(number) for number in maps])
    path = opened.out(f"deconvnet_{layer.replace('/', '_')}_{method}.png")
    yield pictures.save(pictures.stacked(rows, gap=8), path)


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw)
