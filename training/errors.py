"""The one exception of this package."""


class TrainingError(ValueError):
    """A run that cannot start or go on as asked; the message names the fault and the way out."""
