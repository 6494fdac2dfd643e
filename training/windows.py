"""A regressor of boxes and a classifier that slide over the images of a split."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

import vision_models
from devices import mesh as meshes
from devices.mesh import gather_rows, local_rows
from evaluation import EvaluationError, Images, Protocol
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
    views, found = windows.views_of(protocol), []
    regressor = _Sliding(
        trained, task, "regressor", protocol, task.preprocessing.crop,
        lambda *network, **options: windows.box_step(
            *network, crop=task.preprocessing.crop, offsets=views.offsets, **options
        ),
    )  # fmt: skip
    says, most = None, 1
    if classifier is not None:
        size = _image_size(classifier.trained)
        if protocol.by_class:
            most = min(classes, classifier.trained.num_classes)
        says = _Sliding(
            classifier.trained, classifier.task, "classifier", protocol, size,
            lambda *network, **options: windows.class_step(
                *network, views=views, size=size, classes=most, **options
            ),
        )  # fmt: skip
    for look in protocol.looks:
        of_look = [network.at(split, look.images) for network in (regressor, says) if network]
        parts: list[windows.Part] = []
        for batch in split.batches(look.images, 0):
            there = np.flatnonzero(batch["mask"] > 0)
            if not protocol.by_class and (batch["label"][there] < 0).any():
                row = there[int((batch["label"][there] < 0).argmax())]
                raise EvaluationError(
                    f"{split.example_name(int(batch['index'][row]))} has no label, and "
                    f"evaluation.protocol={protocol.name} needs the true class"
                )
            labels, said = batch["label"][:, None].astype(np.int32), None
            if says is not None:
                said = of_look[1](batch, np.full_like(labels, -1) if protocol.by_class else labels)
                labels = said["labels"]
            regressed = of_look[0](batch, labels)
            for row in there.tolist():
                boxes, confidences = windows.of_image(
                    regressed, row, regressor.size, said, says.size if says else 0
                )
                if not np.isfinite(boxes).all():
                    raise RunError(
                        f"{trained.source}: boxes on {split.name} are no numbers, so that nothing "
                        "was evaluated; look at the weights, the preprocessing and compute_dtype"
                    )
                whole = np.ones(1, np.float32) if said is None else said["scores"][row]
                shares = boxes / np.tile(batch["valid"][row][::-1], 2)
                parts.append((int(batch["index"][row]), labels[row], whole, shares, confidences))
        of_all = windows.joined(parts, most)
        if jax.process_count() > 1:
            of_all = windows.gathered(of_all, gather_rows)
        if not len(of_all.index):
            raise RunError(f"not one example of {split.name} could be read")
        found.append(of_all)
    return found


class _Sliding:
    """A network that slides over batches of whole images."""

    def __init__(
        self,
        trained: Trained,
        task: Task,
        whose: str,
        protocol: Protocol,
        size: int,
        make_step: Callable[..., windows.Step],
    ):
        """Compiles it, and puts its weights on its mesh.

        Args:
          trained, task: the network.
          whose: regressor or classifier.
          protocol: by which it is evaluated.
          size: side of a window in pixels.
          make_step: network, mesh, specs of parameters, and `dtype` -> the step.

        Raises:
          EvaluationError: it cannot slide.
          TrainingError: some layers have no weights.
        """
        offsets = windows.views_of(protocol).offsets
        windows.check_windows(protocol.name, f"the {whose}", task.network, offsets)
        self.trained, self.task, self.whose, self.size = trained, task, whose, size
        self._step = make_step(task.network, task.mesh, task.param_specs, dtype=task.dtype)
        self._model, self._place = put_complete(trained, task), meshes.batch_placer(task.mesh)

    def at(
        self, split: Split, images: Images
    ) -> Callable[[dict[str, np.ndarray], np.ndarray], windows.Found]:
        """A function of a batch of these images, and labels: the step's results on this host.

        Raises:
          EvaluationError: the images are smaller than a window.
        """
        if images.side < self.size:
            raise EvaluationError(
                f"evaluation.scales: {images.side} is below the {self.size} pixels of a window of "
                f"the {self.whose} ({self.trained.source})"
            )
        expected = {
            name: meshes.replicate(self.task.mesh, value)
            for name, value in normalization_of(self.trained, split, images).items()
        }

        def run(batch: dict[str, np.ndarray], labels: np.ndarray) -> windows.Found:
            placed = self._place(
                {"image": batch["image"], "valid": batch["valid"], "labels": labels}
            )
            model = self._model
            found = self._step(model["params"], model["statistics"], expected, *placed.values())
            return {name: local_rows(value) for name, value in found.items()}

        return run
