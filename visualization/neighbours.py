"""Queries and the images nearest to each in a layer's features, as in Figure 4, right, of AlexNet.

Krizhevsky et al. 2012, section 6.1: the first column has five test images, and the others have the
six training images whose features in the last hidden layer have the smallest Euclidean distance to
theirs. The search is exact: the features of the searched split (`--among`) are computed block by
block, and only the nearest are kept.
"""

import argparse
from collections.abc import Generator, Iterable
from pathlib import Path

import numpy as np

from configs.common import ConfigError
from visualization import command_line, pictures
from visualization.command_line import positive
from visualization.opening import Opened

_PIXELS = 64


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("--layer", help="The last hidden layer by default.")
    parser.add_argument("--neighbours", type=positive, default=6, help="Of each query.")
    parser.add_argument("--queries", type=positive, default=5, help="Drawn from --split.")
    parser.add_argument("--among", default="train", help="The split that is searched.")
    parser.add_argument("--limit", type=positive, help="Search the first so many images only.")
    command_line.add_seed(parser, "Of the choice of queries.")


def nearest(
    queries: np.ndarray, blocks: Iterable[np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of many vectors, by exact Euclidean distance; equally near ones in order.

    Args:
      queries: [q, n].
      blocks: the vectors, [b, n] at a time; one block is in memory at once.
      count: how many are wanted.

    Returns:
      int64 [q, count], positions over all blocks, nearest first, and float64 distances; fewer
      where there are fewer vectors.
    """
    queries = queries.astype(np.float64)
    squares = (queries**2).sum(axis=1)[:, None]
    indices = np.zeros((len(queries), 0), np.int64)
    distances = np.zeros((len(queries), 0))
    begin = 0
    for block in blocks:
        vectors = block.astype(np.float64)
        found = squares + (vectors**2).sum(axis=1) - 2 * queries @ vectors.T
        numbers = np.broadcast_to(begin + np.arange(len(vectors)), found.shape)
        distances = np.concatenate([distances, found], axis=1)
        indices = np.concatenate([indices, numbers], axis=1)
        best = np.argsort(distances, axis=1, kind="stable")[:, :count]
        distances = np.take_along_axis(distances, best, axis=1)
        indices = np.take_along_axis(indices, best, axis=1)
        begin += len(vectors)
    return indices, np.sqrt(np.maximum(distances, 0))


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes neighbours.png, a row for each query, and prints the distances."""
    layer = opened.layer(arguments.layer or opened.last_hidden)
    asked = list(opened.features(layer, limit=arguments.queries, seed=arguments.seed))
    queries = np.concatenate([features for features, _ in asked])
    images = np.concatenate([batch["image"] for _, batch in asked])
    numbers = np.concatenate([batch["index"] for _, batch in asked])
    searched = opened.data(arguments.among)
    here = arguments.among == (arguments.split or opened.data().evaluation_split)
    there = searched.examples(arguments.among).count
    there = min(there, arguments.limit or there) - here
    if arguments.neighbours > there:
        raise ConfigError(
            f"--neighbours={arguments.neighbours}: there are {there} images to be found in "
            f"{arguments.among}{' within --limit' if arguments.limit else ''}; choose fewer, or "
            "another split with --among"
        )
    places: list[np.ndarray] = []

    def blocks() -> Generator[np.ndarray, None, None]:
        for features, batch in opened.features(layer, only=arguments.among, limit=arguments.limit):
            places.append(batch["index"])
            yield features

    found, distances = nearest(queries, blocks(), arguments.neighbours + here)
    index = np.concatenate(places)[found]
    rows = []
    for row, number in enumerate(numbers):
        # An image of the split that is searched is no neighbour of itself.
        kept = np.flatnonzero(~(here & (index[row] == number)))[: arguments.neighbours]
        near, far = index[row, kept], distances[row, kept]
        batches = list(opened.images(only=arguments.among, chosen=near))
        rows.append([images[row], *np.concatenate([batch["image"] for batch in batches])])
        said = ", ".join(f"{n} ({d:.4g})" for n, d in zip(near, far, strict=True))
        print(f"image {number}: {said}")
    tiles = pictures.enlarged(
        opened.shown(np.stack([tile for row in rows for tile in row])), _PIXELS
    )
    columns = len(rows[0])
    first = pictures.grid(tiles[::columns], 1, gap=2)
    others = pictures.grid(
        np.concatenate([tiles[n : n + columns - 1] for n in range(1, len(tiles), columns)]),
        columns - 1,
        gap=2,
    )
    apart = np.full((len(first), 10, 3), 255, np.uint8)
    whole = np.concatenate([first, apart, others], axis=1)
    yield pictures.save(whole, opened.out("neighbours.png"))


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw)
