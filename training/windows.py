"""A regressor of boxes and a classifier that slide over the images of a split."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import vision_models
from devices import mesh as meshes
from devices.mesh import gather_rows, local_rows
from evaluation import EvaluationError, Protocol
from evaluation.localization import windows
from evaluation.localization.merging import Windows
from evaluation.preprocessing import Preprocessing
from training.errors import RunError, TrainingError
from training.evaluating import Split, check_trained, normalization_of
from training.initial import put_complete
from training.task import Task, make_task
from training.trained import Trained


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """The network that says which classes' boxes are guessed.

    Attributes:
      trained: a whole network.
      task: it on a mesh.
    """

    trained: Trained
    task: Task


def open_classifier(source: str, class_names: Sequence[str], like: Task) -> Classifier:
    """Opens the classifier of `evaluation.classifier`.

    Args:
      source: a run, a file of weights or the name of a trained network.
      class_names: the dataset's.
      like: the regressor, whose devices and type of computation are used.

    Raises:
      TrainingError: it cannot be opened, regresses boxes itself, or knows other classes.
    """
    try:
        trained = Trained.open(source)
    except TrainingError as error:
        raise TrainingError(f"evaluation.classifier: {error}") from error
    if trained.boxes != "none":
        raise TrainingError(
            f"evaluation.classifier={source}: it regresses boxes (loss.boxes={trained.boxes}) and "
            "knows no classes"
        )
    if trained.num_classes != len(class_names):
        raise TrainingError(
            f"evaluation.classifier={source}: {trained.num_classes} classes, and the dataset has "
            f"{len(class_names)}"
        )
    check_trained(trained, class_names)
    if trained.normalization is None:
        raise TrainingError(
            f"evaluation.classifier={source} does not say the normalization of its images; name a "
            "run, or a file that --mode=export wrote"
        )
    options = {**trained.options, "num_classes": trained.num_classes}
    size = _image_size(trained)
    task = make_task(
        trained.name, options, trained.preprocessing or Preprocessing(size, size),
        data=like.mesh.shape["data"], dtype=like.dtype,
    )  # fmt: skip
    if meshes.process_share(task.mesh) != meshes.process_share(like.mesh):
        raise TrainingError(
            f"evaluation.classifier={source}: its towers are on other processes than the "
            "regressor's; choose another mesh (mesh.tower=1)"
        )
    return Classifier(trained, task)


def _image_size(trained: Trained) -> int:
    defaults = vision_models.default_options(trained.name)
    return int({**defaults, **trained.options}["image_size"])


def windows_of(
    trained: Trained,
    task: Task,
    protocol: Protocol,
    split: Split,
    classifier: Classifier | None,
    classes: int,
) -> list[Windows]:
    """The boxes of all windows of a split's images, and their classes' scores, at each scale.

    Args:
      trained, task: the regressor.
      protocol: one that merges boxes.
      split: what is read.
      classifier: gives the classes; with a protocol of the true class, only the scores of windows.
      classes: number of classes whose boxes are taken.

    Raises:
      EvaluationError: a network cannot slide, or a classifier is missing.
      RunError: outputs are not finite, or no image can be read.
    """
    if classifier is None and protocol.by_class:
        raise EvaluationError(
            f"evaluation.protocol={protocol.name} guesses the classes of a classifier: name a run, "
            "a file or a trained network with --config.evaluation.classifier, or choose "
            "dense_boxes_true_class"
        )
    views = windows.views_of(protocol)
    crop = task.preprocessing.crop
    windows.check_windows(protocol.name, "the regressor", task.network, views.offsets)
    boxes = windows.box_step(
        task.network, task.mesh, task.param_specs,
        crop=crop, offsets=views.offsets, dtype=task.dtype,
    )  # fmt: skip
    of_boxes = (put_complete(trained, task), meshes.batch_placer(task.mesh))
    scores, of_scores, other = None, None, crop
    if classifier is not None:
        own = classifier.task
        other = _image_size(classifier.trained)
        windows.check_windows(protocol.name, "the classifier", own.network, views.offsets)
        scores = windows.class_step(
            own.network, own.mesh, own.param_specs,
            views=views, size=other, dtype=own.dtype,
            classes=min(classes, classifier.trained.num_classes) if protocol.by_class else 1,
        )  # fmt: skip
        of_scores = (put_complete(classifier.trained, own), meshes.batch_placer(own.mesh))
    found = []
    for look in protocol.looks:
        if look.images.side < other:
            raise EvaluationError(
                f"evaluation.scales: {look.images.side} is below the {other} pixels of a window of "
                f"evaluation.classifier={classifier.trained.source if classifier else ''}"
            )
        normalization = _placed(normalization_of(trained, split, look.images), task)
        expected = None
        if classifier is not None:
            expected = _placed(
                normalization_of(classifier.trained, split, look.images), classifier.task
            )
        parts: list[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        for batch in split.batches(look.images, 0):
            pixels = {name: batch[name] for name in ("image", "valid")}
            labels = batch["label"][:, None].astype(np.int32)
            said = None
            if scores is not None and of_scores is not None:
                model, place = of_scores
                asked = np.full_like(labels, -1) if protocol.by_class else labels
                placed = place(pixels | {"labels": asked}).values()
                result = scores(model["params"], model["statistics"], expected, *placed)
                said = {name: local_rows(value) for name, value in result.items()}
                labels = said["labels"]
            model, place = of_boxes
            placed = place(pixels | {"labels": labels}).values()
            result = boxes(model["params"], model["statistics"], normalization, *placed)
            regressed = {name: local_rows(value) for name, value in result.items()}
            for row in np.flatnonzero(batch["mask"] > 0).tolist():
                if batch["label"][row] < 0 and not protocol.by_class:
                    raise EvaluationError(
                        f"{split.example_name(int(batch['index'][row]))} has no label, and "
                        f"evaluation.protocol={protocol.name} needs the true class"
                    )
                of_windows, confidences = windows.of_image(regressed, row, crop, said, other)
                if not np.isfinite(of_windows).all():
                    raise RunError(
                        f"{trained.source}: boxes on {split.name} are no numbers, so that nothing "
                        "was evaluated; look at the weights, the preprocessing and compute_dtype"
                    )
                size = np.tile(batch["valid"][row][::-1], 2)
                whole = np.ones(1, np.float32) if said is None else said["scores"][row]
                shares = (of_windows / size).astype(np.float32)
                parts.append((int(batch["index"][row]), labels[row], whole, shares, confidences))
        if not parts and jax.process_count() == 1:
            raise RunError(f"not one example of {split.name} could be read")
        found.append(windows.joined(parts))
    if jax.process_count() > 1:
        found = [windows.gathered(look, gather_rows) for look in found]
    return found


def _placed(normalization: dict[str, np.ndarray], task: Task) -> dict[str, Any]:
    return {name: meshes.replicate(task.mesh, value) for name, value in normalization.items()}
