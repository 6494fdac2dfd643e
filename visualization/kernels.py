"""The kernels of the first layer, as in Krizhevsky et al. 2012, Figure 3.

The kernels of the towers stand one block above the other; 96 kernels are drawn 16 in a row. Those
of a fully connected layer are as large as the image: the templates of a linear classifier (Stanford
CS231n, "Linear Classification"). By default the minimum over all kernels is black and the maximum
white, as in the authors' shownet.py; `--each` scales every kernel by itself. `--history` shows
every checkpoint of the run, one below the other.
"""

import argparse
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from training.pictures import as_images
from training.pictures import first_kernels as kernels_of
from visualization import command_line, pictures
from visualization.opening import Opened

_PIXELS = 32  # of a kernel in the picture, at least
_IN_A_ROW = 16
_BETWEEN = 8  # pixels between towers

SHARED = command_line.FILES


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("--each", action="store_true", help="Scale each kernel by itself.")
    parser.add_argument("--history", action="store_true", help="Every checkpoint of the run.")


def first_kernels(params: Any, layers: tuple[str, ...]) -> np.ndarray:
    """The kernels of the first layer that has any; see `training.pictures.as_images`.

    Args:
      params: of the network, nested dicts.
      layers: names, in order.

    Returns:
      [towers, maps, h, w, channels]; one tower where there are no others.
    """
    found = kernels_of(params, [name for name in layers if name in params])
    kernels = as_images(np.asarray(found, np.float32))
    return np.moveaxis(kernels if kernels.ndim == 5 else kernels[None], -1, 1)


def blocks(
    kernels: np.ndarray, *, each: bool = False, columns: int | None = None
) -> list[np.ndarray]:
    """Kernels as a picture of each tower, uint8 [height, width, 3].

    Args:
      kernels: [towers, maps, h, w, channels]; the mean of the channels in grey, unless there are
        three.
      each: scale each kernel by itself.
      columns: kernels in a row; None for `columns_for`.
    """
    towers, maps, height, width, channels = kernels.shape
    flat = kernels.reshape(towers * maps, height, width, channels)
    if channels != 3:
        flat = flat.mean(axis=-1, keepdims=True)
    shown = pictures.enlarged(pictures.scaled(flat, each=each), _PIXELS)
    of_tower = np.split(shown, towers)
    return [pictures.grid(tower, columns or columns_for(maps), ground=0) for tower in of_tower]


def picture(kernels: np.ndarray, *, each: bool = False) -> np.ndarray:
    """The towers' `blocks` one above the other."""
    return pictures.stacked(blocks(kernels, each=each), gap=_BETWEEN)


def beginning(kernels: np.ndarray, *, each: bool = False) -> np.ndarray:
    """A row of the first kernels of each tower, the towers beside one another; see `blocks`."""
    few = kernels[:, : _IN_A_ROW // len(kernels)]
    count = len(few) * few.shape[1]
    (row,) = blocks(few.reshape(1, count, *few.shape[2:]), each=each, columns=count)
    width = (row.shape[1] + 1) // len(few)
    apart = np.arange(1, len(few)) * width
    return np.insert(row, np.repeat(apart, _BETWEEN), 255, axis=1)


def columns_for(maps: int) -> int:
    """At most 16 in a row; 8 or more in several rows where that fills the last one."""
    fitting = [n for n in range(_IN_A_ROW // 2, _IN_A_ROW + 1) if maps % n == 0 and n < maps]
    return min(max(fitting, default=_IN_A_ROW), maps)


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes kernels.png, or a row of pictures through training."""
    if not arguments.history:
        kernels = first_kernels(opened.trained.params, opened.layers)
        yield pictures.save(picture(kernels, each=arguments.each), opened.out("kernels.png"))
        return
    found = {
        state.when: first_kernels(state.trained.params, opened.layers) for state in opened.states()
    }
    figure = pictures.figure(7, 0.3 + 0.5 * len(found))
    rows = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    for axes, (when, kernels) in zip(rows, found.items(), strict=True):
        axes.imshow(beginning(kernels, each=arguments.each), interpolation="nearest")
        axes.set_ylabel(when.removeprefix("step "), rotation=0, ha="right", va="center")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    of_each = " of each tower" if len(kernels) > 1 else ""
    figure.suptitle(f"the first kernels{of_each}, by step", fontsize=9)
    yield pictures.save_figure(figure, opened.out("kernels_history.png"))


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw, shared=SHARED)
