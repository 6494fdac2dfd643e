"""The directory of a run: its default name, its saved config, and whether it may be continued."""

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Generator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from training.errors import TrainingError

# Fields that do not change what a step computes; prefixes of their paths.
FREE_FIELDS = (
    "total_",
    "log_every_",
    "checkpoint_",
    "evaluate_every_",
    "evaluation.",
    "mesh.",
    "profile_",
    "nonfinite",  # what becomes of an update that nothing comes of
    "data.dir",
    "data.cache_dir",
    "data.prepared_dir",  # the dataset's fingerprint tells
    "data.prepare.",
    "data.threads",
    "data.unreadable",
)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow")


# Fields that matter only to a run that has not begun: a checkpoint wins over them.
START_FIELDS = ("init_",)


def changes_result(field: str) -> bool:
    """Whether a field, such as `data.crop`, changes what a run computes."""
    return not field.startswith(FREE_FIELDS)


def default_workdir(name: str, variant: str, overrides: Mapping[str, Any]) -> Path:
    """runs/<config>[-<variant>][-<overrides that change the result>].

    Args:
      name: of the config.
      variant: or "".
      overrides: path and value of each overridden field.
    """
    changed = [f"{k}={v}" for k, v in sorted(overrides.items()) if changes_result(k)]
    parts = [name, *([variant] if variant else []), *changed]
    readable = re.sub(r"[^\w.,=-]+", "_", "-".join(parts))
    if len(readable) > 120:
        readable = f"{readable[:100]}-{hashlib.sha256(readable.encode()).hexdigest()[:12]}"
    return Path("runs") / readable


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields as one level of paths: {"data": {"crop": 224}} -> {"data.crop": 224}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run has saved anything that could be continued or evaluated."""
    directory = workdir / "checkpoints"
    return directory.is_dir() and any(
        path.name.removesuffix(".replaced").isdigit() for path in directory.iterdir()
    )


@contextlib.contextmanager
def locked(workdir: Path) -> Generator[None, None, None]:
    """Keeps other processes of this machine, or of a file system that can, from the same run.

    Raises:
      TrainingError: one is at it, or the directory cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # not a Unix
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / ".lock", "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise _cannot_write(workdir, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"{workdir}: another process is training there; wait for it, or choose another "
                "--workdir"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield


def check_continuation(workdir: Path, config: Mapping[str, Any]) -> None:
    """Refuses to go on with a run that was started with another config.

    Args:
      workdir: of the run; fine if it holds no checkpoint, for then there is nothing to lose.
      config: resolved, as plain nested dicts.

    Raises:
      TrainingError: fields that change the result differ; the message names them.
    """
    path = workdir / "config.json"
    if not (path.exists() and has_checkpoint(workdir)):
        return
    try:
        saved = flatten(json.loads(path.read_text())["config"])
    except (ValueError, KeyError) as error:
        raise TrainingError(
            f"{path}: damaged ({error}); remove it, or choose another --workdir"
        ) from error
    now = flatten(config)
    # What is observed decides when a plateau lowers the rate.
    decisive = ("evaluate_every_",) if now.get("optimizer.plateau_patience") else ()
    differing = [
        f"{field} (was {saved.get(field)}, now {now.get(field)})"
        for field in sorted(saved.keys() | now.keys())
        if (changes_result(field) or field.startswith(decisive))
        and not field.startswith(START_FIELDS)
        and saved.get(field) != now.get(field)
    ]
    if differing:
        raise TrainingError(
            f"{workdir} holds a run with another config: {', '.join(differing)}. "
            "Choose another --workdir, or the same config"
        )


def check_dataset(workdir: Path, fingerprint: str) -> None:
    """Refuses to go on with a run on other data.

    Raises:
      TrainingError: the dataset is not that of the saved config.
    """
    path = workdir / "config.json"
    if not (path.exists() and has_checkpoint(workdir)):
        return
    saved = json.loads(path.read_text()).get("dataset", {}).get("fingerprint")
    if saved is not None and saved != fingerprint:
        raise TrainingError(
            f"{workdir} holds a run on other data: the files, labels or division into splits have "
            "changed since. Restore the data, or choose another --workdir"
        )


def save_config(workdir: Path, config: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
    """Writes config.json: the resolved config, the dataset, versions, git commit and command.

    Raises:
      TrainingError: the directory cannot be made or written.
    """
    content = {
        "config": {**config, **_start_fields(workdir)},
        "dataset": {k: v for k, v in dataset.items() if k != "class_names"},
        "versions": {"python": sys.version.split()[0], **package_versions()},
        "git_commit": _git_commit(),
        "command": sys.argv,
    }
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        temporary = workdir / "config.json.tmp"
        temporary.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(temporary, workdir / "config.json")
    except OSError as error:
        raise _cannot_write(workdir, error) from error


def package_versions() -> dict[str, str]:
    """Of the packages that a run depends on."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _start_fields(workdir: Path) -> dict[str, Any]:
    """What a run that goes on has begun from."""
    if not has_checkpoint(workdir):
        return {}
    try:
        saved = json.loads((workdir / "config.json").read_text())["config"]
        return {name: saved[name] for name in saved if name.startswith(START_FIELDS)}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _cannot_write(workdir: Path, error: OSError) -> TrainingError:
    return TrainingError(f"--workdir={workdir}: cannot be written ({error.strerror})")


def _git_commit() -> str | None:
    """The commit of this code, marked where files have changed since; None outside a checkout."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
