"""A network without data: the table of its layers, and its weights as a file."""

from pathlib import Path
from typing import Any

import jax
from flax import nnx

import vision_models
from devices import mesh as meshes
from training.checkpoints import Checkpoints
from training.errors import TrainingError
from training.initial import initial_weights
from training.network import wrong_options
from training.task import model_options
from training.workdir import has_checkpoint
from vision_models import weights
from vision_models.analysis import format_table
from vision_models.network import Network


def summary(config: Any) -> str:
    """The layers of a config's network as a table; allocates no weights.

    Raises:
      TrainingError: options that the network does not take.
    """
    name, options = model_options(config.model)
    return f"{name}\n{format_table(_abstract(name, options))}"


def export(config: Any, workdir: Path) -> Path:
    """Writes a checkpoint, or the weights of `init_from`, to WORKDIR/weights.safetensors.

    Args:
      config: `evaluation.checkpoint` says which checkpoint.
      workdir: of a run, or where to write.

    Returns:
      The path of the file.

    Raises:
      TrainingError: no such checkpoint, weights that do not fit, or an unwritable place.
    """
    name, options = model_options(config.model)
    path = workdir / "weights.safetensors"
    if has_checkpoint(workdir):
        checkpoints = Checkpoints(workdir / "checkpoints")
        step = checkpoints.choose(config.evaluation.checkpoint)
        everywhere = meshes.replicated(meshes.make_mesh(1))
        model = jax.device_get(checkpoints.restore_model_as_saved(step, everywhere))
        params, statistics = model["params"], model.get("statistics", {})
        normalization = jax.device_get(checkpoints.restore_normalization(step, everywhere))
        _, dataset = checkpoints.restore_json(step)
        checkpoints.close()
        class_names = dataset["class_names"]
        options["num_classes"] = options["num_classes"] or len(class_names)
    else:
        initial = initial_weights(config, name, options)
        assert initial is not None, "main asks for a checkpoint or init_from"
        if initial.fresh:
            raise TrainingError(
                f"{initial.source} does not give {', '.join(initial.fresh)}, so that there is no "
                "whole network to export; train it first"
            )
        params, statistics = initial.params, initial.statistics
        normalization, class_names = initial.normalization, initial.class_names
    if jax.process_index() > 0:
        return path
    try:
        weights.save(path, name, options, params, statistics, normalization, class_names)
    except weights.WeightsError as error:
        raise TrainingError(str(error)) from error
    return path


def _abstract(name: str, options: dict[str, Any]) -> Network:
    try:
        return nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0), **options))
    except ValueError as error:
        raise wrong_options(error) from error
