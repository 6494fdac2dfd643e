"""Evaluation of a trained network, and the files with its results."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

import files
from devices import mesh as meshes
from evaluation import Protocol, Scores, evaluate, make_step, metrics
from training.classes import check_classes, imagenet_classes
from training.errors import RunError, TrainingError
from training.initial import normalization_for, put_complete
from training.scoring import Batches, join_parts, scores_digest, scores_in_parts
from training.task import Task
from training.trained import Trained
from training.writers import append_line, to_json


@dataclasses.dataclass(frozen=True)
class Keep:
    """What a file of a split's scores needs besides the scores.

    Attributes:
      example_name: index of an example -> its name.
      pixels: digest of the decoded images; see `Data.pixels_digest`.
      batch_size: examples in a batch over all processes.
    """

    example_name: Callable[[int], str]
    pixels: str
    batch_size: int


def check_trained(trained: Trained, class_names: Sequence[str]) -> None:
    """Checks that a network's logits are of a dataset's classes.

    Raises:
      TrainingError: they are of other classes; the message says what to do.
    """
    if trained.class_names is not None:
        check_classes(trained.class_names, class_names, trained.source)
    differing = imagenet_classes(class_names) if trained.imagenet else None
    if differing is not None and differing.certain:
        raise TrainingError(
            f"{trained.source}: {differing.text}. Evaluate on ImageNet's own order "
            "(--config.data.name=imagenet2012), or train a classifier for these classes "
            "(--config.init_head=new)"
        )


def evaluate_trained(
    trained: Trained,
    task: Task,
    protocol: Protocol,
    batches: Callable[[int], Batches],
    split: str,
    workdir: Path,
    keep: Keep | None = None,
) -> dict[str, Any]:
    """Evaluates a network and writes evaluation.json and a line of evaluations.jsonl.

    Args:
      trained: a whole network, with its normalization.
      task: network and mesh.
      protocol: how the network is evaluated.
      batches: number of the first batch -> the split from there, with the protocol's images.
      split: the split's name.
      workdir: made if it does not exist.
      keep: what the file of scores needs; None writes no such file.

    Returns:
      `protocol`, `split`, `checkpoint` (the step, or where the weights are from), `examples`
      and the metrics (errors are fractions of 1).

    Raises:
      TrainingError: the weights leave some layers without values.
      RunError: logits are not finite, or no example could be read.
    """
    step = make_step(
        protocol, task.network.apply, task.mesh, task.param_specs, task.preprocessing, task.dtype
    )
    model = put_complete(trained, task)
    expected = normalization_for(trained, protocol.images.square)
    assert expected is not None, "the config's stands in for an unknown normalization"
    normalization = {k: meshes.replicate(task.mesh, v) for k, v in expected.items()}
    place = meshes.batch_placer(task.mesh)

    def scores_of(batches: Batches) -> Scores:
        found = evaluate(step, model["params"], model["statistics"], normalization, batches, place)
        assert found is not None, "it is never stopped"
        return found

    checkpoint = trained.source if trained.step is None else trained.step
    path, digest = workdir / "scores" / f"{split}-{protocol.name}.npz", ""
    if keep is None:
        scores = scores_of(batches(0))
    else:
        settings = {
            "protocol": protocol.name,
            "views": protocol.views.tolist(),
            "images": dataclasses.asdict(protocol.images),
            "preprocessing": dataclasses.asdict(task.preprocessing),
            "split": split,
            "pixels": keep.pixels,
            "network": [task.name, task.options],
            "dtype": task.dtype,
            "batch_size": keep.batch_size,
        }
        digest = scores_digest(trained, settings)
        scores = scores_in_parts(scores_of, batches, keep.batch_size, path, digest)
    result = metrics.means(scores)
    if not result["examples"]:
        raise RunError(f"not one example of {split} could be read; nothing was evaluated")
    if not math.isfinite(result["loss"]):
        raise RunError(
            f"{checkpoint}: logits on {split} are no numbers (the loss is {result['loss']}), so "
            "that nothing was evaluated; look at the weights, the preprocessing and compute_dtype"
        )
    report = {"protocol": protocol.name, "split": split, "checkpoint": checkpoint, **result}
    if keep is not None:
        join_parts(path, digest, int(result["examples"]), checkpoint, keep.example_name)
    if jax.process_index() == 0:
        _write(report, workdir)
    return report


def _write(report: dict[str, Any], workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with files.replacing(workdir / "evaluation.json") as temporary:
            temporary.write_text(to_json(report) + "\n")
        append_line(workdir / "evaluations.jsonl", to_json(report))
    except OSError as error:
        raise RunError(
            f"--workdir={workdir}: cannot be written ({error.strerror}); the result is "
            f"{to_json(report)}"
        ) from error
