"""A trained network with everything that its use needs: the only way to open a run or a file."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import vision_models
from devices import mesh as meshes
from evaluation.localization import regression
from evaluation.preprocessing import Preprocessing
from training.checkpoints import Checkpoints
from training.errors import TrainingError
from training.workdir import has_checkpoint, is_directory, located, saved_config
from vision_models import weights
from vision_models.weights import Weights, WeightsError

# Smaller images are not photographs, and are taken as they are.
_SMALLEST_PHOTOGRAPH = 96
# The shorter side of a photograph over the side of the central crop that a network sees
# (Krizhevsky et al. 2012, section 2, and most since).
_SIDE_OF_A_CROP = 256 / 224


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, in host memory.

    Attributes:
      name, options: of the network, as for `vision_models.create`.
      params, statistics: nested dicts of NumPy arrays, without those of `fresh` layers.
      normalization: `mean` [3] or [square, square, 3] and `deviation` [3] of the expected
        images; None if not known.
      preprocessing: of the images; None if not known.
      class_names: name of each logit's class; None if not known.
      source: path of the file or the run.
      step: the checkpoint's; None for a file.
      fresh: layers without weights in the source, such as a new head.
      imagenet: see `weights.Weights`.
      notes: sentences on the weights that were used and left out.
      protocol: name of the evaluation protocol of its error; None if not known.
      dataset: name of the dataset that it was trained on, as in `data.name`; None if not known.
      validation_examples: `data.validation_examples` of its training; None for the dataset's
        default, or if not known.
      boxes: what it regresses, `scr` or `pcr` (`loss.boxes` of a config); `none` for a classifier.
    """

    name: str
    options: dict[str, Any]
    params: dict[str, Any]
    statistics: dict[str, Any]
    normalization: dict[str, np.ndarray] | None
    source: str
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] | None = None
    step: int | None = None
    fresh: tuple[str, ...] = ()
    imagenet: bool = False
    notes: tuple[str, ...] = ()
    protocol: str | None = None
    dataset: str | None = None
    boxes: str = "none"
    validation_examples: int | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        name: str | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        checkpoint: str = "latest",
        new_head: bool = False,
        learns: str | None = None,
    ) -> "Trained":
        """Opens a run's directory, a weights file or a trained network; needs no training data.

        Args:
          path: the run's or the file's, or the name of one of the project's trained networks.
          name, options: of the network that the weights are for; None for the network that
            they were trained as, which a run and our own files say. A run's own name without
            options means the run's options, any other name its defaults.
          checkpoint: of a run: `latest`, `best` or a step; `latest` of a file.
          new_head: whether the classifiers are left out.
          learns: what the last layer has to give, as `Trained.boxes`; None for anything.

        Raises:
          TrainingError: the path cannot be read, or the weights do not fit; the message says
            what to do.
        """
        if name is not None and name not in vision_models.list_models():
            near = difflib.get_close_matches(name, vision_models.list_models(), n=3)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise TrainingError(
                f"--network={name}: no such network; {hint}"
                f"There are {', '.join(vision_models.list_models())}"
            )
        path = located(Path(path))
        try:
            if not is_directory(path):
                if checkpoint != "latest" and path.exists():
                    raise TrainingError(
                        f"evaluation.checkpoint={checkpoint}: {path} is a file; leave it out"
                    )
                _check_last_layer("none", None if new_head else learns, path)
                return _from_file(path, name, options, new_head)
            trained = _from_run(path, checkpoint, name, options or {})
            _check_last_layer(trained.boxes, None if new_head else learns, path)
            if name is None:
                return trained
            if options is None and name == trained.name:
                options = trained.options
            options = dict(options or {})
            options["num_classes"] = options.get("num_classes") or trained.num_classes
            fitting = weights.fit(
                Weights(
                    trained.name,
                    trained.options,
                    trained.params,
                    trained.statistics,
                    trained.normalization,
                    trained.source,
                    class_names=trained.class_names,
                ),
                name,
                options,
                new_head=new_head,
            )
        except WeightsError as error:
            raise TrainingError(str(error)) from error
        return dataclasses.replace(
            _of_weights(fitting, trained.preprocessing),
            step=trained.step,
            protocol=trained.protocol,
            dataset=trained.dataset,
            boxes=trained.boxes,
            validation_examples=trained.validation_examples,
        )

    @property
    def num_classes(self) -> int:
        """The number of logits."""
        known = self.options.get("num_classes") or len(self.class_names or ())
        return known or vision_models.default_options(self.name)["num_classes"]


def check_classifier(trained: Trained) -> None:
    """Checks that a network's outputs are classes.

    Raises:
      TrainingError: they are boxes.
    """
    if trained.boxes != "none":
        raise TrainingError(
            f"{trained.source} regresses boxes (loss.boxes={trained.boxes}) and knows no classes; "
            "name a classifier"
        )


def _check_last_layer(gives: str, wanted: str | None, path: Path) -> None:
    """Raises TrainingError unless the last layer gives what is wanted: its sizes may fit by chance.

    Args:
      gives: as `Trained.boxes`.
      wanted: the same; None for anything.
      path: of the weights.
    """
    if wanted is not None and gives != wanted:
        said = {"none": "classes"}
        raise TrainingError(
            f"{path}: its last layer gives {said.get(gives, f'boxes (loss.boxes={gives})')}, and "
            f"this config learns {said.get(wanted, f'boxes (loss.boxes={wanted})')}; "
            "--config.init_head=new draws a new one to train"
        )


def _of_weights(loaded: Weights, preprocessing: Preprocessing | None) -> Trained:
    return Trained(
        loaded.name,
        loaded.options,
        loaded.params,
        loaded.statistics,
        loaded.normalization,
        loaded.source,
        preprocessing,
        loaded.class_names,
        fresh=loaded.fresh,
        imagenet=loaded.imagenet,
        notes=loaded.notes,
        protocol=loaded.protocol,
        dataset=loaded.dataset,
        validation_examples=loaded.validation_examples,
    )


def _from_file(
    path: Path, name: str | None, options: Mapping[str, Any] | None, new_head: bool
) -> Trained:
    if name is None:
        named = weights.named_network(path)
        if named is None:
            raise TrainingError(
                f"{path} does not say which network it is of; name that with --network=NAME (such "
                "as resnet50; a wrong name lists all), or a config with --config"
            )
        name, options = named
    loaded = weights.load(path, name, options, new_head=new_head)
    return _of_weights(loaded, _preprocessing_in(loaded) or usual_preprocessing(loaded))


def _preprocessing_in(loaded: Weights) -> Preprocessing | None:
    """The preprocessing that one of our own files says; None for other files."""
    try:
        return Preprocessing(**(loaded.images or {}))
    except TypeError:  # nothing, or of another version
        return None


def usual_preprocessing(loaded: Weights) -> Preprocessing:
    """The usual preprocessing for a network's image size, for weights that do not say theirs."""
    options = {**vision_models.default_options(loaded.name), **loaded.options}
    crop, mean = options["image_size"], (loaded.normalization or {}).get("mean")
    if mean is not None and mean.ndim == 3:
        return Preprocessing(len(mean), crop, aligned_mean=True)
    side = crop if crop < _SMALLEST_PHOTOGRAPH else math.ceil(crop * _SIDE_OF_A_CROP)
    return Preprocessing(side, crop)


def _from_run(
    workdir: Path, checkpoint: str, name: str | None, options: Mapping[str, Any]
) -> Trained:
    """A checkpoint of a run; `name` and `options` replace a missing config.json."""
    try:
        inside = sorted(p.name for p in workdir.iterdir() if p.suffix in weights.SUFFIXES)
        begun = has_checkpoint(workdir)
    except OSError as error:
        raise TrainingError(f"{workdir}: cannot be read ({error.strerror})") from error
    if not begun:
        hint = f"name a file in it, such as {inside[0]}" if inside else "train one there first"
        raise TrainingError(
            f"{workdir}: a directory that is no weights file, and no run with a checkpoint; {hint}"
        )
    config = _config_of(workdir, name, options)
    sharding = meshes.replicated(meshes.make_mesh(1))
    checkpoints = Checkpoints(workdir / "checkpoints")
    step = checkpoints.choose(checkpoint)
    model = jax.device_get(checkpoints.restore_model_as_saved(step, sharding))
    normalization = jax.device_get(checkpoints.restore_normalization(step, sharding))
    _, dataset = checkpoints.restore_json(step)
    checkpoints.close()
    options = dict(config["model"])
    class_names = tuple(dataset["class_names"])
    options["num_classes"] = options.get("num_classes") or len(class_names)
    boxes = config.get("loss", {}).get("boxes", "none")
    if boxes != "none":
        options["num_classes"] = regression.outputs(boxes, options["num_classes"])
    return Trained(
        options.pop("name"),
        options,
        model["params"],
        model.get("statistics", {}),
        normalization,
        str(workdir),
        _preprocessing_of(config),
        class_names,
        step,
        protocol=config.get("evaluation", {}).get("protocol"),
        dataset=config.get("data", {}).get("name"),
        boxes=boxes,
        validation_examples=config.get("data", {}).get("validation_examples"),
    )


def _config_of(workdir: Path, name: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The saved config of a run, which names its network."""
    try:
        config = saved_config(workdir)["config"]
        if not isinstance(config["model"]["name"], str):
            raise TypeError
        return config
    except FileNotFoundError as error:
        if name is not None:
            return {"model": {"name": name, **options}}
        reason = "it names no network"
        cause: Exception = error
    except (LookupError, ValueError, TypeError) as error:
        reason = str(error) if isinstance(error, TrainingError) else "it names no network"
        cause = error
    raise TrainingError(
        f"{workdir}: its config.json is needed to know the network ({reason})"
    ) from cause


def _preprocessing_of(config: Mapping[str, Any]) -> Preprocessing | None:
    data = config.get("data", {})
    try:
        return Preprocessing(
            data["resize"],
            data["crop"],
            data.get("pad", 0),
            aligned_mean=data["mean"] == "image",
        )
    except LookupError:
        return None
