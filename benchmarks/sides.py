"""Command line, measurement and table of the benchmarks that compare ours with PyTorch."""

import argparse
import dataclasses
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable, Mapping

from benchmarks import report, turns, workload
from benchmarks.workload import Case

# The keys of PyTorch's sides in a row.
PYTORCH = {"eager": "pytorch_eager", "compiled": "pytorch_compiled"}
Made = tuple[Callable[[], None], Callable[[], None]]


def main(
    module: str,
    case: str,
    makers: Mapping[str, Callable[[Case], Made]],
    *,
    batches: Mapping[str, tuple[int, int]],
    flops: Callable[[str], int],
    description: str,
    noun: str = "networks",
) -> None:
    """Runs a benchmark; with the hidden flag --worker, one contestant of it.

    Args:
      module: name of the benchmark's module.
      case: prefix of its rows' names, before the slash.
      makers: side -> function from a case to (work, a function that waits for it). One side is
        `ours`; PyTorch's sides are `eager` and `compiled`.
      batches: name of each network or layer -> batch size on a CPU, and on an accelerator.
      flops: name -> FLOPs of one image.
      description: for --help.
      noun: plural of what `batches` lists, and name of the flag that chooses among them.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few turns, short ones")
    parser.add_argument(
        f"--{noun}", nargs="+", choices=list(batches), default=list(batches), dest="names"
    )
    parser.add_argument("--batch", type=report.positive(int), help=f"images, of all {noun}")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker = Case(**json.loads(arguments.worker))
        turns.serve(lambda: workload.measured(worker, makers[worker.side](worker), arguments.quick))
        return
    device = turns.run_apart(device_and_peak, arguments.dtype)
    platform, seconds = device["platform"], 1.0 if arguments.quick else 5.0
    if not has_peer(platform):
        makers = {side: make for side, make in makers.items() if side not in PYTORCH}
    rows = []
    for name in arguments.names:
        batch = arguments.batch or batches[name][platform != "cpu"]
        sides = {
            side: dataclasses.asdict(Case(side, name, batch, device["dtype"], seconds, platform))
            for side in makers
        }
        found = turns.contest(
            f"benchmarks.{module}", sides, 3 if arguments.quick else 7, quick=arguments.quick
        )
        if not found["ours"]:
            print(f"{case}/{name}: not measured", file=sys.stderr)
            continue
        rows.append(row_of(f"{case}/{name}", batch, device, found, flops(name)))
        print(f"{case}/{name}: ratio {rows[-1]['ratio']}", file=sys.stderr, flush=True)
    report.show(rows)
    if len(rows) < len(arguments.names):
        sys.exit(1)


def row_of(
    name: str,
    batch: int,
    device: Mapping[str, object],
    found: Mapping[str, list[turns.Measurement]],
    flops: int,
) -> report.Row:
    """A row of the table: median speeds, and our FLOP/s.

    Args:
      name: of the row.
      batch: batch size.
      device: from `device_and_peak`.
      found: side -> its measurements; at least one for `ours`.
      flops: of one image.
    """
    speeds = {
        side: statistics.median(m["images_per_second"] for m in measured)
        for side, measured in found.items()
        if measured
    }
    memory = {side: measured[-1]["peak_bytes"] for side, measured in found.items() if measured}
    ours = speeds.pop("ours")
    theirs = {side: speed for side, speed in speeds.items() if side in PYTORCH}
    best = max(theirs, key=lambda side: theirs[side], default=None)
    peak = device["peak_flops"]
    assert isinstance(peak, float)
    return report.row(
        name,
        "images/s",
        ours,
        theirs[best] if best else None,
        device=str(device["name"]),
        peer_name=f"PyTorch {best}" if best else "",
        batch=batch,
        dtype=device["dtype"],
        **{PYTORCH.get(side, side): report.short(speed) for side, speed in speeds.items()},
        tflops=round(ours * flops / 1e12, 4),
        share_of_peak=round(ours * flops / peak, 3),
        peak_mib={side: round(value / 2**20) for side, value in memory.items()},
    )


def has_peer(platform: str) -> bool:
    """Whether PyTorch can be measured on a device of the same kind; says on stderr why not.

    Args:
      platform: of JAX's device.
    """
    if importlib.util.find_spec("torch") is None:
        why = "PyTorch is not installed (pip install -e '.[torch]')"
    elif platform not in workload.TORCH_DEVICES:
        why = f"JAX computes on {platform}, where PyTorch is not measured"
    elif platform == "gpu" and not turns.run_apart(torch_has_a_gpu):
        why = "JAX computes on a GPU, and PyTorch has none (is it a build for CPUs?)"
    else:
        return True
    print(f"{why}: no peer", file=sys.stderr)
    return False


def torch_has_a_gpu() -> bool:
    """Whether PyTorch can compute on a GPU."""
    import torch

    return torch.cuda.is_available()


def device_and_peak(dtype: str | None) -> dict[str, object]:
    """Name and platform of the device, the dtype chosen for it, and its peak FLOP/s.

    The peak is measured, by the product of two large matrices of that dtype.
    """
    import jax

    from training.clock import measured_flops

    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    dtype = dtype or ("float32" if on_cpu else "bfloat16")
    return {
        "name": report.device_name(),
        "platform": device.platform,
        "dtype": dtype,
        "peak_flops": measured_flops(device, 2048 if on_cpu else 8192, dtype, 8),
    }
