"""When things happen in a run."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When things happen, in steps; None or 0 is never.

    Attributes:
      total: number of updates in the run.
      log_every, evaluate_every, checkpoint_every: steps between lines of the log, evaluations
        and checkpoints; all three come at the end as well.
      checkpoint_keep: number of the newest checkpoints that stay.
      profile: first and last step to trace, or empty.
      recompute: number of batches that BatchNorm's statistics are recomputed over at the end.
    """

    total: int
    log_every: int | None
    evaluate_every: int | None
    checkpoint_every: int | None
    checkpoint_keep: int = 3
    profile: tuple[int, ...] = ()
    recompute: int = 0


def due(step: int, every: int | None) -> bool:
    """Whether an event that comes every `every` steps is due after `step` updates."""
    return every is not None and every > 0 and step % every == 0
