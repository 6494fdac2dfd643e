"""What the commands of this package share: options that name score files, and exit codes."""

import argparse
import sys
from collections.abc import Callable, Sequence

from evaluation.errors import EvaluationError

DONE, FAILED, USAGE_ERROR = 0, 1, 2
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


def ended(run: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None) -> int:
    """Runs a command and prints its errors without a traceback.

    Args:
      run: the command, called with its arguments.
      arguments: by default those of the process.

    Returns:
      The exit code: DONE; USAGE_ERROR after an EvaluationError; FAILED after an OSError, taken
      to be a file that could not be written.
    """
    try:
        run(sys.argv[1:] if arguments is None else arguments)
    except EvaluationError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except OSError as error:
        print(f"error: {error.filename}: cannot be written ({error.strerror})", file=sys.stderr)
        return FAILED
    return DONE
