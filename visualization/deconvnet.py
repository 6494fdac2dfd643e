"""What excites a map, projected to pixels: Zeiler and Fergus 2014, Figure 2.

For each map the strongest activations over a dataset, at most one of an image, each projected
through a deconvolutional network (`--method=guided|gradient` for its relatives). Beside them are
the parts of the images that the units see. Maps stand below one another, strongest first.
"""

import argparse
from collections.abc import Generator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from configs.common import ConfigError
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
    parser.add_argument("--method", choices=list(RULES), default="deconvnet")
    parser.add_argument(
        "--normalization_derivative",
        action="store_true",
        help="Contrast normalisations send back by their derivative, not unchanged.",
    )


def chosen_maps(said: str | None, count: int, maps: int) -> list[int]:
    """Numbers of maps.

    Raises:
      ConfigError: --maps holds something else than numbers of maps.
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
    """The part of an image [H, W, C] that a unit (row, column) sees; `ground` outside of it.

    A field larger than the image gives the image.
    """
    jump, low, high = field
    side = high - low + 1
    if side >= image.shape[0]:
        return image
    padded = np.pad(image, ((side, side), (side, side), (0, 0)), constant_values=ground)
    y, x = (int(place) * jump + low + side for place in unit)
    return padded[y : y + side, x : x + side]


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes deconvnet-LAYER-METHOD.png."""
    layer = opened.layer(arguments.layer, maps=True)
    maps = chosen_maps(arguments.maps, arguments.count, opened.shapes[layer][-1])
    record = opened.recorder([layer])
    values: list[np.ndarray] = []  # [maps, n] and below [maps, n, 3]
    units: list[np.ndarray] = []
    kept = np.zeros((len(maps), 0, 0, 0, 0), np.uint8)
    strengths, places = np.zeros((len(maps), 0)), np.zeros((len(maps), 0, 3), np.int32)
    for batch in opened.images(arguments.limit):
        found = np.asarray(record(opened.inputs(batch["image"]))[1][layer])[..., maps]
        count, height, width, _ = found.shape
        flat = found.reshape(count, height * width, -1)
        where = flat.argmax(axis=1).T
        values = [strengths, flat.max(axis=1).T]
        rows, columns = np.divmod(where, width)
        numbers = np.broadcast_to(np.array(maps)[:, None], where.shape)
        units = [places, np.stack([rows, columns, numbers], axis=-1).astype(np.int32)]
        images = np.broadcast_to(batch["image"], (len(maps), *batch["image"].shape))
        pool = images if not kept.size else np.concatenate([kept, images], axis=1)
        strengths, places = np.concatenate(values, axis=1), np.concatenate(units, axis=1)
        order = np.argsort(-strengths, axis=1, kind="stable")[:, : arguments.strongest]
        strengths = np.take_along_axis(strengths, order, 1)
        places = np.take_along_axis(places, order[..., None], 1)
        kept = np.stack([of_map[best] for of_map, best in zip(pool, order, strict=True)])
    project = projector(
        opened.model, layer, arguments.method,
        normalization_derivative=arguments.normalization_derivative,
    )  # fmt: skip
    field, rows_of_picture = fields(opened.model)[layer], []
    for images, unit in zip(kept, places, strict=True):
        pixels = np.asarray(project(opened.inputs(images), jnp.asarray(unit)))
        if pixels.shape[-1] != 3:
            pixels = pixels.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
        cut = [patch(p, u[:2], field, 0.0) for p, u in zip(pixels, unit, strict=True)]
        seen = [
            patch(i, u[:2], field, 128) for i, u in zip(opened.shown(images), unit, strict=True)
        ]
        both = [pictures.around_grey(np.stack(cut)), np.stack(seen)]
        row = [pictures.grid(pictures.enlarged(p, _PIXELS), columns=len(unit)) for p in both]
        rows_of_picture.append(pictures.stacked(row, gap=1))
    name = f"deconvnet-{layer.replace('/', '-')}-{arguments.method}.png"
    yield pictures.save(pictures.stacked(rows_of_picture, gap=8), opened.out(name))


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw)
