"""Times of a compiled program's operations, and what they add up to.

- TPU: cycles that the compiler estimates for each operation, over the clock. Operations that it
  says nothing about, among them hand-written kernels, count with the larger of FLOP over peak and
  bytes over bandwidth.
- GPU: for each kernel the larger of bytes over bandwidth and FLOP over peak, a lower bound.
- Exchanges: bytes over a link, and a latency each; among all chips of a TPU slice over a link along
  each of its axes. What runs between the begin and the end of one hides it.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from devices.accelerators import Target, host_of
from devices.programs import Operation

_LAYER = re.compile(r"jvp\(([\w.]+)\)")
_SCOPE = re.compile(r"/(input|update|check)(?:/|$)")


def layer_of(path: str) -> tuple[str, str]:
    """The layer that an operation belongs to, and `forward`, `backward` or "".

    Args:
      path: `Operation.path`.
    """
    found = _LAYER.search(path)
    if found is None:
        scope = _SCOPE.search(path)
        if scope is not None:
            return scope[1], ""
        return ("loss", "backward" if "transpose(" in path else "forward") if "jvp(" in path else (
            "other", ""
        )  # fmt: skip
    return found[1], "backward" if "transpose(" in path else "forward"


def seconds_of(operation: Operation, target: Target) -> float:
    """Estimated seconds of an operation, each time; see above."""
    accelerator = target.accelerator
    if not accelerator.flops:
        return 0.0
    if operation.collective is not None:
        exchange = operation.collective
        link, group = accelerator.link, max(exchange.groups, key=len)
        if len(group) == target.chips * accelerator.devices_per_chip:
            link *= max(sum(size > 1 for size in target.shape), 1)
        hosts = {host_of(target, device) for device in group}
        if accelerator.network and len(hosts) > 1:
            link = accelerator.network
        return accelerator.latency + exchange.sent / link
    if accelerator.platform == "tpu" and operation.cycles is not None:
        return operation.cycles / accelerator.clock
    return max(operation.flops / accelerator.flops, operation.bytes / accelerator.memory_bandwidth)


@dataclasses.dataclass(frozen=True)
class Times:
    """Estimated seconds of a step.

    Attributes:
      computing: of all kernels, one after another.
      exchanging: of all exchanges.
      waiting: of the exchanges, what no kernel hides.
    """

    computing: float
    exchanging: float
    waiting: float

    @property
    def step(self) -> float:
        """Of the whole step."""
        return self.computing + self.waiting


def times_of(operations: Sequence[Operation], target: Target) -> Times:
    """Adds up a program in its order."""
    computed = [0.0]  # seconds of kernels before each operation
    exchanging = waiting = 0.0
    for operation in operations:
        each = seconds_of(operation, target)
        if operation.collective is None:
            computed.append(computed[-1] + each * operation.times)
            continue
        hidden = 0.0
        if operation.begun is not None:
            hidden = (computed[-1] - computed[operation.begun]) / operation.times
        exchanging += each * operation.times
        waiting += max(0.0, each - hidden) * operation.times
        computed.append(computed[-1])
    return Times(computed[-1], exchanging, waiting)


def bound(kernels: Sequence[Operation], times: Times, at_peak: float, target: Target) -> str:
    """What takes most of a step."""
    if times.waiting > times.computing:
        return "exchanges between devices"
    if target.accelerator.platform == "tpu":
        if at_peak > times.computing / 2:
            return "matrix units"
        return "memory and vector units"
    by_products = sum(
        seconds_of(o, target) * o.times
        for o in kernels
        if o.flops / target.accelerator.flops > o.bytes / target.accelerator.memory_bandwidth
    )
    return "matrix units" if by_products > times.computing / 2 else "memory"


def collectives(
    operations: Sequence[Operation], target: Target, tower: int
) -> list[dict[str, Any]]:
    """The exchanges of a step, alike ones together, the largest first.

    Args:
      operations: of the whole program.
      target: what it was compiled for.
      tower: size of the mesh's axis `tower`, along which devices are numbered first.
    """
    together: dict[tuple[str, str], dict[str, Any]] = {}
    for operation in operations:
        exchange = operation.collective
        if exchange is None:
            continue
        along = _axis(exchange.groups, tower)
        entry = together.setdefault(
            (exchange.operation, along),
            {"operation": exchange.operation, "along": along, "among": 0, "times": 0}
            | {"bytes": 0, "sent": 0.0, "seconds": 0.0},
        )
        entry["among"] = max(entry["among"], *map(len, exchange.groups))
        entry["times"] += exchange.times
        entry["bytes"] += exchange.bytes * exchange.times
        entry["sent"] += exchange.sent * exchange.times
        entry["seconds"] += seconds_of(operation, target) * exchange.times
    return sorted(together.values(), key=lambda entry: -entry["sent"])


def _axis(groups: frozenset[frozenset[int]], tower: int) -> str:
    """The axis of the mesh that groups of devices lie along: `data`, `tower`, or both."""
    places = [[divmod(device, tower) for device in group] for group in groups]
    moves = [any(len({place[axis] for place in g}) > 1 for g in places) for axis in (0, 1)]
    return " x ".join(name for name, moved in zip(("data", "tower"), moves, strict=True) if moved)


def layers(kernels: Sequence[Operation], target: Target) -> list[dict[str, Any]]:
    """Seconds of each layer forward, backward and otherwise, the costliest first."""
    seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for operation in kernels:
        layer, way = layer_of(operation.path)
        seconds[layer][way or "otherwise"] += seconds_of(operation, target) * operation.times
    found: list[dict[str, Any]] = [
        {"layer": layer, "seconds": sum(ways.values()), **ways} for layer, ways in seconds.items()
    ]
    return sorted(found, key=lambda entry: -entry["seconds"])


def listed(operations: Sequence[Operation], target: Target, top: int) -> list[dict[str, Any]]:
    """The costliest operations."""
    found: list[dict[str, Any]] = [
        {
            "name": o.name,
            "opcode": o.opcode,
            "layer": " ".join(filter(None, layer_of(o.path))),
            "path": o.path,
            "times": o.times,
            "seconds": seconds_of(o, target) * o.times,
            "bytes": o.bytes * o.times,
            "flops": o.flops * o.times,
            **({} if o.cycles is None else {"estimated_cycles": o.cycles * o.times}),
        }
        for o in operations
    ]
    return sorted(found, key=lambda entry: -entry["seconds"])[:top]
