"""The exceptions of this package."""


class TrainingError(ValueError):
    """A run that cannot start or go on as asked; the message names the fault and the way out."""

    exit_code = 2


class RunError(RuntimeError):
    """A run that had begun and cannot go on: a full disk, a loss that is no number."""

    exit_code = 1
