"""What every room needs of the file system: files that appear whole, and locks."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, *, shared: bool = False) -> Generator[Path, None, None]:
    """A path to write to, whose file takes the place of `path` at the end.

    A reader sees the whole of the old file or of the new one, also after a power cut. What was
    written is removed where writing fails.

    Args:
      path: of the file.
      shared: other processes may be writing it at the same time.

    Raises:
      OSError: it cannot be written.
    """
    number = f".{os.getpid()}" if shared else ""
    temporary = path.with_name(f".{path.name}{number}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def locked(path: Path) -> Generator[None, None, None]:
    """Holds a lock for the processes of this machine, or of a file system that can.

    Args:
      path: of a file that is made for it.

    Raises:
      BlockingIOError: another process holds it.
      OSError: the file cannot be made.
    """
    with open(path, "w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # not a Unix
            pass
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            pass
        yield
