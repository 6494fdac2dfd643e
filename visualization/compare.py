"""One page that compares runs: compare.html, which needs no network and no other file.

    python -m visualization.compare RUN RUN ...

The curves of all runs in one picture each: loss and top-1 error, against steps and against epochs.
Below them the final and the lowest errors, and the fields in which the configs differ, with
versions and commits that differ. Only files are read: no checkpoint is opened.
"""

import argparse
import json
from collections import Counter
from collections.abc import Generator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from configs.common import ConfigError, expanded
from evaluation.metrics import WATCHED
from training.workdir import LATER_FIELDS, flat_fields
from training.writers import ERRORS
from visualization import command_line, curves, page, records
from visualization.curves import Series
from visualization.page import json_text, loss, percent
from visualization.pictures import place_of
from visualization.records import Record

SHARED = ()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("others", metavar="RUN", nargs="*", help="The runs to compare it with.")


def opener(arguments: argparse.Namespace) -> dict[str, Record]:
    """Reads all runs, by the names that they have on the page.

    Raises:
      ConfigError: there is one run only, one is named twice, or one is no run.
      TrainingError: a file of a run is damaged.
    """
    others = [expanded("RUN", other) for other in arguments.others]
    paths = [Path(path) for path in (arguments.run, *others)]
    if len(paths) < 2:
        raise ConfigError(f"{paths[0]}: name two runs or more to compare")
    seen: dict[Path, Path] = {}
    for path in paths:
        before = seen.setdefault(path.resolve(), path)
        if before is not path:
            also = f", as {before} too" if str(before) != str(path) else ""
            raise ConfigError(f"{path}: named twice{also}; name each run once")
    short = Counter(path.resolve().name for path in paths)
    names = [p.resolve().name if short[p.resolve().name] == 1 else str(p) for p in paths]
    return {name: records.read(path) for name, path in zip(names, paths, strict=True)}


def _charts(runs: dict[str, Record]) -> str:
    made = []
    errors = [(ERRORS[name].capitalize(), name, "%") for name in _watched(runs)]
    for x in ("step", "epoch"):
        for title, metric, unit in (("Loss", "loss", ""), *errors):
            series = []
            for colour, (name, record) in enumerate(runs.items()):
                training = record.points("train", metric, x)
                validation = record.points("validation", metric, x)
                few = "" if any(y is not None for _, y in validation) else name
                series.append(Series(few, training, colour, thin=True))
                series.append(Series(name, validation, colour, marks=True))
            made.append(curves.chart(title, series, x=x, unit=unit))
    return "\n".join(['<div class="charts">', *filter(None, made), "</div>"])


def _watched(runs: dict[str, Record]) -> list[str]:
    """The errors by which some run is judged."""
    return [name for name in WATCHED if any(r.watched == name for r in runs.values())]


def _errors(runs: dict[str, Record]) -> str:
    columns = (
        "run", "validation", "lowest", "at epoch", "evaluated", "training", "validation loss",
        "steps", "network", "data", "published",
    )  # fmt: skip
    rows = []
    for name, record in runs.items():
        training, validation = record.lines("train"), record.lines("validation")
        final = validation[-1] if validation else {}
        best = record.best() or {}
        paper = record.published
        total = f" of {record.total:,}" if record.total and record.total > record.step else ""
        error = record.watched
        evaluated = [
            f"{percent(line.get(error))} {line.get('split')}, {line.get('protocol')}"
            for line in record.evaluations[-1:]
        ]
        rows.append(
            [
                name,
                percent(final.get(error)),
                percent(best.get(error)),
                curves.number(best.get("epoch")),
                evaluated[0] if evaluated else "-",
                percent(training[-1].get(error) if training else None),
                loss(final.get("loss")),
                f"{record.step:,}{total}",
                record.network,
                record.data,
                ", ".join(records.published_words(paper)) if paper else "-",
            ]
        )
    return page.table(
        f"{' and '.join(f'{ERRORS[name]}s' for name in _watched(runs))}; the last ones, and the "
        "lowest of validation",
        columns,
        rows,
        numbers=(1, 2, 3, 5, 6, 7),
        long=(0,),
    )


def differing(runs: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Fields in which dicts of fields differ, sorted, with their values; "" where one has none."""
    rows = []
    for field in sorted(set().union(*runs)):
        exact = [json.dumps(run[field]) if field in run else "" for run in runs]
        if len(set(exact)) > 1:
            plain = [json_text(run[field]) if field in run else "" for run in runs]
            # With quotation marks where a text would look like a number, or like no value.
            rows.append((field, plain if len(set(plain)) == len(set(exact)) else exact))
    return rows


def _differences(caption: str, runs: dict[str, dict[str, Any]]) -> str:
    """A table of the fields in which runs differ; runs without fields are named."""
    known = {name: fields for name, fields in runs.items() if fields}
    without = ", ".join(name for name in runs if name not in known)
    parts = [page.gap(f"{caption} of {without}, which no config.json tells.") if without else ""]
    rows = [[field, *values] for field, values in differing(list(known.values()))] if known else []
    if rows:
        parts.append(page.table(caption, ["field", *known], rows, long=range(len(known) + 1)))
    elif len(known) > 1:
        parts.append(page.text(f"No difference: {caption}."))
    return "\n".join(filter(None, parts))


def _commit(text: str) -> str:
    """A commit in twelve digits, and whether files had been changed."""
    return text[:12] + "-dirty" * text.endswith("-dirty")


def draw(arguments: argparse.Namespace, runs: dict[str, Record]) -> Generator[Path, None, None]:
    """Writes compare.html."""
    path = place_of(arguments.out, None, "compare.html")
    without = [name for name, record in runs.items() if not record.metrics]
    for name in without:
        print(f"without curves of {name}: metrics.jsonl has no line yet", flush=True)
    missing = [
        page.gap(f"curves of {name}, whose metrics.jsonl has no line yet.") for name in without
    ]
    said = "Strong lines are of the validation split, thin ones of training."
    states = [
        f'<li><p class="state {record.state()[0]}"><b>{escape(name)}</b>: '
        f"{escape(record.state()[1])}</p></li>"
        for name, record in runs.items()
    ]
    configs = {
        name: LATER_FIELDS | flat_fields(record.config) if record.config else {}
        for name, record in runs.items()
    }
    environments = {
        name: flat_fields({k: v for k, v in record.environment.items() if k != "command"})
        | {"git_commit": _commit(str(record.environment.get("git_commit", "")))}
        if record.environment
        else {}
        for name, record in runs.items()
    }
    sections = [
        page.section("curves", "Curves", [*missing, page.text(said, "soft"), _charts(runs)]),
        page.section("errors", "Errors", [_errors(runs)]),
        page.section("config", "What differs", [
            _differences("fields of the configs", configs),
            _differences("versions, commit and machine", environments),
        ]),
    ]  # fmt: skip
    heading = f"{len(runs)} runs compared"
    begin = ['<ul class="states">', *states, "</ul>"]
    title = f"{', '.join(runs)}: compared"
    yield page.write(page.page(title, heading, begin, sections), path)


if __name__ == "__main__":
    command_line.main(__doc__, add_flags, draw, opener, shared=SHARED)
