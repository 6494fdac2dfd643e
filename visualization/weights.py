"""Opens trained networks as modules; a config supplies what a weights file does not say."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import evaluation
import input_pipeline
import training
import vision_models
from evaluation.preprocessing import Preprocessing
from evaluation.protocols import Look
from training import Trained, TrainingError
from vision_models.functional import set_variables
from vision_models.network import Network


def open_trained(
    path: Path, network: str | None, config: Any | None, checkpoint: str = "latest"
) -> Trained:
    """Opens a run or a weights file; a config supplies what it does not say.

    Args:
      path: of the run or the file.
      network: name of the network, for a file that does not say it.
      config: describes the network; None uses what the run, the file or `network` says.
      checkpoint: which checkpoint of a run.

    Raises:
      DataError: the mean that the config asks for cannot be computed.
      TrainingError: there is no run or weights file, or it does not fit the network.
    """
    if config is None:
        return Trained.open(path, network, checkpoint=checkpoint)
    name, options = training.model_options(config.model)
    trained = Trained.open(path, name, options, checkpoint=checkpoint)
    trained = training.with_normalization(trained, config.init_preprocessing)
    preprocessing = training.preprocessing_from_config(config)
    trained = dataclasses.replace(trained, preprocessing=preprocessing)
    if trained.normalization is not None:
        return trained
    cache = input_pipeline.cache_dir_of(config.data)
    data = input_pipeline.open_data(config.data, cache, only="train")
    return dataclasses.replace(
        trained, normalization=data.normalization(central_look(preprocessing).images)
    )


def protocol_of(
    trained: Trained, named: str | None, config: Any | None
) -> tuple[str, tuple[int, ...], str]:
    """The protocol of a command line: its name, scales and `dense_average`.

    Args:
      trained: whose own protocol counts without a config, at the protocol's own scales.
      named: the name that was asked for, if one was.
      config: its `evaluation` counts, if there is one.
    """
    if config is None:
        return named or trained.protocol or "center_crop", (), "scores"
    chosen = config.evaluation
    return named or chosen.protocol, tuple(chosen.scales), chosen.dense_average


def central_look(preprocessing: Preprocessing) -> Look:
    """The central crop as a look: the images that it is taken from, and its place in them."""
    (look,) = evaluation.protocol_called("center_crop", preprocessing).looks
    return look


def network_of(trained: Trained) -> Network:
    """The module of a trained network, with its weights.

    Raises:
      TrainingError: the weights do not cover every parameter of the network, or this version has
        no such network or option.
    """
    if trained.fresh:
        raise TrainingError(
            f"{trained.source}: {', '.join(trained.fresh)} would be random numbers; train first"
        )
    options = {**trained.options, "num_classes": trained.num_classes}
    try:
        model = nnx.eval_shape(
            lambda: vision_models.create(trained.name, rngs=nnx.Rngs(0), **options)
        )
    except ValueError as error:
        raise TrainingError(f"{trained.source}: {error}") from error
    set_variables(model, *jax.tree.map(jnp.asarray, (trained.params, trained.statistics)))
    return model
