"""Which images were repaired or left out: on the screen, and one by one in a file."""

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

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
    if path is not None and path.exists():
        for entry in map(json.loads, path.read_text().splitlines()):
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
                    with open(path, "a") as file:
                        line = {"image": name, "what": what, "reason": reason}
                        file.write(json.dumps(line) + "\n")
                except OSError as error:
                    where = f"; {path} cannot be written ({error.strerror})"
            if str(count).strip("0") == "1":
                total = f" ({count} images {what} so far{where})"
                print(f"warning: {name}: {what}: {reason}{total}", file=sys.stderr)

    return note


def silent(name: str, what: str, reason: str) -> None:
    """A report that nobody reads."""
