"""Which images were repaired or left out: on the screen, and one by one in a file."""

import contextlib
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tqdm

from input_pipeline.names import shown

# name, `repaired` or `left out`, reason
Report = Callable[[str, str, str], None]


def reporter(path: Path | None) -> Report:
    """A function that notes what happened to an image, each image once.

    It may be called from any thread. The first of either kind is said in full on the screen,
    then every tenth, hundredth, ... with the count.

    Args:
      path: a file that gets a JSON object a line: `image`, `what`, `reason`; those it has
        are not said again. None for none.
    """
    seen: set[tuple[str, str]] = set()
    counts: dict[str, int] = {}
    for line in _lines(path):
        # What is no such object stays, and is not understood: the last may be cut short.
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            entry = json.loads(line)
            seen.add((entry["image"], entry["what"]))
            counts[entry["what"]] = counts.get(entry["what"], 0) + 1
    lock = threading.Lock()

    def note(name: str, what: str, reason: str) -> None:
        with lock:
            if (name, what) in seen:
                return
            seen.add((name, what))
            counts[what] = count = counts.get(what, 0) + 1
            where = ""
            if path is not None:
                where = f"; listed in {path}"
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with open(path, "a", encoding="utf-8") as file:
                        entry = {"image": name, "what": what, "reason": reason}
                        file.write(json.dumps(entry) + "\n")
                except OSError as error:
                    where = f"; {path} cannot be written ({error.strerror})"
            if str(count).strip("0") == "1":
                total = f" ({count} images {what} so far{where})"
                warn(f"{name}: {what}: {reason}{total}")

    return note


def _lines(path: Path | None) -> list[bytes]:
    """Lines of a file, which is mended if its last line has no end; none if there is no file."""
    try:
        if path is None or not path.is_file():
            return []
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            with open(path, "ab") as file:
                file.write(b"\n")
        return content.splitlines()
    except OSError:
        return []


def warn(line: str, word: str = "warning") -> None:
    """Says a line on stderr; a terminal or pipe that is gone does not end the work."""
    with contextlib.suppress(OSError, ValueError):
        print(f"{word}: {shown(line)}", file=sys.stderr, flush=True)


def silent(name: str, what: str, reason: str) -> None:
    """A report that nobody reads."""


def progress_bar(items: Any = None, **options: Any) -> Any:
    """Tqdm's bar on stderr; where that is no terminal, a line now and then instead of ten a second.

    Args:
      items: to go through, or None with a `total` to be counted up by `update`.
      **options: tqdm's.
    """
    every = 0.1 if sys.stderr.isatty() else 30.0
    return tqdm.tqdm(items, file=sys.stderr, mininterval=every, maxinterval=every, **options)
