"""Scores as files: written in parts as an evaluation goes, joined at its end."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

import files
from evaluation.scores import Scores

_FIELDS = ("index", "scores", "label")


def part_path(path: Path, process: int, number: int) -> Path:
    """Where a process keeps a part of what will be `path`."""
    return path.with_name(f"{path.stem}.part-{process}-{number}.npz")


def write_part(path: Path, scores: Scores, digest: str) -> None:
    """Writes a part, whole or not at all.

    Args:
      path: from `part_path`.
      scores: of the part.
      digest: of everything that the scores depend on.

    Raises:
      OSError: it cannot be written.
    """
    _write(path, digest=np.array(digest), **{name: getattr(scores, name) for name in _FIELDS})


def read_part(path: Path, digest: str) -> Scores | None:
    """A part that was written before; None if there is none, or it is of other scores."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["digest"]) != digest:
                return None
            return Scores(*(saved[name] for name in _FIELDS))
    except Exception:  # damaged files fail in many ways
        return None


def joined(parts: list[Scores]) -> Scores:
    """Parts together, in order of the index, each example once."""
    index, scores, label = (
        np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS
    )
    _, first = np.unique(index, return_index=True)
    return Scores(index[first], scores[first], label[first])


def write_scores(
    path: Path,
    scores: Scores,
    name: Callable[[int], str],
    checkpoint: int | str,
    digest: str,
) -> None:
    """Writes the scores of a whole split.

    The arrays are `scores` float32 [N, classes], log-probabilities after the protocol's
    averaging; `index` and `label` int32 [N] (-1 where there is none); `name` of every image;
    `checkpoint` and `digest`.

    Args:
      path: of the `.npz` file; replaced whole, or not at all.
      scores: of all examples.
      name: index -> what the image is called.
      checkpoint: the step, or where the weights are from.
      digest: of everything that the scores depend on.

    Raises:
      OSError: it cannot be written.
    """
    _write(
        path,
        scores=scores.scores,
        index=scores.index,
        label=scores.label,
        name=np.array([name(int(index)) for index in scores.index], np.str_),
        checkpoint=np.array(checkpoint),
        digest=np.array(digest),
    )


def remove_parts(path: Path) -> None:
    """Removes all parts of what is now `path`, and what was left of them half written."""
    for part in path.parent.iterdir():
        if part.name.removeprefix(".").startswith(f"{path.stem}.part-"):
            with contextlib.suppress(OSError):
                part.unlink()


def _write(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path, shared=True) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
