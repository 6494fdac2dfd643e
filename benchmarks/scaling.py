"""Predicted training speed of 1 to 256 accelerators, and the hours of a whole run on them.

    python -m benchmarks.scaling [--network=resnet50] [--images_per_second=2500] [--batch=256]
        [--accelerator=v5e] [--per_host=8] [--input_images_per_second=9000]
    python -m benchmarks.scaling --check [--quick]

The model is data parallelism. Its inputs are the images/s of one accelerator at a batch size
(`benchmarks.train_step`; measured here if not given) and the images/s of one host's input pipeline
(`benchmarks.input_pipeline`; unlimited if not given). A ring over the accelerator's link sums the
gradients; the backward pass hides as much of this as it lasts. The first rows divide the batch of
this repository's config among the accelerators. The second ones give each accelerator the batch
that was measured; that needs a learning rate for large batches (Goyal et al. 2017).

Two things are left out. Small batches compute less efficiently. BatchNorm has four exchanges per
layer if its groups are spread over accelerators; the first rows are therefore too optimistic for
ResNets, whose groups have 32 images, where an accelerator has fewer than that.

`--check` compares the same formula with the speed of two processes of one core each that train
together. The prediction is made from two processes that run apart, and from the time of a sum over
both.
"""

import argparse
import dataclasses
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machines, report, turns, workload

# (batch, epochs, training images) of the configs' runs.
RUNS = {
    "alexnet": (128, 90, 1_281_167),
    "vgg_d": (256, 74, 1_281_167),
    "googlenet": (32, 60, 1_281_167),
    "resnet50": (256, 120, 1_281_167),
    "cifar10_four_layer": (128, 140, 50_000),
    "resnet20": (128, 164, 50_000),
}
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


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
    """Predicts, or checks the prediction."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    parser.add_argument("--network", choices=list(RUNS), default="resnet50")
    parser.add_argument("--images_per_second", type=report.positive(float), help="of one of them")
    parser.add_argument("--batch", type=report.positive(int), help="of that measurement")
    parser.add_argument("--accelerator", choices=list(machines.MACHINES), default="v5e")
    parser.add_argument("--per_host", type=report.positive(int), default=8, help="accelerators")
    parser.add_argument(
        "--input_images_per_second", type=report.positive(float), default=float("inf")
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.images_per_second and not arguments.batch:
        parser.error("--images_per_second: at which --batch?")
    if arguments.worker:
        print(json.dumps(worker(**json.loads(arguments.worker))), flush=True)
    elif arguments.check:
        report.show([check(name, arguments.quick) for name in ("cifar10_four_layer", "alexnet")])
    else:
        rows = predictions(arguments)
        report.show(rows)


def predictions(arguments: argparse.Namespace) -> list[report.Row]:
    """A row for each number of accelerators, for the paper's batch and for growing ones."""
    name, machine = arguments.network, machines.MACHINES[arguments.accelerator]
    speed, batch = arguments.images_per_second, arguments.batch
    if speed is None:
        speed, batch = turns.run_apart(workload.images_per_second, name, batch)
    plan = Plan(
        images_per_second=speed,
        gradient_bytes=4.0 * turns.run_apart(workload.parameters, name),
        link=machine.link,
        latency=machine.latency,
        per_host=arguments.per_host,
        input_images_per_second=arguments.input_images_per_second,
    )
    runs_batch, epochs, images = RUNS[name]
    rows = []
    for case, batch_on in (
        ("scaling", lambda count: runs_batch),
        ("scaling_batch", lambda count: batch * count),
    ):
        for count in COUNTS:
            if count > batch_on(count):
                continue
            seconds, bound = plan.step(count, batch_on(count))
            reached = batch_on(count) / seconds
            rows.append(
                report.row(
                    f"{case}_{count}/{name}",
                    "images/s",
                    reached,
                    None,
                    device=f"{count} x {machine.name}, on paper",
                    batch=batch_on(count),
                    bound=bound,
                    share_of_linear=round(reached / (count * speed), 3),
                    hours=float(f"{epochs * images / reached / 3600:.4g}"),
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
        one_of_two_apart=round(plan.images_per_second, 2),
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
    started = []
    try:
        for number in range(2):
            case = {"name": name, "batch": batch, "number": number, "address": address}
            case["core"] = cores[number % len(cores)]
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.scaling", f"--worker={json.dumps(case)}"],
                    cwd=Path(__file__).parent.parent,
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
