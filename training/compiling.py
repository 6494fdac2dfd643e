"""The training step compiled for devices that need not be there, and what the program tells.

`compiled` lowers the very step that training runs. What comes of it is exact: whether it compiles,
its memory and its exchanges. Its time is an estimate (`training.estimates`).
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import files
from devices import mesh as meshes
from devices.accelerators import Target
from devices.programs import Program
from evaluation.preprocessing import Normalization
from training import estimates, writers
from training.compiled_text import lines, run_of, shown
from training.errors import TrainingError
from training.recipe import Recipe, batch_multiple, check_group
from training.step import Batch, State, abstract_state, make_train_step
from training.task import Task, training_flops

# Both forms in which the TPU's compiler says what it needs, and of how much.
_USED = re.compile(
    r"(?:Used |temporaries \()([\d.]+)([KMG]?)\)? (?:of|exceeds available \w+) \(?([\d.]+)([KMG]?)"
)
# The largest batch size that a config takes.
MOST = 131072
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


class DoesNotFitError(TrainingError):
    """A program needs more memory than a device has.

    Attributes:
      needed, available: bytes of a device; 0 where the compiler does not tell.
    """

    def __init__(self, message: str, needed: int, available: int) -> None:
        """Takes what the message does not say in numbers."""
        super().__init__(message)
        self.needed, self.available = needed, available


def abstract_inputs(task: Task, recipe: Recipe) -> tuple[State, Batch, Normalization]:
    """Shapes, dtypes and shardings of what a training step takes."""
    rows, crop = recipe.batch_size, task.preprocessing.crop
    square = task.preprocessing.square
    arrays = {
        "image": ((rows, crop, crop, 3), np.uint8),
        "label": ((rows,), np.int32),
        "index": ((rows,), np.int32),
        "crop_offset": ((rows, 2), np.int32),
        "flip": ((rows,), np.bool_),
        "colour_shift": ((rows, 3), np.float32),
        "colour_scale": ((rows,), np.float32),
    }
    if recipe.boxes:
        arrays["boxes"] = ((rows, recipe.boxes, 4), np.float32)
        arrays["box_labels"] = ((rows, recipe.boxes), np.int32)
    split = NamedSharding(task.mesh, PartitionSpec("data"))
    whole = meshes.replicated(task.mesh)
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=split)
        for name, (shape, dtype) in arrays.items()
    }
    normalization = {
        "mean": jax.ShapeDtypeStruct((square, square, 3), np.float32, sharding=whole),
        "deviation": jax.ShapeDtypeStruct((3,), np.float32, sharding=whole),
    }
    state: Any = abstract_state(task.network, recipe, task.mesh)
    return state, batch, normalization  # type: ignore[return-value]


def compiled(task: Task, recipe: Recipe) -> jax.stages.Compiled:
    """Compiles the training step for the devices of the task's mesh.

    Raises:
      DoesNotFitError: the compiler finds no way to fit it into a device's memory.
      DeviceError: a host's devices are no equal share of the mesh.
    """
    for host in sorted({device.process_index for device in task.mesh.devices.flat}):
        meshes.process_share(task.mesh, host)
    step: Any = make_train_step(task.network, recipe, task.mesh)
    try:
        return step.lower(*abstract_inputs(task, recipe)).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = _USED.search(str(error))
        sizes = (0, 0)
        if used is not None:
            needed, available = (float(used[n]) * _UNITS[used[n + 1]] for n in (1, 3))
            sizes = int(needed), int(available)
        raise _does_not_fit(task, recipe, *sizes) from error


def _does_not_fit(task: Task, recipe: Recipe, needed: int, available: int) -> DoesNotFitError:
    """The error, with what would help of batch, accumulation and mesh."""
    over, ways = "", []
    if needed:
        over = f": {shown(needed)} of {shown(available)}, {shown(needed - available)} too much"
    state = _state_bytes(task, recipe)["state"]
    share = (available - state) / max(needed - state, 1) if needed else 0.5
    if share <= 0:
        over += f" (parameters and optimiser alone take {shown(state)})"
    else:
        data, parts = task.mesh.shape["data"], recipe.micro_batches
        multiple = batch_multiple(task.mesh, parts, recipe.statistics_group)
        smaller = int(recipe.batch_size * share) // multiple * multiple
        if smaller:
            ways.append(f"--config.batch_size={smaller} or so")
        held = recipe.batch_size // data
        for more in range(parts + 1, held + 1):
            if held % more == 0 and more * share >= parts and _accepts(recipe, task, more):
                ways.append(f"--config.gradient_accumulation={more}")
                break
        ways.append("more devices along mesh.data")
    if task.network.towers > task.mesh.shape["tower"]:
        ways.append("mesh.tower=2")
    return DoesNotFitError(
        f"the training step does not fit a device's memory{over}.\nWhat helps: "
        + (", ".join(ways) or "a device with more memory"),
        needed,
        available,
    )


def _accepts(recipe: Recipe, task: Task, parts: int) -> bool:
    """Whether BatchNorm's groups allow so many parts of a batch."""
    try:
        check_group(recipe.statistics_group, recipe.batch_size, task.mesh, parts)
    except TrainingError:
        return False
    return True


def _state_bytes(task: Task, recipe: Recipe) -> dict[str, int]:
    """Bytes that a device holds of parameters (with statistics), optimiser and the whole state."""
    state: Any = abstract_state(task.network, recipe, task.mesh)

    def held(tree: Any) -> int:
        return sum(
            int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64))
            * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(tree)
        )

    return {
        "parameters": held((state["params"], state["statistics"])),
        "optimizer": held(state["optimizer"]),
        "average": held(state.get("average", ())),
        "state": held(state),
    }


def bytes_per_device(program: jax.stages.Compiled, task: Task, recipe: Recipe) -> dict[str, int]:
    """The memory that a program takes on each device, in bytes.

    `arguments`, `outputs` (without those that take the place of arguments) and `temporaries` are
    the compiler's, and add up to `total`. `parameters`, `optimizer`, `average` and `batch` are the
    arguments' arrays as they are counted without a layout, which may add padding.
    """
    found: Any = program.memory_analysis()
    outputs = found.output_size_in_bytes - found.alias_size_in_bytes
    state = _state_bytes(task, recipe)
    _, batch, _ = abstract_inputs(task, recipe)
    rows = sum(int(np.prod(a.shape)) * a.dtype.itemsize for a in batch.values())
    return {
        "parameters": state["parameters"],
        "optimizer": state["optimizer"],
        "average": state["average"],
        "batch": rows // task.mesh.shape["data"],
        "arguments": found.argument_size_in_bytes,
        "outputs": outputs,
        "temporaries": found.temp_size_in_bytes,
        "total": found.argument_size_in_bytes + outputs + found.temp_size_in_bytes,
    }


def report(
    program: jax.stages.Compiled, task: Task, recipe: Recipe, target: Target, top: int = 20
) -> dict[str, Any]:
    """What a compiled training step tells, as JSON.

    Args:
      program: of `compiled`.
      task, recipe: what it was compiled from.
      target: what it was compiled for.
      top: number of operations that are listed.

    Raises:
      DoesNotFitError: the program takes more memory than a device has.
    """
    accelerator, mesh = target.accelerator, task.mesh
    read = Program(program.as_text() or "", mesh.size)
    operations = read.run()
    memory = bytes_per_device(program, task, recipe)
    if accelerator.usable and memory["total"] > accelerator.usable:
        raise _does_not_fit(task, recipe, memory["total"], accelerator.usable)
    times = estimates.times_of(operations, target)
    kernels = [o for o in operations if o.collective is None]
    found: dict[str, Any] = {
        "network": task.name,
        "accelerator": target.text,
        "device": accelerator.name,
        "platform": accelerator.platform,
        "devices": mesh.size,
        "chips": target.chips,
        "hosts": target.hosts,
        "mesh": dict(mesh.shape),
        "batch_size": recipe.batch_size,
        "gradient_accumulation": recipe.micro_batches,
        "compute_dtype": recipe.dtype,
        "bytes_per_device": memory | {"available": accelerator.usable},
        "collectives": estimates.collectives(operations, target, mesh.shape["tower"]),
        "loops_counted_once": read.loops_of_unknown_length,
    }
    flops = training_flops(task) * recipe.batch_size / mesh.size
    by_hand = [o for o in kernels if o.hand_written]
    if accelerator.platform == "tpu":
        # Kernels by hand replace what has an estimate: they count, by their FLOP or bytes.
        cycles = sum((o.cycles or 0) * o.times for o in kernels)
        own = sum(estimates.seconds_of(o, target) * o.times for o in by_hand)
        found["estimated_cycles"] = cycles + round(own * accelerator.clock)
        found["without_estimate"] = estimates.listed(
            [o for o in kernels if o.cycles is None and not o.hand_written], target, 5
        )
    else:
        found["bytes_moved"] = sum(o.bytes * o.times for o in kernels)
        found["kernels"] = sum(o.times for o in kernels)
    found["hand_written"] = estimates.listed(by_hand, target, top)
    if accelerator.flops:
        found["estimate"] = {
            "by": "cycles that the compiler estimates; nothing was run"
            if accelerator.platform == "tpu"
            else "bytes and FLOP of the compiled kernels, a lower bound; nothing was run",
            "step_seconds": times.step,
            "computing_seconds": times.computing,
            "exchange_seconds": times.exchanging,
            "exchange_seconds_waited_for": times.waiting,
            "seconds_at_peak": flops / accelerator.flops,
            "images_per_second": recipe.batch_size / times.step,
            "bound_by": estimates.bound(kernels, times, flops / accelerator.flops, target),
        }
        found["layers"] = estimates.layers(kernels, target)
        found["operations"] = estimates.listed(kernels, target, top)
    return found


def find_batch(
    recipe_at: Callable[[int], Recipe],
    task: Task,
    target: Target,
    first: int,
    multiple: int,
) -> int:
    """The largest batch that fits, to three in a hundred; prints each try.

    Args:
      recipe_at: the recipe of a batch size.
      task, target: what is compiled, and for what.
      first: about where the search begins.
      multiple: only its multiples are tried (`recipe.batch_multiple`).

    Raises:
      DoesNotFitError: not even the smallest batch fits.
      TrainingError: the recipe is refused, whatever its batch size.
    """

    def fits(count: int) -> bool:
        size = count * multiple
        try:
            recipe = recipe_at(size)
            total = report(compiled(task, recipe), task, recipe, target)["bytes_per_device"]
        except DoesNotFitError as error:
            if count == 1:
                raise
            needed = f" ({shown(error.needed)})" if error.needed else ""
            writers.say(f"batch {size}: does not fit{needed}")
            return False
        of = f" of {shown(total['available'])}" if total["available"] else ""
        writers.say(f"batch {size}: fits, {shown(total['total'])}{of}")
        return True

    most = max(MOST // multiple, 1)
    found = largest(fits, max(first // multiple, 1), most)
    if found == most:
        writers.say("no larger batch is tried")
    return multiple * found


def largest(fits: Callable[[int], bool], first: int, most: int) -> int:
    """The largest number that fits, to three in a hundred: doubled while it fits, then bisected.

    Args:
      fits: whether a number does; all below one that does are taken to fit as well.
      first: tried first.
      most: none above it is tried.

    Returns:
      0 if 1 does not fit.
    """
    low, high = 0, min(first, most)
    while fits(high):
        low = high
        if high == most:
            return low
        high = min(2 * high, most)
    while high - low > max(1, low // 32):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def tell(
    program: jax.stages.Compiled,
    task: Task,
    target: Target,
    recipe: Recipe,
    steps: int | None,
    price: float | None = None,
    **paths: str | None,
) -> dict[str, Any]:
    """Prints and returns the report of a compiled step, with what a run costs.

    Args:
      program, task, target, recipe: as for `report`.
      steps, price: as for `run_of`.
      **paths: `json` and `hlo`, files for the report and for the optimised program.

    Raises:
      DoesNotFitError: see `report`.
      TrainingError: a file cannot be written.
    """
    found = report(program, task, recipe, target)
    found["run"] = run_of(found, steps, price)
    writers.say("\n".join(lines(found)))
    used, there = task.mesh.size, target.chips * target.accelerator.devices_per_chip
    if used < there:
        counted = "; hours and cost are of them all" * ("hours" in found["run"])
        writers.say(f"note: mesh.* takes {used} of {there} devices{counted}")
    if price is not None and "cost" not in found["run"]:
        why = "the config has no end" if steps is None else f"{target.text} has no estimate of time"
        writers.say(f"note: --price={price:g} gives no cost, for {why}")
    if paths.get("json"):
        _write(Path(str(paths["json"])), json.dumps(found, indent=1) + "\n")
    if paths.get("hlo"):
        _write(Path(str(paths["hlo"])), program.as_text() or "")
    return found


def check_places(**paths: str | None) -> None:
    """Checks, before minutes of compiling, that files can be written; makes their directories.

    Args:
      **paths: as for `tell`.

    Raises:
      TrainingError: one cannot be written, or two are the same.
    """
    places = {flag: Path(path) for flag, path in paths.items() if path}
    for flag, path in places.items():
        if path.is_dir():
            raise TrainingError(f"--{flag}={path}: is a directory; name a file")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.check_writable(path.parent)
        except FileExistsError as error:
            raise TrainingError(f"--{flag}={path}: {path.parent} is no directory") from error
        except OSError as error:
            raise TrainingError(f"{path}: cannot be written ({error.strerror})") from error
    if len({path.resolve() for path in places.values()}) < len(places):
        flags = " and ".join(f"--{flag}" for flag in places)
        raise TrainingError(f"{flags} are one file: give each a file of its own")


def _write(path: Path, text: str) -> None:
    """Writes a file.

    Raises:
      TrainingError: it cannot be written.
    """
    try:
        with files.replacing(path) as temporary:
            temporary.write_text(text)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written ({error.strerror})") from error
