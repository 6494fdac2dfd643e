"""An orderly stop: after a signal the loop finishes its step and saves a checkpoint."""

import contextlib
import os
import signal
from types import FrameType
from typing import Any


class StopRequest:
    """Inside, the first SIGINT, SIGTERM or SIGHUP is recorded and does not end the process.

    A second signal acts as usual. If SIGHUP is ignored, as under nohup, it stays ignored.
    """

    def __init__(self) -> None:
        """Starts without a signal recorded."""
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        """Installs the handlers."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        hangup = getattr(signal, "SIGHUP", None)  # not on Windows
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
            numbers.append(hangup)
        for number in numbers:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Restores the handlers from before."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        name = signal.Signals(number).name
        # Not print: the signal may interrupt a print, and the reader of a pipe may be gone.
        with contextlib.suppress(OSError):
            os.write(1, f"{name}: saving a checkpoint and stopping (once more: at once)\n".encode())
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
