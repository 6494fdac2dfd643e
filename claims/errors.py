"""The package's exceptions."""


class ClaimError(ValueError):
    """A claim cannot be listed, run or reported as asked; the message names the way out."""

    exit_code = 2


class ClaimRunError(RuntimeError):
    """A run of a claim had begun and failed."""

    exit_code = 1
