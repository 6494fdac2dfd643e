"""The scores of a split, saved in parts, so that an interrupted evaluation can resume."""

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from devices.mesh import gather_rows
from evaluation import Protocol, Scores, score_files
from training.errors import RunError
from training.facts import weights_digest
from training.trained import Trained

Batches = Iterator[dict[str, np.ndarray]]
# Approximate number of crops that a part costs. An interruption loses at most one part.
_PART = 2048


def scores_digest(trained: Trained, settings: dict[str, Any]) -> str:
    """Digest, 16 hexadecimal digits, of everything that determines the scores.

    That is the weights, the normalisation, the number of processes, and `settings`.
    """
    whole = [weights_digest(trained), jax.process_count(), settings]
    text = json.dumps(whole, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def scores_in_parts(
    scores_of: Callable[[Batches], Scores],
    batches: Callable[[int], Batches],
    batch_size: int,
    path: Path,
    digest: str,
    cost: float = 1.0,
) -> Scores:
    """Computes this process's scores for one look; parts that exist are not computed again.

    Args:
      scores_of: computes the scores of some batches. Every process calls it with the same number
        of batches.
      batches: maps the number of a batch to the split's batches from that one on.
      batch_size: number of examples in a batch, over all processes.
      path: the file that the parts will be joined into; see `look_path`.
      digest: see `scores_digest`. Parts with another digest are computed again.
      cost: of an image, in crops; see `Look.cost`.

    Raises:
      RunError: a part cannot be written.
    """
    process, at_once = jax.process_index(), max(int(_PART / batch_size / max(cost, 1)), 1)
    parts: list[Scores] = []
    while (part := score_files.read_part(_part(path, process, len(parts)), digest)) is not None:
        parts.append(part)
    # All processes compute every step together, so they start from the same part.
    (counts,) = gather_rows(np.array([len(parts)], np.int32))
    del parts[int(counts.min()) :]
    stream = batches(len(parts) * at_once)
    while chunk := list(itertools.islice(stream, 1)):
        part = scores_of(itertools.chain(chunk, itertools.islice(stream, at_once - 1)))
        try:
            score_files.write_part(_part(path, process, len(parts)), part, digest)
        except OSError as error:
            raise _failed(path, error) from error
        parts.append(part)
    return score_files.joined(parts)


def look_path(path: Path, protocol: Protocol, number: int) -> Path:
    """The path that a look's parts are named after: `path` itself if there is only one look.

    Otherwise the side of the look's images in pixels is added to it, as in `name.256.npz`.
    """
    if len(protocol.looks) == 1:
        return path
    return path.with_name(f"{path.stem}.{protocol.looks[number].images.side}.npz")


def over_looks(protocol: Protocol, looks: list[Scores]) -> Scores:
    """Combines the scores of all looks; every process calls this with its share of each look."""
    if len(looks) > 1:  # a process may hold different examples in each look
        looks = [score_files.joined([Scores(*gather_rows(*_columns(s)))]) for s in looks]
    return combined(protocol, looks)


def combined(protocol: Protocol, looks: list[Scores]) -> Scores:
    """Averages over looks that hold the same examples in the same order."""
    first = looks[0]
    return Scores(first.index, protocol.combined([s.scores for s in looks]), first.label)


def _columns(scores: Scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return scores.index, scores.scores, scores.label


def join_parts(
    path: Path,
    protocol: Protocol,
    digest: str,
    examples: int,
    checkpoint: int | str,
    example_name: Callable[[int], str],
    *,
    split: str,
    class_names: Sequence[str],
) -> None:
    """Joins the parts of all processes into one file; every process calls this.

    Args:
      path: the file to write. The parts lie beside it and are removed afterwards.
      protocol: the protocol whose looks were scored.
      digest: see `scores_digest`.
      examples: number of examples that the parts of each look must hold.
      checkpoint, example_name, split, class_names: see `score_files.write_scores`.

    Raises:
      RunError: the file cannot be written, or parts are missing.
    """
    gather_rows(np.zeros(1, np.int32))  # waits until all processes have written their parts
    if jax.process_index() == 0:
        places = [look_path(path, protocol, number) for number in range(len(protocol.looks))]
        looks = []
        for place in places:
            parts = _all_parts(place, digest)
            looks += [score_files.joined(parts)] if parts else []
            found = len(looks[-1].index) if parts else 0
            if found != examples:
                raise RunError(
                    f"{place}: the parts beside it hold {found} of {examples} examples. All hosts "
                    "write to one --workdir, and one evaluation at a time; the same command goes "
                    "on from the parts that are there"
                )
        try:
            whole = combined(protocol, looks)
            score_files.write_scores(
                path, whole, example_name, checkpoint, digest,
                split=split, protocol=protocol.label, class_names=class_names,
            )  # fmt: skip
        except OSError as error:
            raise _failed(path, error) from error
        for place in places:
            score_files.remove_parts(place)
    gather_rows(np.zeros(1, np.int32))  # waits until the file is written


def _all_parts(path: Path, digest: str) -> list[Scores]:
    """The parts of all processes that exist and have this digest."""
    parts = []
    for process in range(jax.process_count()):
        for number in itertools.count():
            part = score_files.read_part(_part(path, process, number), digest)
            if part is None:
                break
            parts.append(part)
    return parts


_part = score_files.part_path


def _failed(path: Path, error: OSError) -> RunError:
    existing = next(directory for directory in path.absolute().parents if directory.is_dir())
    free = shutil.disk_usage(existing).free / 1e6
    return RunError(
        f"{path}: cannot be written ({error.strerror}; {free:.0f} MB are free there). What was "
        "written is kept, and the same command goes on from it; without it: "
        "--config.evaluation.save_scores=False"
    )
