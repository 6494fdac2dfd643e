"""The collectives of a compiled program and the bytes that they send, read from its text."""

import dataclasses
import math
import re

import numpy as np

_OPERATION = re.compile(
    r"= (.+?) (all-gather|all-reduce|reduce-scatter|all-to-all)"
    r"\(.*?replica_groups=(\S+?)(?:,\s|$)"
)
_OTHERS = re.compile(r"= .+? (?:all-|reduce-scatter|collective-|ragged-all)[\w-]*(?<!-done)\(")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation, as one device sees it.

    Attributes:
      operation: `all-gather`, `all-reduce`, `reduce-scatter` or `all-to-all`.
      elements: number of elements of each result.
      bytes: size of all results.
      groups: sets of the numbers of the devices that communicate with each other.
      scatters: whether it is a reduce-scatter, or an all-reduce in place of one: XLA's CPU backend
        sums everything, and each device then takes its part.
    """

    operation: str
    elements: tuple[int, ...]
    bytes: int
    groups: frozenset[frozenset[int]]
    scatters: bool

    @property
    def sent(self) -> float:
        """Bytes that each device sends, by the ring algorithm (Patarasuk and Yuan 2009)."""
        count = len(next(iter(self.groups)))
        share = (count - 1) / count
        if self.operation == "reduce-scatter":  # `bytes` is one device's part
            return self.bytes * (count - 1)
        twice = self.operation == "all-reduce" and not self.scatters
        return self.bytes * share * (2 if twice else 1)


def collectives(program: str, devices: int) -> list[Collective]:
    """All collectives of a compiled program.

    Args:
      program: `jax.stages.Compiled.as_text()`.
      devices: number of devices that the program is compiled for.

    Raises:
      ValueError: a collective, or its groups, are written in an unknown form.
    """
    found = []
    for line in program.splitlines():
        match = _OPERATION.search(line)
        if match is None:
            if _OTHERS.search(line):
                raise ValueError(f"an exchange of unknown form: {line.strip()}")
            continue
        arrays = [
            (dtype, math.prod(int(size) for size in shape.split(",") if size))
            for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", match[1])
        ]
        found.append(
            Collective(
                operation=match[2],
                elements=tuple(count for _, count in arrays),
                bytes=sum(_BYTES[dtype] * count for dtype, count in arrays),
                groups=_groups(match[3], devices),
                scatters=match[2] == "reduce-scatter" or "reduce_scatter" in line,
            )
        )
    return found


def _groups(text: str, devices: int) -> frozenset[frozenset[int]]:
    """Parses replica groups: {{0,1},{2,3}} ({} for all devices), or [2,2]<=[2,2]T(1,0)."""
    if text.startswith("{"):
        lists = re.findall(r"\{([\d,]+)\}", text) or [",".join(map(str, range(devices)))]
        return frozenset(frozenset(map(int, numbers.split(","))) for numbers in lists)
    match = re.fullmatch(r"\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if match is None:
        raise ValueError(f"replica groups of unknown form: {text}")
    shape = [int(size) for size in match[3].split(",")]
    order = np.arange(math.prod(shape)).reshape(shape)
    if match[4]:
        order = order.transpose([int(axis) for axis in match[4].split(",")])
    rows = order.reshape(int(match[1]), int(match[2]))
    return frozenset(frozenset(row) for row in rows.tolist())
