"""What evaluation's commands share: files of scores on a command line, errors in words."""

import argparse
import sys
from collections.abc import Callable, Sequence

from evaluation.errors import EvaluationError

DONE, FAILED, USAGE_ERROR = 0, 1, 2


def parser(said: str | None) -> argparse.ArgumentParser:
    """A parser with the options that choose among a run's files of scores.

    Args:
      said: the docstring of the command.
    """
    made = argparse.ArgumentParser(
        description=said, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--split", help="of a run: which split's scores")
    made.add_argument("--protocol", help="of a run: which protocol's scores")
    return made


def ended(run: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command, whose errors are said in words."""
    try:
        run(sys.argv[1:] if arguments is None else arguments)
    except EvaluationError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except OSError as error:
        print(f"error: {error.filename}: cannot be written ({error.strerror})", file=sys.stderr)
        return FAILED
    return DONE
