"""Waiting time at the command line: for --help, for an error, and for a run's first step.

    python -m benchmarks.startup [--quick]

Every figure is the median over several processes, timed from their start. `help` and `misspelt`
(an override that does not exist) end with the process. `first_step/...` ends when the training of
AlexNet on scikit-learn's digits prints that its first step is done: `cold` with an empty cache of
data and of compiled programs, `warm` with the cache of the run before. There is no peer, because
no other project ships this example.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import report

_ROOT = Path(__file__).parent.parent
_FIRST_STEP = "training step compiled"
_COMPILED = "JAX_COMPILATION_CACHE_DIR"  # the user's cache, which may have the programs already
# The project's targets, in seconds.
TARGETS = {"help": 1.0, "misspelt": 1.0, "first_step/cold": 15.0, "first_step/warm": 15.0}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three of each, not seven")
    times = 3 if parser.parse_args().quick else 7
    seconds: dict[str, list[float]] = {name: [] for name in TARGETS}
    config = "--config=configs/alexnet.py:digits"
    for _ in range(times):
        seconds["help"].append(until_end(["--help"], 0))
        seconds["misspelt"].append(until_end([config, "--config.batch_sise=1"], 2))
        with tempfile.TemporaryDirectory() as place:
            for name in ("cold", "warm"):
                seconds[f"first_step/{name}"].append(until_first_step(config, Path(place)))
    report.show(
        [
            report.row(
                f"startup/{name}",
                "s",
                statistics.median(measured),
                None,
                device=report.cpu_name(),
                target=TARGETS[name],
                slowest=round(max(measured), 2),
            )
            for name, measured in seconds.items()
        ]
    )


def until_end(arguments: list[str], code: int) -> float:
    """Seconds until `main.py` has ended.

    Raises:
      RuntimeError: its exit code is not `code`.
    """
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "main.py", *arguments], cwd=_ROOT, capture_output=True)
    seconds = time.perf_counter() - start
    if done.returncode != code:
        raise RuntimeError(f"main.py {arguments}: exit code {done.returncode}")
    return seconds


def until_first_step(config: str, place: Path) -> float:
    """Seconds until a run with its cache in `place` has made its first step; then kills it.

    Raises:
      RuntimeError: it ended without a step.
    """
    workdir = place / "run"
    shutil.rmtree(workdir, ignore_errors=True)
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-u", "main.py", config, f"--workdir={workdir}"],
        cwd=_ROOT,
        env={name: value for name, value in os.environ.items() if name != _COMPILED}
        | {"XDG_CACHE_HOME": str(place / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith(_FIRST_STEP):
                seconds = time.perf_counter() - start
                process.kill()
                return seconds
    raise RuntimeError(f"main.py {config} made no step:\n{''.join(said)}")


if __name__ == "__main__":
    main()
