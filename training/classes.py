"""Which classes a network was trained on, by name, before its dataset is opened."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open


def known_classes(config: Any, workdir: Path, begun: bool) -> tuple[str, ...] | None:
    """Names of the classes, in the order of the labels, of the run or file that weights are from.

    Args:
      config: `init_from` and `init_head` are read.
      workdir: of the run.
      begun: it holds a checkpoint, which wins over `init_from`.

    Returns:
      None where nothing says them, or a new head is drawn.
    """
    if begun:
        return _classes_of_run(workdir)
    if not config.init_from or config.init_head != "file":
        return None
    path = Path(config.init_from).expanduser()
    return _classes_of_file(path) if path.is_file() else _classes_of_run(path)


def _classes_of_run(workdir: Path) -> tuple[str, ...] | None:
    """As the newest checkpoint that can be read has them; they never change within a run."""
    found = [path for path in (workdir / "checkpoints").glob("*") if path.name[:1].isdigit()]
    for step in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            named = json.loads((step / "dataset" / "metadata").read_text())["class_names"]
        except (OSError, ValueError, LookupError, TypeError):
            continue  # damaged, or not written to its end
        if _are_names(named):
            return tuple(named)
    return None


def _classes_of_file(path: Path) -> tuple[str, ...] | None:
    """As `--mode=export` writes them; a file of another kind has none."""
    try:
        with safe_open(path, "numpy") as file:
            named = json.loads((file.metadata() or {})["class_names"])
    except Exception:  # whether it is a weights file at all is found out elsewhere
        return None
    return tuple(named) if _are_names(named) else None


def _are_names(named: Any) -> bool:
    return isinstance(named, list) and all(isinstance(name, str) for name in named)
