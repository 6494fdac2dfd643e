"""What training and evaluation share: the network of a config on the mesh of this machine."""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

import vision_models
from devices import mesh as meshes
from evaluation import Evaluator, evaluate, views
from training.checkpoints import Checkpoints
from training.classes import check_classes, imagenet_classes
from training.errors import RunError, TrainingError
from training.initial import Initial
from training.network import wrong_options
from training.writers import append_line, to_json
from vision_models.analysis import multiply_adds
from vision_models.functional import PureNetwork, functional


@dataclasses.dataclass(frozen=True)
class Task:
    """A network, a mesh, and how parameters lie on it.

    Attributes:
      network: without its variables.
      mesh: with axes `data` and `tower`.
      param_specs: a tree like the parameters.
      name: of the network.
      options: with which it is made, `num_classes` among them.
    """

    network: PureNetwork
    mesh: Mesh
    param_specs: Any
    name: str
    options: dict[str, Any]

    def padded_batch_size(self, batch_size: int) -> int:
        """The next size that every device along `data` gets an equal part of."""
        data = self.mesh.shape["data"]
        return -(-batch_size // data) * data


def prepare(config: Any, num_classes: int) -> Task:
    """Builds network and mesh; allocates nothing.

    Args:
      config: `model`, `mesh`, `seed`, `compute_dtype` and `evaluation` are read.
      num_classes: of the dataset.

    Raises:
      TrainingError: options that the network does not take, or devices that the mesh
        does not fit.
    """
    name, options = model_options(config.model)
    chosen = options["num_classes"]
    if chosen is not None and chosen < num_classes:
        raise TrainingError(
            f"model.num_classes={chosen}, but the dataset has {num_classes} classes"
        )
    options["num_classes"] = chosen or num_classes
    try:
        network = functional(lambda rngs: vision_models.create(name, rngs=rngs, **options))
    except ValueError as error:
        raise wrong_options(error) from error
    mesh = meshes.make_mesh(network.towers, data=config.mesh.data, tower=config.mesh.tower)
    return Task(network, mesh, meshes.param_specs(network.per_tower, mesh), name, options)


def training_flops(task: Task) -> float:
    """FLOP of training on one image: two a multiply-add, forward and twice that backward."""
    model = nnx.eval_shape(
        lambda: vision_models.create(task.name, rngs=nnx.Rngs(0), **task.options)
    )
    return 6.0 * multiply_adds(model)


def model_options(model: Any) -> tuple[str, dict[str, Any]]:
    """Name and options of the network of a config's fields `model`."""
    options = {name: _plain(model[name]) for name in model}
    return options.pop("name"), options


def _plain(value: Any) -> Any:
    return {k: value[k] for k in value} if hasattr(value, "keys") else value


def evaluator(config: Any, task: Task, protocol: str) -> Evaluator:
    """The evaluator of a config's fields `data` and `compute_dtype`."""
    return Evaluator(
        apply=task.network.apply,
        mesh=task.mesh,
        param_specs=task.param_specs,
        views=views(protocol, config.data.resize + 2 * config.data.pad, config.data.crop),
        crop=config.data.crop,
        aligned=config.data.mean == "image",
        dtype=config.compute_dtype,
    )


def evaluate_network(
    config: Any,
    task: Task,
    batches: Iterator[dict[str, np.ndarray]],
    split: str,
    workdir: Path,
    class_names: Sequence[str],
    initial: Initial | None,
    normalization: dict[str, np.ndarray] | None,
) -> dict[str, Any]:
    """Evaluates a network and writes evaluation.json and a line of evaluations.jsonl.

    Args:
      config: `evaluation` says the protocol and the checkpoint.
      task: network and mesh.
      batches: the split, from `input_pipeline.evaluation_batches`.
      split: its name.
      workdir: has a directory checkpoints/ unless `initial` is given.
      class_names: of the dataset, which must be those that the network was trained on.
      initial: weights from elsewhere; None evaluates a checkpoint of the workdir.
      normalization: of images, with `initial`; a checkpoint has its own.

    Returns:
      `protocol`, `split`, `checkpoint` (the step, or where the weights are from),
      `examples`, `top1_error`, `top5_error` (fractions of 1), `loss`.

    Raises:
      TrainingError: no such checkpoint, another network or other classes.
      RunError: logits that are no numbers, or not one example that could be read.
    """
    step_function = evaluator(config, task, config.evaluation.protocol).make_step()
    checkpoint: int | str
    if initial is not None:
        assert normalization is not None
        checkpoint = initial.source
        if initial.class_names is not None:
            check_classes(initial.class_names, class_names, initial.source)
        differing = imagenet_classes(class_names) if initial.imagenet else None
        if differing is not None and differing.certain:
            raise TrainingError(
                f"{initial.source}: {differing.text}. Evaluate on ImageNet's own order "
                "(--config.data.name=imagenet2012), or train a classifier for these classes "
                "(--config.init_head=new)"
            )
        model = put_complete(initial, task)
        on_mesh = {k: meshes.replicate(task.mesh, v) for k, v in normalization.items()}
    else:
        checkpoints = Checkpoints(workdir / "checkpoints")
        checkpoint = checkpoints.choose(config.evaluation.checkpoint)
        _, dataset = checkpoints.restore_json(checkpoint)
        check_classes(dataset["class_names"], class_names, str(workdir))
        model = checkpoints.restore_model(checkpoint, abstract_model(task))
        on_mesh = checkpoints.restore_normalization(checkpoint, meshes.replicated(task.mesh))
        checkpoints.close()
    result = evaluate(
        step_function,
        model["params"],
        model["statistics"],
        on_mesh,
        batches,
        meshes.batch_placer(task.mesh),
    )
    assert result is not None
    if not result["examples"]:
        raise RunError(f"not one example of {split} could be read; nothing was evaluated")
    if not math.isfinite(result["loss"]):
        raise RunError(
            f"{checkpoint}: logits on {split} are no numbers (the loss is {result['loss']}), so "
            "that nothing was evaluated; look at the weights, the preprocessing and compute_dtype"
        )
    report = {
        "protocol": config.evaluation.protocol,
        "split": split,
        "checkpoint": checkpoint,
        **{name: result[name] for name in ("examples", "top1_error", "top5_error", "loss")},
    }
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            temporary = workdir / "evaluation.json.tmp"
            temporary.write_text(to_json(report) + "\n")
            os.replace(temporary, workdir / "evaluation.json")
            append_line(workdir / "evaluations.jsonl", to_json(report))
        except OSError as error:
            raise RunError(
                f"--workdir={workdir}: cannot be written ({error.strerror}); the result is "
                f"{to_json(report)}"
            ) from error
    return report


def abstract_model(task: Task) -> dict[str, Any]:
    """Shapes, dtypes and shardings of `params` and `statistics`."""
    params, statistics = jax.eval_shape(task.network.init, jax.random.key(0))
    everywhere = jax.tree.map(lambda _: meshes.replicated(task.mesh), statistics)
    where = meshes.shardings(task.mesh, task.param_specs)
    return {
        "params": meshes.abstract_arrays(params, where),
        "statistics": meshes.abstract_arrays(statistics, everywhere),
    }


def put_complete(initial: Initial, task: Task) -> dict[str, Any]:
    """Weights from elsewhere on the mesh, to be used as they are.

    Raises:
      TrainingError: they leave something to be drawn and trained.
    """
    if initial.fresh:
        raise TrainingError(
            f"{initial.source}: {', '.join(initial.fresh)} would start from random numbers; train "
            "first (--mode=train)"
        )
    whole = abstract_model(task)
    return {
        name: jax.tree.map(
            lambda like, value: meshes.put(value, like.sharding), whole[name], weights
        )
        for name, weights in (("params", initial.params), ("statistics", initial.statistics))
    }
