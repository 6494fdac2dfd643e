"""Training speed of 1 to 256 accelerators, and the hours of a whole run on them, by estimate.

    python -m benchmarks.scaling [--network=resnet50] [--accelerator=v5e] [--chips=1,4,16,64,256]
        [--batch=128] [--input_images_per_second=9000] [--config.mesh.tower=1 ...]
    python -m benchmarks.scaling --images_per_second=2500 --batch=256 [--per_host=8] ...
    python -m benchmarks.scaling --check [--quick]

The first form compiles the config's training step for each number of chips (or topology, as
16x16) by `main.py --mode=compile`, in bfloat16, and needs the extra `tpu` or `compile-cuda`.
Kernels and collectives are those of the compiled program, BatchNorm's among them; their times are
the estimates of docs/compiling.md, and nothing is run. The first rows divide the batch of the
config among the chips. The second ones give `--batch` images to each; that needs a learning rate
for large batches (Goyal et al. 2017). A chip's program takes half a minute to minutes. Overrides
of the config are passed on; the rest of the flags are this benchmark's.

The second form is for a speed that was measured (`benchmarks.train_step`), and is a formula. A ring
over the accelerator's link sums the gradients; the backward pass hides as much of this as it lasts.
It leaves out that small batches compute less efficiently, and exchanges of BatchNorm.

In both, one host's input pipeline (`benchmarks.input_pipeline`; unlimited if not given) may be what
bounds a step.

`--check` compares the formula with the speed of two processes of one core each that train
together. The prediction is made from two processes that run apart, and from the time of a sum over
both.
"""

import argparse
import dataclasses
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import compiled, machines, report, turns, workload
from devices import DeviceError
from devices.accelerators import ACCELERATORS, target_of

# Config, and the batch, epochs and training images of its run.
RUNS = {
    "alexnet": ("alexnet.py", 128, 90, 1_281_167),
    "vgg_d": ("vgg.py:d", 256, 74, 1_281_167),
    "googlenet": ("googlenet.py", 32, 60, 1_281_167),
    "resnet50": ("resnet.py:50", 256, 120, 1_281_167),
    "cifar10_four_layer": ("cifar10.py:18pct", 128, 140, 50_000),
    "resnet20": ("cifar10.py:resnet20", 128, 164, 50_000),
}
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
KINDS = [kind for kind, accelerator in ACCELERATORS.items() if accelerator.flops]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The inputs of the model.

    Attributes:
      images_per_second: of one accelerator that only computes.
      gradient_bytes: size of the gradients that are summed.
      link, latency: bytes/s and seconds of an exchange.
      per_host: number of accelerators that share one host's input pipeline.
      input_images_per_second: of one host's input pipeline.
      hidden: share of the computing during which the sum can run.
    """

    images_per_second: float
    gradient_bytes: float
    link: float
    latency: float
    per_host: int
    input_images_per_second: float
    hidden: float = 2 / 3

    def step(self, count: int, batch: int) -> tuple[float, str]:
        """(seconds of a step of `batch` images on `count` accelerators, what bounds it)."""
        computing = batch / count / self.images_per_second
        summing = machines.all_reduce_seconds(self.gradient_bytes, count, self.link, self.latency)
        seconds = computing + max(0.0, summing - self.hidden * computing)
        bound = "computing" if summing <= self.hidden * computing else "exchange"
        hosts = -(-count // self.per_host)
        reading = batch / hosts / self.input_images_per_second
        return (reading, "input") if reading > seconds else (seconds, bound)


def main() -> None:
    """Compiles, predicts, or checks the prediction."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    parser.add_argument("--network", choices=list(RUNS), default="resnet50")
    parser.add_argument("--accelerator", choices=KINDS, default="v5e")
    parser.add_argument("--chips", help="numbers or topologies, with commas between them")
    parser.add_argument("--images_per_second", type=report.positive(float), help="of one of them")
    parser.add_argument("--batch", type=report.positive(int), help="images of each accelerator")
    parser.add_argument("--per_host", type=report.positive(int), default=8, help="accelerators")
    parser.add_argument(
        "--input_images_per_second", type=report.positive(float), default=float("inf")
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments, overrides = parser.parse_known_args()
    by_formula = arguments.images_per_second is not None
    wrong = [word for word in overrides if not word.startswith("--config.")]
    if wrong or (overrides and (by_formula or arguments.check)):
        parser.error(f"unrecognized arguments: {' '.join(wrong or overrides)}")
    if by_formula and not arguments.batch:
        parser.error("--images_per_second: at which --batch?")
    if by_formula and arguments.chips:
        parser.error("--chips is for what is compiled, without --images_per_second")
    if arguments.worker:
        print(json.dumps(worker(**json.loads(arguments.worker))), flush=True)
    elif arguments.check:
        if len(os.sched_getaffinity(0)) < 2:
            parser.error("--check: two processes need a core each, and this one may use one alone")
        report.show([check(name, arguments.quick) for name in ("cifar10_four_layer", "alexnet")])
    elif by_formula:
        report.show(predictions(arguments))
    else:
        try:
            report.show(estimates(arguments, overrides))
        except DeviceError as error:
            parser.error(str(error))


def estimates(arguments: argparse.Namespace, overrides: list[str]) -> list[report.Row]:
    """A row for each number of chips: the config's batch, then `--batch` images on each device."""
    name, kind = arguments.network, arguments.accelerator
    config = RUNS[name][0]
    each = arguments.batch or compiled.BATCHES[name][ACCELERATORS[kind].platform != "tpu"]
    chips = (arguments.chips or ("1,16" if arguments.quick else "1,4,16,64,256")).split(",")
    targets = [target_of(f"{kind}:{size}") for size in chips]
    rows: list[report.Row] = []
    for case in ("scaling", "scaling_batch"):
        of_one = None  # images/s of a device, where the fewest are
        for target in targets:
            batch = each * target.chips * target.accelerator.devices_per_chip
            grown = [f"--config.batch_size={batch}"] if case == "scaling_batch" else []
            found = compile_step(config, target.text, [*grown, *overrides])
            if found is None:
                continue
            estimate, batch, count = found["estimate"], found["batch_size"], found["devices"]
            seconds, bound = estimate["step_seconds"], estimate["bound_by"]
            reading = batch / found["hosts"] / arguments.input_images_per_second
            if reading > seconds:
                seconds, bound = reading, "input"
            of_one = of_one or batch / seconds / count
            rows.append(
                scaled(
                    f"{case}_{count}",
                    name,
                    f"{found['chips']} x {found['device']}, compiled only",
                    batch,
                    seconds,
                    bound,
                    of_one * count,
                    images_each=batch // found["mesh"]["data"],
                    mesh=found["mesh"],
                    step_ms=round(1e3 * seconds, 6),
                    computing_ms=round(1e3 * estimate["computing_seconds"], 6),
                    waited_for_ms=round(1e3 * estimate["exchange_seconds_waited_for"], 6),
                    collectives=sum(entry["times"] for entry in found["collectives"]),
                    sent_bytes=round(sum(entry["sent"] for entry in found["collectives"])),
                    device_mib=round(found["bytes_per_device"]["total"] / 2**20),
                    **{
                        key: found[key]
                        for key in ("estimated_cycles", "bytes_moved")
                        if key in found
                    },
                )
            )
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if not rows:
        raise SystemExit("error: nothing was compiled; why, is said above")
    return rows


def scaled(
    case: str,
    name: str,
    device: str,
    batch: int,
    seconds: float,
    bound: str,
    linear: float,
    **more: Any,
) -> report.Row:
    """A row of the images/s of several devices, and of the hours of a whole run.

    Args:
      case, name: what is scaled, and the network.
      device: the devices' name.
      batch, seconds, bound: images and seconds of a step, and what bounds it.
      linear: images/s, were each device as fast as the fewest are.
      **more: further measurements.
    """
    _, _, epochs, images = RUNS[name]
    reached = batch / seconds
    return report.row(
        f"{case}/{name}",
        "images/s",
        reached,
        None,
        device=device,
        batch=batch,
        bound=bound,
        share_of_linear=round(reached / linear, 3),
        hours=float(f"{epochs * images / reached / 3600:.4g}"),
        **more,
    )


def compile_step(config: str, accelerator: str, overrides: list[str]) -> dict[str, Any] | None:
    """The report of `main.py --mode=compile` in bfloat16; None, having said why, if it refuses."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "report.json"
        done = subprocess.run(
            [
                *(sys.executable, "main.py", "--mode=compile", f"--config=configs/{config}"),
                *(f"--accelerator={accelerator}", f"--json={path}"),
                *("--config.compute_dtype=bfloat16", *overrides),
            ],
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            return json.loads(path.read_text())
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    why = said[-1].removeprefix("error: ") if said else done.stderr[-500:]
    print(f"left out: {config} on {accelerator}: {why}", file=sys.stderr)
    return None


def predictions(arguments: argparse.Namespace) -> list[report.Row]:
    """A row for each number of accelerators, for the paper's batch and for growing ones."""
    name, machine = arguments.network, ACCELERATORS[arguments.accelerator]
    speed, batch = arguments.images_per_second, arguments.batch
    plan = Plan(
        images_per_second=speed,
        gradient_bytes=4.0 * turns.run_apart(workload.parameters, name),
        link=machine.link,
        latency=machine.latency,
        per_host=arguments.per_host,
        input_images_per_second=arguments.input_images_per_second,
    )
    runs_batch = RUNS[name][1]
    rows = []
    for case, batch_on in (
        ("scaling", lambda count: runs_batch),
        ("scaling_batch", lambda count: batch * count),
    ):
        for count in COUNTS:
            if count > batch_on(count):
                continue
            seconds, bound = plan.step(count, batch_on(count))
            rows.append(
                scaled(
                    f"{case}_{count}",
                    name,
                    f"{count} x {machine.name}, on paper",
                    batch_on(count),
                    seconds,
                    bound,
                    count * speed,
                )
            )
    return rows


def check(name: str, quick: bool) -> report.Row:
    """Two processes of one core each: `ours` is what they reach, `peer` what was predicted."""
    batch, rounds = workload.BATCHES[name][0] // 2, 2 if quick else 5
    alone, sums, both = [], [], []
    for _ in range(rounds):
        alone.append(max(found["step"] for found in launch(name, batch, together=False)))
        pair = launch(name, batch, together=True)
        sums.append(max(found["sum"] for found in pair))
        both.append(max(found["step"] for found in pair))
    size = 4.0 * turns.run_apart(workload.parameters, name)
    # As a link: the sum of two sends all bytes over it once. Gloo's sum runs after the backward
    # pass, on the core that computes: nothing hides it.
    plan = Plan(
        batch / statistics.median(alone),
        size,
        size / statistics.median(sums),
        0.0,
        1,
        float("inf"),
        hidden=0.0,
    )
    expected = 2 * batch / plan.step(2, 2 * batch)[0]
    measured = 2 * batch / statistics.median(both)
    return report.row(
        f"scaling_check/{name}",
        "images/s",
        measured,
        expected,
        device=f"{report.cpu_name()}, 2 processes of a core each",
        peer_name="predicted",
        batch=2 * batch,
        one_of_two_apart=report.short(plan.images_per_second),
        sum_ms=round(1e3 * statistics.median(sums), 1),
    )


def launch(name: str, batch: int, *, together: bool) -> list[dict[str, float]]:
    """Runs two processes at once, each on a core of its own; returns their measurements.

    Args:
      name: of the network.
      batch: images of each process in a step.
      together: whether they train one network; otherwise each trains its own.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}" if together else None
    cores = sorted(os.sched_getaffinity(0))
    # A process is one device, whatever the caller's shell says.
    flags = re.sub(
        r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", "")
    )
    started = []
    try:
        for number in range(2):
            case = {"name": name, "batch": batch, "number": number, "address": address}
            case["core"] = cores[number]
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.scaling", f"--worker={json.dumps(case)}"],
                    cwd=Path(__file__).parent.parent,
                    env=os.environ | {"XLA_FLAGS": flags},
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        outputs = [process.communicate()[0] for process in started]
    finally:
        for process in started:
            process.kill()
    if any(process.returncode for process in started):
        raise SystemExit("error: a process of the check failed; what it said is above")
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def worker(name: str, batch: int, number: int, address: str | None, core: int) -> dict[str, float]:
    """Runs one of the two processes; returns the seconds of a `step`, and of a `sum` if together.

    Args:
      name, batch: as in `launch`.
      number: of this process, 0 or 1.
      address: host:port where it meets the other; None if they run apart.
      core: the core that it runs on.
    """
    os.sched_setaffinity(0, {core})
    import jax
    from jax.sharding import PartitionSpec

    jax.config.update("jax_platforms", "cpu")
    if address is not None:
        jax.distributed.initialize(address, 2, number)
    case = workload.Case("ours", name, batch, "float32", 0)
    work, finish = workload.our_training(case)
    found = {"step": _seconds(work, finish)}
    if address is not None:
        mesh = jax.make_mesh((2,), ("data",))
        ones = jax.device_put(
            np.ones(workload.parameters(name), np.float32),
            jax.sharding.NamedSharding(mesh, PartitionSpec()),
        )
        total = jax.jit(
            jax.shard_map(
                lambda x: jax.lax.psum(jax.lax.pcast(x, "data", to="varying"), "data"),
                mesh=mesh,
                in_specs=PartitionSpec(),
                out_specs=PartitionSpec(),
            )
        )
        result: Any = None

        def sum_up() -> None:
            nonlocal result
            result = total(ones)

        found["sum"] = _seconds(sum_up, lambda: jax.block_until_ready(result))
    return found


def _seconds(work: Any, finish: Any) -> float:
    """Median seconds of seven calls, after two that warm up."""
    taken = []
    for _ in range(9):
        start = time.perf_counter()
        work()
        finish()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[2:])


if __name__ == "__main__":
    main()
