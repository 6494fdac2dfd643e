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

import files
import vision_models
from training.errors import TrainingError
from training.writers import say
from vision_models.trees import flatten

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
    "data.validation_labels",
    "data.prepare.",
    "data.threads",
    "data.unreadable",
)
# Names in a workdir: of a checkpoint, what is added while it is replaced, of those set aside.
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


# Fields that runs begun by earlier versions do not have, and what they did.
_LATER_FIELDS = {
    "data.fold": 0,
    "data.choice_seed": 0,
    "data.sampling": "uniform",
    "loss.class_weights": "none",
}
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


def user_path(text: str, field: str) -> Path:
    """A path as a user writes it: `~` is the home, and `./~` what is called so.

    Raises:
      TrainingError: whose home it is, is not known.
    """
    whole = os.path.expanduser(text)  # noqa: PTH111 (pathlib's takes ./~ for a home)
    if whole.startswith("~"):
        raise TrainingError(f"{field}={text}: no home directory; write the path in full")
    return Path(whole)


def is_directory(path: Path) -> bool:
    """Whether there is one; a path that the system does not take, such as a long one, is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def flat_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by path, tuples as JSON has them: {"data": {"crop": 224}} -> {"data.crop": 224}."""
    flat = flatten(config, ".")
    return {k: list(v) if isinstance(v, tuple) else v for k, v in flat.items()}


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run has saved anything that could be continued or evaluated."""
    return bool(steps_in(workdir / "checkpoints", replaced=True))


def steps_in(directory: Path, *, replaced: bool = False) -> list[int]:
    """The steps whose checkpoints lie in a directory, ascending; what else is there is not ours.

    Args:
      directory: of checkpoints.
      replaced: with those that have made place for others, which never came.

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
    """Keeps other processes of this machine, or of a file system that can, from the same run.

    Raises:
      TrainingError: one is at it, or the directory cannot be written.
    """
    with contextlib.ExitStack() as held:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            held.enter_context(files.locked(workdir / ".lock"))
        except BlockingIOError:
            raise TrainingError(
                f"{workdir}: another process is training there; wait for it, or choose another "
                "--workdir"
            ) from None
        except OSError as error:
            raise _cannot_write(workdir, error) from error
        yield


def check_continuation(workdir: Path, config: Mapping[str, Any]) -> None:
    """Refuses to go on with a run that was started with another config.

    Args:
      workdir: of the run; fine if it holds no checkpoint, for then there is nothing to lose.
      config: resolved, as plain nested dicts.

    Raises:
      TrainingError: fields that change the result differ; the message names them.
    """
    saved = _saved_run(workdir)
    if saved is None:
        if has_checkpoint(workdir):
            say(f"{workdir}: no config.json to compare with; its run is continued as it is")
        return
    saved, now = (_LATER_FIELDS | flat_fields(of) for of in (saved["config"], config))
    for fields in (saved, now):
        _spell_out_the_network(fields)
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


def _spell_out_the_network(fields: dict[str, Any]) -> None:
    """Gives a network one spelling: its own name, and every option, also those left at defaults."""
    options = {k.removeprefix("model."): v for k, v in fields.items() if k.startswith("model.")}
    with contextlib.suppress(ValueError):  # of a name that is no longer there
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
    """What `save_config` wrote, as far as it is read again: `config` and `dataset`, both dicts.

    Raises:
      FileNotFoundError: there is no config.json.
      TrainingError: it cannot be read, or is none.
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
    """Which version began a run, as the end of an error; empty where nothing says it."""
    try:
        saved = json.loads((workdir / "config.json").read_bytes())
        version = saved["versions"].get("vision-models", "before 0.1.0")
        commit = f", commit {saved['git_commit'][:12]}" if saved.get("git_commit") else ""
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""
    return f"; the run was begun by vision_models {version}{commit}"


def _saved_run(workdir: Path) -> dict[str, Any] | None:
    """`saved_config` of a run that can be continued or has been damaged; None for others."""
    if not (has_checkpoint(workdir) or damaged_in(workdir)):
        return None
    with contextlib.suppress(FileNotFoundError):
        return saved_config(workdir)
    return None


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
        with files.replacing(workdir / "config.json") as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")
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
