"""Reports images that were repaired or left out, in brief on stderr and one by one in a file."""

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
    """Makes a function that reports what happened to an image, once for each image.

    It may be called from any thread. The first report of either kind is printed in full; after
    that the 10th, 100th, ... are printed with the count.

    Args:
      path: a JSON-lines file that every report is appended to, with `image`, `what` and `reason`.
        Images that are in it already are not reported again. None for no file.
    """
    seen: set[tuple[str, str]] = set()
    counts: dict[str, int] = {}
    for line in _lines(path):
        # Lines that cannot be parsed stay in the file: the last may have been cut short.
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
    """Lines of a file, empty if there is none; adds a missing newline at its end."""
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
    """Prints a line on stderr; a closed terminal or pipe raises nothing."""
    with contextlib.suppress(OSError, ValueError):
        print(f"{word}: {shown(line)}", file=sys.stderr, flush=True)


def silent(name: str, what: str, reason: str) -> None:
    """A `Report` that discards what it is given."""


def progress_bar(items: Any = None, **options: Any) -> Any:
    """A tqdm bar on stderr, which updates rarely if stderr is not a terminal.

    Args:
      items: the iterable; None for a bar with a `total` that `update` advances.
      **options: passed to tqdm.
    """
    every = 0.1 if sys.stderr.isatty() else 30.0
    return tqdm.tqdm(items, file=sys.stderr, mininterval=every, maxinterval=every, **options)
