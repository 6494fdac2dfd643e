"""The standard streams of a process, and the signals that end it.

Both are set up before other imports; this module takes no time to import.
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

import files

# The exit codes of main.py; see its docstring.
DONE, FAILED, USAGE_ERROR, STOPPED, KILLED = 0, 1, 2, 75, 130

# Errors of a full disk, which may have room again for the next line.
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def guard_streams() -> None:
    """Makes printing never fail, whatever happens to its reader, file or terminal.

    Replaces sys.stdout and sys.stderr. Output that cannot be written is dropped. Streams that
    were closed when the process began go to /dev/null. Otherwise a file opened later could get
    their descriptors, and the output of libraries with them. Characters that the encoding lacks
    are written as escapes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _lead_nowhere(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        original = getattr(sys, name)
        if original is not None:
            original.flush()
        guarded = io.TextIOWrapper(
            io.BufferedWriter(_Guarded(number, "wb", closefd=False)),
            encoding=original.encoding if original is not None else "utf-8",
            errors="backslashreplace",
            # An unbuffered stream, as by python -u, becomes line-buffered.
            line_buffering=name == "stderr"
            or (original is not None and (original.line_buffering or original.write_through)),
        )
        setattr(sys, name, guarded)
        setattr(sys, f"__{name}__", guarded)


class _Guarded(io.FileIO):
    """A file descriptor whose writes always succeed."""

    warned = False  # that the disk is full

    def write(self, data: Any) -> int:
        """Writes `data`, or drops what cannot be written."""
        size = memoryview(data).nbytes
        try:
            written: int | None = None
            while written is None:  # another process has made the descriptor non-blocking
                written = super().write(data)
                if written is None:
                    select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            if error.errno not in _NO_ROOM:
                _lead_nowhere(self.fileno())  # drops the output of libraries as well
            elif self.fileno() == 1 and not self.warned:
                self.warned = True
                with contextlib.suppress(OSError):
                    os.write(2, f"warning: standard output is lost ({error.strerror})\n".encode())
            return size


def _lead_nowhere(number: int) -> None:
    """Redirects a file descriptor to /dev/null."""
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


def interrupted() -> int:
    """Prints that nothing more was saved."""
    print("interrupted; what was saved before is kept", file=sys.stderr)
    return KILLED


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
    """Names a folder for Keras, which TensorFlow imports, if there is no home directory.

    Keras would make a folder called ~ in the current directory.
    """
    if os.path.expanduser("~") == "~":  # noqa: PTH111 (pathlib's fails without a home)
        os.environ.setdefault("KERAS_HOME", os.path.abspath(".cache/keras"))  # noqa: PTH100


def end_in_words(codes: dict[str, int]) -> None:
    """Makes signals end the process at once with a line on stderr, until other handlers are set.

    A handler that raised an exception could lose it in a library's callback. A signal that is
    ignored from the beginning, as under nohup, stays ignored.

    Args:
      codes: exit code of each signal, such as {"SIGTERM": 75}; signals that the system lacks are
        left out.
    """

    def end(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        files.remove_unfinished()
        # Flushes the buffers, which fails if the signal interrupted a write.
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(OSError):
            line = f"{name}: stopped; what was saved before is kept; give the same command again\n"
            os.write(2, line.encode())
        os._exit(codes[name])

    for number in map(named, codes):
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def named(name: str) -> Any:
    """A signal by its name; None where the system lacks it."""
    return getattr(signal, name, None)
