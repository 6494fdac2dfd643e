"""Scores as files: written in parts as an evaluation goes, joined at its end, read again."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import files
from evaluation.errors import EvaluationError
from evaluation.scores import Scores

_FIELDS = ("index", "scores", "label")


@dataclasses.dataclass(frozen=True, eq=False)
class Kept:
    """What a file of scores holds.

    Attributes:
      path: of the file.
      scores: of all examples of a split.
      name: of every image, str [N].
      split: its name.
      protocol: with what was asked for besides its name.
      class_names: of each score; None where an older file does not say it.
    """

    path: Path
    scores: Scores
    name: np.ndarray
    split: str
    protocol: str
    class_names: tuple[str, ...] | None


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
    *,
    split: str,
    protocol: str,
    class_names: Sequence[str],
) -> None:
    """Writes the scores of a whole split.

    The arrays are `scores` float32 [N, classes], log-probabilities after the protocol's
    averaging; `index` and `label` int32 [N] (-1 where there is none); `name` of every image;
    `checkpoint` and `digest`; `split`, `protocol` and `class_names`.

    Args:
      path: of the `.npz` file; replaced whole, or not at all.
      scores: of all examples.
      name: index -> what the image is called.
      checkpoint: the step, or where the weights are from.
      digest: of everything that the scores depend on.
      split, protocol, class_names: see `Kept`.

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
        split=np.array(split),
        protocol=np.array(protocol),
        class_names=np.array(class_names, np.str_),
    )


def read_scores(path: Path) -> Kept:
    """The scores of a whole split.

    Raises:
      EvaluationError: no such file, or not one of scores.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            # A file from before says them by its name alone.
            split, _, protocol = path.stem.partition("-")
            names = saved["class_names"].tolist() if "class_names" in saved else None
            kept = Kept(
                path,
                Scores(*(saved[field] for field in _FIELDS)),
                saved["name"],
                str(saved["split"]) if "split" in saved else split,
                str(saved["protocol"]) if "protocol" in saved else protocol,
                None if names is None else tuple(names),
            )
        count = len(kept.scores.index)
        if kept.scores.scores.ndim != 2 or not (
            count == len(kept.scores.scores) == len(kept.scores.label) == len(kept.name)
        ):
            raise ValueError("arrays of different lengths")
        return kept
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # damaged files fail in many ways
        raise EvaluationError(
            f"{path}: no file of scores, or damaged ({str(error)[:100]}); they are written by "
            "--mode=evaluate --config.evaluation.save_scores=True"
        ) from error


def scores_of(source: str, split: str | None = None, protocol: str | None = None) -> Kept:
    """The scores that a command line names: a file, or a run with one that fits.

    Args:
      source: path of a file of scores, or of a run's directory, whose `scores/` is looked at.
      split, protocol: of a run: which of its files.

    Raises:
      EvaluationError: there is none, or more than one, or see `read_scores`.
    """
    path = Path(source)
    if not path.is_dir():
        return read_scores(path)
    inside = path / "scores" if (path / "scores").is_dir() else path
    there = sorted(p for p in inside.glob("*.npz") if ".part-" not in p.name)
    kept = [read_scores(p) for p in there]
    fitting = [k for k in kept if split in (None, k.split) and protocol in (None, k.protocol)]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(p.name for p in there)
    if fitting:
        raise EvaluationError(
            f"{source}: several files of scores ({listed}); choose with --split and --protocol, or "
            "name the file"
        )
    wanted = " ".join(f"--{n}={v}" for n, v in (("split", split), ("protocol", protocol)) if v)
    raise EvaluationError(
        f"{source}: no scores {f'of {wanted} ' * bool(wanted)}in {inside}/"
        + (f" (there are {listed})" if listed else "")
        + "; write them with --mode=evaluate --config.evaluation.save_scores=True"
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
