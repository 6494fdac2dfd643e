"""Updates whose loss or parameters are not finite: they are left out, or end the run."""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from training.checkpoints import Checkpoints
from training.errors import RunError
from training.recipe import Recipe
from training.writers import say

# The run ends after so many updates left out in a row: its parameters will not recover.
_TOO_MANY_SKIPPED = 100


@dataclasses.dataclass(frozen=True)
class Update:
    """An update that the devices compute or have computed.

    Attributes:
      step: the update's number.
      examples: indices of the examples in this process's share of the batch.
      outcome: the training step's second result.
    """

    step: int
    examples: np.ndarray
    outcome: dict[str, Array]


def finished(update: Update, recipe: Recipe, explained: Callable[[Update, str], RunError]) -> int:
    """Waits for an update.

    Args:
      update: the devices may still be computing it.
      recipe: says whether non-finite updates are left out.
      explained: (update, what is not finite) -> the error that ends the run.

    Returns:
      Length of the run of non-finite updates that ends here; 0 if this one was finite.

    Raises:
      RunError: the update was not finite, and such updates are not left out, or too many in a
        row have been.
    """
    in_row = int(jax.device_get(update.outcome["skipped_in_row"]))
    if not in_row:
        return 0
    loss = float(update.outcome["loss"]) / recipe.batch_size
    what = "an updated parameter is not finite" if np.isfinite(loss) else f"the loss is {loss}"
    if recipe.skip_nonfinite:
        if jax.process_index() == 0:
            say(f"step {update.step}: {what}; this update is left out")
        if in_row < _TOO_MANY_SKIPPED:
            return in_row
        what += f", and so it was {in_row - 1} times before"
    raise explained(update, what)


def explained(
    update: Update,
    what: str,
    *,
    recipe: Recipe,
    checkpoints: Checkpoints,
    workdir: Path,
    example_name: Callable[[int], str],
) -> RunError:
    """The error for a non-finite update; lists the batch's examples in nonfinite.json."""
    gathered = np.asarray(multihost_utils.process_allgather(update.examples)).reshape(-1)
    # Processes that hold other towers have the same examples.
    examples = list(dict.fromkeys(gathered.tolist()))
    names = [example_name(index) for index in examples]
    listed = workdir / "nonfinite.json"
    if jax.process_index() == 0:
        content = {"step": update.step, "index": examples, "examples": names}
        with contextlib.suppress(OSError):  # with a full disk the message has the first names
            listed.write_text(json.dumps(content, indent=1) + "\n")
    checkpoints.finish()
    good = checkpoints.latest_sound()
    return RunError(
        f"step {update.step}: {what}. Its batch: {', '.join(names[:3])} ... ({listed} has "
        f"all {len(names)}). Last good checkpoint: "
        + (f"step {good}" if good is not None else "none")
        + ". Lower optimizer.learning_rate in a new run"
        + ("" if recipe.skip_nonfinite else ", or leave such out with --config.nonfinite=skip")
    )
