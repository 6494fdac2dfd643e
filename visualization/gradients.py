"""Norms of the loss's gradient, by layer and checkpoint.

The loss is the softmax cross-entropy, averaged over `--limit` images in evaluation mode: central
crops, no dropout, BatchNorm's running statistics. Images without labels are left out. The picture
shows the Euclidean norm over each layer's parameters: how much of the error reaches the first
layers, and how that changes during training.
"""

import argparse
import functools
from collections.abc import Generator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from configs.common import ConfigError
from vision_models.network import Network
from vision_models.trees import keys_of
from visualization import command_line, pictures
from visualization.command_line import positive
from visualization.opening import Opened

SHARED = (*command_line.WEIGHTS, *command_line.DATA)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("--limit", type=positive, default=128, help="Images, drawn at random.")
    command_line.add_seed(parser, "Of the choice.")


@functools.partial(jax.jit, static_argnums=0)  # so that checkpoints share one compilation
def _gradient(
    graph: nnx.GraphDef[Network], params: nnx.State, rest: nnx.State, images: Array, labels: Array
) -> nnx.State:
    """The gradient of the loss, summed over a batch."""

    def loss(params: nnx.State) -> Array:
        logits = nnx.merge(graph, params, rest)(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).sum()

    return jax.grad(loss)(params)


def norms(opened: Opened, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Norm of the gradient over each layer's parameters, by the layer's name, in order.

    Args:
      opened: the network.
      images: uint8 [n, square, square, 3].
      labels: int32 [n], at least 0.
    """
    graph, *states = nnx.split(opened.model, nnx.Param, nnx.BatchStat)
    params, rest = states
    total: nnx.State | None = None
    for begin in range(0, len(images), opened.arguments.batch_size):
        part = slice(begin, begin + opened.arguments.batch_size)
        found = _gradient(
            graph, params, rest, opened.inputs(images[part]), jnp.asarray(labels[part])
        )
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    assert total is not None, "there is an image"
    squares: dict[str, float] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(total)):
        layer = "/".join(keys_of(path)[:-1])
        squares[layer] = squares.get(layer, 0.0) + float((np.asarray(leaf, np.float64) ** 2).sum())
    ordered = [name for name in opened.layers if name in squares]
    ordered += [name for name in squares if name not in ordered and "aux" not in name]
    return {name: squares[name] ** 0.5 / len(images) for name in ordered}


def draw(arguments: argparse.Namespace, opened: Opened) -> Generator[Path, None, None]:
    """Writes gradients.png and prints the norms."""
    opened.named_classes()  # raises where the logits are of other classes, or boxes
    batches = list(opened.images(arguments.limit, seed=arguments.seed))
    images = np.concatenate([batch["image"] for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])
    known = labels >= 0
    if not known.any():
        split = arguments.split or opened.data().evaluation_split
        raise ConfigError(f"the images of {split} have no labels; choose another --split")
    images, labels = images[known], labels[known]
    by_state: dict[str, dict[str, float]] = {}
    for state in opened.states():
        found = by_state[state.when] = norms(state, images, labels)
        for layer, value in found.items():
            print(f"{state.when} {layer} {value:.4g}")
    figure = pictures.figure(7, 3.6)
    axes = figure.subplots()
    colours = pictures.shades(len(by_state))
    for (when, found), colour in zip(by_state.items(), colours, strict=True):
        axes.plot(range(len(found)), list(found.values()), marker=".", color=colour, label=when)
    step = max(len(found) // 24, 1)
    names = [name.replace("residual/", "") for name in found]
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=90, fontsize=7)
    axes.set_yscale("log")
    pictures.label_decades(axes.yaxis)
    axes.set_ylabel("norm of the gradient")
    axes.legend(frameon=False, fontsize=8)
    yield pictures.save_figure(figure, opened.out("gradients.png"))


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw, shared=SHARED)
