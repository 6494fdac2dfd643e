"""The names of the classes that a network was trained on, before its dataset is opened."""

import contextlib
import dataclasses
import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.errors import TrainingError
from training.workdir import REPLACED, is_directory, located, steps_in, user_path
from vision_models import weights

# SHA-256 of the 1,000 synsets of ILSVRC-2012 in the order of their labels, one a line.
_IMAGENET = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"


@dataclasses.dataclass(frozen=True)
class Start:
    """What a network starts from.

    Attributes:
      source: a weights file or a run, as a user writes its path, or the name of a trained
        network; None for random weights.
      preprocessing: one of `weights.PREPROCESSING`; `config` for the config's own; None for
        the source's.
      new_head: the classifiers start from random weights.
    """

    source: str | None = None
    preprocessing: str | None = None
    new_head: bool = False


def known_classes(start: Start, workdir: Path, begun: bool) -> tuple[str, ...] | None:
    """The class names, in label order, of the run or file that the weights are from.

    Args:
      start: what the network starts from.
      workdir: the run's.
      begun: whether `workdir` holds a checkpoint, which wins over `start`.

    Returns:
      None where the names are not known, or the head is new.
    """
    if begun:
        return _classes_of_run(workdir)
    if start.source and not start.new_head:
        source = user_path(start.source, "init_from")
        with contextlib.suppress(TrainingError):  # a wrong name is reported by `open_initial`
            source = located(source)
        return _classes_of_run(source) if is_directory(source) else weights.class_names(source)
    return None


def check_classes(trained: Sequence[str], now: Sequence[str], source: Path | str) -> None:
    """Compares a network's classes with a dataset's, whatever the Unicode form of their names.

    Args:
      trained: class names that the network was trained on.
      now: class names of the dataset.
      source: where the network is from, for the message.

    Raises:
      TrainingError: the classes or their order differ.
    """
    differing = other_classes(trained, now)
    if differing is not None:
        way_out = "train a classifier for these classes (--config.init_head=new)"
        raise TrainingError(f"{source}: {differing}, or {way_out}")


def other_classes(trained: Sequence[str], now: Sequence[str]) -> str | None:
    """A sentence on how a dataset's classes differ from a network's; None if they do not."""
    ours, theirs = _composed(trained), _composed(now)
    if ours == theirs:
        return None
    if sorted(ours) == sorted(theirs):
        label = next(i for i, name in enumerate(ours) if name != theirs[i])
        return (
            f"trained on these {len(ours)} classes in another order: label {label} was "
            f"{ours[label]!r} and is {theirs[label]!r} in this dataset. Use the dataset it was "
            "trained on, or the images themselves with data.name=folder, which keeps the order"
        )
    known_here, known_there = set(ours), set(theirs)
    missing = [name for name in ours if name not in known_there]
    unknown = [name for name in theirs if name not in known_here]
    return (
        f"trained on {len(ours)} other classes than the {len(theirs)} of this dataset ("
        + "; ".join(
            f"{len(names)} {where}, such as {names[0]!r}"
            for names, where in ((missing, "are not here"), (unknown, "were not there"))
            if names
        )
        + "). Use the dataset it was trained on"
    )


@dataclasses.dataclass(frozen=True)
class Differing:
    """How a dataset's classes differ from a network's.

    Attributes:
      text: the difference in words.
      certain: names are known on both sides. Otherwise the classes may still be the same.
    """

    text: str
    certain: bool


def imagenet_classes(names: Sequence[str]) -> Differing | None:
    """How a dataset's classes differ from the 1,000 of ILSVRC-2012 in the order of their synsets.

    Weights from elsewhere without class names are taken to have these 1,000.
    """
    if _digest(names) == _IMAGENET:
        return None
    if not all(re.fullmatch(r"n\d{8}", name) for name in names):
        text = f"the usual 1,000 classes begin with 'n01440764', these here with {names[0]!r}"
        return Differing(f"without names of classes; {text}", False)
    ordered = sorted(names)
    if _digest(ordered) == _IMAGENET:
        label = next(i for i, name in enumerate(ordered) if name != names[i])
        text = f"label {label} is {ordered[label]!r} there and {names[label]!r} in this dataset"
        return Differing(f"the 1,000 synsets are in another order here: {text}", True)
    if len(names) == 1000:
        return Differing("1,000 other synsets here than those of ILSVRC-2012", True)
    text = "--config.data.name=imagenet2012 labels them as these weights do"
    return Differing(f"{len(names)} synsets here, 1,000 there; {text}", len(names) > 1000)


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode(errors="backslashreplace")).hexdigest()


def _composed(names: Sequence[str]) -> list[str]:
    return [unicodedata.normalize("NFC", name) for name in names]


def _classes_of_run(workdir: Path) -> tuple[str, ...] | None:
    """The class names in the newest readable checkpoint; they never change within a run."""
    directory = workdir / "checkpoints"
    found = [str(step) for step in reversed(steps_in(directory, replaced=True))]
    for name in [name + ending for name in found for ending in ("", REPLACED)]:
        try:
            saved = json.loads((directory / name / "dataset" / "metadata").read_bytes())
            named = saved["class_names"]
        except (OSError, ValueError, LookupError, TypeError):
            continue  # damaged or unfinished
        if _are_names(named):
            return tuple(named)
    return None


def _are_names(named: Any) -> bool:
    return isinstance(named, list) and all(isinstance(name, str) for name in named)
