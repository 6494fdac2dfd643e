"""What the system gives a process: streams to print to, and signals that end it.

Both are put in order before anything else is imported; this module takes no time to import.
"""

import contextlib
import errno
import io
import os
import select
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

# How main.py ends; see its docstring.
DONE, FAILED, USAGE_ERROR, STOPPED, KILLED = 0, 1, 2, 75, 130

# Of a log file: there may be room again for the next line.
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def guard_streams() -> None:
    """From here on printing ends nothing, whatever becomes of its reader, file or terminal.

    Replaces sys.stdout and sys.stderr. What nobody can read is lost. Streams that were closed when
    the process began lead nowhere, lest a file that is opened later get their numbers, and with
    them what libraries print. Characters that the encoding does not have are written as escapes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _lead_nowhere(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        before = getattr(sys, name)
        if before is not None:
            before.flush()
        guarded = io.TextIOWrapper(
            io.BufferedWriter(_Guarded(number, "wb", closefd=False)),
            encoding=before.encoding if before is not None else "utf-8",
            errors="backslashreplace",
            # Unbuffered, as by python -u, is line by line here.
            line_buffering=name == "stderr"
            or (before is not None and (before.line_buffering or before.write_through)),
        )
        setattr(sys, name, guarded)
        setattr(sys, f"__{name}__", guarded)


class _Guarded(io.FileIO):
    """A file descriptor whose writes always succeed."""

    said = False  # that there is no room for them

    def write(self, data: Any) -> int:
        """Writes what can be written, and drops what cannot."""
        size = memoryview(data).nbytes
        try:
            written: int | None = None
            while written is None:  # set to be asked later, by whoever has it as well
                written = super().write(data)
                if written is None:
                    select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            if error.errno not in _NO_ROOM:
                _lead_nowhere(self.fileno())  # what libraries print themselves, too
            elif self.fileno() == 1 and not self.said:
                self.said = True
                with contextlib.suppress(OSError):
                    os.write(2, f"warning: standard output is lost ({error.strerror})\n".encode())
            return size


def _lead_nowhere(number: int) -> None:
    """Makes a file descriptor one of /dev/null."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, number)
        if null == number:
            os.set_inheritable(number, True)
        else:
            os.close(null)


def fail(error: Exception, code: int = USAGE_ERROR) -> int:
    """Says what is wrong, without a traceback."""
    print(f"error: {error}", file=sys.stderr)
    return code


def failing_in_words(
    run: Callable[[], int], understood: Callable[[Exception], Exception | None]
) -> int:
    """Runs something; an error that says how the process ends (`exit_code`) does so in words.

    Args:
      run: gives the exit code.
      understood: an error that stands for one that does not say it; None where there is none.
    """
    try:
        return run()
    except Exception as error:
        said = understood(error) or error
        code = getattr(said, "exit_code", None)
        if code is None:
            raise
        return fail(said, code)


def do_without_a_home() -> None:
    """Without a home Keras, which TensorFlow imports, would make a folder called ~ here."""
    if os.path.expanduser("~") == "~":  # noqa: PTH111 (pathlib's fails without a home)
        os.environ.setdefault("KERAS_HOME", os.path.abspath(".cache/keras"))  # noqa: PTH100


def end_in_words(codes: dict[str, int]) -> None:
    """Signals end the process with a line on stderr, where nothing better is done with them.

    At once: an exception could be lost in a library that is just calling back. One that is
    ignored from the beginning, as by nohup, stays ignored.

    Args:
      codes: exit code of each signal, such as {"SIGTERM": 75}; those that the system does not
        have are left out.
    """

    def end(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        # What stands in the buffers, unless the signal came in the middle of writing them.
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(OSError):
            said = f"{name}: stopped; what was saved before is kept, the same command goes on\n"
            os.write(2, said.encode())
        os._exit(codes[name])

    for number in map(named, codes):
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def named(name: str) -> Any:
    """A signal by its name; None where the system has none of it."""
    return getattr(signal, name, None)
