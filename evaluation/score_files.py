"""Score files: written in parts during an evaluation, joined at its end, read by commands."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

import files
from evaluation.errors import EvaluationError
from evaluation.scores import Scores

_FIELDS = ("index", "scores", "label")


@dataclasses.dataclass(frozen=True, eq=False)
class Kept:
    """The content of a score file.

    Attributes:
      path: of the file.
      scores: of all examples of a split.
      name: of each image, str [N].
      split: name of the split.
      protocol: name of the protocol, with its options if any were set.
      class_names: of each column of the scores; None if an older file does not contain them.
      checkpoint: step of the checkpoint, or source of the weights.
    """

    path: Path
    scores: Scores
    name: np.ndarray
    split: str
    protocol: str
    class_names: tuple[str, ...] | None
    checkpoint: int | str


def part_path(path: Path, process: int, number: int) -> Path:
    """Path of the part `number` that a process writes of the score file `path`."""
    return path.with_name(f"{path.stem}.part-{process}-{number}.npz")


def write_part(path: Path, scores: Scores, digest: str) -> None:
    """Writes a part, atomically.

    Args:
      path: from `part_path`.
      scores: of the part.
      digest: hash of everything that the scores depend on.

    Raises:
      OSError: it cannot be written.
    """
    _write(path, digest=np.array(digest), **{name: getattr(scores, name) for name in _FIELDS})


def read_part(path: Path, digest: str) -> Scores | None:
    """A part that was written before; None if it is missing, damaged or of another digest."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["digest"]) != digest:
                return None
            return Scores(*(saved[name] for name in _FIELDS))
    except Exception:  # damaged files fail in many ways
        return None


def joined(parts: list[Scores]) -> Scores:
    """Concatenates parts, sorted by index; of an example in several parts the first counts."""
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
    averaging; `index` and `label` int32 [N] (label -1 for none); `name` str [N];
    `checkpoint` and `digest`; `split`, `protocol` and `class_names`.

    Args:
      path: of the `.npz` file; replaced atomically.
      scores: of all examples.
      name: index -> name of the image.
      checkpoint: step of the checkpoint, or source of the weights.
      digest: hash of everything that the scores depend on.
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
    """Reads the scores of a whole split.

    Raises:
      EvaluationError: no such file, not a score file, or scores that are no numbers.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            names = saved["class_names"].tolist() if "class_names" in saved else None
            kept = Kept(
                path,
                Scores(*(saved[field] for field in _FIELDS)),
                saved["name"],
                *_subject(path, saved),
                tuple(names) if names else None,
                saved["checkpoint"].item(),
            )
        count = len(kept.scores.index)
        if kept.scores.scores.ndim != 2 or not (
            count == len(kept.scores.scores) == len(kept.scores.label) == len(kept.name)
        ):
            raise ValueError("arrays of different lengths")
    except FileNotFoundError as error:
        raise EvaluationError(f"{path}: no such run and no such file of scores") from error
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # damaged files fail in many ways
        raise EvaluationError(
            f"{path}: no file of scores, or damaged ({str(error)[:100]}); they are written by "
            "--mode=evaluate --config.evaluation.save_scores=True"
        ) from error
    broken = np.flatnonzero(np.isnan(kept.scores.scores).any(axis=1))
    if len(broken):
        raise EvaluationError(
            f"{path}: scores of {len(broken)} images are no numbers (the first is "
            f"{kept.name[broken[0]]}); the network that gave them is broken"
        )
    return kept


def finished(directory: Path) -> list[Path]:
    """The score files in a directory, sorted: no parts, and no hidden files of systems."""
    found = sorted(p for p in directory.glob("[!.]*.npz") if ".part-" not in p.name)
    return [path for path in found if path.is_file()]


def subject(path: Path) -> tuple[str, str]:
    """Split and protocol of a score file; of a damaged one those that its name says."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            return _subject(path, saved)
    except Exception:  # damaged files fail in many ways
        return _subject(path, {})


def _subject(path: Path, saved: Mapping[str, np.ndarray]) -> tuple[str, str]:
    # Older files have them in their name only.
    split, _, protocol = path.stem.partition("-")
    return str(saved.get("split", split)), str(saved.get("protocol", protocol))


def scores_of(source: Path, split: str | None = None, protocol: str | None = None) -> Kept:
    """Reads the scores that a command line names.

    Args:
      source: a score file, or a run's directory, whose files in `scores/` are searched. Files
        there that are not wanted may be damaged.
      split, protocol: the file that is wanted of a run; None for any.

    Raises:
      EvaluationError: no file of a run matches, or several do; or as in `read_scores`.
    """
    if not source.is_dir():
        return read_scores(source)
    inside = source / "scores" if (source / "scores").is_dir() else source
    there = finished(inside)
    fitting = [
        path
        for path, (of_split, of_protocol) in zip(there, map(subject, there), strict=True)
        if split in (None, of_split) and protocol in (None, of_protocol)
    ]
    if len(fitting) == 1:
        return read_scores(fitting[0])
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


def file_names(kept: Kept) -> list[str]:
    """The names of the examples without directories, whichever slashes they have."""
    return [str(name).replace("\\", "/").rpartition("/")[2] for name in kept.name]


def remove_parts(path: Path) -> None:
    """Removes all parts of the score file `path`, half-written ones too."""
    for part in path.parent.iterdir():
        if part.name.removeprefix(".").startswith(f"{path.stem}.part-"):
            with contextlib.suppress(OSError):
                part.unlink()


def _write(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path, shared=True) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
