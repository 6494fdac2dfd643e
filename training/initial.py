"""The weights that a network starts from: `init_from`, a weights file or another run."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from devices import mesh as meshes
from training.classes import Start, imagenet_classes, other_classes
from training.errors import TrainingError
from training.step import State
from training.task import Task, put_model
from training.trained import Trained
from training.workdir import user_path
from training.writers import say
from vision_models import weights
from vision_models.weights import WeightsError


def open_initial(
    start: Start,
    name: str,
    options: dict[str, Any],
    class_names: Sequence[str] | None = None,
    learns: str | None = None,
    checkpoint: str = "latest",
) -> Trained | None:
    """Opens the weights that a network starts from: a file, or a checkpoint of a run.

    Args:
      start: the source of the weights, and which parts of it are used.
      name, options: the network's.
      class_names: the dataset's; a difference from the weights' classes is printed.
      learns, checkpoint: see `Trained.open`.

    Returns:
      None for random weights. `normalization` is None where the config's own is to be used.

    Raises:
      TrainingError: the source does not fit; the message says what to do.
    """
    if not start.source:
        return None
    path = user_path(start.source, "init_from")
    try:
        trained = Trained.open(
            path, name, options, checkpoint=checkpoint, new_head=start.new_head, learns=learns
        )
        trained = with_normalization(trained, start.preprocessing)
    except TrainingError as error:
        raise TrainingError(f"init_from: {printable(str(error))}") from error
    trained = dataclasses.replace(trained, source=printable(start.source))
    fresh = f"; {', '.join(trained.fresh)} start fresh" if trained.fresh else ""
    say(f"weights from {trained.source}{fresh}")
    for text in (*trained.notes, *_about_classes(trained, class_names)):
        say(f"weights from {trained.source}: {printable(text)}")
    return trained


def with_normalization(trained: Trained, chosen: str | None) -> Trained:
    """The network with the chosen normalisation.

    Args:
      trained: with the normalisation of its source, if that is known.
      chosen: one of `weights.PREPROCESSING`; `config` to set none, so that the config's is
        used; None for the source's.

    Raises:
      TrainingError: the name is unknown, or the source's normalisation is.
    """
    if chosen == "config":
        return dataclasses.replace(trained, normalization=None)
    if chosen is not None:
        try:
            normalization = weights.preprocessing(chosen)
        except WeightsError as error:
            raise TrainingError(str(error)) from error
        return dataclasses.replace(trained, normalization=normalization)
    if trained.normalization is None:
        raise TrainingError(
            f"{trained.source} does not say what preprocessing it expects; choose "
            f"--config.init_preprocessing=config or one of {', '.join(weights.PREPROCESSING)}"
        )
    return trained


def _about_classes(initial: Trained, names: Sequence[str] | None) -> list[str]:
    """Sentences on how a dataset's classes differ, or may differ, from the weights'."""
    if names is None:
        return []
    if initial.class_names is not None:
        text = other_classes(initial.class_names, names)
        way_out = "or --config.init_head=new, which draws a new head"
        return [] if text is None else [f"{text}, {way_out}"]
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
    r"""The text with bytes of file names that are not UTF-8 written as \xff, to be printed."""
    return re.sub("[\udc80-\udcff]", lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)


def normalization_for(initial: Trained | None, square: int | None) -> dict[str, np.ndarray] | None:
    """The normalisation that weights expect, for images of `square` pixels; None if not known.

    Of whole images (None), whose shape is any, the mean is a colour, [3]; that of a mean image
    is the mean of its pixels, without those of padding.

    Raises:
      TrainingError: its mean image has another size, and its pixels differ.
    """
    if initial is None or initial.normalization is None:
        return None
    mean = initial.normalization["mean"]
    if square is None:
        if mean.ndim == 3:
            made = initial.preprocessing
            if made is not None and made.pad and len(mean) == made.square:
                mean = mean[made.pad : -made.pad, made.pad : -made.pad]
            same = (mean == mean[0, 0]).all()
            mean = mean[0, 0] if same else mean.mean(axis=(0, 1), dtype=np.float64)
        deviation = initial.normalization["deviation"]
        return {"mean": mean.astype(np.float32), "deviation": deviation.astype(np.float32)}
    if mean.ndim == 3 and mean.shape[0] != square:
        side = mean.shape[0]
        mean = mean[0, 0]  # if all its pixels are equal, it fits any size
        if np.any(initial.normalization["mean"] != mean):
            raise TrainingError(
                f"{initial.source} has a mean image of {side} pixels, images here have {square}; "
                "choose a protocol whose images are of its size, or, for weights of init_from, "
                "this config's own mean (--config.init_preprocessing=config)"
            )
    return {
        "mean": np.broadcast_to(mean, (square, square, 3)).astype(np.float32),
        "deviation": initial.normalization["deviation"].astype(np.float32),
    }


def start_from(state: State, initial: Trained) -> State:
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
        # Copies, for the training step is given every array of the state, and each only once.
        begun["average"] = jax.tree.map(jnp.copy, {k: begun[k] for k in state["average"]})
    return begun


def put_complete(initial: Trained, task: Task) -> dict[str, Any]:
    """Weights of a whole network, put on the mesh.

    Raises:
      TrainingError: some layers have no weights.
    """
    if initial.fresh:
        raise TrainingError(
            f"{initial.source}: {', '.join(initial.fresh)} would start from random numbers; train "
            "first (--mode=train)"
        )
    return put_model(task, initial.params, initial.statistics)
