"""When things happen in a run."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When things happen, in steps; None or 0 is never.

    Attributes:
      total: updates in all.
      log_every, evaluate_every, checkpoint_every: between lines, evaluations, checkpoints;
        all three come at the end as well.
      checkpoint_keep: how many of the newest checkpoints stay.
      profile: first and last step that are traced, or empty.
      recompute: batches over which BatchNorm's statistics are computed anew at the end.
    """

    total: int
    log_every: int | None
    evaluate_every: int | None
    checkpoint_every: int | None
    checkpoint_keep: int = 3
    profile: tuple[int, ...] = ()
    recompute: int = 0


def due(step: int, every: int | None) -> bool:
    """Whether something that happens every so many steps does after `step` updates."""
    return every is not None and every > 0 and step % every == 0
