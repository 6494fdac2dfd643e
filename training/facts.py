"""Facts about a run that all processes of a launch compare with one another."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from training.trained import Trained
from training.workdir import flat_fields, package_versions

# Fields that may differ between hosts: paths, and the number of threads that read.
# The contents are compared by the dataset's fingerprint and a digest of the weights.
_OF_THE_HOST = (
    "data.dir",
    "data.cache_dir",
    "data.prepared_dir",
    "data.validation_labels",
    "data.threads",
    "init_from",
)
# JAX's settings that change a program's results.
_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_platforms",
)
_ROOMS = (
    *("configs", "devices", "evaluation", "input_pipeline", "trained_networks", "training"),
    "vision_models",
)
_FILES = ("files.py", "localizing.py", "main.py", "modes.py", "process.py")


def facts_of_launch(mode: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Facts known before data or devices are touched, by their names on the screen.

    Args:
      mode: main's.
      config: the resolved config as plain nested dicts.
    """
    facts: dict[str, Any] = {"--mode": mode}
    facts |= {k: v for k, v in flat_fields(config).items() if k not in _OF_THE_HOST}
    facts |= {f"version of {k}": v for k, v in package_versions().items()}
    facts |= {name.upper(): jax.config.values.get(name) for name in _SETTINGS}
    # Of the files, not of the git commit: copies without git and edits of documents are equal.
    facts["our code"] = code_digest(Path(__file__).parent.parent)
    return facts


def facts_of_inputs(fingerprint: str, opened: Trained | None, begun: bool) -> dict[str, Any]:
    """Facts known once data and weights have been opened, by their names on the screen.

    Args:
      fingerprint: the dataset's.
      opened: weights to start from; the workdir's checkpoint where that was opened, which may be
        a newer one for a process that came later.
      begun: whether the workdir holds a checkpoint.
    """
    found = None if opened is None else opened.step if begun else weights_digest(opened)
    return {
        "the dataset's files, labels or splits": fingerprint[:12],
        "the weights of init_from": None if begun else found,
        "a checkpoint in --workdir": begun,
        "the step of that checkpoint": found if begun else None,
    }


def code_digest(root: Path) -> str:
    """A digest of the names and contents of the Python files that a run executes."""
    files = [p for room in _ROOMS for p in (root / room).rglob("[!.]*.py")]
    files += [root / name for name in _FILES]
    digest = hashlib.sha256()
    for path in sorted(p for p in files if p.is_file()):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def weights_digest(initial: Trained) -> str:
    """A digest of all tensors and of their normalisation."""
    return array_digest(initial.params, initial.statistics, initial.normalization)


def array_digest(*arrays: Any) -> str:
    """A digest of nested dicts of arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:12]
