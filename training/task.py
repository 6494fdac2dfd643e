"""What training and evaluation share: the network of a config on the mesh of this machine."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import vision_models
from evaluation import PROTOCOLS, Evaluator, evaluate, views
from training import mesh as meshes
from training.checkpoints import Checkpoints
from training.errors import TrainingError
from training.writers import to_json
from vision_models.functional import Network, functional

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Task:
    """A network, a mesh, and how parameters lie on it.

    Attributes:
      network: without its parameters.
      mesh: with axes `data` and `tower`.
      param_specs: a tree like the parameters.
    """

    network: Network
    mesh: Mesh
    param_specs: Any

    def padded_batch_size(self, batch_size: int) -> int:
        """The next size that every device along `data` gets an equal part of."""
        data = self.mesh.shape["data"]
        return -(-batch_size // data) * data


def prepare(config: Any, num_classes: int) -> Task:
    """Builds network and mesh; allocates nothing.

    Args:
      config: `model`, `mesh` and `batch_size` are read.
      num_classes: of the dataset.

    Raises:
      TrainingError: options that the network does not take, or devices that the mesh
        or the batch size do not fit.
    """
    if config.compute_dtype not in DTYPES:
        raise TrainingError(
            f"compute_dtype={config.compute_dtype}: choose one of {', '.join(DTYPES)}"
        )
    if not 0 <= config.seed < 2**32:
        raise TrainingError(f"seed={config.seed}: choose one of 0 to {2**32 - 1}")
    options = dict(config.model)
    chosen = options.pop("num_classes")
    if chosen is not None and chosen < num_classes:
        raise TrainingError(
            f"model.num_classes={chosen}, but the dataset has {num_classes} classes"
        )
    name = options.pop("name")
    classes = chosen or num_classes
    try:
        network = functional(
            lambda rngs: vision_models.create(name, num_classes=classes, rngs=rngs, **options)
        )
    except ValueError as error:
        raise TrainingError(f"model: {error}") from error
    mesh = meshes.make_mesh(network.towers, data=config.mesh.data, tower=config.mesh.tower)
    meshes.check_batch_size(config.batch_size, mesh)
    if config.evaluation.batch_size < 1:
        raise TrainingError(
            f"evaluation.batch_size={config.evaluation.batch_size}: choose 1 or more"
        )
    if config.evaluation.protocol not in PROTOCOLS:
        raise TrainingError(
            f"evaluation.protocol={config.evaluation.protocol}: choose one of "
            f"{', '.join(PROTOCOLS)}"
        )
    return Task(network, mesh, meshes.param_specs(network.per_tower, mesh))


def evaluator(config: Any, task: Task, protocol: str) -> Evaluator:
    """The evaluator of a config's fields `data` and `compute_dtype`."""
    return Evaluator(
        apply=task.network.apply,
        mesh=task.mesh,
        param_specs=task.param_specs,
        views=views(protocol, config.data.resize, config.data.crop),
        crop=config.data.crop,
        aligned=config.data.mean == "image",
        dtype=config.compute_dtype,
    )


def evaluate_checkpoint(
    config: Any,
    task: Task,
    batches: Iterator[dict[str, np.ndarray]],
    split: str,
    workdir: Path,
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Evaluates a checkpoint and writes evaluation.json and a line of evaluations.jsonl.

    Args:
      config: `evaluation` says the protocol and the checkpoint.
      task: network and mesh.
      batches: the split, from `input_pipeline.evaluation_batches`.
      split: its name.
      workdir: has a directory checkpoints/.
      class_names: of the dataset, which must be those that the network was trained on.

    Returns:
      `protocol`, `split`, `checkpoint` (the step), `examples`, `top1_error`,
      `top5_error` (fractions of 1), `loss`.

    Raises:
      TrainingError: no such checkpoint, another network or other classes.
    """
    step_function = evaluator(config, task, config.evaluation.protocol).make_step()
    checkpoints = Checkpoints(workdir / "checkpoints")
    step = checkpoints.choose(config.evaluation.checkpoint)
    _, dataset = checkpoints.restore_json(step)
    if dataset["class_names"] != list(class_names):
        raise TrainingError(
            f"{workdir}: trained on {len(dataset['class_names'])} other classes than the "
            f"{len(class_names)} of this dataset"
        )
    shapes = jax.eval_shape(task.network.init, jax.random.key(0))
    where = meshes.shardings(task.mesh, task.param_specs)
    params = checkpoints.restore_params(step, meshes.abstract_arrays(shapes, where))
    mean = checkpoints.restore_mean(step, NamedSharding(task.mesh, PartitionSpec()))
    checkpoints.close()
    result = evaluate(step_function, params, mean, batches, meshes.batch_placer(task.mesh))
    assert result is not None
    report = {
        "protocol": config.evaluation.protocol,
        "split": split,
        "checkpoint": step,
        **{name: result[name] for name in ("examples", "top1_error", "top5_error", "loss")},
    }
    if jax.process_index() == 0:
        temporary = workdir / "evaluation.json.tmp"
        temporary.write_text(to_json(report) + "\n")
        os.replace(temporary, workdir / "evaluation.json")
        with open(workdir / "evaluations.jsonl", "a") as file:
            file.write(to_json(report) + "\n")
    return report


def initialize_distributed(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins the processes of a launch; before anything else touches a device.

    Args:
      coordinator_address: host:port of process 0; None where the cluster tells.
      num_processes, process_id: likewise.

    Raises:
      TrainingError: not enough is known to join.
    """
    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise TrainingError(
            f"--distributed: {str(error).splitlines()[0]} (give --coordinator_address=host:port, "
            "--num_processes and --process_id where the cluster does not tell)"
        ) from error
