"""The scores of a split, saved in parts, so that an interrupted evaluation can go on."""

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from devices.mesh import gather_rows
from evaluation import Scores, score_files
from training.errors import RunError
from training.facts import weights_digest
from training.trained import Trained

Batches = Iterator[dict[str, np.ndarray]]
# Number of examples in a part, about; an interruption loses at most one part.
_PART = 4096


def scores_digest(trained: Trained, settings: dict[str, Any]) -> str:
    """A digest of the weights, the normalisation, and all other settings of the scores."""
    whole = [weights_digest(trained), jax.process_count(), settings]
    text = json.dumps(whole, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def scores_in_parts(
    scores_of: Callable[[Batches], Scores],
    batches: Callable[[int], Batches],
    batch_size: int,
    path: Path,
    digest: str,
) -> Scores:
    """This process's scores of a split; parts that exist are not computed again.

    Args:
      scores_of: computes the scores of some batches; every process calls it with equally many.
      batches: number of the first batch -> the split from there.
      batch_size: examples in a batch over all processes.
      path: the file that the parts will be joined to.
      digest: of everything that the scores depend on.

    Raises:
      RunError: a part cannot be written.
    """
    process, at_once = jax.process_index(), max(_PART // batch_size, 1)
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


def join_parts(
    path: Path,
    digest: str,
    examples: int,
    checkpoint: int | str,
    example_name: Callable[[int], str],
) -> None:
    """Joins the parts of all processes to one file; every process calls this.

    Args:
      path: the file; the parts lie beside it, and are removed once it is written.
      digest: of everything that the scores depend on.
      examples: number of examples in all parts together.
      checkpoint, example_name: see `score_files.write_scores`.

    Raises:
      RunError: the file cannot be written, or parts are missing.
    """
    gather_rows(np.zeros(1, np.int32))  # waits until all processes have written their parts
    if jax.process_index() == 0:
        parts = []
        for process in range(jax.process_count()):
            for number in itertools.count():
                part = score_files.read_part(_part(path, process, number), digest)
                if part is None:
                    break
                parts.append(part)
        whole = score_files.joined(parts) if parts else None
        found = 0 if whole is None else len(whole.index)
        if whole is None or found != examples:
            raise RunError(
                f"{path}: the parts beside it hold {found} of {examples} examples. All hosts "
                "write to one --workdir, and one evaluation at a time; the same command goes on "
                "from the parts that are there"
            )
        try:
            score_files.write_scores(path, whole, example_name, checkpoint, digest)
        except OSError as error:
            raise _failed(path, error) from error
        score_files.remove_parts(path)
    gather_rows(np.zeros(1, np.int32))  # waits until the file is written


_part = score_files.part_path


def _failed(path: Path, error: OSError) -> RunError:
    existing = next(directory for directory in path.absolute().parents if directory.is_dir())
    free = shutil.disk_usage(existing).free / 1e6
    return RunError(
        f"{path}: cannot be written ({error.strerror}; {free:.0f} MB are free there). What was "
        "written is kept, and the same command goes on from it; without it: "
        "--config.evaluation.save_scores=False"
    )
