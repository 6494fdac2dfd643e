"""What the commands of this package share: options that name files, streams, and exit codes."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import files
import process
from process import DONE, FAILED, KILLED, STOPPED

Command = Callable[[Sequence[str]], None]

# An example whose name ends so is a file of an image.
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


def parser(said: str | None) -> argparse.ArgumentParser:
    """A parser with the options that choose among a run's score files.

    Args:
      said: description of the command, printed as it is by --help.
    """
    made = plain_parser(said)
    made.add_argument("--split", help="of a run: which split's scores")
    made.add_argument("--protocol", help="of a run: which protocol's scores")
    return made


def plain_parser(said: str | None) -> argparse.ArgumentParser:
    """A parser without options; `said` is printed as it is by --help."""
    return argparse.ArgumentParser(
        description=said, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def path(text: str) -> Path:
    """Parses a flag's value as a path, see `files.expanded`.

    Raises:
      ArgumentTypeError: it is none.
    """
    try:
        return Path(files.expanded(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from error


def main(run: Command) -> NoReturn:
    """Runs a command and exits with the code of `ended`; handles streams and signals as main.py."""
    process.guard_streams()
    process.end_in_words({"SIGTERM": STOPPED, "SIGHUP": STOPPED, "SIGINT": KILLED})
    sys.exit(ended(run, sys.argv[1:]))


def ended(run: Command, arguments: Sequence[str]) -> int:
    """Runs a command and prints its errors without a traceback.

    Args:
      run: the command, called with its arguments.
      arguments: of the command line, without the program's name.

    Returns:
      The exit code: DONE; that of an EvaluationError; FAILED after an OSError, taken to be a file
      that could not be written.
    """

    def done() -> int:
        run(arguments)
        return DONE

    return process.failing_in_words(done, _in_words)


class _UnwrittenError(Exception):
    exit_code = FAILED


def _in_words(error: Exception) -> Exception | None:
    if not isinstance(error, OSError):
        return None
    return _UnwrittenError(f"{error.filename}: cannot be written ({error.strerror})")
