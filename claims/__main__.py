"""The papers' claims: list them, run them, report on them.

    python -m claims list [--paper=alexnet]
    python -m claims run ID ... [--budget=MINUTES] [--seeds=3] [--full] [--data_dir=DIR]
    python -m claims sweep --config=CONFIG --grid FIELD=VALUE,VALUE ... [--folds=K]
    python -m claims report

`run` goes on where it stopped, runs nothing twice, and writes claims/results/ID.json. `report`
makes docs/report.html and tables of docs/results.md from these. Each command has a --help.

Exit codes: 0 done; 1 a run failed; 2 a usage error; 75 stopped by a signal or at the end of the
budget, and ready to be run again.
"""

import argparse
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import process
from claims.errors import ClaimError

# A process starts, compiles, and saves: less is too little for any of them.
SMALLEST_BUDGET = 1.0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ClaimError(f"{message}; --help says more")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    made = _Parser(prog="python -m claims", description=__doc__, formatter_class=raw)
    commands = made.add_subparsers(dest="command", required=True, parser_class=_Parser)
    listing = commands.add_parser("list", help="All claims, their status and cost.")
    listing.add_argument("ids", metavar="ID", nargs="*", help="Everything about these claims.")
    listing.add_argument("--paper", help="Those of one paper.")
    running = commands.add_parser("run", help="Runs claims and writes their results.")
    running.add_argument("ids", metavar="ID", nargs="*")
    running.add_argument("--paper", help="All of one paper that can be run here.")
    running.add_argument("--all", action="store_true", help="All that can be run here.")
    running.add_argument("--full", action="store_true", help="At the paper's data and length.")
    running.add_argument("--seeds", type=int, default=3, help="Runs of each arm.")
    report = commands.add_parser("report", help="Makes the page and the tables.")
    report.add_argument("--out", help="Directory of report.html and results.md; docs/.")
    sweep = commands.add_parser("sweep", help="A grid or a random search over any fields.")
    sweep.add_argument("--config", required=True, help="Such as configs/cifar10.py:figure1.")
    sweep.add_argument("--grid", action="append", default=[], metavar="FIELD=VALUE,VALUE,...")
    sweep.add_argument(
        "--random", action="append", default=[], metavar="FIELD=LOW..HIGH[,log]",
        help="Drawn evenly, or evenly in the logarithm.",
    )  # fmt: skip
    sweep.add_argument("--trials", type=int, default=10, help="Of a random search.")
    sweep.add_argument("--seed", type=int, default=0, help="Of the draws and the runs.")
    sweep.add_argument("--folds", type=int, help="Folds of cross-validation; else one split.")
    sweep.add_argument("--measure", default="validation_error", help="What is lowest is best.")
    sweep.add_argument("--out", default="sweep", help="Directory of the files.")
    for one in (running, sweep):
        one.add_argument("--budget", type=float, help="Minutes for each claim, or for the sweep.")
        one.add_argument("--runs", help="Directory of the runs; runs/claims.")
        one.add_argument("--data_dir", help="Of the datasets; $VISION_MODELS_DATA by default.")
        one.add_argument(
            "--parallel", type=int,
            help="Processes at a time, of several claims if there are; one a GPU by default.",
        )  # fmt: skip
    return made


def main(argv: Sequence[str]) -> int:
    """Runs a command line and returns the exit code."""
    try:
        arguments, others = parser().parse_known_args(argv)
    except SystemExit as error:  # --help
        return int(error.code or 0)
    except ClaimError as error:
        return process.fail(error)
    if others and (
        arguments.command != "sweep" or not all(o.startswith("--config.") for o in others)
    ):
        return process.fail(ClaimError(f"{others[0]!r} is not understood; --help says more"))
    arguments.overrides = others
    command = {"list": _list, "run": _run, "report": _report, "sweep": _sweep}[arguments.command]
    return process.failing_in_words(lambda: command(arguments), lambda error: None)


def _list(arguments: argparse.Namespace) -> int:
    from claims import listing, registry

    if arguments.ids:
        for id in arguments.ids:
            print(listing.whole(registry.find(id)))
        return process.DONE
    print(listing.table(registry.chosen_papers(arguments.paper)))
    return process.DONE


def _until(arguments: argparse.Namespace) -> float | None:
    """When a budget that begins now is over.

    Raises:
      ClaimError: it is too small for any run.
    """
    if arguments.budget is None:
        return None
    if not arguments.budget >= SMALLEST_BUDGET:
        raise ClaimError(
            f"--budget={arguments.budget:g}: a run needs a minute to start and to save; give "
            f"{SMALLEST_BUDGET:g} or more"
        )
    return time.monotonic() + 60 * float(arguments.budget)


def _stop_on_signals() -> threading.Event:
    """An event that SIGTERM, SIGHUP and Ctrl-C set."""
    stop = threading.Event()
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        number = process.named(name)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())
    return stop


def _say(line: str) -> None:
    print(line, flush=True)


def _check_count(flag: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ClaimError(f"--{flag}={value}: at least 1")


def _run(arguments: argparse.Namespace) -> int:
    from claims import execute, jobs, registry, running

    _check_count("seeds", arguments.seeds)
    _check_count("parallel", arguments.parallel)
    claims = [registry.find(id) for id in arguments.ids]
    if arguments.all or arguments.paper:
        papers = registry.chosen_papers(arguments.paper)
        every = [c for paper in papers for c in paper.claims]
        able = [c for c in every if not c.waits and (arguments.full or c.here is not None)]
        if not able:
            raise ClaimError(
                f"--paper={arguments.paper}: nothing of it fits a laptop's data and time; --full "
                f"--data_dir=DIR runs it at the paper's, and python -m claims list "
                f"--paper={arguments.paper} has the cost"
            )
        claims += [claim for claim in able if claim not in claims]
    if not claims:
        raise ClaimError("run what? name claims, or --paper=NAME, or --all")
    _until(arguments)
    place = jobs.default_place(arguments.runs, arguments.data_dir)
    for claim in claims:
        running.check(claim, place, full=arguments.full)
    complete = running.run_all(
        claims, place, _say, seeds=arguments.seeds, full=arguments.full,
        until=lambda: _until(arguments), budget=arguments.budget, stop=_stop_on_signals(),
        slots=execute.free_slots(arguments.parallel),
    )  # fmt: skip
    return process.DONE if complete else process.STOPPED


def _report(arguments: argparse.Namespace) -> int:
    from claims import report, settings
    from configs.common import expanded

    out = Path(expanded("--out", arguments.out)) if arguments.out else settings.ROOT / "docs"
    for path in report.write(out, _say):
        print(path)
    return process.DONE


def _sweep(arguments: argparse.Namespace) -> int:
    from claims import execute, jobs, sweep
    from configs.common import expanded

    for flag in ("trials", "parallel"):
        _check_count(flag, getattr(arguments, flag))
    place = jobs.default_place(arguments.runs, arguments.data_dir)
    out = Path(expanded("--out", arguments.out))
    asked: Any = sweep.parse(
        arguments.config, arguments.overrides, arguments.grid, arguments.random,
        trials=arguments.trials, seed=arguments.seed, folds=arguments.folds,
        measure=arguments.measure,
    )  # fmt: skip
    complete = sweep.run(
        asked, place, _say, out, until=_until(arguments), stop=_stop_on_signals(),
        slots=execute.free_slots(arguments.parallel),
    )  # fmt: skip
    return process.DONE if complete else process.STOPPED


if __name__ == "__main__":
    process.guard_streams()
    sys.exit(main(sys.argv[1:]))
