"""AlexNet's two towers on two devices beside the batch split over two, and beside one device.

    python -m benchmarks.two_towers [--quick] [--batch=128] [--share=0.3]

First both are compiled for two CPU devices, in float32: how many bytes each device sends per image,
by ring algorithms, and how much memory it needs. For the cards of 2012, which no compiler of today
knows, a model predicts the time of a step from that; `--share` is the share of the peak that
computing reaches.

Then they are compiled in bfloat16 for two TPUs v5e and two H100s, at 128, 512 and 1,024 images or
at `--batch`, which needs the extras `tpu` and `compile-cuda` and some minutes; `--quick` leaves it
out. Memory and exchanges are exact; times are the estimates of docs/compiling.md, and nothing is
run. In each row `ours` is the towers, `peer` the batch split. `docs/two_towers.md` discusses the
results.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from typing import Any

from benchmarks import compiled, machines, report, turns, workload

NETWORK = "alexnet"
# (data, tower) of the mesh.
MESHES = {"one": (1, 1), "towers": (1, 2), "data": (2, 1)}
# Accelerators of today: one, and two.
PAIRS = {"v5e": ("v5e:1", "v5e:1x2"), "h100": ("h100:1", "h100:2")}
BATCHES = (128, 512, 1024)


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled training step, on one of its devices.

    Attributes:
      sent: bytes that a device sends in a step, in float32.
      exchanges: number of exchanges in a step, without those of single numbers.
      memory: bytes that a device needs: arguments, results and temporaries.
      parameters: number of parameters that a device holds and updates.
    """

    sent: float
    exchanges: int
    memory: int
    parameters: int


def main() -> None:
    """Compiles, predicts and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="CPU devices only")
    parser.add_argument("--batch", type=report.positive(int), help="images in all")
    parser.add_argument(
        "--share", type=report.positive(float), default=0.3, help="of the peak that is reached"
    )
    arguments = parser.parse_args()
    batch = arguments.batch or BATCHES[0]
    if batch % 2:
        parser.error(f"--batch={batch}: two devices share it out; choose an even one")
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    programs = {name: on_cpus(*mesh, batch) for name, mesh in MESHES.items()}
    rows = [*counted(programs, batch), predicted("gtx580", programs, batch, arguments.share)]
    for kind in () if arguments.quick else PAIRS:
        for images in (batch,) if arguments.batch else BATCHES:
            try:
                rows.append(estimated(kind, images))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            except subprocess.CalledProcessError:
                print(f"left out: {kind} at {images}; why, is said above", file=sys.stderr)
    report.show(rows)


def estimated(kind: str, batch: int) -> report.Row:
    """A row of the estimated time of a step on two accelerators, with what it is made of.

    Raises:
      subprocess.CalledProcessError: it does not compile, or the compiler is not installed.
    """
    found = {}
    for name, (data, tower) in MESHES.items():
        accelerator = PAIRS[kind][data * tower - 1]
        case = compiled.Case(NETWORK, accelerator, batch, data, tower)
        found[name] = turns.run_apart(compiled.compiled, dataclasses.asdict(case))

    def of(read: Any) -> dict[str, Any]:
        return {name: read(one) for name, one in found.items()}

    milliseconds = of(
        lambda one: (
            {
                key.removesuffix("_seconds"): round(1e3 * one["estimate"][key], 3)
                for key in ("step_seconds", "computing_seconds", "exchange_seconds")
            }
            | {"waited_for": round(1e3 * one["estimate"]["exchange_seconds_waited_for"], 3)}
        )
    )
    if kind == "v5e":
        size = {"mcycles": of(lambda one: round(one["estimated_cycles"] / 1e6, 2))}
    else:
        size = {
            "gb_moved": of(lambda one: round(one["bytes_moved"] / 1e9, 2)),
            "kernels": of(lambda one: one["kernels"]),
        }
    return report.row(
        f"estimated_{kind}_{batch}/{NETWORK}",
        "ms",
        1e3 * found["towers"]["estimate"]["step_seconds"],
        1e3 * found["data"]["estimate"]["step_seconds"],
        device=f"2 x {found['towers']['device']}, compiled only",
        peer_name="batch split",
        batch=batch,
        **size,
        ms=milliseconds,
        device_mib=of(lambda one: round(one["bytes_per_device"]["total"] / 2**20)),
        temporaries_mib=of(lambda one: round(one["bytes_per_device"]["temporaries"] / 2**20)),
        sent_bytes=of(lambda one: round(sum(e["sent"] for e in one["collectives"]))),
        collectives=of(lambda one: {e["operation"]: e["times"] for e in one["collectives"]}),
        images_per_second=of(lambda one: round(one["estimate"]["images_per_second"])),
    )


def on_cpus(data: int, tower: int, batch: int) -> Program:
    """Compiles the training step for a mesh, from shapes alone, without allocating arrays."""
    import jax
    import numpy as np

    from devices import mesh as meshes
    from devices.collectives import split
    from devices.programs import collectives
    from training.optimizer import Momentum, Rate
    from training.recipe import Recipe
    from training.step import abstract_state, make_train_step

    case = workload.Case("ours", NETWORK, batch, "float32", 0)
    network = workload.pure_network(case)
    mesh = meshes.make_mesh(network.towers, data=data, tower=tower)
    momentum = Momentum(0.9, 5e-4, decay_biases=True)
    recipe = Recipe(rates=(Rate("", 0.01),), batch_size=batch, momentum=momentum)
    state = abstract_state(network, recipe, mesh)
    rows = jax.sharding.NamedSharding(mesh, split(mesh, "data"))
    images = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=rows)
        for name, array in workload.training_batch(case).items()
    }
    whole = meshes.replicated(mesh)
    normalization = {
        "mean": jax.ShapeDtypeStruct((case.crop, case.crop, 3), np.float32, sharding=whole),
        "deviation": jax.ShapeDtypeStruct((3,), np.float32, sharding=whole),
    }
    step: Any = make_train_step(network, recipe, mesh)
    program = step.lower(state, images, normalization).compile()
    sizes = program.memory_analysis()
    exchanges = collectives(program.as_text(), data * tower)
    return Program(
        sent=sum(exchange.sent for exchange in exchanges),
        exchanges=sum(max(exchange.elements) > 1 for exchange in exchanges),
        memory=sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes
        + sizes.temp_size_in_bytes,
        parameters=sum(
            int(np.prod(leaf.sharding.shard_shape(leaf.shape)))
            for leaf in jax.tree.leaves(state["params"])
        ),
    )


def counted(programs: dict[str, Program], batch: int) -> list[report.Row]:
    """Rows of the bytes sent per image and the memory of a device.

    `ours` is towers, `peer` the batch split.
    """
    towers, data, one = programs["towers"], programs["data"], programs["one"]
    shared: dict[str, Any] = {
        "device": "2 CPU devices, compiled only",
        "peer_name": "batch split",
        "batch": batch,
    }
    return [
        report.row(
            f"sent_per_image/{NETWORK}",
            "bytes",
            towers.sent / batch,
            data.sent / batch,
            exchanges={"towers": towers.exchanges, "data": data.exchanges},
            equal_at_batch=round(data.sent / (towers.sent / batch)),
            **shared,
        ),
        report.row(
            f"memory_per_device/{NETWORK}",
            "MiB",
            towers.memory / 2**20,
            data.memory / 2**20,
            one_device=round(one.memory / 2**20),
            parameters={"towers": towers.parameters, "data": data.parameters},
            **shared,
        ),
    ]


def predicted(key: str, programs: dict[str, Program], batch: int, share: float) -> report.Row:
    """A row of the predicted time of a step on two devices of a kind.

    `ours` is towers, `peer` the batch split.
    """
    machine = machines.MACHINES[key]
    times = {
        name: seconds(machine, programs[name], name, batch, share) for name in ("towers", "data")
    }
    one = seconds(machine, programs["one"], "one", batch, share)
    unhidden = seconds(machine, programs["data"], "data", batch, share, hidden=0.0)
    return report.row(
        f"predicted_{key}/{NETWORK}",
        "ms",
        1e3 * times["towers"],
        1e3 * times["data"],
        device=f"2 x {machine.name}, on paper",
        peer_name="batch split",
        batch=batch,
        share_of_peak=share,
        one_device_ms=round(1e3 * one, 3),
        data_unhidden_ms=round(1e3 * unhidden, 3),
        exchange_ms={
            name: round(1e3 * exchange_seconds(machine, programs[name], name), 3) for name in times
        },
        images_per_second={name: round(batch / value) for name, value in times.items()},
    )


def seconds(
    machine: machines.Machine,
    program: Program,
    scheme: str,
    batch: int,
    share: float,
    hidden: float = 2 / 3,
) -> float:
    """Predicted seconds of a step: computing, exchanges, and the update, bound by memory.

    The exchanges of towers overlap with nothing. The sum of gradients overlaps with the share
    `hidden` of the computing, at best the backward pass, which is two thirds.
    """
    devices = 1 if scheme == "one" else 2
    flops = 6 * workload.multiply_adds(NETWORK) * batch / devices
    computing = flops / (machine.flops * share)
    # Parameter, velocity and gradient are read, the first two written; float32.
    update = 5 * 4 * program.parameters / machine.memory_bandwidth
    exchanging = exchange_seconds(machine, program, scheme)
    if scheme == "towers":
        return computing + exchanging + update
    return computing + max(0.0, exchanging - hidden * computing) + update


def exchange_seconds(machine: machines.Machine, program: Program, scheme: str) -> float:
    """Predicted seconds of all exchanges of a step: their latencies, and bytes over the link."""
    # Activations are sent in the dtype of the computation, gradients in float32.
    size = program.sent * (machine.activation_bytes / 4 if scheme == "towers" else 1)
    return size / machine.link + program.exchanges * machine.latency


if __name__ == "__main__":
    main()
