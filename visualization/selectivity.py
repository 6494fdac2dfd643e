"""How much of each first-layer kernel is colour: its share of energy off the grey axis.

Krizhevsky et al. 2012, section 6.1: the kernels of one tower are "largely color-agnostic", those of
the other "largely color-specific", in every run. The paper gives no measure. Here every pixel of a
kernel is split into its component along (1, 1, 1), which responds to grey, and the rest, which
responds to colour. The rest's share of the sum of squares is 0 for a grey kernel and 2/3 on average
for random numbers. The command prints each tower's mean, median and proportion of kernels above .5.
"""

import argparse
from collections.abc import Generator
from pathlib import Path

import numpy as np

from configs.common import ConfigError
from visualization import command_line, pictures
from visualization.kernels import first_kernels
from visualization.opening import Opened

SHARED = command_line.FILES


def add_flags(parser: argparse.ArgumentParser) -> None:
    """This command has no flags of its own."""


def colour_share(kernels: np.ndarray) -> np.ndarray:
    """Share of energy off the grey axis, in 0..1.

    Args:
      kernels: [..., h, w, 3].

    Returns:
      [...]; 0 for kernels that are all zero.
    """
    kernels = kernels.astype(np.float64)
    whole = (kernels**2).sum(axis=(-3, -2, -1))
    grey = (kernels.sum(axis=-1) ** 2).sum(axis=(-2, -1)) / 3
    return np.where(whole > 0, 1 - grey / np.where(whole > 0, whole, 1), 0.0)


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes selectivity.png, a histogram per tower, and prints the numbers."""
    kernels = first_kernels(opened.trained.params, opened.layers)
    if kernels.shape[-1] != 3:
        raise ConfigError(
            f"{opened.trained.source}: its first layer reads {kernels.shape[-1]} channel(s), and "
            "colour has three; choose a network of colour images"
        )
    shares = colour_share(kernels)
    figure = pictures.figure(5, 1.6 * len(shares) + 0.6)
    rows = figure.subplots(len(shares), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for number, (axes, of_tower) in enumerate(zip(rows, shares, strict=True), 1):
        name = f"tower {number}" if len(shares) > 1 else "kernels"
        said = (
            f"{name}: {len(of_tower)} kernels, colour share mean {of_tower.mean():.3f}, "
            f"median {np.median(of_tower):.3f}, above .5 {np.mean(of_tower > 0.5):.3f}"
        )
        print(said)
        axes.hist(of_tower, bins=np.linspace(0, 1, 21).tolist(), color="#7788cc", edgecolor="white")
        axes.axvline(2 / 3, color="#888888", linestyle=":", linewidth=1)
        axes.set_title(f"{name}, mean {of_tower.mean():.2f}", loc="left", fontsize=9)
        axes.set_ylabel("kernels")
        axes.yaxis.set_major_locator(pictures.whole_numbers())
    rows[-1].set_xlabel("share of energy off the grey axis (dotted: random numbers)")
    yield pictures.save_figure(figure, opened.out("selectivity.png"))


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw, shared=SHARED)
