"""A drawing of a network, from its layers, as SVG.

    python -m visualization.architecture alexnet

RUN_OR_FILE may also be the name of a network; --config then changes its options. A box is a layer;
activation functions, BatchNorm and dropout are attached to the box before them. An edge shows the
size of the maps where it changes. Towers stand side by side, and edges cross where they exchange
maps (Krizhevsky et al. 2012, Figure 2). Branches end in a bar where they are concatenated, in a
plus where they are added. Auxiliary classifiers, which only training uses, hang on a dashed edge.
Long networks continue in the next column.
"""

import argparse
from collections.abc import Generator
from pathlib import Path

import jax
from flax import nnx

import trained_networks
import training
import vision_models
from configs.common import ConfigError
from training.workdir import is_directory
from vision_models.network import Network
from visualization import command_line
from visualization.drawing import drawing
from visualization.pictures import place_of
from visualization.weights import open_trained

SHARED = command_line.WEIGHTS


def add_flags(parser: argparse.ArgumentParser) -> None:
    """This command has no flags of its own."""


def network(arguments: argparse.Namespace) -> Network:
    """The network of a run, a file or a name, without weights.

    Raises:
      ConfigError: RUN_OR_FILE is none of these, or the network's options are invalid.
      TrainingError: the run or the file cannot be read.
    """
    name, config = arguments.run, arguments.config
    if Path(name).exists() or name in trained_networks.names():
        trained = open_trained(Path(name), arguments.network, config, arguments.checkpoint)
        name, options = trained.name, {**trained.options, "num_classes": trained.num_classes}
    elif arguments.network:
        raise ConfigError(f"--network={arguments.network}: there is no file {name}; name one alone")
    elif config is not None:
        name, options = training.model_options(config.model)
        if name != arguments.run:
            raise ConfigError(f"{arguments.run}: --config is of {name}; name the same in both")
    else:
        options = {}
    try:
        return nnx.eval_shape(
            lambda: vision_models.create(name, rngs=nnx.Rngs(jax.random.key(0)), **options)
        )
    except ValueError as error:
        where = "" if Path(arguments.run).exists() else "no such file or run, and "
        raise ConfigError(f"{where}{error}") from error


def draw(arguments: argparse.Namespace, made: Network) -> Generator[Path, None, None]:
    """Writes architecture.svg, or architecture_NAME.svg if the network was given by name."""
    run = Path(arguments.run)
    of_name = "" if run.exists() else f"_{arguments.run}"
    path = place_of(arguments.out, run if is_directory(run) else None, f"architecture{of_name}.svg")
    try:
        path.write_text(drawing(made), encoding="utf-8")
    except OSError as error:
        raise training.RunError(f"{path}: cannot be written ({error.strerror})") from error
    yield path


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw, network, shared=SHARED)
