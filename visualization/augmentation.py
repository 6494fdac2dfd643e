"""One photograph as a run's augmentation shows it: cropped, mirrored, with shifted colours.

The first tile is the central crop of evaluation; the others are what training sees, epoch after
epoch. If the recipe shifts colours along the principal components of the training set's colours
(Krizhevsky et al. 2012, section 4.1), the command prints these components with their standard
deviations in grey levels.
"""

import argparse
import contextlib
from collections.abc import Generator
from pathlib import Path

import numpy as np

from configs.common import ConfigError
from input_pipeline import Data
from visualization import command_line, pictures
from visualization.command_line import positive
from visualization.opening import Opened

_PIXELS = 96

SHARED = (*command_line.WEIGHTS, "data_name", "data_dir")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    command_line.add_image_flags(parser)
    parser.add_argument("--count", type=positive, default=15, help="Crops that are shown.")
    command_line.add_seed(parser, "Of the crops.")


def crops(data: Data, content: bytes | np.ndarray, count: int, seed: int) -> np.ndarray:
    """An image as training shows it, epoch after epoch: uint8 [count, crop, crop, 3].

    Args:
      data: the run's data; its colour covariance is computed only if the recipe shifts colours.
      content: bytes of an image file, or uint8 [h, w, 3].
      count: number of crops.
      seed: of all random choices.
    """
    with contextlib.closing(data.alone(content).training(0, seed=seed, batch_size=count)) as stream:
        batch = next(stream)
    shift = batch["colour_shift"][:, None, None, :]
    shown = (batch["image"] + shift) * batch["colour_scale"][:, None, None, None]
    return np.clip(np.round(shown), 0, 255).astype(np.uint8)


def print_components(covariance: np.ndarray) -> None:
    """Prints the principal components of RGB, the largest first."""
    values, vectors = np.linalg.eigh(covariance)
    for value, vector in zip(values[::-1], vectors.T[::-1], strict=True):
        red, green, blue = vector * np.sign(vector[np.argmax(np.abs(vector))])
        deviation = np.sqrt(max(value, 0.0))
        print(f"({red:.4f}, {green:.4f}, {blue:.4f})  standard deviation {deviation:.2f}")


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes augmentation.png and prints the components."""
    if opened.workdir is None and arguments.config is None:
        raise ConfigError(
            f"{opened.trained.source}: a file says nothing of augmentation; name a run, or a "
            "config with --config"
        )
    data = opened.data("train")
    if data.shifts_colours:
        print_components(data.colour_covariance())
    else:
        print("this recipe shifts no colours along principal components")
    content = opened.content("train")
    middle = opened.shown(opened.square(content)[None])
    shown = crops(data, content, arguments.count, arguments.seed)
    tiles = pictures.enlarged(np.concatenate([middle, shown]), _PIXELS)
    yield pictures.save(pictures.grid(tiles, gap=2), opened.out("augmentation.png"))


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw, shared=SHARED)
