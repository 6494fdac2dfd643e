"""A layer's features of a split as NumPy files, for any size of dataset.

    python -m visualization.features runs/alexnet --layer=fc7 --split=test

writes features/test-fc7.npy, float32 [N, features], and features/test-fc7.npz, which says of each
row the image's `index` in the split, its `label` (-1 for none; `class_names` has their names) and
its `name`, and which network, weights and data all are of. Several layers, separated by commas,
take one pass. Of a layer of maps `--pool=none` stores every value, in the order (y, x, map), and
`average` or `max` one number of each map: then the file is features/test-conv5-average.npy.

The images are central crops with the preprocessing that the network was trained with. Those that
cannot be read have no row. Rows are written as they are computed: the split may be larger than
memory. The files appear when they are complete.
"""

import argparse
from collections.abc import Generator
from pathlib import Path

import numpy as np

from visualization import command_line, feature_files
from visualization.command_line import positive
from visualization.opening import Opened


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("--layer", help="One or several, comma-separated; the last hidden one.")
    parser.add_argument("--pool", choices=feature_files.POOLS, default="none", help="Of maps.")
    parser.add_argument("--limit", type=positive, help="Images, drawn at random; all by default.")
    command_line.add_seed(parser, "Of the choice.")


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes the files of each layer and prints their sizes."""
    names = (arguments.layer or opened.last_hidden).split(",")
    layers = [opened.layer(name.strip()) for name in names]
    data = opened.data()
    split = arguments.split or data.evaluation_split
    chosen = np.arange(data.examples(split).count)
    if arguments.limit is not None:
        drawn = np.random.default_rng(arguments.seed).permutation(chosen)
        chosen = np.sort(drawn[: arguments.limit])
    described = [feature_files.about(opened, split, layer, arguments.pool) for layer in layers]
    paths = {opened.out(feature_files.file_name(of), "features"): of for of in described}
    feature_files.check_room(paths, chosen)
    feature_files.compute(opened, split, paths, chosen)
    for path, of in paths.items():
        kept = feature_files.read(path)
        count, width = kept.values.shape
        unreadable = f", {len(kept.unreadable)} unreadable" if len(kept.unreadable) else ""
        print(f"{of['layer']}: {count:,} images{unreadable}, {width:,} features each")
        yield from (path, path.with_suffix(".npz"))


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw)
