"""Measures contestants in turn, each in a process of its own.

They share no memory, threads or allocator, and a machine that slows down slows all of them. A
process prepares itself (builds, compiles, warms up), then measures once for every line that it
reads.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_MARK = "measured: "
Measurement = dict[str, Any]


def serve(prepare: Callable[[], Callable[[], Measurement]]) -> None:
    """Runs a contestant: prepares it, then measures once per line of standard input.

    Args:
      prepare: builds and warms up; returns the function that measures.
    """
    measure = prepare()
    print(_MARK + "{}", flush=True)
    for _ in sys.stdin:
        print(_MARK + json.dumps(measure()), flush=True)


def contest(
    module: str, cases: Mapping[str, Mapping[str, Any]], rounds: int, *, quick: bool
) -> dict[str, list[Measurement]]:
    """Lets contestants take turns.

    Args:
      module: started as `python -m <module> --worker=<JSON>` for each contestant.
      cases: name of each contestant -> its JSON.
      rounds: number of measurements of each.
      quick: whether to pass --quick on.

    Returns:
      Name -> measurements; a contestant that failed has printed why, and has fewer or none.
    """
    found: dict[str, list[Measurement]] = {name: [] for name in cases}
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        # One after another, so that a side that chooses algorithms by timing them runs alone.
        for name, case in cases.items():
            processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, f"--worker={json.dumps(dict(case))}"]
                + ["--quick"] * quick,
                cwd=Path(__file__).parent.parent,
                # Otherwise JAX reserves most of an accelerator's memory at its start.
                env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            _answer(processes[name])
        for _ in range(rounds):
            for name, process in processes.items():
                if process.poll() is not None:
                    continue
                assert process.stdin is not None
                print(file=process.stdin, flush=True)
                measured = _answer(process)
                if measured is not None:
                    found[name].append(measured)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return found


def _answer(process: subprocess.Popen[str]) -> Measurement | None:
    """The next measurement; None if the process has ended without one."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
        sys.stderr.write(line)
    process.wait()
    return None


def timed(work: Callable[[], None], finish: Callable[[], None], seconds: float) -> float:
    """Mean seconds of a call of `work`.

    Args:
      work: may return before its computation is done.
      finish: waits for all computations that were begun.
      seconds: duration of the measurement, of one call at least.
    """
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < seconds:
        work()
        if count % 4 == 3:  # bounds the queue of the device
            finish()
        count += 1
    finish()
    return (time.perf_counter() - start) / count


def resident_bytes() -> int:
    """Peak resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a new process, so that this one does not occupy the device.

    Args:
      function: a function at the top of a module.
      *arguments: JSON values.

    Returns:
      The function's result, a JSON value.

    Raises:
      subprocess.CalledProcessError: the function raised.
    """
    module = function.__module__
    if module == "__main__":  # started by `python -m`
        spec = sys.modules[module].__spec__
        assert spec is not None, "benchmarks are started by python -m"
        module = spec.name
    code = (
        f"import json, sys; from {module} import {function.__name__} as f; "
        f"print({_MARK!r} + json.dumps(f(*json.loads(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(_MARK))
    return json.loads(line.removeprefix(_MARK))
