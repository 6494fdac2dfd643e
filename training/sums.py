"""The SHA-256 of a checkpoint's files: written with it, compared before it is used."""

import hashlib
import json
from pathlib import Path

from training.errors import TrainingError

_SUMS = "sha256.json"
# Orbax adds these after the sums are made; they hold times and names, no values.
_NOT_SUMMED = (_SUMS, "_CHECKPOINT_METADATA", "commit_success.txt")
# What file systems and desktops lay beside anybody's files, and take away again, begins so.
# Orbax has no such names.
_OF_OTHERS = (".", "@", "Thumbs.db", "desktop.ini")


def write_sums(directory: Path) -> None:
    """Sums every file of a checkpoint."""
    names = sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if not any(part.startswith(_OF_OTHERS) for part in path.relative_to(directory).parts)
        and path.is_file()
    )
    sums = {name: _sum(directory / name) for name in names if name not in _NOT_SUMMED}
    (directory / _SUMS).write_text(json.dumps(sums))


def read_sums(directory: Path) -> dict[str, str]:
    """Path below `directory` and sum of every file that the checkpoint consists of.

    Raises:
      FileNotFoundError: there are none.
      OSError: they cannot be read.
      ValueError: they are none.
    """
    sums = json.loads((directory / _SUMS).read_bytes())
    if not (sums and isinstance(sums, dict) and all(isinstance(s, str) for s in sums.values())):
        raise ValueError(f"{_SUMS} has changed")
    return sums


def damage(directory: Path) -> str | None:
    """What is missing or has changed of a checkpoint; None if nothing is.

    What lies there besides does not count.

    Raises:
      TrainingError: a file cannot be read, so that nothing is known of it.
    """
    name = _SUMS
    try:
        for name, expected in sorted(read_sums(directory).items()):
            if _sum(directory / name) != expected:
                return f"{name} has changed"
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return f"{name} is missing"
    except OSError as error:
        raise unreadable(directory / name, error) from error
    except ValueError:
        return f"{_SUMS} has changed"
    return None


def unreadable(path: Path, error: OSError) -> TrainingError:
    """What to say of a file that cannot be opened or read, and may be as good as ever."""
    return TrainingError(
        f"{path}: cannot be read ({error.strerror}), and may still be good: nothing was moved. "
        "Make it readable; or move its checkpoint elsewhere, to go on without"
    )


def _sum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
