"""Checkpoints that are not whole: damaged ones are set aside, unfinished ones removed."""

import json
import re
import shutil
import time
from pathlib import Path

from evaluation.metrics import watched
from training import sums
from training.errors import TrainingError
from training.workdir import DAMAGED, REPLACED, STEP, steps_in
from training.writers import say

# Orbax adds this to the name of a checkpoint while it writes it.
UNFINISHED = ".orbax-checkpoint-tmp"


def place_of(directory: Path) -> Path:
    """The directory for damaged checkpoints: `damaged/` beside `directory`."""
    return directory.parent / DAMAGED


def set_aside(directory: Path, step: int, fault: str) -> None:
    """Moves a damaged checkpoint aside, and reports it on the screen.

    Raises:
      TrainingError: it cannot be moved.
    """
    aside = place_of(directory)
    place, number = aside / str(step), 1
    while place.exists():
        place, number = aside / f"{step}-{number}", number + 1
    try:
        aside.mkdir(exist_ok=True)
        (directory / str(step)).rename(place)
    except OSError as error:
        raise TrainingError(
            f"{directory / str(step)} is damaged ({fault}) and cannot be moved "
            f"aside ({error.strerror})"
        ) from error
    say(f"damaged: checkpoint {step} ({fault}), moved to {place}")


def set_unlisted_aside(directory: Path) -> None:
    """Sets checkpoints with damaged metrics aside: Orbax could not list any beside them.

    Raises:
      TrainingError: a checkpoint cannot be moved, or its metrics cannot be read.
    """
    for step in steps_in(directory):
        metrics = directory / str(step) / "metrics" / "metrics"
        try:
            if metrics.exists():
                watched(json.loads(metrics.read_bytes()))
        except OSError as error:
            raise sums.unreadable(metrics, error) from error
        except (ValueError, LookupError, TypeError):
            set_aside(directory, step, f"{metrics.relative_to(metrics.parents[1])} has changed")


def newest_sound(directory: Path) -> int | None:
    """The newest step whose files are all as they were written; None if there is none.

    Newer checkpoints, which are damaged, are set aside.

    Raises:
      TrainingError: a checkpoint cannot be moved or read.
    """
    for step in reversed(steps_in(directory)):
        fault = sums.damage(directory / str(step))
        if fault is None:
            return step
        set_aside(directory, step, fault)
    return None


def clear_unfinished(directory: Path) -> None:
    """Removes half-written checkpoints, and completes or undoes interrupted replacements.

    A checkpoint set aside for a replacement is removed if the replacement is sound, and
    otherwise restored.

    Raises:
      TrainingError: a damaged checkpoint cannot be moved aside, or a file cannot be read.
    """
    for left in directory.glob(f"*{UNFINISHED}*"):
        if re.fullmatch(f"({STEP}){re.escape(UNFINISHED)}(-[0-9]+)?", left.name):
            for _ in range(50):  # threads may still be writing there
                shutil.rmtree(left, ignore_errors=True)
                if not left.exists():
                    break
                time.sleep(0.1)
    for old in directory.glob(f"*{REPLACED}"):
        step = old.name.removesuffix(REPLACED)
        if not re.fullmatch(STEP, step):
            continue
        fault = sums.damage(directory / step)
        if fault is None:
            shutil.rmtree(old, ignore_errors=True)
            continue
        if (directory / step).exists():
            set_aside(directory, int(step), fault)
        old.rename(directory / step)
