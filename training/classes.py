"""Which classes a network was trained on, by name."""

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.errors import TrainingError
from training.workdir import REPLACED, steps_in


def known_classes(config: Any, workdir: Path, begun: bool) -> tuple[str, ...] | None:
    """Names of the classes, in the order of the labels, of the run that a network comes from.

    Args:
      config: `init_from` and `init_head` are read.
      workdir: of the run.
      begun: it holds a checkpoint, which wins over `init_from`.

    Returns:
      None where nothing says them, or a new head is drawn.
    """
    if begun:
        return _classes_of_run(workdir)
    if config.init_from and config.init_head == "file":
        return _classes_of_run(Path(config.init_from).expanduser())
    return None


def check_classes(trained: Sequence[str], now: Sequence[str], source: Path | str) -> None:
    """Compares classes, whatever the Unicode spelling of their names.

    Args:
      trained: names of the classes that a network was trained on.
      now: those of the dataset.
      source: of the network, for the message.

    Raises:
      TrainingError: they differ, or their order does.
    """
    ours, theirs = _composed(trained), _composed(now)
    if ours == theirs:
        return
    if sorted(ours) == sorted(theirs):
        label = next(i for i, name in enumerate(ours) if name != theirs[i])
        raise TrainingError(
            f"{source}: trained on these {len(ours)} classes in another order: label {label} was "
            f"{ours[label]!r} and is {theirs[label]!r} in this dataset. Use the dataset it was "
            "trained on, or the images themselves with data.name=folder, which keeps the order"
        )
    missing = [name for name in ours if name not in theirs]
    strange = [name for name in theirs if name not in ours]
    raise TrainingError(
        f"{source}: trained on {len(ours)} other classes than the {len(theirs)} of this dataset ("
        + "; ".join(
            f"{len(names)} {where}, such as {names[0]!r}"
            for names, where in ((missing, "are not here"), (strange, "were not there"))
            if names
        )
        + ")"
    )


def _composed(names: Sequence[str]) -> list[str]:
    return [unicodedata.normalize("NFC", name) for name in names]


def _classes_of_run(workdir: Path) -> tuple[str, ...] | None:
    """As the newest checkpoint that can be read has them; they never change within a run."""
    directory = workdir / "checkpoints"
    found = [str(step) for step in reversed(steps_in(directory, replaced=True))]
    for name in [name + ending for name in found for ending in ("", REPLACED)]:
        try:
            names = json.loads((directory / name / "dataset" / "metadata").read_bytes())
            names = names["class_names"]
        except (OSError, ValueError, LookupError, TypeError):
            continue  # damaged, or not written to its end
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None
