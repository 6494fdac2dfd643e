"""The registry as text."""

from collections.abc import Sequence

from claims import costs, jobs, results
from claims.claim import Claim, Paper
from claims.tuning import table as aligned


def table(papers: Sequence[Paper]) -> str:
    """A line for each claim: id, section, status, data, and what it costs."""
    rows = []
    for paper in papers:
        rows += [_line(claim) for claim in paper.claims]
    columns = ("claim", "section", "status", "arms", "here", "full")
    ends = "here: on two CPU cores, roughly; full: FLOP at the paper's data and length"
    return f"{aligned(rows, columns)}\n\n{len(rows)} claims; {ends}"


def _line(claim: Claim) -> dict[str, str]:
    return {
        "claim": claim.id,
        "section": claim.section,
        "status": results.status(claim),
        "arms": f"{len(claim.arms)}",
        "here": duration(costs.hours(claim)),
        "full": flop(costs.of_claim(claim, full=True)) if not claim.waits else "-",
    }


def flop(number: float) -> str:
    """A cost in FLOP."""
    return f"{number:.1e}" if number else "none"


def duration(hours: float) -> str:
    """A time on two CPU cores."""
    return "-" if not hours else f"{60 * hours:.0f} min" if hours < 2 else f"{hours:,.1f} h"


def whole(claim: Claim) -> str:
    """Everything about a claim: statement, commands here and in full, expectation, result."""
    lines = [f"{claim.id}: {results.status(claim)}", f"  section {claim.section}", ""]
    lines += [f"  {claim.statement}", ""]
    measures = dict.fromkeys(claim.measure_of(arm).name for arm in claim.arms)
    lines += [f"  measure: {'; '.join(measures)}"]
    for expected in claim.expected:
        lines.append(f"  expected: {results.describe(expected)}")
    if claim.note:
        lines.append(f"  note: {claim.note}")
    if claim.waits:
        lines.append(f"  waits for {claim.waits}")
    if claim.checked:
        lines.append(f"  checked instead: {claim.checked}")
    for full in (False, True):
        if (claim.here is None and not full) or (full and claim.waits):
            continue
        cost = costs.of_claim(claim, full=full)
        title = "at the paper's data and length" if full else "as it is run here"
        time = duration(costs.hours(claim, full=full))
        lines += ["", f"  {title}: {flop(cost)} FLOP, {time} on two CPU cores"]
        for arm in claim.arms:
            paper = (
                "" if arm.paper is None else f" (paper: {arm.paper:g}{claim.measure_of(arm).unit})"
            )
            lines.append(f"  - {arm.name}{paper}")
            lines += [f"      {line}" for line in jobs.shown(jobs.job_of(claim, arm, 0, full=full))]
            lines += [f"      {k}: one of {', '.join(map(str, v))}" for k, v in arm.tune.items()]
    return "\n".join(lines)
