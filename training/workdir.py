"""The directory of a run: its default name, its saved config, and whether it may be continued."""

import contextlib
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import files
import trained_networks
import vision_models
from training.errors import TrainingError
from training.writers import say
from vision_models.trees import flatten

# Prefixes of the paths of fields that do not change what a step computes.
FREE_FIELDS = (
    "total_",
    "log_every_",
    "checkpoint_",
    "evaluate_every_",
    "evaluation.",
    "mesh.",
    "profile_",
    "nonfinite",  # concerns only updates that are left out or end the run
    "data.dir",
    "data.cache_dir",
    "data.prepared_dir",  # the dataset's fingerprint shows a change
    "data.validation_labels",
    "data.prepare.",
    "data.threads",
    "data.unreadable",
)
# Names in a workdir: the pattern of a checkpoint's, its suffix while it is replaced, and the
# directory of damaged checkpoints.
STEP, REPLACED, DAMAGED = "0|[1-9][0-9]*", ".replaced", "damaged"
_PACKAGES = (
    "vision-models",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "tensorflow",
)


# Seconds to wait for a lock of a run: `in_training` of another process shares it for an instant.
_PATIENCE = 1.0
# Fields that runs begun by earlier versions do not have, and what they did.
LATER_FIELDS = {
    "data.classes": [],
    "data.fold": 0,
    "data.choice_seed": 0,
    "data.sampling": "uniform",
    "loss.boxes": "none",
    "data.boxes.count": 0,
    "data.boxes.extent": "whole",
    "data.boxes.least_visible": 0.0,
    "loss.class_weights": "none",
    "loss.label_smoothing": 0.0,
    "optimizer.max_gradient_norm": 0.0,
    "evaluation.validation_protocol": "center_crop",
}
# Fields of the evaluations that decide when a plateau lowers the rate.
_WATCHES = ("evaluate_every_", "evaluation.validation_protocol")
# Fields that matter only to a run that has not begun: a checkpoint wins over them.
START_FIELDS = ("init_",)


def changes_result(field: str) -> bool:
    """Whether a field, such as `data.crop`, changes what a run computes."""
    return not field.startswith(FREE_FIELDS)


def default_workdir(name: str, variant: str, overrides: Mapping[str, Any]) -> Path:
    """runs/<config>[-<variant>][-<overrides that change the result>].

    Args:
      name: the config's.
      variant: the config's, or "".
      overrides: path and value of each overridden field.
    """
    changed = [f"{k}={v}" for k, v in sorted(overrides.items()) if changes_result(k)]
    parts = [name, *([variant] if variant else []), *changed]
    readable = re.sub(r"[^\w.,=-]+", "_", "-".join(parts))
    if len(readable) > 120:
        readable = f"{readable[:100]}-{hashlib.sha256(readable.encode()).hexdigest()[:12]}"
    return Path("runs") / readable


def name_of_weights(source: str) -> str:
    """The name of the directory, in `runs`, for evaluations of a weights file.

    Args:
      source: of a trained network its name, which is the answer; else the file's path. Exported
        files are all called alike, so that their contents tell them apart, on any host.
    """
    path = Path(source)
    if located(path) != path:
        return source
    with open(path, "rb") as file:
        return f"{path.stem}-{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"


def user_path(text: str, field: str) -> Path:
    """A path as a user writes it: `~` is the home directory, and `./~` a file of that name.

    Raises:
      TrainingError: the home directory is not known, or it is a URL.
    """
    try:
        return Path(files.expanded(text))
    except ValueError as error:
        raise TrainingError(f"{field}={text}: {error}") from error


def located(path: Path) -> Path:
    """The path that a user means: itself, or the file of one of the project's trained networks.

    Only a bare name that is no path, such as `lenet5-mnist`, is looked up among these.

    Raises:
      TrainingError: no trained network has this name, or its file is damaged.
    """
    if len(path.parts) != 1 or path.suffix or os.path.lexists(path):
        return path
    try:
        return trained_networks.path_of(path.name)
    except ValueError as error:
        raise TrainingError(str(error)) from error


def is_directory(path: Path) -> bool:
    """Whether a path is a directory; False for paths that the system refuses, such as too long."""
    try:
        return path.is_dir()
    except OSError:
        return False


def flat_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by path, tuples as lists: {"data": {"crop": 224}} -> {"data.crop": 224}."""
    flat = flatten(config, ".")
    return {k: list(v) if isinstance(v, tuple) else v for k, v in flat.items()}


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run has saved a checkpoint, which can be continued or evaluated."""
    return bool(steps_in(workdir / "checkpoints", replaced=True))


def steps_in(directory: Path, *, replaced: bool = False) -> list[int]:
    """The steps of the checkpoints in a directory, ascending; other entries are ignored.

    Args:
      directory: of checkpoints.
      replaced: whether checkpoints count that were set aside for a replacement.

    Raises:
      TrainingError: the directory cannot be read.
    """
    try:
        entries = list(directory.iterdir()) if directory.is_dir() else []
        found = [path.name for path in entries if path.is_dir()]
    except OSError as error:
        raise TrainingError(f"{directory}: cannot be read ({error.strerror})") from error
    names = [name.removesuffix(REPLACED) if replaced else name for name in found]
    return sorted(int(name) for name in names if re.fullmatch(STEP, name))


def damaged_in(workdir: Path) -> bool:
    """Whether checkpoints of a run were damaged and moved aside."""
    aside = workdir / DAMAGED
    try:
        names = [path.name for path in aside.iterdir()] if aside.is_dir() else []
    except OSError as error:
        raise TrainingError(f"{aside}: cannot be read ({error.strerror})") from error
    return any(re.fullmatch(f"({STEP})(-[0-9]+)?", name) for name in names)


@contextlib.contextmanager
def locked(workdir: Path) -> Generator[None, None, None]:
    """Inside, no other process trains in `workdir`, as far as the file system supports locks.

    Raises:
      TrainingError: another process is training there, or the directory cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.locked(workdir / ".lock", patience=_PATIENCE))
        except BlockingIOError:
            raise TrainingError(
                f"{workdir}: another process is training there; wait for it, or choose another "
                "--workdir"
            ) from None
        except OSError as error:
            raise _cannot_write(workdir, error) from error
        yield


def in_training(workdir: Path) -> bool:
    """Whether a process of this machine is training in `workdir`."""
    return files.is_locked(workdir / ".lock")


def check_continuation(workdir: Path, config: Mapping[str, Any]) -> None:
    """Refuses to go on with a run that was started with another config.

    Args:
      workdir: the run's; without a checkpoint in it any config may begin.
      config: the resolved config as plain nested dicts.

    Raises:
      TrainingError: fields that change the result differ; the message names them.
    """
    saved = _saved_run(workdir)
    if saved is None:
        if has_checkpoint(workdir):
            say(f"{workdir}: no config.json to compare with; its run is continued as it is")
        return
    saved, now = (LATER_FIELDS | flat_fields(of) for of in (saved["config"], config))
    for fields in (saved, now):
        _spell_out_the_network(fields)
    # The evaluations decide when a plateau lowers the rate.
    decisive = _WATCHES if now.get("optimizer.plateau_patience") else ()
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


def _spell_out_the_network(fields: dict[str, Any]) -> None:
    """Writes a network's own name and all its options into `fields`, defaults included."""
    options = {k.removeprefix("model."): v for k, v in fields.items() if k.startswith("model.")}
    with contextlib.suppress(ValueError):  # the name is no longer known
        name = vision_models.name_of(options.pop("name", ""), options)
        fields["model.name"] = name
        defaults = flat_fields({"model": vision_models.default_options(name)})
        for field in defaults.keys() - fields.keys():
            fields[field] = defaults[field]


def check_dataset(workdir: Path, fingerprint: str) -> None:
    """Refuses to go on with a run on other data.

    Raises:
      TrainingError: the dataset is not that of the saved config.
    """
    run = _saved_run(workdir)
    if run is not None and run["dataset"].get("fingerprint") not in (None, fingerprint):
        raise TrainingError(
            f"{workdir} holds a run on other data: the files, labels or division into splits have "
            "changed since. Restore the data, or choose another --workdir"
        )


def saved_config(workdir: Path) -> dict[str, Any]:
    """`config` and `dataset`, both dicts, as `save_config` wrote them.

    Raises:
      FileNotFoundError: there is no config.json.
      TrainingError: config.json cannot be read, or is damaged.
    """
    path = workdir / "config.json"
    try:
        saved = json.loads(path.read_bytes())
        found = {"config": saved["config"], "dataset": saved.get("dataset", {})}
        if not all(isinstance(part, dict) for part in found.values()):
            raise ValueError("not as it was written")
        return found
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(
            f"{path}: damaged ({str(error)[:100]}), so that nobody knows whose run this is. Put a "
            "copy back, or rename it if you know; or choose another --workdir"
        ) from error


def begun_by(workdir: Path) -> str:
    """The version that began a run, as the end of an error message; empty if not known."""
    try:
        saved = json.loads((workdir / "config.json").read_bytes())
        version = saved["versions"].get("vision-models", "before 0.1.0")
        commit = f", commit {saved['git_commit'][:12]}" if saved.get("git_commit") else ""
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""
    return f"; the run was begun by vision_models {version}{commit}"


def _saved_run(workdir: Path) -> dict[str, Any] | None:
    """`saved_config` of a run with checkpoints, sound or damaged; None for others."""
    if not (has_checkpoint(workdir) or damaged_in(workdir)):
        return None
    with contextlib.suppress(FileNotFoundError):
        return saved_config(workdir)
    return None


def save_config(workdir: Path, config: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
    """Writes config.json: the resolved config, dataset, versions, commit, machine and command.

    Raises:
      TrainingError: the directory cannot be made or written.
    """
    about = dict(dataset)
    if "class_names" in about:  # a thousand names would hide the rest
        about["classes"] = len(about.pop("class_names"))
    content = {
        "config": {**config, **_start_fields(workdir)},
        "dataset": about,
        "versions": {"python": sys.version.split()[0], **package_versions()},
        "git_commit": _git_commit(),
        "machine": _machine(),
        "command": sys.argv,
    }
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with files.replacing(workdir / "config.json") as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise _cannot_write(workdir, error) from error


def package_versions() -> dict[str, str]:
    """The versions of the packages that a run depends on."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _machine() -> dict[str, Any]:
    """What a run's first process sees: the system, its cores, and the devices of all processes."""
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "devices": dict(Counter(device.device_kind for device in jax.devices())),
        "processes": jax.process_count(),
    }


def _start_fields(workdir: Path) -> dict[str, Any]:
    """The saved `init_*` fields of a run that is continued; empty for a new run."""
    if not has_checkpoint(workdir):
        return {}
    try:
        saved = saved_config(workdir)["config"]
    except (FileNotFoundError, TrainingError):
        return {}
    return {name: saved[name] for name in saved if name.startswith(START_FIELDS)}


def _cannot_write(workdir: Path, error: OSError) -> TrainingError:
    if isinstance(error, FileExistsError):
        return TrainingError(f"--workdir={workdir}: a file, not a directory; choose another")
    inside = error.filename and Path(os.fsdecode(error.filename)).name
    what = f"{inside} in it " if inside and inside != workdir.name else ""
    return TrainingError(f"--workdir={workdir}: {what}cannot be written ({error.strerror})")


def _git_commit() -> str | None:
    """The commit of this code, marked if files have changed since; None outside a checkout."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
