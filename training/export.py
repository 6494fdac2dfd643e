"""A network without data: the table of its layers, and its weights as a file."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from flax import nnx

import vision_models
from training.errors import TrainingError
from training.network import wrong_options
from training.trained import Trained
from vision_models import weights
from vision_models.analysis import format_table
from vision_models.network import Network


def summary(name: str, options: dict[str, Any]) -> str:
    """The layers of a network as a table; allocates no weights.

    Raises:
      TrainingError: the network does not take the options.
    """
    return f"{name}\n{format_table(_abstract(name, options))}"


def export(trained: Trained, path: Path) -> Path:
    """Writes a trained network to a `.safetensors` file, on the first process only.

    Returns:
      The path of the file.

    Raises:
      TrainingError: the weights are not of the whole network, or the file cannot be written.
    """
    if trained.boxes != "none":
        raise TrainingError(
            f"{trained.source} regresses boxes (loss.boxes={trained.boxes}), which a weights file "
            "does not say; evaluate the run itself, or name it with --config.init_from"
        )
    if trained.fresh:
        raise TrainingError(
            f"{trained.source} does not give {', '.join(trained.fresh)}, so that there is no "
            "whole network to export; train it first"
        )
    if jax.process_index() > 0:
        return path
    images = None
    if trained.preprocessing is not None:
        images = dataclasses.asdict(trained.preprocessing)
    try:
        weights.save(
            path,
            trained.name,
            trained.options,
            trained.params,
            trained.statistics,
            trained.normalization,
            trained.class_names,
            images,
            trained.dataset,
            trained.protocol,
            trained.validation_examples,
        )
    except weights.WeightsError as error:
        raise TrainingError(str(error)) from error
    return path


def _abstract(name: str, options: dict[str, Any]) -> Network:
    try:
        return nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0), **options))
    except ValueError as error:
        raise wrong_options(error) from error
