"""What Orbax and TensorStore print of their own is not said twice."""

import logging
import sys

from absl import logging as absl_logging

# Orbax warns of every checkpoint that has not been evaluated, and prints the traceback of what
# is raised by `training.checkpoints` as well.
absl_logging.set_verbosity(absl_logging.FATAL)


def leave_failures_to_us() -> None:
    """Writes that fail are said once, here.

    Others that had begun then end one by one, in threads of TensorStore, with tracebacks.
    """
    for name in ("asyncio", "concurrent.futures"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = _unless_of_writes


def _unless_of_writes(failure: "sys.UnraisableHookArgs") -> None:
    if str(failure.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(failure)
