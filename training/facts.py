"""What a process says of its run, for the others of the launch to compare with theirs."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from training.trained import Trained
from training.workdir import flat_fields, package_versions

# Fields that each host may have its own of: where things lie and how many threads read them.
# What lies there is compared, by the dataset's fingerprint and by a digest of the weights.
_OF_THE_HOST = (
    "data.dir",
    "data.cache_dir",
    "data.prepared_dir",
    "data.validation_labels",
    "data.threads",
    "init_from",
)
# Of JAX: what changes the numbers of a program.
_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_platforms",
)
_ROOMS = ("configs", "devices", "evaluation", "input_pipeline", "training", "vision_models")
_FILES = ("files.py", "main.py", "modes.py", "process.py")


def facts_of_launch(mode: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What is known before data or devices are touched, by what it is called on the screen.

    Args:
      mode: of main.
      config: resolved, as plain nested dicts.
    """
    facts: dict[str, Any] = {"--mode": mode}
    facts |= {k: v for k, v in flat_fields(config).items() if k not in _OF_THE_HOST}
    facts |= {f"version of {k}": v for k, v in package_versions().items()}
    facts |= {name.upper(): jax.config.values.get(name) for name in _SETTINGS}
    # The files, and not git's word: a copy without git, or other documents, make no other run.
    facts["our code"] = code_digest(Path(__file__).parent.parent)
    return facts


def facts_of_inputs(fingerprint: str, initial: Trained | None, begun: bool) -> dict[str, Any]:
    """What is known once data and weights have been opened.

    Args:
      fingerprint: of the dataset.
      initial: weights to start from.
      begun: the workdir holds a checkpoint.
    """
    return {
        "the dataset's files, labels or splits": fingerprint[:12],
        "the weights of init_from": None if initial is None else weights_digest(initial),
        "a checkpoint in --workdir": begun,
    }


def code_digest(root: Path) -> str:
    """Of the Python files that make a run, by name and content."""
    files = [p for room in _ROOMS for p in (root / room).rglob("*.py")]
    files += [root / name for name in _FILES]
    digest = hashlib.sha256()
    for path in sorted(p for p in files if p.is_file()):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def weights_digest(initial: Trained) -> str:
    """Of every tensor and of the normalisation that goes with them."""
    digest = hashlib.sha256()
    arrays = (initial.params, initial.statistics, initial.normalization)
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:12]
