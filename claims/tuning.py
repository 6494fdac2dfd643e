"""Chooses between settings of an arm by runs of seed 0."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from claims import jobs
from claims.claim import Claim, Fields, Measure, Value
from claims.errors import ClaimError
from claims.jobs import Job, Place
from claims.measures import VALIDATION_ERROR, Finished, last
from claims.progress import finished


def choices(claim: Claim, *, full: bool = False) -> dict[str, list[tuple[dict[str, Any], Job]]]:
    """Arm -> its settings to choose from, with the job of each; only arms that are tuned."""
    return {arm.name: jobs.tunings(claim, arm, full=full) for arm in claim.arms if arm.tune}


def chosen(claim: Claim, place: Place, *, full: bool = False) -> dict[str, Fields]:
    """Arm -> the settings with the lowest measure; arms with unfinished runs are missing."""
    found: dict[str, Fields] = {}
    measure = claim.tuned_by or VALIDATION_ERROR
    for name, options in choices(claim, full=full).items():
        ranks = [rank(job, place, measure) for _, job in options]
        if None not in ranks:
            best = min(range(len(ranks)), key=lambda n: ranks[n] or ())
            found[name] = options[best][0]
    return found


def rank(job: Job, place: Place, measure: Measure) -> tuple[float, ...] | None:
    """What the best of several runs has least of; None while the run is not finished.

    Runs that reached what the measure waits for come first, then those that were nearest at the
    end, then those that diverged.
    """
    run = finished(job, place)
    if run is None:
        return None
    if run.diverged:
        return (2.0, math.inf, math.inf)
    with _named(run):
        value = measure.read(run)
        return (float(value.at_least), value.number, last(run.lines("train"), "top1_error"))


def read(job: Job, place: Place, measure: Measure) -> Value | None:
    """The measure of a run; None while it is not finished."""
    run = finished(job, place)
    if run is None:
        return None
    if run.diverged:
        return Value(math.inf)
    with _named(run):
        value = measure.read(run)
        if math.isnan(value.number):
            raise LookupError(f"{measure.name} is not a number")
        return value


@contextlib.contextmanager
def _named(run: Finished) -> Iterator[None]:
    """Says which run does not have what is read from it, and the way out."""
    try:
        yield
    except LookupError as error:
        raise ClaimError(f"{run.directory}: {error.args[0]}; remove it, and run again") from error


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as text, columns aligned."""
    cells = [list(columns), *([str(row.get(c, "")) for c in columns] for row in rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )
