"""Contestants in processes of their own, which take turns at being measured.

So that none shares memory, threads or an allocator with another, and a machine that slows down
slows all of them. A process prepares itself (builds, compiles, warms up), then measures once for
every line that it reads.
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
    """Is one of the contestants: prepares, then measures once a line of standard input."""
    measure = prepare()
    print(_MARK + "{}", flush=True)
    for _ in sys.stdin:
        print(_MARK + json.dumps(measure()), flush=True)


def contest(
    module: str, cases: Mapping[str, Mapping[str, Any]], rounds: int, *, quick: bool
) -> dict[str, list[Measurement]]:
    """Lets contestants take turns.

    Args:
      module: that is called as `python -m <module> --worker=<JSON>` for each.
      cases: JSON of each contestant, by name.
      rounds: measurements of each.
      quick: passes on --quick.

    Returns:
      The measurements by name; of a contestant that failed, none (it has said why).
    """
    found: dict[str, list[Measurement]] = {name: [] for name in cases}
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        # One after another: a side that chooses its algorithms by trying them is alone then.
        for name, case in cases.items():
            processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, f"--worker={json.dumps(dict(case))}"]
                + ["--quick"] * quick,
                cwd=Path(__file__).parent.parent,
                # Otherwise JAX takes most of an accelerator's memory before it needs it.
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
    """The next measurement; None, and the process has ended, if there is none."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
        sys.stderr.write(line)
    process.wait()
    return None


def timed(work: Callable[[], None], finish: Callable[[], None], seconds: float) -> float:
    """Seconds that one call of `work` takes, over as many as fill `seconds`.

    Args:
      work: may return before it is done.
      finish: waits for it.
      seconds: to measure for.
    """
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < seconds:
        work()
        if count % 4 == 3:  # not ever more in the queue
            finish()
        count += 1
    finish()
    return (time.perf_counter() - start) / count


def resident_bytes() -> int:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module returns, called in a process that then ends: it keeps no device.

    Arguments and result are JSON.
    """
    code = (
        f"import json, sys; from {function.__module__} import {function.__name__} as f; "
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
