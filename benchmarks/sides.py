"""The command line, the contest and the table that train_step and inference share."""

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Callable, Mapping

from benchmarks import report, turns, workload
from benchmarks.workload import BATCHES, Case

Made = tuple[Callable[[], None], Callable[[], None]]


def main(
    name: str,
    ours: Callable[[Case], Made],
    theirs: Callable[[Case], Made],
    *,
    passes: int,
    description: str,
) -> None:
    """Runs a benchmark, or is one of its contestants.

    Args:
      name: of the benchmark's module, and before the slash in its rows.
      ours, theirs: case -> (work, a wait for it).
      passes: through the network in one piece of work: 1 forward, 3 with backward.
      description: for --help.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few turns, short ones")
    parser.add_argument("--networks", nargs="+", choices=list(BATCHES), default=list(BATCHES))
    parser.add_argument("--batch", type=int, help="images, of every network")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    makers = {"ours": ours, "eager": theirs, "compiled": theirs}
    if arguments.worker:
        case = Case(**json.loads(arguments.worker))
        turns.serve(lambda: workload.measured(case, makers[case.side](case)))
        return
    device = turns.run_apart(device_and_peak, arguments.dtype)
    rows = []
    for network in arguments.networks:
        batch = arguments.batch or BATCHES[network][device["platform"] != "cpu"]
        cases = {
            side: dataclasses.asdict(
                Case(side, network, batch, device["dtype"], 1.5 if arguments.quick else 5.0)
            )
            for side in makers
        }
        found = turns.contest(f"benchmarks.{name}", cases, 3 if arguments.quick else 7)
        if not found["ours"]:
            print(f"{name}/{network}: not measured", file=sys.stderr)
            continue
        rows.append(row_of(name, network, batch, device, found, passes))
        print(f"{name}/{network}: ratio {rows[-1]['ratio']}", file=sys.stderr, flush=True)
    report.show(rows)
    if len(rows) < len(arguments.networks):
        sys.exit(1)


def row_of(
    name: str,
    network: str,
    batch: int,
    device: Mapping[str, object],
    found: Mapping[str, list[turns.Measurement]],
    passes: int,
) -> report.Row:
    """A line of the table: medians, and what they come to in FLOP/s."""
    speeds = {
        side: statistics.median(m["images_per_second"] for m in measured)
        for side, measured in found.items()
        if measured
    }
    memory = {side: measured[-1]["peak_bytes"] for side, measured in found.items() if measured}
    ours = speeds.pop("ours")
    best = max(speeds, key=lambda side: speeds[side], default=None)
    flops = ours * 2 * passes * multiply_adds(network)
    peak = device["peak_flops"]
    assert isinstance(peak, float)
    return report.row(
        f"{name}/{network}",
        "images/s",
        ours,
        speeds[best] if best else None,
        device=str(device["name"]),
        peer_name=f"PyTorch {best}" if best else "",
        batch=batch,
        dtype=device["dtype"],
        **{f"pytorch_{side}": round(speed, 2) for side, speed in speeds.items()},
        tflops=round(flops / 1e12, 4),
        share_of_peak=round(flops / peak, 3),
        peak_mib={side: round(value / 2**20) for side, value in memory.items()},
    )


def multiply_adds(network: str) -> int:
    """Of one image, forward."""
    from flax import nnx

    import vision_models
    from vision_models.analysis import multiply_adds as count

    case = Case("ours", network, 1, "float32", 0)
    return count(
        nnx.eval_shape(
            lambda: vision_models.create(network, num_classes=case.classes, rngs=nnx.Rngs(0))
        )
    )


def device_and_peak(dtype: str | None) -> dict[str, object]:
    """Name and platform of the device, the dtype chosen for it, and the FLOP/s it reaches.

    The peak is measured: the product of two large matrices of that dtype.
    """
    import jax

    from training.clock import measured_flops

    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    dtype = dtype or ("float32" if on_cpu else "bfloat16")
    return {
        "name": report.cpu_name() if on_cpu else device.device_kind,
        "platform": device.platform,
        "dtype": dtype,
        "peak_flops": measured_flops(device, 2048 if on_cpu else 8192, dtype, 8),
    }
