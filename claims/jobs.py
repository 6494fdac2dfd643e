"""From claims to jobs: a directory for each run, and the processes that fill it."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from claims import settings
from claims.claim import NONE, Arm, Claim, Fields, Step
from claims.errors import ClaimError
from claims.measures import ENSEMBLE, VALIDATION_ERROR
from configs.common import ConfigError, expanded

# Datasets that need no directory.
BUILT_IN = ("digits",)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where runs are kept and data are found.

    Attributes:
      runs: the directory of all runs' directories.
      data_dir: of datasets as TFDS prepares them, or of ImageNet; None where none is named.
    """

    runs: Path
    data_dir: Path | None

    def require(self, data: str) -> None:
        """Raises ClaimError where a dataset is not there."""
        if data in BUILT_IN:
            return
        if self.data_dir is None:
            raise ClaimError(
                f"{data}: name the directory that holds it with --data_dir=DIR, or its parent in "
                "the variable VISION_MODELS_DATA"
            )
        there = self.data_dir / data
        if not (self.data_dir if data.startswith("imagenet") else there).is_dir():
            raise ClaimError(
                f"{data}: nothing in {self.data_dir}; name its directory with --data_dir=DIR "
                f"(TFDS prepares it: python -c \"import tensorflow_datasets as t; t.load('{data}', "
                "data_dir='DIR')\")"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A run: its settings, and the processes that it consists of.

    Attributes:
      name: of its directory, from its settings.
      source: `CONFIG[:VARIANT]`.
      overrides: of the config, but for paths.
      steps: in their order.
      parent: the run whose weights it starts from.
      members: the runs whose scores it averages.
    """

    name: str
    source: str
    overrides: Fields
    steps: tuple[Step, ...]
    parent: "Job | None" = None
    members: tuple["Job", ...] = ()

    @property
    def before(self) -> tuple["Job", ...]:
        """The jobs that have to be finished first."""
        return (*self.members, *((self.parent,) if self.parent else ()))

    @property
    def trains(self) -> bool:
        """Whether one of its processes is a training."""
        return any(step.mode == "train" for step in self.steps)

    def fields(self) -> dict[str, Any]:
        """The config's fields by path."""
        return settings.fields_of(self.source, self.overrides)

    def directory(self, place: Place) -> Path:
        """Of the run."""
        return place.runs / self.name

    def command(self, step: Step, place: Place) -> list[str]:
        """The arguments of one of its processes, after the interpreter's name."""
        here = str(self.directory(place))
        data_dir = None if place.data_dir is None else str(place.data_dir)
        if not step.mode:
            return ["-m", step.module, *self._filled(step, place, here, data_dir)]
        told = settings.arguments(self.source, self.overrides)
        if data_dir is not None and self.fields()["data.name"] not in BUILT_IN:
            told.append(f"--config.data.dir={data_dir}")
        if self.parent is not None:
            told += [f"--config.init_from={self.parent.directory(place)}"]
        told.append(f"--workdir={here}")
        mode = [f"--mode={step.mode}"] if step.mode != "train" else []
        return ["main.py", *told, *mode, *step.flags]

    def _filled(self, step: Step, place: Place, here: str, data_dir: str | None) -> Iterator[str]:
        in_a_directory = self.fields()["data.name"] not in BUILT_IN
        for flag in step.flags:
            if flag == "{members}":
                yield from (str(member.directory(place)) for member in self.members)
            elif "{data_dir}" in flag:
                if in_a_directory and data_dir is not None:
                    yield flag.replace("{data_dir}", data_dir)
            else:
                yield flag.replace("{run}", here)


def make(
    source: str,
    overrides: Fields,
    steps: Sequence[Step],
    parent: Job | None = None,
    members: Sequence[Job] = (),
) -> Job:
    """A job, named after its settings: config, variant, and a digest of the overrides."""
    others = [f"from {parent.name}"] if parent else []
    others += [f"of {member.name}" for member in members]
    if not any(step.mode for step in steps) and not members:
        others += [repr(step) for step in steps]
    start = source.replace(":", "-") + (f"-{len(members)}_averaged" if members else "")
    name = f"{start}-{settings.key(source, overrides, *others)}"
    return Job(name, source, overrides, tuple(steps), parent, tuple(members))


def overrides_of(claim: Claim, arm: Arm, *, full: bool = False) -> dict[str, Any]:
    """The overrides of an arm at its length, without a seed.

    Args:
      claim: the claim.
      arm: one of its.
      full: the paper's own data and length, instead of what is run here.

    Raises:
      ClaimError: the claim is not run here.
    """
    whole = {**claim.common, **arm.overrides}
    if full:
        return whole
    if claim.here is None:
        data = settings.fields_of(claim.source_of(arm), whole)["data.name"]
        raise ClaimError(
            f"{claim.id} needs {data}, and is run by --full --data_dir=DIR "
            f"(about {_cost_of_full(claim):.1g} FLOP). Checked instead: {claim.checked}"
        )
    here = {**whole, **claim.here, **arm.here}
    return settings.shortened(claim.source_of(arm), here, claim.fraction)


def _cost_of_full(claim: Claim) -> float:
    from claims import costs

    return costs.of_claim(claim, full=True)


def job_of(claim: Claim, arm: Arm, seed: int, chosen: Fields = NONE, *, full: bool = False) -> Job:
    """The job of an arm and a seed, with those that it builds on.

    Args:
      claim, arm, full: see `overrides_of`.
      seed: of the run; an arm of several members has as many seeds of its own.
      chosen: what tuning chose.
    """
    source, measure = claim.source_of(arm), claim.measure_of(arm)
    common = {**overrides_of(claim, arm, full=full), **chosen}
    if arm.members > 1:
        members = [
            make(source, {**common, "seed": arm.members * seed + n}, measure.steps)
            for n in range(arm.members)
        ]
        return make(source, common, (ENSEMBLE,), members=members)
    trains = any(step.mode == "train" for step in measure.steps)
    if trains:
        common["seed"] = seed
    parent = None
    if arm.starts_from:
        parent = job_of(claim, claim.arm(arm.starts_from), seed, full=full)
    return make(source, common, measure.steps, parent)


def tunings(claim: Claim, arm: Arm, *, full: bool = False) -> list[tuple[dict[str, Any], Job]]:
    """What can be chosen for an arm, and the job of each, with seed 0."""
    choices: list[dict[str, Any]] = [{}]
    for field, values in arm.tune.items():
        choices = [{**choice, field: value} for choice in choices for value in values]
    measure = claim.tuned_by or VALIDATION_ERROR
    found = []
    for choice in choices:
        job = job_of(claim, arm, 0, choice, full=full)
        steps = dict.fromkeys((*measure.steps, *(s for s in job.steps if s.mode == "train")))
        found.append((choice, dataclasses.replace(job, steps=tuple(steps))))
    return found


def every(jobs: Sequence[Job]) -> list[Job]:
    """All jobs with those that they build on, these first; each directory once, with all steps."""
    found: dict[str, Job] = {}

    def add(job: Job) -> None:
        for earlier in job.before:
            add(earlier)
        before = found.get(job.name)
        steps = job.steps if before is None else tuple(dict.fromkeys((*before.steps, *job.steps)))
        found[job.name] = dataclasses.replace(job, steps=steps)

    for job in jobs:
        add(job)
    return list(found.values())


def shown(job: Job, *, full: bool = False) -> list[str]:
    """The commands of a job as they are written in results, with DIR for directories."""
    place = Place(Path("runs/claims"), Path("DIR"))
    lines = []
    for member in job.before:
        lines += shown(member, full=full)
    for step in job.steps:
        lines.append(shlex.join(["python", *job.command(step, place)]))
    return lines


def default_place(runs: str | None, data_dir: str | None) -> Place:
    """Where runs and data are if nothing else is said."""
    try:
        kept = Path(expanded("--runs", runs)) if runs else settings.ROOT / "runs" / "claims"
        data = Path(expanded("--data_dir", data_dir)).absolute() if data_dir else None
        if data is None and (variable := os.environ.get("VISION_MODELS_DATA")):
            there = Path(expanded("VISION_MODELS_DATA", variable)).absolute()
            data = there / "tfds" if (there / "tfds").is_dir() else there
    except ConfigError as error:
        raise ClaimError(str(error)) from error
    return Place(kept.absolute(), data)


PYTHON = sys.executable
