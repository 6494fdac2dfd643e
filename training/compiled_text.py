"""What `compiling.report` found, in lines for the screen."""

from typing import Any

# Number of layers, and of operations, that are shown.
_LAYERS, _OPERATIONS = 12, 5


def run_of(found: dict[str, Any], steps: int | None, price: float | None) -> dict[str, Any]:
    """Hours of a run of so many steps, and its cost.

    Evaluations, checkpoints and waiting for images are not counted.

    Args:
      found: of `compiling.report`.
      steps: of the whole run; None where the config has no end.
      price: dollars of a chip (a TPU's chip, a GPU) an hour; None where it was not given.
    """
    if steps is None or "estimate" not in found:
        return {}
    hours = steps * found["estimate"]["step_seconds"] / 3600
    run = {"steps": steps, "hours": hours, "chip_hours": hours * found["chips"]}
    if price is not None:
        run |= {"price_per_chip_hour": price, "cost": run["chip_hours"] * price}
    return run


def lines(found: dict[str, Any]) -> list[str]:
    """The whole report.

    Args:
      found: of `compiling.report`, with `run` of `run_of`.
    """
    mesh, memory = found["mesh"], found["bytes_per_device"]
    parts = found["gradient_accumulation"]
    hosts = f" on {found['hosts']} hosts" if found["hosts"] > 1 else ""
    said = [
        f"{found['network']}, batch {found['batch_size']}"
        + (f" in {parts} parts" if parts > 1 else "")
        + f", {found['compute_dtype']}, compiled for {found['accelerator']}: {found['devices']} x "
        f"{found['device']}{hosts}, mesh.data={mesh['data']} x mesh.tower={mesh['tower']}",
        f"memory      {shown(memory['total'])} a device"
        + (f" of {shown(memory['available'])}: it fits" if memory["available"] else "")
        + " (JAX takes three quarters of a card)" * (found["platform"] == "cuda"),
        "            "
        + ", ".join(
            f"{name} {shown(memory[name])}"
            for name in ("parameters", "optimizer", "average", "batch", "temporaries")
            if memory[name]
        ),
    ]
    if found["collectives"]:
        sent = sum(entry["sent"] for entry in found["collectives"])
        said.append(f"exchanges   each device sends {shown(sent)} a step")
        said += [
            f"            {entry['times']:>5,} {entry['operation']:<18} of "
            f"{shown(entry['bytes'])} in all, among {entry['among']} along {entry['along']}"
            for entry in found["collectives"]
        ]
    if "estimate" in found:
        said += _times(found)
    if found["loops_counted_once"]:
        said.append(f"note: {found['loops_counted_once']} loops of unknown length count once")
    return said


def _times(found: dict[str, Any]) -> list[str]:
    """The lines about time."""
    estimate, run = found["estimate"], found["run"]
    total = estimate["step_seconds"]
    if "estimated_cycles" in found:
        counted = f"{found['estimated_cycles']:,} cycles by the compiler"
        made = "ESTIMATE of the compiler; nothing was run"
    else:
        counted = f"{found['bytes_moved'] / 1e9:,.2f} GB moved by {found['kernels']:,} kernels"
        made = "ESTIMATE, a lower bound by the compiled program; nothing was run"
    said = [
        f"time        {made}",
        f"            {1e3 * total:,.2f} ms a step, {estimate['images_per_second']:,.0f} images/s, "
        f"bound by {estimate['bound_by']}",
        f"            computing {1e3 * estimate['computing_seconds']:,.2f} ms ({counted}; "
        f"{1e3 * estimate['seconds_at_peak']:,.2f} ms at its bfloat16 peak)",
    ]
    if found["collectives"]:
        said.append(
            f"            exchanges {1e3 * estimate['exchange_seconds']:,.2f} ms, of which "
            f"computing hides all but {1e3 * estimate['exchange_seconds_waited_for']:,.2f}"
        )
    computing = estimate["computing_seconds"]
    said.append(f"{'layer':<24}{'forward ms':>12}{'backward ms':>12}{'other ms':>10}{'share':>8}")
    layers = found["layers"]
    count = _LAYERS if len(layers) > _LAYERS + 1 else len(layers)
    rest = layers[count:]
    shown = layers[:count]
    if rest:
        ways = ("seconds", "forward", "backward", "otherwise")
        shown.append(
            {"layer": f"{len(rest)} others"}
            | {way: sum(entry.get(way, 0.0) for entry in rest) for way in ways}
        )
    for entry in shown:
        cells = [entry.get(way, 0.0) for way in ("forward", "backward", "otherwise")]
        numbers = [f"{1e3 * cell:.3f}" if cell else "" for cell in cells]
        said.append(
            f"{entry['layer']:<24}{numbers[0]:>12}{numbers[1]:>12}{numbers[2]:>10}"
            f"{entry['seconds'] / computing:>8.1%}"
        )
    said.append("costliest operations")
    said += [_operation(entry, computing) for entry in found["operations"][:_OPERATIONS]]
    if found["hand_written"]:
        said.append("hand-written kernels, by their FLOP or bytes")
        said += [_operation(entry, computing) for entry in found["hand_written"][:_OPERATIONS]]
    if run:
        cost = ""
        if "cost" in run:
            cost = f"; ${run['cost']:,.2f} at ${run['price_per_chip_hour']:g} a chip and hour"
        said += [
            f"whole run   {run['steps']:,} steps: {_hours(run['hours'])}, "
            f"{run['chip_hours']:,.{1 if run['chip_hours'] >= 1 else 4}f} chip-hours{cost}",
            "            without evaluation and waiting for images",
        ]
    return said


def _hours(hours: float) -> str:
    """A time in the unit that fits."""
    if hours >= 1:
        return f"{hours:,.2f} hours"
    return f"{60 * hours:.1f} minutes" if hours >= 1 / 60 else f"{3600 * hours:.1f} seconds"


def _operation(entry: dict[str, Any], computing: float) -> str:
    last = entry["path"].rsplit("/", 1)[-1] or entry["opcode"]
    times = f" x {entry['times']}" if entry["times"] > 1 else ""
    return (
        f"  {1e3 * entry['seconds']:>9.3f} ms {entry['seconds'] / computing:>6.1%}  "
        f"{entry['layer']}: {last}{times}"
    )


def shown(size: float) -> str:
    """Bytes as text, in the unit that fits."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:,.2f} {name}"
    return f"{size:,.0f} bytes"
