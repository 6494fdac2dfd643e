"""docs/report.html, and the tables of docs/results.md, made from the results."""

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import files
from claims import costs, jobs, listing, outcome, registry, results
from claims.claim import Claim, Paper
from claims.errors import ClaimError
from claims.outcome import CONFIRMED, REFUTED, UNDECIDED

PAGE, TABLES = "report.html", "results.md"
_BEGIN, _END = "<!-- made by python -m claims report -->", "<!-- end -->"


def write(out: Path, say: Callable[[str], None], results_dir: Path = results.RESULTS) -> list[Path]:
    """Writes the page, and the tables if there is a results.md with their marks.

    Args:
      out: the directory of both.
      say: gets a line for each result that is out of date.
      results_dir: of the results.

    Raises:
      ClaimError: a result is damaged, or a file cannot be written.
    """
    found = _read(results_dir)
    for claim, result in found:
        if old := results.out_of_date(claim, result):
            say(f"{claim.id}: {old}")
    known = {f"{claim.id}{suffix}" for claim in registry.all_claims() for suffix in ("", "-full")}
    for path in sorted(results_dir.glob("[!.]*.json")):
        if path.stem not in known:
            say(f"{path}: of no claim that is in the registry; it is left out")
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        with files.replacing(out / PAGE) as temporary:
            temporary.write_text(page(found), encoding="utf-8")
        written.append(out / PAGE)
        tables = out / TABLES
        if tables.exists():
            text = tables.read_text(encoding="utf-8")
            with files.replacing(tables) as temporary:
                temporary.write_text(with_tables(text, found), encoding="utf-8")
            written.append(tables)
    except OSError as error:
        raise ClaimError(f"{out}: cannot be written ({error.strerror})") from error
    return written


Found = Sequence[tuple[Claim, dict[str, Any]]]


def _read(results_dir: Path) -> list[tuple[Claim, dict[str, Any]]]:
    found = []
    for claim in registry.all_claims():
        for full in (False, True):
            result = results.read(claim, full=full, results=results_dir)
            if result is not None:
                found.append((claim, result))
    return found


def with_tables(text: str, found: Found) -> str:
    """A Markdown text with the table between its two marks made anew.

    Raises:
      ClaimError: the marks are not there.
    """
    pattern = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    if not pattern.search(text):
        raise ClaimError(f"{TABLES}: without the lines {_BEGIN} and {_END}")
    return pattern.sub(lambda _: f"{_BEGIN}\n\n{markdown(found)}\n\n{_END}", text)


def markdown(found: Found) -> str:
    """The tables of claims that were run, and of those that were not."""
    done = {claim.id for claim, _ in found}
    able = [c for c in registry.all_claims() if c.id not in done and c.here is not None]
    lines = [
        f"{len(done)} of {len(registry.all_claims())} claims have been run: {_counts(found)}. "
        f"{len(able)} others can be run on the data that fit a laptop, and have not been yet. "
        f"{outcome.RULES}",
        "",
        "| claim | measure | paper | here, mean ± spread over seeds | data and length | outcome |",
        "|---|---|---|---|---|---|",
    ]
    for claim, result in found:
        arms = result["arms"]
        papers = ", ".join(f"{name} {_shown(a['paper'], a['unit'])}" for name, a in arms.items()
                           if a["paper"] is not None)  # fmt: skip
        ours = ", ".join(f"{name} {_ours(arm)}" for name, arm in arms.items())
        measures = dict.fromkeys(arm["measure"] for arm in arms.values())
        length = f"{result['data']}: {result['length']}" if result["length"] else ""
        cells = (
            f"`{claim.id}`", "; ".join(measures), papers or "-", ours,
            ". ".join(filter(None, [length, claim.note])) or "-", _verdict(claim, result),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    rest = [c for c in registry.all_claims() if c.id not in done and c.here is None]
    lines += [
        "",
        "Not run here, for want of their data or of time (`python -m claims list ID` has the "
        "commands and what was checked instead):",
        "",
        "| claim | paper | FLOP | |",
        "|---|---|---|---|",
    ]
    for claim in rest:
        cost = "-" if claim.waits else listing.flop(costs.of_claim(claim, full=True))
        papers = _papers_value(claim) or "-"
        lines.append(f"| `{claim.id}` | {papers} | {cost} | {results.status(claim)} |")
    return "\n".join(lines)


def _counts(found: Found) -> str:
    verdicts = [result["verdict"] for _, result in found]
    said = [f"{verdicts.count(v)} {v}" for v in (CONFIRMED, REFUTED, UNDECIDED)]
    return ", ".join(said)


def _verdict(claim: Claim, result: Mapping[str, Any]) -> str:
    old = " (out of date)" if results.out_of_date(claim, result) else ""
    reasons = [f"{e['expected']}: {e['said']}" for e in result["expected"]]
    return f"{result['verdict']}{old}" + (f" ({'; '.join(reasons)})" if reasons else "")


def _shown(number: float | None, unit: str) -> str:
    if number is None:
        return "-"
    text = f"{number:,.0f}" if abs(number) >= 1e4 else f"{number:.4g}"
    text = f"{number:.2f}" if unit == "%" else text
    return f"{text}{unit}" if unit in ("%", "") else f"{text} {unit}"


def _ours(arm: Mapping[str, Any]) -> str:
    """The mean over seeds with its spread, or the values where they have none."""
    values, unit = arm["values"], arm["unit"]
    texts = [value for value in values.values() if isinstance(value, str)]
    if not values:
        return "-"
    if texts:
        return "; ".join(v if isinstance(v, str) else _shown(v, unit) for v in values.values())
    spread = "" if arm["spread"] is None else f" ± {arm['spread']:.2g}"
    return f"{_shown(arm['mean'], unit)}{spread}"


def page(found: Found) -> str:
    """The whole page as HTML."""
    from visualization import page as pages

    by_claim: dict[str, list[dict[str, Any]]] = {}
    for claim, result in found:
        by_claim.setdefault(claim.id, []).append(result)
    verdicts = [result["verdict"] for _, result in found]
    begin = [
        pages.text(
            "What the papers claim, the runs that test it, and what came out. "
            f"{outcome.RULES}", "soft"),
        pages.facts([
            ("claims", f"{len(registry.all_claims())}", f"{len(by_claim)} run"),
            *((verdict, f"{verdicts.count(verdict)}", "")
              for verdict in (CONFIRMED, REFUTED, UNDECIDED)),
        ]),
    ]  # fmt: skip
    sections = [_paper(paper, by_claim) for paper in registry.all_papers()]
    return pages.page("The papers' claims", "The papers' claims, run", begin, sections)


def _paper(paper: Paper, by_claim: Mapping[str, list[dict[str, Any]]]) -> str:
    from visualization import page as pages

    parts = [pages.text(paper.title, "soft")]
    for claim in paper.claims:
        for result in by_claim.get(claim.id, []):
            parts += _claim(claim, result)
    rest = [claim for claim in paper.claims if claim.id not in by_claim]
    if rest:
        parts += ["<h3>Not run</h3>", *map(_not_run, rest)]
    return pages.section(paper.name, paper.title.partition(":")[0], parts)


def _not_run(claim: Claim) -> str:
    """Statement and status of a claim; its cost, commands and what was checked when asked for."""
    from visualization import page as pages

    inside = [pages.text(f"Paper: {_papers_value(claim)}")] if _papers_value(claim) else []
    if claim.checked:
        inside.append(pages.text(f"Checked instead: {claim.checked}."))
    if not claim.waits:
        cost = listing.flop(costs.of_claim(claim, full=True))
        inside.append(pages.text(f"At the paper's data and length: {cost} FLOP"))
        lines = [
            f"# {arm.name}\n" + "\n".join(jobs.shown(jobs.job_of(claim, arm, 0, full=True)))
            for arm in claim.arms
        ]
        inside.append(f'<pre tabindex="0">{escape(chr(10).join(lines))}</pre>')
    status = results.status(claim)
    return pages.details(f"{claim.id} ({status}): {claim.statement}", "\n".join(inside))


def _papers_value(claim: Claim) -> str:
    said = [
        f"{arm.name} {_shown(arm.paper, claim.measure_of(arm).unit)}"
        for arm in claim.arms
        if arm.paper is not None
    ]
    return ", ".join(said)


def _claim(claim: Claim, result: Mapping[str, Any]) -> list[str]:
    from visualization import page as pages

    style = {CONFIRMED: "finished", UNDECIDED: "running"}.get(result["verdict"], "")
    reasons = [f"{e['expected']}: {e['said']}" for e in result["expected"]]
    runs = result["runs"]
    facts = [claim.section, result["data"], result["length"]]
    facts += [f"{runs['finished']} of {runs['planned']} runs"]
    facts += [f"{result['seconds'] / 60:,.0f} minutes"] * (result["seconds"] >= 30)
    seeds = [str(n) for n in range(result["seeds"])] if result["seeds"] > 1 else []
    measures = {arm["measure"]: None for arm in result["arms"].values()}
    alike = len(measures) == 1
    rows = []
    for name, arm in result["arms"].items():
        chosen = "".join(f", {k}={v}" for k, v in arm.get("chosen", {}).items())
        named = [f"{name}{chosen}"] if alike else [f"{name}{chosen}", arm["measure"]]
        values = [_value(arm["values"].get(seed), arm["unit"]) for seed in seeds]
        rows.append([*named, _shown(arm["paper"], arm["unit"]), _ours(arm), *values])
    begin = ("arm",) if alike else ("arm", "measure")
    columns = (*begin, "paper", "here", *(f"seed {seed}" for seed in seeds))
    caption = f"{claim.id}: {', '.join(measures)}"
    old = results.out_of_date(claim, result)
    return [
        f'<h3 id="{claim.id}">{escape(claim.statement)}</h3>',
        f'<p class="state {style}"><b>{escape(result["verdict"])}</b> '
        f"{escape('; '.join(reasons))}</p>",
        pages.text("; ".join(fact for fact in facts if fact), "soft"),
        f'<p class="gap">{escape(old)}</p>' if old else "",
        pages.text(claim.note) if claim.note else "",
        pages.table(caption, columns, rows, numbers=range(len(begin), len(columns)), long=(0,)),
        *(pages.text(said) for said in _tried(result)),
        _charts(claim, result),
        pages.details("Commands, versions, machine", _commands(result)),
    ]


def _tried(result: Mapping[str, Any]) -> list[str]:
    """What was tried for each arm that was tuned, and whether an edge of it was chosen."""
    said = []
    for name, arm in result["arms"].items():
        tried, chosen = arm.get("tried", []), arm.get("chosen", {})
        if not tried:
            continue
        each = [
            f"{', '.join(f'{k}={v}' for k, v in one['settings'].items())}: "
            f"{_value(one['value'], one['unit'])}"
            for one in tried
        ]
        edges = [
            field
            for field, value in chosen.items()
            if value in (min(vs := [one["settings"][field] for one in tried]), max(vs))
        ]
        edge = f". The best {', '.join(edges)} is at an edge of what was tried" if edges else ""
        said.append(f"{name}, {tried[0]['measure']} with seed 0 at {'; '.join(each)}{edge}.")
    return said


def _value(value: float | str | None, unit: str) -> str:
    return value if isinstance(value, str) else _shown(value, unit)


def _charts(claim: Claim, result: Mapping[str, Any]) -> str:
    """Training and validation errors over epochs, an arm a colour, a seed a curve.

    Runs that others only start from are left out: their epochs are of other data.
    """
    from visualization import curves

    begins = {arm.starts_from for arm in claim.arms}
    arms = {name: arm for name, arm in result["arms"].items() if name not in begins}
    made = []
    for title, split in (("Training error", "train"), ("Validation error", "validation")):
        series = []
        for colour, (name, arm) in enumerate(arms.items()):
            for number, by_split in enumerate(arm["curves"].values()):
                points = [(x, y) for x, y in by_split.get(split, [])]
                series.append(
                    curves.Series("" if number else name, points, colour, thin=number > 0)
                )
        if any(len(each.points) > 1 for each in series):  # one point is in the table
            made.append(curves.chart(title, series, x="epoch", unit="%"))
    charts = [chart for chart in made if chart]
    return "\n".join(['<div class="charts">', *charts, "</div>"]) if charts else ""


def _commands(result: Mapping[str, Any]) -> str:
    from visualization import page as pages

    parts = []
    for title, key in (("As run here, seed 0", "commands"), ("In full", "full_commands")):
        lines = [
            f"# {name}\n" + "\n".join(arm[key])
            for name, arm in result["arms"].items()
            if arm.get(key)
        ]
        if lines:
            text = escape("\n".join(lines))
            parts.append(f'<h4>{title}</h4>\n<pre tabindex="0">{text}</pre>')
    told = {**result.get("versions", {}), "commit": " ".join(result.get("git_commits", []))}
    machine = result.get("machine", {})
    said = ", ".join(f"{k} {v}" for k, v in told.items() if v)
    devices = ", ".join(f"{n} {kind}" for kind, n in machine.get("devices", {}).items())
    if said:
        cores = machine.get("cores", "?")
        where = f"{machine.get('system', '')}, {cores} cores; {devices}"
        parts.append(pages.text(f"{said}; {where}", "soft"))
    return "\n".join(parts)
