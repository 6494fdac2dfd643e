"""Runs a claim: tuning, then the seeds, then its result."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from claims import costs, execute, jobs, progress, results, tuning
from claims.claim import Claim
from claims.errors import ClaimError, ClaimRunError
from claims.jobs import Job, Place
from claims.outcome import SEEDS


def check(claim: Claim, place: Place, *, full: bool) -> None:
    """Raises ClaimError where a claim cannot be run."""
    if claim.waits:
        raise ClaimError(
            f"{claim.id} waits for {claim.waits}. Checked instead: {claim.checked or 'nothing'}"
        )
    for arm in claim.arms:
        for job in jobs.every([jobs.job_of(claim, arm, 0, full=full)]):
            if job.trains:
                place.require(job.fields()["data.name"])


def run(
    claim: Claim,
    place: Place,
    say: Callable[[str], None],
    *,
    seeds: int = SEEDS,
    full: bool = False,
    until: float | None = None,
    budget: float | None = None,
    stop: threading.Event | None = None,
    slots: execute.Slots | None = None,
    where: Path = results.RESULTS,
) -> bool:
    """Runs what is pending of a claim and writes its result.

    Args:
      claim: can be run (`check`).
      place, say, until, stop, slots: see `execute.run`.
      seeds: runs of each arm.
      full: at the paper's data and length.
      budget: minutes; None for as long as it takes.
      where: directory of results.

    Returns:
      Whether all runs are finished.
    """
    seeds = seeds if claim.trains else 1
    if claim.trains and seeds < SEEDS:
        say(f"{claim.id}: {seeds} of the {SEEDS} seeds without which nothing is decided")
    minutes = 60 * costs.hours(claim, full=full)
    short = budget is not None and budget < minutes
    options = [option for each in tuning.choices(claim, full=full).values() for option in each]

    def through(stage: list[Job]) -> bool:
        nonlocal short
        left = progress.unfinished(stage, place)
        if not left:
            return True
        say(f"{claim.id}: {len(left)} of {len(stage)} runs to do")
        if short:
            short = False
            say(
                f"{claim.id}: --budget={budget:g} is too short to decide it: all of it takes about "
                f"{minutes:.0f} minutes on two CPU cores; the same command goes on"
            )
        return execute.run(stage, place, say, until=until, stop=stop, slots=slots)

    complete = through(jobs.every([job for _, job in options]))
    chosen = tuning.chosen(claim, place, full=full)
    if complete:
        planned = [
            jobs.job_of(claim, arm, seed, chosen.get(arm.name, {}), full=full)
            for seed in range(seeds)
            for arm in claim.arms
        ]
        complete = through(jobs.every(planned))
    result = results.make(claim, place, seeds, chosen, full=full)
    say(f"{claim.id}: {result['verdict']}{_reasons(result)}")
    more = _runs_of_another(claim, result, where)
    if more:
        path = results.path_of(claim, full=full, results=where)
        say(f"{path}: kept, for it is of {more} runs and this one of {result['runs']['finished']}")
    else:
        say(str(results.write(claim, result, where)))
    return complete


def run_all(
    claims: Sequence[Claim],
    place: Place,
    say: Callable[[str], None],
    *,
    until: Callable[[], float | None],
    stop: threading.Event,
    slots: execute.Slots,
    **options: Any,
) -> bool:
    """Runs claims in turn, as many at a time as there are places for processes.

    Args:
      claims: that can be run (`check`).
      place, say, stop: see `execute.run`.
      until: makes, where a claim begins, the moment at which it is stopped.
      slots: shared by the claims that are run at a time.
      options: see `run`.

    Returns:
      Whether all of them are finished.

    Raises:
      ClaimError, ClaimRunError: the failure of one claim, or how many failed; the others are run.
    """
    free: queue.SimpleQueue[execute.Slots] = queue.SimpleQueue()
    shares = slots.shared(len(claims))
    for share in shares:
        free.put(share)
    failed: dict[str, ClaimError | ClaimRunError] = {}

    def one(claim: Claim) -> bool:
        if stop.is_set():
            return False
        share = free.get()
        try:
            return run(claim, place, say, until=until(), stop=stop, slots=share, **options)
        except (ClaimError, ClaimRunError) as error:
            failed[claim.id] = error
            if len(claims) > 1:
                say(f"{claim.id}: {error}")
            return False
        except BaseException:
            stop.set()
            raise
        finally:
            free.put(share)

    with ThreadPoolExecutor(len(shares)) as workers:
        complete = all([future.result() for future in [workers.submit(one, c) for c in claims]])
    for error in failed.values():
        if len(claims) == 1:
            raise error
        raise type(error)(f"{len(failed)} of {len(claims)} claims failed: {', '.join(failed)}")
    return complete


def _runs_of_another(claim: Claim, result: dict[str, Any], where: Path) -> int:
    """Number of finished runs of the result that is there, if it has more; else 0."""
    try:
        there = results.read(claim, full=result["full"], results=where)
    except ClaimError:  # damaged: it is replaced
        return 0
    if there is None or results.out_of_date(claim, there):
        return 0
    finished = int(there["runs"]["finished"])
    return finished if finished > result["runs"]["finished"] else 0


def _reasons(result: dict[str, Any]) -> str:
    said = [f"{found['expected']}: {found['said']}" for found in result["expected"]]
    return f" ({'; '.join(said)})" if said else ""
