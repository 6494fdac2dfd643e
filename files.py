"""Files that appear whole, locks, and paths as users write them, for all packages."""

import contextlib
import os
import re
import time
from collections.abc import Generator
from pathlib import Path

_RETRY = 0.02  # seconds between two attempts to take a lock
# Temporary files of `replacing` that are being written.
_unfinished: set[Path] = set()


def expanded(path: str) -> str:
    """A path with ~ or ~NAME, which shells leave as it is behind =, as the home directory.

    Raises:
      ValueError: there is no such home, or it is a URL; the message is the reason alone.
    """
    if re.match(r"[A-Za-z][\w.+-]+://", path):
        raise ValueError(
            "a URL, and paths are of mounted file systems: mount the bucket (as gcsfuse does) or "
            "download it, and name the directory"
        )
    whole = os.path.expanduser(path)  # noqa: PTH111 (pathlib's fails without a home)
    if whole.startswith("~"):
        first = Path(path).parts[0]
        raise ValueError(
            f"{first} is no home directory that the system knows; write the path in full, or "
            f"./{first} for what is called so"
        )
    return whole


@contextlib.contextmanager
def replacing(path: Path, *, shared: bool = False) -> Generator[Path, None, None]:
    """A temporary path to write to; its file replaces `path` at the end.

    A reader sees the whole old file or the whole new one, also after a power cut. If writing
    fails, the temporary file is removed.

    Args:
      path: the file to replace.
      shared: whether other processes may be writing it at the same time.

    Raises:
      OSError: the file cannot be written.
    """
    number = f".{os.getpid()}" if shared else ""
    temporary = path.with_name(f".{path.name}{number}.tmp")
    _unfinished.add(temporary.absolute())
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        _unfinished.discard(temporary.absolute())


def remove_unfinished() -> None:
    """Removes the temporary files of `replacing`, for a process that ends without an exception."""
    for temporary in list(_unfinished):
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_writable(directory: Path) -> None:
    """Checks that files can be made in a directory, before the work whose results they will hold.

    Raises:
      OSError: they cannot.
    """
    import tempfile

    tempfile.TemporaryFile(dir=directory).close()


@contextlib.contextmanager
def locked(
    path: Path, *, patience: float = 0.0, directory: bool = False
) -> Generator[None, None, None]:
    """Holds a lock against other processes, as far as the file system supports locks.

    Args:
      path: the lock's file, which is made.
      directory: whether `path` is a directory, which is there, and is locked itself.
      patience: seconds to wait for the lock; more than none where others call `is_locked`.

    Raises:
      BlockingIOError: another process holds the lock.
      OSError: the file cannot be made.
    """
    end = time.monotonic() + patience
    with _opened(path, directory) as file:
        while file is not None:
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise
                time.sleep(_RETRY)
                continue
            except (ImportError, OSError):  # not a Unix, or a file system without locks
                pass
            break
        yield


@contextlib.contextmanager
def _opened(path: Path, directory: bool) -> Generator[int | None, None, None]:
    """A descriptor of a lock's file; None for a directory that cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY if directory else os.O_WRONLY | os.O_CREAT, 0o666)
    except PermissionError:  # not a Unix, or a directory that may be written and not read
        if not directory:
            raise
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock of `locked`; False where that cannot be known.

    The lock is shared for an instant, in which a `locked` without patience would be refused.
    """
    try:
        import fcntl

        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        pass
    return False
