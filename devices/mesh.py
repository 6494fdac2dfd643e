"""The devices as a mesh with the axes `data` and `tower`, and the sharding of arrays on it."""

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from devices import collectives
from devices.errors import DeviceError


def check_platform() -> None:
    """Checks that the accelerators that JAX_PLATFORMS names, if any, exist.

    Raises:
      DeviceError: there are no such devices.
    """
    asked = jax.config.values["jax_platforms"]
    if asked in (None, "", "cpu"):
        return  # without opening the devices: the CPU's options can still be set
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where no plugin is installed
        reason = str(error).splitlines()[0].split(" (set JAX_PLATFORMS")[0] if str(error) else ""
        raise DeviceError(
            f"JAX_PLATFORMS={asked}: no such devices here{f' ({reason[:200]})' * bool(reason)}.\n"
            "Unset it to use what there is; accelerators need pip install -e '.[cuda]' or '.[tpu]'"
        ) from error


def make_mesh(
    towers: int,
    *,
    data: int | None = None,
    tower: int | None = None,
    devices: list[jax.Device] | None = None,
) -> Mesh:
    """Lays the devices out as data x tower.

    Args:
      towers: number of towers of the network.
      data: number of devices along `data`, over which batches are split; None for all.
      tower: number of devices along `tower`, over which towers are split; None takes 2 for a
        network of two towers on an even number of devices, else 1.
      devices: by default all devices of all processes.

    Raises:
      DeviceError: there are too few devices, the towers cannot be split over them, or processes
        have different numbers of devices.
    """
    # Host by host, so that each has rows beside each other; a slice may number chips across hosts.
    devices = sorted(devices or jax.devices(), key=lambda device: device.process_index)
    count, held = len(devices), Counter(device.process_index for device in devices)
    if len(set(held.values())) > 1:
        (most, many), (least, few) = held.most_common()[0], held.most_common()[-1]
        raise DeviceError(
            f"process {most} has {many} device{'s' * (many > 1)}, process {least} has {few}: all "
            "processes need equally many; JAX_LOCAL_DEVICE_IDS=0 and the like choose some of a host"
        )
    if tower is None:
        fits = count % 2 == 0 if data is None else 2 * data <= count
        tower = 2 if towers == 2 and fits else 1
    if tower < 1 or towers % tower:
        raise DeviceError(
            f"mesh.tower={tower}: a network of {towers} tower{'s' * (towers > 1)} cannot be split "
            f"over {tower} devices; mesh.tower=1 keeps it whole"
        )
    if data is None:
        data = max(count // tower, 1)
    if data < 1 or data * tower > count:
        raise DeviceError(
            f"the mesh needs {data * tower} devices (mesh.data={data} x mesh.tower={tower}), but "
            f"there {'is' if count == 1 else 'are'} {count}; lower mesh.data or mesh.tower"
        )
    if len(held) > 1 and data * tower < count:
        raise DeviceError(
            f"mesh.data={data} x mesh.tower={tower} leaves out some of the {count} devices of "
            f"{len(held)} processes; several processes use all of theirs"
        )
    grid = np.array(devices[: data * tower]).reshape(data, tower)
    return Mesh(grid, ("data", "tower"), axis_types=(AxisType.Auto,) * 2)


def process_share(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
    """The share of every batch that a process feeds: (number of the share, number of shares).

    Processes whose devices hold different towers of the same rows of the mesh feed the
    same share.

    Args:
      mesh: of all devices.
      process: number of a process; by default this one's.

    Raises:
      DeviceError: a process's rows, this one's or another's, are not one of several equal shares
        of the mesh.
    """
    process = jax.process_index() if process is None else process
    data = mesh.shape["data"]
    held: dict[int, list[int]] = {process: []}
    for i, row in enumerate(mesh.devices):
        for one in {device.process_index for device in row}:
            held.setdefault(one, []).append(i)
    size = max(len(held[process]), 1)
    shares = [list(range(first, first + size)) for first in range(0, data, size)]
    for one, rows in held.items():
        if data % size or rows not in shares:
            raise DeviceError(
                f"mesh.data={data} x mesh.tower={mesh.shape['tower']}: process {one} holds rows "
                f"{rows} of the mesh, which is no equal share of it; choose another mesh"
            )
    return shares.index(held[process]), len(shares)


def param_specs(per_tower: Any, mesh: Mesh) -> Any:
    """Partition specs of parameters; a leading axis of towers is split over `tower`.

    Args:
      per_tower: a tree like the parameters, True for those with a leading axis of towers.
      mesh: if its axis `tower` has size 1, nothing is split.
    """
    split = collectives.split(mesh, "tower")
    return jax.tree.map(lambda leaf: split if leaf else PartitionSpec(), per_tower)


def shardings(mesh: Mesh, specs: Any) -> Any:
    """The shardings on a mesh of a tree of partition specs."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        specs,
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )


def abstract_arrays(shapes: Any, where: Any) -> Any:
    """Shapes and dtypes of arrays or abstract arrays, each with its sharding."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        where,
    )


def batch_placer(mesh: Mesh) -> Callable[[dict[str, np.ndarray]], dict[str, Array]]:
    """A function that puts this process's share of a batch on the mesh, split over `data`."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    _, shares = process_share(mesh)

    def place(batch: dict[str, np.ndarray]) -> dict[str, Array]:
        with _on_purpose():
            return {
                name: jax.make_array_from_process_local_data(
                    sharding, value, (len(value) * shares, *value.shape[1:])
                )
                for name, value in batch.items()
            }

    return place


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that are equal on every device of the mesh."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(mesh: Mesh, array: np.ndarray) -> Array:
    """Puts an array on every device of the mesh."""
    return put(array, replicated(mesh))


def fetch(array: Array) -> np.ndarray:
    """Copies an array of the mesh to this host; if it is split over processes, all must call."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return jax.device_get(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def local_rows(array: Array) -> np.ndarray:
    """The rows of an array split over `data` that this process feeds."""
    if array.is_fully_addressable:
        return jax.device_get(array)
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([jax.device_get(shards[start]) for start in sorted(shards)])


def gather_rows(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The rows of all processes, in the order of the processes; every process calls this.

    Args:
      *arrays: int32 or float32, all with equally many rows; processes may have different numbers.
    """
    if jax.process_count() == 1:
        return arrays
    counts = multihost_utils.process_allgather(np.array(len(arrays[0]), np.int32)).reshape(-1)
    if not counts.max():  # no process has a row
        return arrays
    gathered = []
    for array in arrays:
        missing = int(counts.max()) - len(array)
        padded = np.pad(array, [(0, missing), *[(0, 0)] * (array.ndim - 1)])
        rows = np.asarray(multihost_utils.process_allgather(padded))
        gathered.append(np.concatenate([part[:n] for part, n in zip(rows, counts, strict=True)]))
    return tuple(gathered)


def put(array: np.ndarray, sharding: jax.sharding.Sharding) -> Array:
    """Puts an array that every process has on the devices."""
    with _on_purpose():
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _on_purpose() -> contextlib.AbstractContextManager[None]:
    """Allows intended copies to devices under `jax.transfer_guard`, which finds unintended ones.

    The guard takes copies of `jax.device_put` as intended, but not those of arrays made of parts.
    """
    return jax.transfer_guard_host_to_device("allow")
