"""The SHA-256 of a checkpoint's files: written with it, compared before it is used."""

import hashlib
import json
from pathlib import Path

from training.errors import TrainingError

_SUMS = "sha256.json"
# Orbax adds these after the sums are made; they hold times and names, no values.
_NOT_SUMMED = (_SUMS, "_CHECKPOINT_METADATA", "commit_success.txt")
# Names that begin so are of file systems and desktops, which add and remove such files at any
# time. Orbax has no such names.
_OF_OTHERS = (".", "@", "Thumbs.db", "desktop.ini")


def write_sums(directory: Path) -> None:
    """Writes the sum of every file of a checkpoint."""
    names = sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if not any(part.startswith(_OF_OTHERS) for part in path.relative_to(directory).parts)
        and path.is_file()
    )
    sums = {name: _sum(directory / name) for name in names if name not in _NOT_SUMMED}
    (directory / _SUMS).write_text(json.dumps(sums))


def read_sums(directory: Path) -> dict[str, str]:
    """Path below `directory` and sum of every file of a checkpoint.

    Raises:
      FileNotFoundError: there is no file of sums.
      OSError: the file of sums cannot be read.
      ValueError: the file of sums does not hold sums.
    """
    sums = json.loads((directory / _SUMS).read_bytes())
    if not (sums and isinstance(sums, dict) and all(isinstance(s, str) for s in sums.values())):
        raise ValueError(f"{_SUMS} has changed")
    return sums


def damage(directory: Path) -> str | None:
    """Which file of a checkpoint is missing or has changed, in words; None for a sound checkpoint.

    Other files in the directory do not count.

    Raises:
      TrainingError: a file cannot be read, so that its state is not known.
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
    """The error for a file that cannot be opened or read, and may be sound."""
    return TrainingError(
        f"{path}: cannot be read ({error.strerror}), and may still be good: nothing was moved. "
        "Make it readable; or move its checkpoint elsewhere, to go on without"
    )


def _sum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
