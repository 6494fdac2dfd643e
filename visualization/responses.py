"""Standard deviation of layer responses by depth, as in He et al. 2015, Figure 7.

In the paper, responses are the outputs of each 3x3 layer, after BatchNorm and before the activation
function and the addition. The upper plot has the layers in their order, the lower one from the
largest to the smallest deviation. Where no convolution is 3x3, those of all are shown. For
pre-activation networks, whose BatchNorm comes first, responses are the outputs of the convolutions;
for networks without BatchNorm, those of all layers with parameters but the classifier, after the
activation function that follows, if one does. `--beside=RUN`, which may be repeated, draws another
run into the same picture.
"""

import argparse
import itertools
from collections.abc import Generator
from pathlib import Path

import numpy as np

from configs.common import ConfigError
from training import Trained
from training.workdir import is_directory
from vision_models.analysis import layer_table
from visualization import command_line, pictures
from visualization.command_line import positive
from visualization.opening import Opened


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("--limit", type=positive, default=1000, help="Images, drawn at random.")
    command_line.add_seed(parser, "Of the choice.")
    parser.add_argument(
        "--beside", action="append", default=[], metavar="RUN", help="Another run to compare with."
    )


def responding(opened: Opened) -> tuple[str, ...]:
    """Names of the layers that are shown.

    Raises:
      ConfigError: there are none.
    """
    rows = [row for row in layer_table(opened.model) if not row.auxiliary]
    head = opened.model.heads[0]
    pairs = [(a, b) for a, b in itertools.pairwise(rows) if a.parameters and a.name != head]
    if not pairs:
        raise ConfigError(f"{opened.trained.source}: no layer but the classifier has parameters")
    if not any(row.kind == "BatchNorm" for row in rows):
        return tuple(after.name if after.kind == "Neuron" else row.name for row, after in pairs)
    pairs = [pair for pair in pairs if pair[0].window is not None]
    pairs = [pair for pair in pairs if pair[0].window == 3] or pairs
    normed = [
        after.name
        for before, after in pairs
        if after.kind == "BatchNorm"
        and after.name.rpartition("/")[0] == before.name.rpartition("/")[0]
    ]
    return tuple(normed if len(normed) == len(pairs) else [before.name for before, _ in pairs])


def deviations(opened: Opened, layers: tuple[str, ...], limit: int, seed: int) -> np.ndarray:
    """Standard deviation of each layer's responses over images, positions and maps.

    Args:
      opened: the network.
      layers: their names.
      limit: number of images.
      seed: of the images' random order.

    Returns:
      float64 [layers].
    """
    run = opened.recorder(layers)
    count = np.zeros(len(layers))
    total, squares = np.zeros(len(layers)), np.zeros(len(layers))
    for batch in opened.images(limit, seed=seed):
        _, found = run(opened.inputs(batch["image"]))
        for number, name in enumerate(layers):
            values = np.asarray(found[name], np.float64)
            count[number] += values.size
            total[number] += values.sum()
            squares[number] += (values**2).sum()
    return np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0))


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes responses.png and prints the deviations."""
    figure = pictures.figure(6, 5)
    above, below = figure.subplots(2, 1)
    others = (
        Opened(Trained.open(path), arguments, path if is_directory(path) else None)
        for path in map(Path, arguments.beside)
    )
    for one in (opened, *others):
        layers = responding(one)
        found = deviations(one, layers, arguments.limit, arguments.seed)
        name = Path(one.trained.source).name
        for layer, value in zip(layers, found, strict=True):
            print(f"{name} {layer} {value:.4g}")
        label = f"{name} ({one.trained.name})"
        above.plot(np.arange(1, len(found) + 1), found, marker=".", label=label)
        below.plot(np.arange(1, len(found) + 1), np.sort(found)[::-1], marker=".", label=label)
    above.set_xlabel("layer")
    below.set_xlabel("layer, by size of its deviation")
    for axes in (above, below):
        axes.set_ylabel("standard deviation")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(pictures.whole_numbers())
    above.legend(frameon=False, fontsize=8)
    yield pictures.save_figure(figure, opened.out("responses.png"))


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw)
