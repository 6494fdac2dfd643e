"""The maps of a layer for one image, each drawn in grey from its minimum to its maximum.

`--together` scales all maps by one minimum and maximum. The maps of towers stand one block above
the other. A layer of features, such as fc7, is drawn as bars, with dotted lines between towers.
"""

import argparse
import math
from collections.abc import Generator
from pathlib import Path

import numpy as np

from visualization import command_line, pictures
from visualization.opening import Opened

_PIXELS = 64

SHARED = (*command_line.FILES, "data_name", "data_dir", "split")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    command_line.add_image_flags(parser)
    parser.add_argument("--layer", help="The first with parameters by default.")
    parser.add_argument("--together", action="store_true", help="One scale for all maps.")


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes activations_LAYER.png: the image, and its maps."""
    layer = opened.layer(arguments.layer or opened.first_trained)
    image = opened.square(opened.content())[None]
    _, found = opened.recorder([layer])(opened.inputs(image))
    values, towers = np.asarray(found[layer][0], np.float32), opened.towers(layer)
    path = opened.out(f"activations_{layer.replace('/', '_')}.png")
    if values.ndim == 1:
        figure = pictures.figure(7, 2)
        axes = figure.subplots()
        axes.bar(np.arange(len(values)), values, width=1.0, color="#7788cc")
        for tower in range(1, towers):
            axes.axvline(len(values) * tower / towers - 0.5, color="#444444", linestyle=":")
        axes.set_xlim(-0.5, len(values) - 0.5)
        axes.set_xlabel(f"features of {layer}")
        yield pictures.save_figure(figure, path)
        return
    maps = np.moveaxis(values, -1, 0)[..., None]
    shown = pictures.enlarged(pictures.scaled(maps, each=not arguments.together), _PIXELS)
    seen = pictures.enlarged(opened.shown(image), 2 * _PIXELS)[0]
    columns = math.ceil(math.sqrt(len(shown)))
    blocks = [pictures.grid(t, columns, ground=128) for t in np.split(shown, towers)]
    yield pictures.save(pictures.stacked([seen, *blocks], gap=8), path)


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw, shared=SHARED)
