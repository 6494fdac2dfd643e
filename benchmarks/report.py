"""The output of every benchmark: a table to read, then a JSON object per line to keep.

    python -m benchmarks.report FILE name batch ours peer ratio sent_bytes.towers ...

makes a table in Markdown of the named fields of the JSON lines in FILE, for the pages of results.
`--only=TEXT` takes the rows whose names contain it.
"""

import argparse
import json
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
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
        "ours": short(ours),
        "peer": short(peer),
        "ratio": short(ratio),
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


def markdown(rows: Sequence[Row], fields: Sequence[str]) -> str:
    """A table in Markdown; a dot in a field's name leads into an object, what is not there is -."""
    lines = [f"| {' | '.join(fields)} |", "|---" * len(fields) + "|"]
    for r in rows:
        cells = []
        for field in fields:
            value: Any = r
            for part in field.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            many = isinstance(value, int) or (isinstance(value, float) and value >= 1000)
            cells.append("-" if value is None else f"{value:,.0f}" if many else str(value))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read(path: Path) -> list[Row]:
    """The rows of an output that was kept."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise SystemExit(f"error: {path}: {error.strerror}") from error
    return [json.loads(line) for line in lines if line.startswith("{")]


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


def device_name() -> str:
    """Name of JAX's first device, which is the processor where there is no accelerator."""
    import jax

    device = jax.devices()[0]
    return cpu_name() if device.platform == "cpu" else device.device_kind


def short(value: float | None) -> float | None:
    """The value in four digits; None for None."""
    return None if value is None else float(f"{value:.4g}")


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def main() -> None:
    """Prints a table of an output that was kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("fields", nargs="+")
    parser.add_argument("--only", default="", help="part of the names")
    arguments = parser.parse_args()
    rows = [row for row in read(arguments.file) if arguments.only in row["name"]]
    print(markdown(rows, arguments.fields))


if __name__ == "__main__":
    main()
