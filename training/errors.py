"""The package's exceptions."""


class TrainingError(ValueError):
    """A run cannot start or go on as asked; the message names the fault and the way out."""

    exit_code = 2


class RunError(RuntimeError):
    """A run had begun and cannot go on, for example with a full disk or a loss of NaN."""

    exit_code = 1


def out_of_memory(error: Exception, way_out: str) -> RunError | None:
    """What stands for JAX's error of a device whose memory is full; None for any other."""
    reason = str(error).splitlines()[:1]
    if type(error).__name__ != "JaxRuntimeError" or not str(error).startswith("RESOURCE_EXHAUSTED"):
        return None
    return RunError(f"the device's memory is full ({reason[0][:200]}); {way_out}")
