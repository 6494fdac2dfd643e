"""The package's exceptions."""


class TrainingError(ValueError):
    """A run cannot start or go on as asked; the message names the fault and the way out."""

    exit_code = 2


class RunError(RuntimeError):
    """A run had begun and cannot go on, for example with a full disk or a loss of NaN."""

    exit_code = 1
