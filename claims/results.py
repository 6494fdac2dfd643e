"""What came out of claims, as JSON files: made from runs, read by tables and pages."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import files
from claims import jobs, outcome, settings, tuning
from claims.claim import Arm, Claim, Expectation, Fields, Near, Same, Value
from claims.errors import ClaimError
from claims.jobs import Job, Place
from claims.measures import VALIDATION_ERROR, Finished, Line
from claims.outcome import UNDECIDED, in_words
from claims.progress import finished, progress
from claims.progress import read as of_directory

RESULTS = Path(__file__).with_name("results")
# Points of a curve that are kept.
_POINTS = 40
_FULL = "-full"
_KEYS = {
    "verdict", "arms", "digest", "runs", "expected", "full", "data", "length", "seeds", "seconds",
}  # fmt: skip
_ARM_KEYS = {"measure", "unit", "paper", "values", "mean", "spread", "curves", "commands"}


def digest(claim: Claim) -> str:
    """Of what a claim runs, measures and expects: a result of another digest is out of date."""
    told: dict[str, Any] = {
        "arms": [
            [
                arm.name,
                claim.source_of(arm),
                {**claim.common, **arm.overrides},
                _recipe(claim, arm),
                dict(arm.here),
                {k: list(v) for k, v in arm.tune.items()},
                arm.starts_from,
                arm.members,
                arm.paper,
                claim.measure_of(arm).name,
                [step.flags for step in claim.measure_of(arm).steps],
            ]
            for arm in claim.arms
        ],
        "here": None if claim.here is None else dict(claim.here),
        "fraction": claim.fraction,
        "tuned_by": claim.tuned_by and claim.tuned_by.name,
        "expected": [repr(expected) for expected in claim.expected],
        "rules": outcome.VERSION,
    }
    text = json.dumps(told, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _recipe(claim: Claim, arm: Arm) -> dict[str, Any]:
    """The fields of an arm's config that are not every config's, as far as a run depends on them.

    A field that is added later with the default of all is not among them.
    """
    fields = settings.fields_of(claim.source_of(arm), {**claim.common, **arm.overrides})
    usual = settings.usual()
    return {
        path: value
        for path, value in fields.items()
        if settings.counts(path, output=True) and (path not in usual or usual[path] != value)
    }


def _defaults() -> dict[str, Any]:
    """What all configs begin with, as far as a result depends on it."""
    return {k: v for k, v in settings.usual().items() if settings.counts(k, output=True)}


def path_of(claim: Claim, *, full: bool, results: Path = RESULTS) -> Path:
    """The file of a claim's result."""
    return results / f"{claim.id}{_FULL * full}.json"


def read(claim: Claim, *, full: bool = False, results: Path = RESULTS) -> dict[str, Any] | None:
    """The result of a claim; None where there is none.

    Raises:
      ClaimError: the file is damaged.
    """
    path = path_of(claim, full=full, results=results)
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["claim"] != claim.id:
            raise ValueError("not the result of this claim")
        for there, needed in (
            (found, _KEYS),
            *((arm, _ARM_KEYS) for arm in found["arms"].values()),
        ):
            if missing := needed - there.keys():
                raise ValueError(f"without {min(missing)}")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ClaimError(
            f"{path}: damaged ({error}); remove it, and python -m claims run {claim.id} makes it "
            "again from the runs that are there"
        ) from error
    return dict(found)


def out_of_date(claim: Claim, result: Mapping[str, Any]) -> str:
    """Why a result no longer says what the claim asks for; "" if it does."""
    usual, before = _defaults(), result.get("defaults", {})
    same = all(usual[path] == before[path] for path in usual.keys() & before.keys())
    if same and result["digest"] == digest(claim):
        return ""
    return (
        f"made by another version of this claim (vision_models "
        f"{result.get('versions', {}).get('vision-models', 'before 0.1.0')}); run it again: "
        f"python -m claims run {claim.id}{' --full' * bool(result.get('full'))}"
    )


def status(claim: Claim, results: Path = RESULTS) -> str:
    """In a few words: the verdict, or why there is none."""
    said = []
    for full in (True, False):
        if result := read(claim, full=full, results=results):
            verdict = str(result["verdict"]) + " at full length" * full
            said.append(f"{verdict} (out of date)" if out_of_date(claim, result) else verdict)
    if said:
        return "; ".join(said)
    if claim.waits:
        return f"waits for {claim.waits}"
    if claim.here is None:
        return f"needs {_data(claim)}" if _data(claim) == "imagenet2012" else "too long to run here"
    return "not run yet"


def of_published(
    claims: Sequence[Claim], results: Path = RESULTS
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """What came out of the claims that a config reaches its published error.

    Returns:
      (config, variant) -> `error` (a fraction of 1), `kind` (`top1_error` or `top5_error`), `data`,
      and `source`: the claim and its length.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for claim in claims:
        if not claim.published:
            continue
        config, _, variant = claim.source.partition(":")
        for full in (True, False):
            result = read(claim, full=full, results=results)
            mean = result["arms"]["network"]["mean"] if result else None
            if result is None or mean is None:
                continue
            kind = "top5_error" if "top-5" in result["arms"]["network"]["measure"] else "top1_error"
            source = f"claim {claim.id}, {result['length']}"
            told = {"error": mean / 100, "kind": kind, "data": result["data"], "source": source}
            found.setdefault((config, variant), []).append(told)
    return found


def _data(claim: Claim) -> str:
    fields = settings.fields_of(claim.source, claim.common)
    return str(fields["data.name"])


@dataclasses.dataclass(frozen=True)
class Gathered:
    """What the finished runs of a claim give.

    Attributes:
      values: arm -> seed -> value.
      runs: arm -> seed -> the finished run.
      jobs: arm -> seed -> the job.
    """

    values: dict[str, dict[int, Value]]
    runs: dict[str, dict[int, Finished]]
    jobs: dict[str, dict[int, Job]]


def gather(
    claim: Claim, place: Place, seeds: int, chosen: Mapping[str, Fields], *, full: bool
) -> Gathered:
    """Reads what there is of a claim's runs.

    Args:
      claim, place, full: see `jobs`.
      seeds: number of seeds.
      chosen: arm -> what tuning chose; arms that are still being tuned are missing.
    """
    gathered = Gathered({}, {}, {})
    for arm in claim.arms:
        measure = claim.measure_of(arm)
        values = gathered.values.setdefault(arm.name, {})
        runs = gathered.runs.setdefault(arm.name, {})
        planned = gathered.jobs.setdefault(arm.name, {})
        if arm.tune and arm.name not in chosen:
            continue
        for seed in range(seeds if claim.trains else 1):
            job = jobs.job_of(claim, arm, seed, chosen.get(arm.name, {}), full=full)
            planned[seed] = job
            value, run = tuning.read(job, place, measure), finished(job, place)
            if value is not None and run is not None:
                values[seed], runs[seed] = value, run
    return gathered


def make(
    claim: Claim, place: Place, seeds: int, chosen: Mapping[str, Fields], *, full: bool = False
) -> dict[str, Any]:
    """The result of a claim from its runs, as it is written to its file."""
    gathered = gather(claim, place, seeds, chosen, full=full)
    whole = full or (claim.fraction == 1 and not claim.here)
    outcomes = [
        outcome.decide(expected, gathered.values, claim, whole=whole) for expected in claim.expected
    ]
    verdict = outcome.overall(outcomes) if outcomes else UNDECIDED
    every = [run for runs in gathered.runs.values() for run in runs.values()]
    tried = [j for arm in claim.arms if arm.tune for _, j in jobs.tunings(claim, arm, full=full)]
    planned = [j for by_seed in gathered.jobs.values() for j in by_seed.values()]
    planned = jobs.every([*tried, *planned])
    return {
        "claim": claim.id,
        "verdict": verdict,
        "digest": digest(claim),
        "defaults": _defaults(),
        "full": full,
        "data": "" if not claim.trains else _data_of(gathered.jobs),
        "length": _length(claim, gathered.jobs, full=full) if claim.trains else "",
        "seeds": seeds if claim.trains else 1,
        "runs": {
            "finished": sum(finished(job, place) is not None for job in planned),
            "planned": len(planned),
        },
        "expected": [
            {"expected": describe(expected), **dataclasses.asdict(found)}
            for expected, found in zip(claim.expected, outcomes, strict=True)
        ],
        "arms": {
            arm.name: _arm(claim, arm, place, gathered, chosen.get(arm.name), full=full)
            for arm in claim.arms
        },
        "seconds": round(sum(progress(job, place).seconds for job in planned)),
        **_environment(every),
    }


def write(claim: Claim, result: Mapping[str, Any], results: Path = RESULTS) -> Path:
    """Writes the result of a claim, if it has changed.

    Raises:
      ClaimError: it cannot be written.
    """
    path = path_of(claim, full=result["full"], results=results)
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    try:
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ClaimError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def describe(expected: Expectation) -> str:
    """An expectation in words, with what is asked for and the paper's distance."""
    if isinstance(expected, Near):
        return f"{expected.arm} within {in_words(expected.within)} of the paper's"
    if isinstance(expected, Same):
        return f"{expected.one} and {expected.other} within {in_words(expected.within)}"
    paper = "" if expected.paper is None else f" (paper: {in_words(expected.paper)})"
    if expected.ratio:
        least = "" if expected.least is None else f" by {in_words(expected.least)} times"
        return f"{expected.lower} below {expected.higher}{least or ', as a ratio'}{paper}"
    least = "" if expected.least is None else f" by {in_words(expected.least)}"
    return f"{expected.lower} below {expected.higher}{least}{paper}"


def _data_of(planned: Mapping[str, Mapping[int, Job]]) -> str:
    names = {
        j.fields()["data.name"]: None for by_seed in planned.values() for j in by_seed.values()
    }
    return ", ".join(map(str, names))


def _length(claim: Claim, planned: Mapping[str, Mapping[int, Job]], *, full: bool) -> str:
    """How long the runs are, beside the paper's length, in words."""
    lengths = {
        round(settings.epochs(job.fields()), 2): None
        for by_seed in planned.values()
        for job in by_seed.values()
        for job in (job.members or (job,))
    }
    said = " and ".join(f"{epochs:g}" for epochs in lengths) + " epochs"
    if full or claim.fraction == 1:
        return said
    return f"{said}, {claim.fraction:.3g} of the whole length"


def _arm(
    claim: Claim,
    arm: Arm,
    place: Place,
    gathered: Gathered,
    chosen: Fields | None,
    *,
    full: bool,
) -> dict[str, Any]:
    values, measure = gathered.values[arm.name], claim.measure_of(arm)
    planned = gathered.jobs[arm.name]
    told: dict[str, Any] = {
        "measure": measure.name,
        "unit": measure.unit,
        "paper": arm.paper,
        "values": {str(seed): _number(value) for seed, value in values.items()},
        "mean": _finite(outcome.mean(values)),
        "spread": _finite(outcome.spread(values)) if len(values) > 1 else None,
        "curves": {str(seed): _curves(run) for seed, run in gathered.runs[arm.name].items()},
        "commands": jobs.shown(planned[0]) if planned else [],
    }
    if arm.tune:
        told["tried"] = _tried(claim, arm, place, full=full)
    if chosen:
        told["chosen"] = dict(chosen)
    if not full and claim.trains:
        told["full_commands"] = jobs.shown(jobs.job_of(claim, arm, 0, full=True))
        told["full_commands"] += [
            f"# {path}: one of {', '.join(map(str, values))}" for path, values in arm.tune.items()
        ]
    return told


def _tried(claim: Claim, arm: Arm, place: Place, *, full: bool) -> list[dict[str, Any]]:
    """The settings that an arm was tuned over, and what came of each that is finished."""
    measure = claim.tuned_by or VALIDATION_ERROR
    return [
        {"settings": choice, "measure": measure.name, "unit": measure.unit, "value": _number(value)}
        for choice, job in jobs.tunings(claim, arm, full=full)
        if (value := tuning.read(job, place, measure)) is not None
    ]


def _number(value: Value) -> float | str:
    if math.isinf(value.number):
        return "diverged"
    number = _rounded(value.number)
    return f"at least {number:g}" if value.at_least else number


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else _rounded(number)


def _rounded(number: float) -> float:
    return int(number) if number == int(number) else float(f"{number:.6g}")


def _curves(run: Finished) -> dict[str, list[list[float]]]:
    """Errors in percent over epochs, of training and validation, thinned out."""
    found = {}
    for split in ("train", "validation"):
        points = [
            [round(line["epoch"], 3), round(100 * line["top1_error"], 2)]
            for line in run.lines(split)
            if _plotted(line)
        ]
        every = max(math.ceil(len(points) / _POINTS), 1)
        kept = points[::-1][::every][::-1]  # the last one among them
        if kept:
            found[split] = kept
    return found


def _plotted(line: Line) -> bool:
    return all(isinstance(line.get(name), int | float) for name in ("epoch", "top1_error"))


def _environment(runs: Sequence[Finished]) -> dict[str, Any]:
    """Versions and machine of the first run's config.json, or of this process; all commits."""
    saved, commits = [], []
    for run in runs:
        with contextlib.suppress(OSError, ValueError):
            saved.append(json.loads((run.directory / "config.json").read_text(encoding="utf-8")))
            commits.append((saved[-1].get("git_commit") or "")[:12])
        commits.append(of_directory(run.directory).of.get("commit", ""))  # a tool's
    versions = {"python": platform.python_version()}
    for package in ("vision-models", "jax", "flax"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    machine = {"system": platform.platform(), "cores": os.cpu_count()}
    first = saved[0] if saved else {}
    return {
        "versions": first.get("versions", versions),
        "git_commits": [commit for commit in dict.fromkeys(commits) if commit],
        "machine": first.get("machine", machine),
    }
