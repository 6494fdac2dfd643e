"""What has been done of a run, in its directory, and whether it still holds."""

import dataclasses
import functools
import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import files
from claims import settings
from claims.claim import Step
from claims.errors import ClaimError
from claims.jobs import Job, Place
from claims.measures import Finished

# In a run's directory: the processes that have ended, and their seconds.
MARK = "claims.json"


@dataclasses.dataclass(frozen=True)
class Progress:
    """What has been done of a job.

    Attributes:
      done: names of the processes that have ended.
      diverged: whether training ended with a loss or parameters that are not finite.
      seconds: that all its processes took.
      of: what the work is of, where that may change: see `made_of`.
    """

    done: tuple[str, ...] = ()
    diverged: bool = False
    seconds: float = 0.0
    of: Mapping[str, str] = dataclasses.field(default_factory=dict)


def progress(job: Job, place: Place) -> Progress:
    """Reads what has been done of a job."""
    return read(job.directory(place))


def read(directory: Path) -> Progress:
    """Reads what has been done in a run's directory."""
    try:
        found = json.loads((directory / MARK).read_text())
        return Progress(
            tuple(found["done"]), found["diverged"], found["seconds"], found.get("of", {})
        )
    except (OSError, ValueError, LookupError, TypeError):
        return Progress()


def made_of(job: Job, place: Place) -> dict[str, str]:
    """What a job is made of that may change under the same name.

    Returns:
      Of each run that it builds on a digest of the config; `commit` of the code, for a tool that
      looks at no training; for each evaluation, `STEP's protocol` that the config has.
    """
    found = {}
    for before in job.before:
        if saved := _saved(before, place):
            told: list[object] = [
                kv for kv in sorted(settings.flat(saved)) if settings.counts(kv[0])
            ]
            if before in job.members:  # it is their evaluations that are averaged
                told += _protocols(before).values()
            text = json.dumps(told)
            found[before.name] = hashlib.sha256(text.encode()).hexdigest()[:12]
    if not job.before and not any(step.mode in ("train", "evaluate") for step in job.steps):
        found["commit"] = _commit()
    return found | _protocols(job)


def _protocols(job: Job) -> dict[str, str]:
    steps = [step for step in job.steps if step.mode == "evaluate"]
    if not steps:
        return {}
    protocol = settings.resolved(job.source, job.overrides)["evaluation.protocol"]
    return {f"{step.name}'s protocol": str(protocol) for step in steps}


def _saved(job: Job, place: Place) -> dict[str, Any]:
    """The config with which the run in a job's directory began; empty where there is none."""
    try:
        return dict(json.loads((job.directory(place) / "config.json").read_text())["config"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}


@functools.cache
def _commit() -> str:
    """The last commit of Python files, and whether they changed since; "" without git."""
    try:
        said = [
            subprocess.run(
                ["git", *words, "--", "*.py"],
                cwd=settings.ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for words in (["rev-list", "-1", "HEAD"], ["diff", "HEAD"])
        ]
    except (OSError, subprocess.SubprocessError):
        return ""
    return said[0][:12] + (f"+{hashlib.sha256(said[1].encode()).hexdigest()[:6]}" * bool(said[1]))


def outdated(job: Job, place: Place) -> str:
    """What has changed since the work in a job's directory was done; "" for nothing."""
    if changed := changed_fields(job, place):
        return f"the config has changed since ({', '.join(changed[:4])})"
    was, now = progress(job, place), made_of(job, place)
    protocols = _protocols(job)  # with another one the evaluation alone is done anew: `pending`
    others = [
        name for name, of in was.of.items() if name not in protocols and now.get(name, of) != of
    ]
    if "commit" in now and was.done and "commit" not in was.of:
        others.append("commit")
    return f"{', '.join(others)} has changed since" if others else ""


def pending(job: Job, place: Place) -> list[Step]:
    """The processes of a job that have not ended yet."""
    now = progress(job, place)
    if now.diverged:
        return []
    protocols = _protocols(job)

    def changed(step: Step) -> bool:
        name = f"{step.name}'s protocol"
        return name in now.of and name in protocols and now.of[name] != protocols[name]

    return [step for step in job.steps if step.name not in now.done or changed(step)]


def finished(job: Job, place: Place) -> Finished | None:
    """The run of a job; None as long as one of its processes is pending or it is outdated."""
    if pending(job, place) or outdated(job, place):
        return None
    return Finished(job.directory(place), progress(job, place).diverged)


def unfinished(jobs: Sequence[Job], place: Place) -> list[Job]:
    """Those of several jobs that are not finished."""
    return [job for job in jobs if finished(job, place) is None]


def changed_fields(job: Job, place: Place) -> list[str]:
    """Fields in which the config has changed since the run in the job's directory began."""
    saved = _saved(job, place)
    fields = settings.resolved(job.source, job.overrides) if job.trains else {}
    return settings.changed(fields, saved)


def prepare(job: Job, place: Place, say: Callable[[str], None]) -> None:
    """Sees that the directory of a job holds its own run, or none.

    What is outdated is run anew; a training is moved aside first.

    Raises:
      ClaimError: other files are in the way.
    """
    directory = job.directory(place)
    if not directory.exists():
        return
    if why := outdated(job, place):
        if not job.trains:  # its output is written anew
            (directory / MARK).unlink()
            say(f"{job.name}: {why}; it is run anew")
            return
        number = 1
        while (aside := directory.with_name(f"{directory.name}.changed{number}")).exists():
            number += 1
        directory.rename(aside)
        say(f"{job.name}: {why}; it is run anew, the old run is {aside.name}")
        return
    known = {MARK, "config.json", "checkpoints", ".lock", "metrics.jsonl"}
    inside = {path.name for path in directory.iterdir()}
    if inside and not inside & known and not any(name.startswith("claims-") for name in inside):
        raise ClaimError(
            f"{directory}: in the way, and no run of this claim; move it, or choose another --runs"
        )


def mark(directory: Path, now: Progress) -> None:
    """Writes what has been done of a run."""
    content: dict[str, Any] = {
        "done": list(now.done),
        "diverged": now.diverged,
        "seconds": round(now.seconds, 1),
        **({"of": dict(now.of)} if now.of else {}),
    }
    with files.replacing(directory / MARK) as temporary:
        temporary.write_text(json.dumps(content) + "\n")
