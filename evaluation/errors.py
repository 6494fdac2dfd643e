"""The exceptions of this package."""


class EvaluationError(ValueError):
    """An evaluation that cannot be as asked for; the message names the fault and the way out."""

    exit_code = 2
