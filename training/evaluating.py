"""Evaluation of a trained network, and the files with its results."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import files
from devices import mesh as meshes
from evaluation import Images, Protocol, Scores, evaluate, make_steps
from training.classes import check_classes, imagenet_classes
from training.errors import RunError, TrainingError
from training.facts import array_digest
from training.initial import normalization_for, put_complete
from training.scoring import (
    Batches,
    join_parts,
    look_path,
    over_looks,
    scores_digest,
    scores_in_parts,
)
from training.task import Task
from training.trained import Trained
from training.writers import append_line, to_json

# More of a report, and what writes the files that it names.
Besides = tuple[dict[str, Any], Callable[[], object]]


def _nothing() -> None:
    """Writes no files."""


@dataclasses.dataclass(frozen=True)
class Split:
    """What an evaluation reads.

    Attributes:
      name: of the split.
      batches: which images, number of the first batch -> the split from there.
      normalization: images -> their normalization; None where the network has its own.
      class_names: name of each label.
      example_name: index of an example -> its name.
      pixels: images -> digest of the decoded images; see `Data.pixels_digest`.
      batch_size: images -> examples in a batch over all processes.
    """

    name: str
    batches: Callable[[Images, int], Batches]
    normalization: Callable[[Images], dict[str, np.ndarray]] | None
    class_names: Sequence[str]
    example_name: Callable[[int], str]
    pixels: Callable[[Images], str]
    batch_size: Callable[[Images], int]


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
    split: Split,
    workdir: Path,
    *,
    keep: bool = False,
    besides: Callable[[Scores], Besides] = lambda scores: ({}, _nothing),
) -> dict[str, Any]:
    """Evaluates a network and writes evaluation.json and a line of evaluations.jsonl.

    Args:
      trained: a whole network, with its normalization.
      task: network and mesh.
      protocol: how the network is evaluated.
      split: what is read.
      workdir: made if it does not exist.
      keep: whether to write the scores to a file, in parts as they come.
      besides: gives more of the report from the scores, and a function that writes the files that
        it names; every process calls the first, and one of them the second.

    Returns:
      `protocol` (with its scales, where some were asked for), `split`, `checkpoint` (the step,
      or where the weights are from), `examples` and the metrics (errors are fractions of 1; None
      where examples have no labels).

    Raises:
      TrainingError: the weights leave some layers without values.
      RunError: logits are not finite, no example could be read, or the result cannot be written.
    """
    looks = [look.images for look in protocol.looks]
    normalizations = [normalization_of(trained, split, images) for images in looks]
    steps = make_steps(
        protocol, task.network, task.mesh, task.param_specs, task.preprocessing, task.dtype
    )
    model = put_complete(trained, task)
    place = meshes.batch_placer(task.mesh)
    checkpoint = trained.source if trained.step is None else trained.step
    path = workdir / "scores" / f"{split.name}-{protocol.label}.npz"
    digest = _digest(trained, task, protocol, split, normalizations) if keep else ""
    per_look: list[Scores] = []
    for number, (look, step) in enumerate(zip(protocol.looks, steps, strict=True)):
        normalization = {
            k: meshes.replicate(task.mesh, v) for k, v in normalizations[number].items()
        }

        def scores_of(some: Batches, step: Any = step, expected: Any = normalization) -> Scores:
            scores = evaluate(
                step, model["params"], model["statistics"], expected, some, place,
                rows=task.objective.rows,
            )  # fmt: skip
            assert scores is not None, "it is never stopped"
            return scores

        batches = functools.partial(split.batches, look.images)
        if keep:
            at, cost = look_path(path, protocol, number), look.cost(task.preprocessing.crop)
            rows = split.batch_size(look.images)
            per_look.append(scores_in_parts(scores_of, batches, rows, at, digest, cost))
        else:
            per_look.append(scores_of(batches(0)))
    scores = over_looks(protocol, per_look)
    result = task.objective.means(scores)
    if not result["examples"]:
        raise RunError(f"not one example of {split.name} could be read; nothing was evaluated")
    if not result.get("localized_examples", 1):
        raise RunError(f"not one example of {split.name} that counts has a box of its class")
    labelled = bool((scores.label >= 0).any())
    if not (math.isfinite(result["loss"]) if labelled else np.isfinite(scores.scores).all()):
        said = f" (the loss is {result['loss']})" * labelled
        raise RunError(
            f"{checkpoint}: logits on {split.name} are no numbers{said}, so that nothing was "
            "evaluated; look at the weights, the preprocessing and compute_dtype"
        )
    more, write_files = besides(scores)
    result |= more
    measured = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in result.items()
    }
    report = {"protocol": protocol.label, "split": split.name, "checkpoint": checkpoint, **measured}
    if keep:
        join_parts(
            path, protocol, digest, int(result["examples"]), checkpoint, split.example_name,
            split=split.name, class_names=split.class_names,
        )  # fmt: skip
    if jax.process_index() == 0:
        write_report(report, workdir, write_files)
    return report


def normalization_of(trained: Trained, split: Split, images: Images) -> dict[str, np.ndarray]:
    """What the images of a look are normalised with."""
    own = normalization_for(trained, None if images.whole else images.square)
    if own is not None:
        return own
    assert split.normalization is not None, "what is not known comes from the config"
    return split.normalization(images)


def _digest(
    trained: Trained,
    task: Task,
    protocol: Protocol,
    split: Split,
    normalizations: list[dict[str, np.ndarray]],
) -> str:
    """Of everything that the scores depend on."""
    settings = {
        "protocol": [protocol.name, protocol.average],
        "looks": [repr(look) for look in protocol.looks],
        "normalization": [array_digest(*n.values()) for n in normalizations],
        "preprocessing": dataclasses.asdict(task.preprocessing),
        "split": split.name,
        "pixels": [split.pixels(look.images) for look in protocol.looks],
        "network": [task.name, task.options],
        "dtype": task.dtype,
        "batch_size": [split.batch_size(look.images) for look in protocol.looks],
    }
    if protocol.masks.count:
        settings["masks"] = dataclasses.asdict(protocol.masks)
    return scores_digest(trained, settings)


def write_report(
    report: dict[str, Any], workdir: Path, write_files: Callable[[], object] = _nothing
) -> None:
    """Writes evaluation.json and a line of evaluations.jsonl.

    Args:
      report: the result.
      workdir: made if it does not exist.
      write_files: called first; it writes the files that the report names.

    Raises:
      RunError: something cannot be written; the message has the result.
    """
    try:
        write_files()
        workdir.mkdir(parents=True, exist_ok=True)
        with files.replacing(workdir / "evaluation.json") as temporary:
            temporary.write_text(to_json(report) + "\n")
        append_line(workdir / "evaluations.jsonl", to_json(report))
    except OSError as error:
        raise RunError(
            f"--workdir={workdir}: cannot be written ({error.strerror}); the result is "
            f"{to_json(report)}"
        ) from error
