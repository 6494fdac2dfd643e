"""Silences what Orbax and TensorStore print of faults that we report."""

import logging
import sys

from absl import logging as absl_logging

# Orbax warns of every checkpoint that has not been evaluated, and prints the tracebacks of
# errors that `training.checkpoints` raises as well.
absl_logging.set_verbosity(absl_logging.FATAL)


def leave_failures_to_us() -> None:
    """Silences the libraries' reports of failed writes; `training.checkpoints` reports them once.

    After one failure the other pending writes end one by one, in threads of TensorStore, each
    with a traceback.
    """
    for name in ("asyncio", "concurrent.futures"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = _unless_of_writes


def _unless_of_writes(failure: "sys.UnraisableHookArgs") -> None:
    if str(failure.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(failure)
