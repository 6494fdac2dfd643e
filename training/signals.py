"""Stopping in good order: a signal asks, the loop finishes its step and saves."""

import contextlib
import os
import signal
from types import FrameType
from typing import Any


class StopRequest:
    """While entered, the first SIGINT, SIGTERM or SIGHUP is noted instead of ending the process.

    A second one acts as it would have without this. A SIGHUP that is ignored, as by nohup, stays
    so.
    """

    def __init__(self) -> None:
        """Nothing is noted yet."""
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        """Takes over the signals."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        hangup = getattr(signal, "SIGHUP", None)  # not on Windows
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
            numbers.append(hangup)
        for number in numbers:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Gives them back."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        name = signal.Signals(number).name
        # Not print: the signal may have come in the middle of one, and have ended who reads.
        with contextlib.suppress(OSError):
            os.write(1, f"{name}: saving a checkpoint and stopping (once more: at once)\n".encode())
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
