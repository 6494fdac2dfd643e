"""Training steps compiled for accelerators that are not there: what XLA's compilers say of them.

    python -m benchmarks.compiled [--quick] [--only=alexnet,resnet50] [--on=h100:1] [--before=FILE]

Each network is compiled for one TPU v5e and one H100, AlexNet also for two and for four of them,
with its towers apart and with the batch split, and ResNet-50 for four TPUs. The extras `tpu` and
`compile-cuda` have the compilers; a row of a compiler that is not installed is left out, and said.
`ours` is the compiler's estimate of a step in millions of cycles (TPU), or the gigabytes that its
kernels move (GPU): both rank versions of a network, and neither has been measured on the hardware.
`peer` is the same row of FILE, the output of an earlier run. `docs/results.md` has the table.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import report, turns, workload

# Images on one device: TPU v5e, H100.
BATCHES = {
    "alexnet": (128, 512),
    "vgg_d": (64, 256),
    "googlenet": (128, 512),
    "resnet50": (128, 256),
    "cifar10_four_layer": (1024, 1024),
    "resnet20": (1024, 1024),
}
# AlexNet's towers on a device each beside the batch split: accelerator, images in all.
TOWERS = (("v5e:1x2", (128, 512, 1024)), ("h100:2", (128, 512, 1024)), ("v5e:2x2", (512,)))
# Networks without towers on four devices, likewise.
SPLIT = (("resnet50", "v5e:2x2", 512),)


@dataclasses.dataclass(frozen=True)
class Case:
    """A training step, and what it is compiled for.

    Attributes:
      network: its name.
      accelerator: as for `devices.accelerators.target_of`.
      batch: images in all.
      data, tower: the mesh.
    """

    network: str
    accelerator: str
    batch: int
    data: int = 1
    tower: int = 1

    @property
    def name(self) -> str:
        """Of its row; the words are those of the mesh, where there is one."""
        kind = self.accelerator.replace(":", "_")
        words = {(1, 1): "", (1, 2): "_towers", (2, 2): "_towers"}
        mesh = words.get((self.data, self.tower), "_data")
        several = f"_{self.batch}" if self.data * self.tower > 1 else ""
        return f"compiled_{kind}{mesh}{several}/{self.network}"


def cases() -> list[Case]:
    """All of them, those of one device first."""
    found = []
    for place, kind in enumerate(("v5e:1", "h100:1")):
        found += [Case(name, kind, batches[place]) for name, batches in BATCHES.items()]
    for accelerator, batches in TOWERS:
        count = 4 if accelerator == "v5e:2x2" else 2
        for batch in batches:
            found.append(Case("alexnet", accelerator, batch, count // 2, 2))
            found.append(Case("alexnet", accelerator, batch, count, 1))
    return found + [Case(name, kind, batch, data=4) for name, kind, batch in SPLIT]


def main() -> None:
    """Compiles, one case after another in a process of its own, and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one device and AlexNet alone")
    parser.add_argument("--only", default="", help="networks, with commas between them")
    parser.add_argument("--on", default="", help="accelerators, with commas between them")
    parser.add_argument("--before", type=Path, help="the output of an earlier run")
    arguments = parser.parse_args()
    chosen = cases()
    if arguments.quick:
        chosen = [c for c in chosen if c.network == "alexnet" and c.data * c.tower == 1]
    for flag, field in (("only", "network"), ("on", "accelerator")):
        if asked := getattr(arguments, flag):
            there, names = {getattr(c, field) for c in chosen}, asked.split(",")
            if unknown := set(names) - there:
                wrong, known = (",".join(sorted(some)) for some in (unknown, there))
                parser.error(f"--{flag}={wrong}: choose from {known}")
            chosen = [case for case in chosen if getattr(case, field) in names]
    before = rows_of(arguments.before) if arguments.before else {}
    rows = []
    for case in chosen:
        try:
            found = turns.run_apart(compiled, dataclasses.asdict(case))
        except subprocess.CalledProcessError:
            print(f"left out: {case.name}; why, is said above", file=sys.stderr)
            continue
        rows.append(row(case, found, before.get(case.name)))
        print(f"{case.name}: {rows[-1]['ours']} {rows[-1]['unit']}", file=sys.stderr)
    if not rows:
        raise SystemExit(
            "error: nothing was compiled; pip install -e '.[tpu]' or '.[compile-cuda]'"
        )
    report.show(rows)


def rows_of(path: Path) -> dict[str, float]:
    """What the rows of an earlier output have, by name."""
    try:
        lines = path.read_text().splitlines()
        rows = [json.loads(line) for line in lines if line.startswith("{")]
        return {row["name"]: row["ours"] for row in rows}
    except OSError as error:
        raise SystemExit(f"error: --before={path}: {error.strerror}") from error
    except (ValueError, KeyError) as error:
        raise SystemExit(f"error: --before={path}: not the output of this benchmark") from error


def row(case: Case, found: dict[str, Any], before: float | None) -> report.Row:
    """The row of a case from the report of `training.compiling`, with the row before it."""
    on_tpu = found["platform"] == "tpu"
    estimate, exchanges = found["estimate"], found["collectives"]
    more = {} if on_tpu else {"kernels": found["kernels"]}
    return report.row(
        case.name,
        "Mcycles" if on_tpu else "GB",
        found["estimated_cycles"] / 1e6 if on_tpu else found["bytes_moved"] / 1e9,
        before,
        device=f"{case.data * case.tower} x {found['device']}, compiled only",
        peer_name="before",
        batch=case.batch,
        estimated_ms=round(1e3 * estimate["step_seconds"], 3),
        exchange_ms=round(1e3 * estimate["exchange_seconds"], 3),
        exchange_waited_for_ms=round(1e3 * estimate["exchange_seconds_waited_for"], 3),
        images_per_second=round(estimate["images_per_second"]),
        temporaries_mib=round(found["bytes_per_device"]["temporaries"] / 2**20),
        device_mib=round(found["bytes_per_device"]["total"] / 2**20),
        sent_bytes=sum(exchange["sent"] for exchange in exchanges),
        **more,
    )


def compiled(case: dict[str, Any]) -> dict[str, Any]:
    """Compiles a case in bfloat16; returns the report of `training.compiling`."""
    from devices import accelerators

    network, accelerator, batch = case["network"], case["accelerator"], case["batch"]
    target = accelerators.target_of(accelerator)
    devices = accelerators.devices_of(target)
    from evaluation.preprocessing import Preprocessing
    from training import compiling
    from training.optimizer import Momentum, Rate
    from training.recipe import Recipe
    from training.task import make_task

    work = workload.Case("ours", network, batch, "bfloat16", 0)
    task = make_task(
        network,
        {"num_classes": work.classes},
        Preprocessing(work.crop, work.crop, aligned_mean=True),
        data=case["data"],
        tower=case["tower"],
        dtype=work.dtype,
        devices=devices,
    )
    recipe = Recipe(
        rates=(Rate("", 0.01),),
        batch_size=batch,
        dtype=work.dtype,
        momentum=Momentum(0.9, 5e-4, decay_biases=True),
        auxiliary_weight=workload.ASIDE,
    )
    return compiling.report(compiling.compiled(task, recipe), task, recipe, target)


if __name__ == "__main__":
    main()
