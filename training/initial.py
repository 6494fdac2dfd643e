"""What a network starts from: weights of a file, or of another run."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from devices import mesh as meshes
from training.checkpoints import Checkpoints
from training.classes import imagenet_classes, other_classes
from training.errors import TrainingError
from training.workdir import has_checkpoint, is_directory, saved_config, user_path
from training.writers import say
from vision_models import weights
from vision_models.weights import WeightsError

State = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Initial:
    """Weights from elsewhere, as the network has them.

    Attributes:
      params, statistics: nested dicts of NumPy arrays; without those that start fresh.
      fresh: layers that the source does not give, such as a new head.
      normalization: `mean` [3] or [square, square, 3] and `deviation` [3] of the images
        that the weights expect; None where they are to be the config's own.
      source: file or run, for the log.
      class_names: name of each logit's class; None where that is not known.
      imagenet: see `weights.Weights`.
    """

    params: dict[str, Any]
    statistics: dict[str, Any]
    fresh: tuple[str, ...]
    normalization: dict[str, np.ndarray] | None
    source: str
    class_names: tuple[str, ...] | None = None
    imagenet: bool = False


def initial_weights(
    config: Any, name: str, options: dict[str, Any], class_names: Sequence[str] | None = None
) -> Initial | None:
    """Reads what a config's `init_from` names: a weights file, or the newest checkpoint of a run.

    Args:
      config: `init_from`; `init_preprocessing`, one of `weights.PREPROCESSING`, `config`
        for the config's own, or None for what the source says; `init_head`, `file` or
        `new` to leave the classifiers to be drawn.
      name, options: of the network to be filled.
      class_names: of the dataset; where the weights are for others, that is said.

    Returns:
      None without `init_from`.

    Raises:
      TrainingError: nothing that fits; the message says what to do.
    """
    source, preprocessing = config.init_from, config.init_preprocessing
    new_head = config.init_head == "new"
    if not source:
        return None
    path = user_path(source, "init_from")
    try:
        if is_directory(path):
            loaded = weights.fit(_from_run(path), name, options, new_head=new_head)
        else:
            loaded = weights.load(path, name, options, new_head=new_head)
        normalization = loaded.normalization
        if preprocessing == "config":
            normalization = None
        elif preprocessing is not None:
            normalization = weights.preprocessing(preprocessing)
        elif normalization is None:
            raise WeightsError(
                f"{source} does not say what preprocessing it expects; choose "
                f"--config.init_preprocessing=config or one of {', '.join(weights.PREPROCESSING)}"
            )
    except WeightsError as error:
        raise TrainingError(f"init_from: {printable(str(error))}") from error
    fresh = f"; {', '.join(loaded.fresh)} start fresh" if loaded.fresh else ""
    source = printable(source)
    say(f"weights from {source}{fresh}")
    for note in loaded.notes:
        say(f"weights from {source}: {printable(note)}")
    initial = Initial(
        loaded.params,
        loaded.statistics,
        loaded.fresh,
        normalization,
        source,
        loaded.class_names,
        loaded.imagenet,
    )
    for text in _about_classes(initial, class_names):
        say(f"weights from {source}: {printable(text)}")
    return initial


def _about_classes(initial: Initial, names: Sequence[str] | None) -> list[str]:
    """What is to be said where a dataset may have other classes than the weights."""
    if names is None:
        return []
    if initial.class_names is not None:
        text = other_classes(initial.class_names, names)
        return [] if text is None else [text]
    if initial.imagenet:
        differing = imagenet_classes(names)
        return [] if differing is None else [differing.text]
    as_text = sorted(names)
    if initial.fresh or as_text == list(names) or not all(name.isdigit() for name in names):
        return []
    return [
        f"without names of classes; labels here follow the numbers of the folders, and where "
        f"they follow these as text ({', '.join(as_text[:3])}, ...), as in other programs, "
        "they mean other classes"
    ]


def printable(text: str) -> str:
    r"""Names of files that are not UTF-8 with their bytes as \xff, for any screen and file."""
    return re.sub("[\udc80-\udcff]", lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)


def normalization_for(initial: Initial, square: int) -> dict[str, np.ndarray] | None:
    """The normalisation that weights expect, for images of `square` pixels.

    Raises:
      TrainingError: it has a mean image of another size.
    """
    if initial.normalization is None:
        return None
    mean = initial.normalization["mean"]
    if mean.ndim == 3 and mean.shape[0] != square:
        raise TrainingError(
            f"init_from: {initial.source} has a mean image of {mean.shape[0]} pixels, images here "
            f"have {square}; --config.init_preprocessing=config takes this config's own"
        )
    return {
        "mean": np.broadcast_to(mean, (square, square, 3)).astype(np.float32),
        "deviation": initial.normalization["deviation"].astype(np.float32),
    }


def start_from(state: State, initial: Initial) -> State:
    """A fresh train state with its weights replaced, each in its place on the mesh."""

    def replace(kept: Any, found: Any) -> Any:
        if isinstance(kept, dict):
            return {name: replace(kept[name], found.get(name, {})) for name in kept}
        return kept if isinstance(found, dict) else meshes.put(found, kept.sharding)

    begun = state | {
        "params": replace(state["params"], initial.params),
        "statistics": replace(state["statistics"], initial.statistics),
    }
    if "average" in state:
        # Copies: the training step takes every array of the state over, once.
        begun["average"] = jax.tree.map(jnp.copy, {k: begun[k] for k in state["average"]})
    return begun


def _from_run(workdir: Path) -> weights.Weights:
    """The newest checkpoint of a run, in host memory."""
    try:
        inside = sorted(p.name for p in workdir.iterdir() if p.suffix in weights.SUFFIXES)
        begun = has_checkpoint(workdir)
    except OSError as error:
        raise TrainingError(f"init_from={workdir}: cannot be read ({error.strerror})") from error
    if not begun:
        hint = f"; name a file in it, such as {inside[0]}" if inside else ""
        raise TrainingError(
            f"init_from={workdir}: a directory that is no weights file, and no run with a "
            f"checkpoint{hint}"
        )
    name, options = _model_of(workdir)
    checkpoints = Checkpoints(workdir / "checkpoints")
    step = checkpoints.choose("latest")
    everywhere = meshes.replicated(meshes.make_mesh(1))
    model = jax.device_get(checkpoints.restore_model_as_saved(step, everywhere))
    normalization = jax.device_get(checkpoints.restore_normalization(step, everywhere))
    _, dataset = checkpoints.restore_json(step)
    checkpoints.close()
    return weights.Weights(
        name,
        options,
        model["params"],
        model.get("statistics", {}),
        normalization,
        str(workdir),
        class_names=tuple(dataset["class_names"]),
    )


def _model_of(workdir: Path) -> tuple[str, dict[str, Any]]:
    try:
        model = dict(saved_config(workdir)["config"]["model"])
        return model.pop("name"), model
    except (FileNotFoundError, LookupError, ValueError, TypeError) as error:
        reason = str(error) if isinstance(error, TrainingError) else "it names no network"
        raise TrainingError(
            f"init_from={workdir}: its config.json is needed to know the network ({reason})"
        ) from error
