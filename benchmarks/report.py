"""The output of every benchmark: a table to read, then a JSON object per line to keep."""

import json
import platform
import statistics
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
LESS_IS_BETTER = ("s", "ms", "error", "bytes", "MiB", "GB", "Mcycles")


def row(name: str, unit: str, ours: float, peer: float | None, *, device: str, **more: Any) -> Row:
    """One result.

    Args:
      name: `<case>/<network or preprocessing>`.
      unit: of both numbers; in `LESS_IS_BETTER` if the smaller one is better.
      ours, peer: the numbers; peer is None if there is none, or if it is not installed.
      device: name of the device.
      **more: further measurements.

    Returns:
      The object that is printed; `ratio` is above 1 if ours is better.
    """
    ratio = None
    if peer is not None:
        ratio = peer / ours if unit in LESS_IS_BETTER else ours / peer
    return {
        "name": name,
        "device": device,
        "unit": unit,
        "ours": _short(ours),
        "peer": _short(peer),
        "ratio": _short(ratio),
        **more,
    }


def show(rows: Sequence[Row]) -> None:
    """Prints the table, then the JSON lines."""
    print(f"{'':34} {'unit':>10} {'ours':>10} {'peer':>10} {'ratio':>7}  peer")
    for r in rows:
        cells = [_cell(r[key]) for key in ("ours", "peer", "ratio")]
        print(
            f"{r['name']:34} {r['unit']:>10} {cells[0]:>10} {cells[1]:>10} {cells[2]:>7}"
            f"  {r.get('peer_name', '')}"
        )
    for r in rows:
        print(json.dumps(r), flush=True)


def positive(kind: type) -> Callable[[str], Any]:
    """A type for argparse that parses a number above 0 with `kind`, int or float."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise ValueError(text)
        return value

    parse.__name__ = f"number above 0 ({kind.__name__})"
    return parse


def alternate(
    contestants: Sequence[Callable[[], float] | None], rounds: int
) -> list[list[float] | None]:
    """Runs the contestants in turn, so that a machine that slows down slows all of them.

    Args:
      contestants: each returns one measurement per call; None for one that is not installed.
      rounds: number of calls of each.

    Returns:
      The measurements of each contestant; None for one that is not installed.
    """
    results: list[list[float] | None] = [None if c is None else [] for c in contestants]
    for _ in range(rounds):
        for contestant, result in zip(contestants, results, strict=True):
            if contestant is not None and result is not None:
                result.append(contestant())
    return results


def median(values: list[float] | None) -> float | None:
    """The median of measurements; None for a contestant that is not installed."""
    return None if values is None else statistics.median(values)


def cpu_name() -> str:
    """Model name and number of cores of this machine's processor."""
    import os

    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores"


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
