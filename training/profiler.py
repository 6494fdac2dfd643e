"""A trace of some steps of a run, for TensorBoard's profiler or Perfetto."""

from pathlib import Path
from typing import Any

import jax

from training.writers import say


class Profiler:
    """Traces some steps of a run; does nothing without steps."""

    def __init__(self, directory: Path, steps: tuple[int, ...]):
        """`steps` are the first and the last step to trace, or empty."""
        self._directory = directory
        self._first, self._last = steps or (0, 0)
        self._tracing = False

    def __enter__(self) -> "Profiler":
        """Starts nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the trace if it is still running."""
        self._stop()

    def before(self, step: int) -> None:
        """Called before an update is dispatched."""
        if step == self._first:
            jax.profiler.start_trace(self._directory)
            self._tracing = True

    def after(self, step: int, outcome: Any) -> None:
        """Called after an update is dispatched; `outcome` holds its results."""
        if self._tracing and step >= self._last:
            jax.block_until_ready(outcome)
            self._stop()

    def _stop(self) -> None:
        if self._tracing:
            self._tracing = False
            message = f"trace of the profiler: {self._directory}"
            try:
                jax.profiler.stop_trace()
            except (OSError, RuntimeError) as error:  # the run goes on without it
                message = f"the trace of the profiler could not be written: {error}"
            if jax.process_index() == 0:
                say(message)
