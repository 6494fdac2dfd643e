"""The exceptions of this package."""


class EvaluationError(ValueError):
    """An evaluation that is impossible as asked for; the message names the fault and a remedy."""

    exit_code = 2
