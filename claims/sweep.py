"""A grid or a random search over any fields of a config, on a validation split or k folds."""

import dataclasses
import itertools
import json
import math
import random
import re
import statistics as stats
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import files
from claims import execute, jobs, measures, settings, tuning
from claims.claim import TRAIN, Measure
from claims.errors import ClaimError
from claims.jobs import Job, Place

# What a sweep may choose by. The test set is not among them.
MEASURES = {
    "validation_error": measures.VALIDATION_ERROR,
    "training_error": measures.TRAINING_ERROR,
    "training_loss": measures.TRAINING_LOSS,
    "epochs_to_25": measures.epochs_to(0.25),
    "epochs_to_50": measures.epochs_to(0.5),
}
_RANGE = re.compile(r"(?P<low>[^.].*?)\.\.(?P<high>[^,]+)(?P<log>,log)?")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is searched.

    Attributes:
      source: `CONFIG[:VARIANT]`.
      overrides: of all trials.
      trials: overrides of each trial besides these.
      seed: of the runs, where the trials have none of their own.
      folds: of cross-validation; None for the config's validation split.
      measure: one of MEASURES.
    """

    source: str
    overrides: dict[str, Any]
    trials: list[dict[str, str]]
    seed: int
    folds: int | None
    measure: str

    def jobs_of(self, trial: Mapping[str, str]) -> list[Job]:
        """The runs of a trial: one, or one a fold."""
        common = {**self.overrides, "seed": self.seed, **trial}
        if self.folds is None:
            return [jobs.make(self.source, common, (TRAIN,))]
        parts = [{"data.folds": self.folds, "data.fold": n} for n in range(self.folds)]
        return [jobs.make(self.source, {**common, **part}, (TRAIN,)) for part in parts]


def parse(
    config: str,
    overrides: Sequence[str],
    grids: Sequence[str],
    ranges: Sequence[str],
    *,
    trials: int,
    seed: int,
    folds: int | None,
    measure: str,
) -> Sweep:
    """A sweep as the command line says it.

    Args:
      config: `configs/NAME.py[:VARIANT]`.
      overrides: `--config.field=value` each.
      grids: `FIELD=VALUE,VALUE,...` each; their product is tried.
      ranges: `FIELD=LOW..HIGH[,log]` each; `trials` points are drawn.
      trials, seed, folds, measure: see `Sweep`.

    Raises:
      ClaimError: something is not understood, or a config is invalid.
    """
    file, colon, variant = config.partition(":")
    if Path(file).suffix != ".py" or Path(file).parent.name != "configs":
        raise ClaimError(
            f"--config={config}: write it as configs/NAME.py or configs/NAME.py:VARIANT"
        )
    if bool(grids) == bool(ranges):
        raise ClaimError(
            "sweep what? give --grid FIELD=VALUE,VALUE,... or --random FIELD=LOW..HIGH"
        )
    if measure not in MEASURES:
        raise ClaimError(f"--measure={measure}: choose one of {', '.join(MEASURES)}")
    if folds is not None and folds < 2:
        raise ClaimError(f"--folds={folds}: at least 2")
    fixed = dict(_pair(o.removeprefix("--config."), o) for o in overrides)
    tried = _grid(grids) if grids else _drawn(ranges, trials, seed)
    if "seed" in fixed:
        raise ClaimError(f"--config.seed={fixed['seed']}: of a sweep it is --seed")
    divided = {"data.folds", "data.fold"} & {*fixed}.union(*tried) if folds is not None else ()
    for field in sorted(divided):
        raise ClaimError(f"{field}: --folds={folds} says it; leave one of them out")
    made = Sweep(f"{Path(file).stem}{colon}{variant}", fixed, tried, seed, folds, measure)
    for trial in made.trials:
        for job in made.jobs_of(trial):
            settings.resolved(job.source, job.overrides)  # raises for what no config takes
    return made


def _pair(text: str, whole: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise ClaimError(f"{whole}: write FIELD=VALUE")
    return name, value


def _grid(grids: Sequence[str]) -> list[dict[str, str]]:
    """The product of several fields' values; commas inside parentheses belong to a value."""
    pairs = [_pair(grid, f"--grid {grid}") for grid in grids]
    names = [name for name, _ in pairs]
    values = [re.split(r",(?![^(]*\))", text) for _, text in pairs]
    return [dict(zip(names, point, strict=True)) for point in itertools.product(*values)]


def _drawn(ranges: Sequence[str], trials: int, seed: int) -> list[dict[str, str]]:
    """Points drawn evenly from ranges; whole numbers where both bounds are."""
    bounds = {}
    for text in ranges:
        name, value = _pair(text, f"--random {text}")
        match = _RANGE.fullmatch(value)
        try:
            assert match is not None
            low, high = float(match["low"]), float(match["high"])
            assert low < high and (low > 0 or not match["log"]) and math.isfinite(high - low)
        except (AssertionError, ValueError):
            raise ClaimError(
                f"--random {text}: write FIELD=LOW..HIGH, or LOW..HIGH,log for what is above 0"
            ) from None
        whole = not set(".e") & set((match["low"] + match["high"]).lower())
        bounds[name] = low, high, bool(match["log"]), whole
    draw, found = random.Random(seed), []
    for _ in range(trials):
        trial = {}
        for name, (low, high, log, whole) in bounds.items():
            at = draw.random()
            point = low * (high / low) ** at if log else low + at * (high - low)
            trial[name] = str(round(point)) if whole else f"{point:.4g}"
        found.append(trial)
    return found


def run(
    sweep: Sweep,
    place: Place,
    say: Callable[[str], None],
    out: Path,
    *,
    until: float | None = None,
    stop: threading.Event | None = None,
    slots: execute.Slots | None = None,
) -> bool:
    """Runs what is pending, prints the table, and writes sweep.json and sweep.html.

    Args:
      sweep: what is searched.
      place, say, until, stop, slots: see `execute.run`.
      out: directory of the files.

    Returns:
      Whether all runs are finished.

    Raises:
      ClaimError: the data are missing, or another sweep's files are in the way.
    """
    path = out / "sweep.json"
    about = {k: v for k, v in dataclasses.asdict(sweep).items() if k != "trials"}
    about["fields"] = sorted({name for trial in sweep.trials for name in trial})
    _check_free(path, about)
    place.require(settings.resolved(sweep.source, sweep.overrides)["data.name"])
    all_jobs = jobs.every([job for trial in sweep.trials for job in sweep.jobs_of(trial)])
    complete = execute.run(all_jobs, place, say, until=until, stop=stop, slots=slots)
    measure = MEASURES[sweep.measure]
    rows = [_row(sweep, trial, place, measure) for trial in sweep.trials]
    done = [row for row in rows if row["mean"] is not None and math.isfinite(row["mean"])]
    best = min(done, key=lambda row: (row["at_least"], row["mean"]), default=None)
    content = {**about, "trials": rows, "best": best and best["settings"], "complete": complete}
    try:
        out.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            temporary.write_text(json.dumps(_json(content), indent=1) + "\n", encoding="utf-8")
        with files.replacing(out / "sweep.html") as temporary:
            temporary.write_text(_page(sweep, rows, best, measure), encoding="utf-8")
    except OSError as error:
        raise ClaimError(f"{out}: cannot be written ({error.strerror})") from error
    say(tuning.table(_cells(rows, best, measure), [*about["fields"], measure.name, "spread", ""]))
    say(f"{path}\n{out / 'sweep.html'}")
    return complete


def _check_free(path: Path, about: Mapping[str, Any]) -> None:
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        same = all(found.get(name) == value for name, value in about.items())
    except (OSError, ValueError, AttributeError):
        same = False
    if not same:
        raise ClaimError(f"{path}: of another sweep; remove it, or choose another --out")


def _row(sweep: Sweep, trial: dict[str, str], place: Place, measure: Measure) -> dict[str, Any]:
    values = [tuning.read(job, place, measure) for job in sweep.jobs_of(trial)]
    numbers = [value.number for value in values if value is not None]
    whole = len(numbers) == len(values)
    finite = [number for number in numbers if math.isfinite(number)]
    return {
        "settings": trial,
        "values": numbers,
        "at_least": any(value.at_least for value in values if value is not None),
        "mean": stats.fmean(numbers) if whole else None,
        "spread": stats.stdev(finite) if len(finite) > 1 else None,
    }


def _json(value: Any) -> Any:
    """The value with words in place of infinite numbers, which JSON does not have."""
    if isinstance(value, dict):
        return {k: _json(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_json(v) for v in value]
    return "diverged" if isinstance(value, float) and not math.isfinite(value) else value


def _cells(
    rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None, measure: Measure
) -> list[dict[str, str]]:
    cells = []
    for row in rows:
        number = row["mean"]
        said = "-" if number is None else f"{number:.4g}{measure.unit if number < math.inf else ''}"
        said = "diverged" if number == math.inf else f"{'at least ' * row['at_least']}{said}"
        spread = "" if row["spread"] is None else f"{row['spread']:.2g}"
        mark = "lowest" if best is not None and row is best else ""
        cells.append({**row["settings"], measure.name: said, "spread": spread, "": mark})
    return cells


def _page(
    sweep: Sweep,
    rows: Sequence[Mapping[str, Any]],
    best: Mapping[str, Any] | None,
    measure: Measure,
) -> str:
    """A table, and a chart of the measure over each field whose values are numbers."""
    from visualization import curves
    from visualization import page as pages

    fields = sorted({name for trial in sweep.trials for name in trial})
    charts = []
    for field in fields:
        points = []
        for row in rows:
            try:
                place = float(row["settings"][field])
            except ValueError:
                break
            if row["mean"] is not None and math.isfinite(row["mean"]):
                points.append((place, row["mean"]))
        else:
            positive = [x for x, _ in points if x > 0]
            wide = len(positive) == len(points) > 1 and max(positive) > 20 * min(positive)
            placed = [(math.log10(x) if wide else x, y) for x, y in points]
            series = [curves.Series("", [point]) for point in sorted(placed)]
            name = f"log10 of {field}" if wide else field
            charts.append(curves.chart(measure.name, series, x=name, unit=measure.unit))
    columns = [*fields, measure.name, "spread", ""]
    cells = [[row[c] for c in columns] for row in _cells(rows, best, measure)]
    source = " ".join(settings.arguments(sweep.source, sweep.overrides))
    split = f"{sweep.folds} folds" if sweep.folds else "the validation split"
    seed = "" if "seed" in fields else f"; seed {sweep.seed}"
    begin = [pages.text(f"{source}; {split}{seed}", "soft")]
    sections = [
        pages.section("table", "Trials", [pages.table(measure.name, columns, cells)]),
        pages.section(
            "charts", "Charts", ['<div class="charts">', *filter(None, charts), "</div>"]
        ),
    ]
    return pages.page(f"Sweep of {sweep.source}", f"Sweep of {sweep.source}", begin, sections)
