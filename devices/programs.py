"""What a compiled program does, read from its text: kernels, exchanges, what each costs.

The text is that of `jax.stages.Compiled.as_text()`, optimised HLO of XLA's CPU, TPU and GPU
compilers. Read are the instructions that the program runs: those of its entry computation and of
every computation that this calls, bodies of loops as often as they run. What is fused into a kernel
is part of that kernel.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator

import numpy as np

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
# The type comes in front of the first word that a parenthesis follows.
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.+?) ([a-z][a-z\-]*[a-z])\((.*)$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_OPERAND = re.compile(r"%([\w.\-]+)")
_EXCHANGE = re.compile(
    r"(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute|collective-broadcast)"
    r"(-start|-done)?"
)
_LOOKS_LIKE_EXCHANGE = re.compile(r"(all-|reduce-scatter|collective-|ragged-all|send|recv)")
_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4,
    "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip
# Instructions that are no work of the device: names for memory, and copies beside the work.
_FREE = {
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "partition-id", "replica-id",
    "after-all", "opt-barrier", "copy-start", "copy-done", "slice-start", "slice-done",
    "async-start", "async-update", "async-done",
}  # fmt: skip
# Calls that somebody wrote as a kernel (Pallas); other calls are the compiler's or a library's.
_HAND_WRITTEN = re.compile(
    r'custom_call_target="(tpu_custom_call|__gpu\$xla.gpu.triton|mosaic\w*)"'
)
_SLICES = {"dynamic-slice", "slice", "gather"}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a program.

    Attributes:
      name: unique in the program.
      type: of the result.
      opcode: such as `fusion`.
      operands: names of the instructions that it reads.
      text: all after the opening parenthesis.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    text: str

    def attribute(self, pattern: str) -> str | None:
        """The first group of a pattern in the text."""
        found = re.search(pattern, self.text)
        return found[1] if found else None


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation, as one device sees it.

    Attributes:
      operation: `all-gather`, `all-reduce`, `reduce-scatter`, `all-to-all`, `collective-permute` or
        `collective-broadcast`.
      elements: number of elements of each result.
      bytes: size of all results.
      groups: sets of the numbers of the devices that communicate with each other.
      scatters: whether it is a reduce-scatter, or an all-reduce in place of one: XLA's CPU backend
        sums everything, and each device then takes its part.
      times: how often it runs; more than once in a loop.
    """

    operation: str
    elements: tuple[int, ...]
    bytes: int
    groups: frozenset[frozenset[int]]
    scatters: bool
    times: int = 1

    @property
    def sent(self) -> float:
        """Bytes that a device sends each time, by the ring algorithm (Patarasuk and Yuan 2009)."""
        if self.operation in ("collective-permute", "collective-broadcast"):
            return self.bytes
        count = max(map(len, self.groups))
        share = (count - 1) / count
        if self.operation == "reduce-scatter":  # `bytes` is one device's part
            return self.bytes * (count - 1)
        twice = self.operation == "all-reduce" and not self.scatters
        return self.bytes * share * (2 if twice else 1)


@dataclasses.dataclass(frozen=True)
class Operation:
    """What a device runs at a time: a kernel, or an exchange.

    Attributes:
      name: in the program.
      opcode: such as `fusion`; for a call its target.
      path: where in the network's code it comes from, such as `jit(step)/jvp(conv1)/add`.
      times: how often it runs.
      bytes: that it reads and writes each time, outside of the chip's own memory.
      flops: of matrix products and convolutions each time, where the text tells them: those of
        GPUs and of hand-written kernels.
      cycles: that the compiler estimates for each time; None where it says nothing.
      hand_written: whether it is a kernel that somebody wrote (Pallas).
      collective: of an exchange, at the place where the device has its result.
      begun: for an exchange beside other work, after which of the operations it began; else None.
    """

    name: str
    opcode: str
    path: str
    times: int
    bytes: int
    flops: float
    cycles: int | None
    hand_written: bool = False
    collective: Collective | None = None
    begun: int | None = None


class Program:
    """A compiled program as computations of instructions."""

    def __init__(self, text: str, devices: int) -> None:
        """Reads the text.

        Args:
          text: `jax.stages.Compiled.as_text()`, or lines of it.
          devices: number of devices that the program is compiled for.
        """
        self.devices = devices
        self.computations: dict[str, list[Instruction]] = {"": []}
        self.entry, into = "", self.computations[""]
        self.loops_of_unknown_length = 0
        for line in text.splitlines():
            header = _HEADER.match(line)
            if header:
                into = self.computations.setdefault(header[2], [])
                self.entry = header[2] if header[1] else self.entry
                continue
            match = _INSTRUCTION.match(line)
            if match:
                operands = _OPERAND.findall(_balanced(match[4]))
                into.append(Instruction(match[1], match[2], match[3], tuple(operands), match[4]))
        self.by_name = {i.name: i for body in self.computations.values() for i in body}

    def run(self) -> list[Operation]:
        """All that a device runs, in the order of the program.

        Raises:
          ValueError: an exchange, or its groups, are written in an unknown form.
        """
        operations: list[Operation] = []
        begun: dict[str, int] = {}
        for instruction, times, around in self._run(self.entry, 1):
            # Text inside a computation that runs beside others, or is fused, stands for all of it.
            for exchange in self._exchanges(instruction):
                kind = _EXCHANGE.fullmatch(exchange.opcode)
                if kind is None:
                    raise ValueError(
                        f"an exchange of unknown form: {exchange.name} = {exchange.type} "
                        f"{exchange.opcode}({exchange.text[:300]}"
                    )
                if kind[2] == "-start":
                    begun[exchange.name] = len(operations)
                    continue
                source, since = exchange, None
                if kind[2] == "-done":
                    if exchange.operands[:1] != () and exchange.operands[0] not in begun:
                        continue  # a line by itself
                    source = self.by_name[exchange.operands[0]]
                    since = begun[source.name]
                collective = self._collective(kind[1], exchange, source, times)
                operations.append(
                    Operation(
                        exchange.name, kind[1], _path(source), times, collective.bytes, 0.0, 0,
                        collective=collective, begun=since,
                    )
                )  # fmt: skip
            if not _LOOKS_LIKE_EXCHANGE.match(instruction.opcode):
                operation = self._operation(instruction, times, around)
                if operation is not None:
                    operations.append(operation)
        return operations

    def _run(
        self, computation: str, times: int, around: str = ""
    ) -> Iterator[tuple[Instruction, int, str]]:
        """Instructions of a computation and those it calls, how often, and the path around them."""
        for instruction in self.computations[computation]:
            called, inside = self._called(instruction), _path(instruction) or around
            if instruction.opcode == "while":
                trips = self._trips(instruction)
                for name in called:
                    yield from self._run(name, times * trips, inside)
            elif instruction.opcode == "conditional":
                # One of them runs; the largest stands for it.
                if called:
                    largest = max(called, key=lambda name: len(self.computations[name]))
                    yield from self._run(largest, times, inside)
            elif instruction.opcode in ("call", "async-start") and called:
                for name in called:
                    yield from self._run(name, times, inside)
            else:
                yield instruction, times, around

    def _called(self, instruction: Instruction) -> list[str]:
        """Computations that an instruction names as its own."""
        found: list[str] = []
        for names in re.findall(
            r"\b(?:body|condition|calls|branch_computations|true_computation|false_computation"
            r"|to_apply)=(\{[^}]*\}|%?[\w.\-]+)",
            instruction.text,
        ):
            found += [name for name in re.findall(r"[\w.\-]+", names) if name in self.computations]
        return found

    def _trips(self, loop: Instruction) -> int:
        """How often the body of a loop runs; 1 where the text does not tell."""
        known = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"')
        if known is None:  # a counter from 0, compared with the only constant
            condition = loop.attribute(r"condition=%?([\w.\-]+)")
            body = self.computations.get(condition or "", [])
            limits = [
                match[1]
                for i in body
                if i.opcode == "constant" and (match := re.match(r"(\d+)\)", i.text))
            ]
            less = any("direction=LT" in i.text for i in body) or any(
                "direction=LT" in j.text
                for i in body
                for name in self._called(i)
                for j in self.computations[name]
            )
            known = limits[0] if less and len(limits) == 1 else None
        if known is None:
            self.loops_of_unknown_length += 1
        return int(known or 1)

    def _exchanges(self, instruction: Instruction) -> list[Instruction]:
        """The exchanges that an instruction is or has fused into it."""
        if _LOOKS_LIKE_EXCHANGE.match(instruction.opcode):
            return [instruction]
        if instruction.opcode != "fusion":
            return []
        return [
            inner
            for name in self._called(instruction)
            for inner in self.computations[name]
            if _LOOKS_LIKE_EXCHANGE.match(inner.opcode)
        ]

    def _collective(
        self, operation: str, result: Instruction, source: Instruction, times: int
    ) -> Collective:
        arrays = [(dtype, _count(shape)) for dtype, shape, _ in _ARRAY.findall(result.type)]
        if operation in ("collective-permute", "collective-broadcast"):
            pairs = source.attribute(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
            groups = source.attribute(r"replica_groups=(\S+?)(?:,\s|$)")
            found = _groups(f"{{{pairs}}}" if pairs else groups or "", self.devices)
        else:
            found = _groups(source.attribute(r"replica_groups=(\S+?)(?:,\s|$)") or "", self.devices)
        scatters = operation == "reduce-scatter" or "reduce_scatter" in source.text
        return Collective(
            operation,
            tuple(count for _, count in arrays),
            sum(_BYTES[dtype] * count for dtype, count in arrays),
            found,
            scatters,
            times,
        )

    def _operation(self, instruction: Instruction, times: int, around: str) -> Operation | None:
        """The kernel that an instruction in such a path is; None if it is none."""
        opcode = instruction.opcode
        target = instruction.attribute(r'custom_call_target="([^"]*)"')
        hand_written = bool(_HAND_WRITTEN.search(instruction.text))
        # A TPU's other calls only name memory and pack indices; libraries' have a $ in their name.
        is_name = opcode == "custom-call" and not hand_written and "$" not in (target or "")
        if opcode in _FREE or is_name:
            return None
        cycles = instruction.attribute(r'"estimated_cycles":"(\d+)"')
        bytes_, flops = self._bytes(instruction), self._flops(instruction)
        if hand_written:  # what its author says; else all of its arrays, wherever they lie
            flops = float(instruction.attribute(r'"flops":"?(\d+)') or flops)
            arrays = [instruction.type, *self._types(instruction.operands)]
            said = instruction.attribute(r'"bytes_accessed":"?(\d+)')
            bytes_ = int(said or sum(size(type_, everywhere=True) for type_ in arrays))
        return Operation(
            instruction.name,
            target or opcode,
            _path(instruction) or self._path_inside(instruction) or around,
            times,
            bytes_,
            flops,
            None if cycles is None else int(cycles),
            hand_written,
        )

    def _path_inside(self, instruction: Instruction) -> str:
        """The path of what is fused last of all that have one."""
        paths = [
            _path(inner) for name in self._called(instruction) for inner in self.computations[name]
        ]
        return next((path for path in reversed(paths) if "/" in path), "")

    def _bytes(self, instruction: Instruction) -> int:
        """Bytes of results and operands; of arrays that are only cut from, what is cut."""
        fused = [
            inner
            for name in (self._called(instruction) if instruction.opcode == "fusion" else [])
            for inner in self.computations[name]
        ]
        if instruction.opcode in _SLICES:
            return 2 * size(instruction.type)
        if instruction.opcode == "dynamic-update-slice":
            return 2 * self._size_of(instruction.operands[1])
        parameters = {
            int(match[1]): inner.name
            for inner in fused
            if inner.opcode == "parameter" and (match := re.match(r"(\d+)\)", inner.text))
        }
        total, root = size(instruction.type), fused[-1] if fused else None
        if root is not None and root.opcode == "dynamic-update-slice":  # writes into its operand
            total = self._size_of(root.operands[1])
        for number, operand in enumerate(instruction.operands):
            name = parameters.get(number, "")
            users = [i for i in fused if name in i.operands]
            if users and all(i.opcode in _SLICES and i.operands[0] == name for i in users):
                total += sum(size(i.type) for i in users)
            elif users == [root] and root is not None and (
                root.opcode == "dynamic-update-slice"
                and root.operands[0] == parameters.get(number)
            ):  # fmt: skip
                continue
            else:
                total += self._size_of(operand)
        return total

    def _size_of(self, name: str) -> int:
        return sum(map(size, self._types([name])))

    def _types(self, names: Iterable[str]) -> list[str]:
        return [self.by_name[name].type for name in names if name in self.by_name]

    def _flops(self, instruction: Instruction) -> float:
        """FLOP of matrix products and of cuDNN's convolutions, two per multiply-add."""
        if instruction.opcode == "fusion":
            return sum(
                self._flops(inner)
                for name in self._called(instruction)
                for inner in self.computations[name]
            )
        result = _shapes(instruction.type)
        shapes = [
            found[0] for type_ in self._types(instruction.operands[:2]) if (found := _shapes(type_))
        ]
        if len(shapes) < 2 or not result:
            return 0.0
        labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.text)
        target = instruction.attribute(r'custom_call_target="([^"]*)"') or ""
        if labels and (instruction.opcode == "convolution" or "conv" in target.lower()):
            kernel, maps = shapes[1], result[0]
            if "BackwardFilter" in target:
                kernel, maps = result[0], shapes[1]
            elif "BackwardInput" in target:
                maps = shapes[0]
            return 2.0 * math.prod(maps) * math.prod(kernel) / kernel[labels[2].index("o")]
        axes = re.search(r'lhs_contracting_dim\w*"?[=:][\[{]([\d,"]+)[\]}]', instruction.text)
        if axes and (instruction.opcode == "dot" or "gemm" in target or "matmul" in target):
            summed = [shapes[0][int(axis)] for axis in re.findall(r"\d+", axes[1])]
            return 2.0 * math.prod(result[0]) * math.prod(summed)
        return 0.0


def collectives(program: str, devices: int) -> list[Collective]:
    """All collectives of a compiled program.

    Args:
      program: `jax.stages.Compiled.as_text()`.
      devices: number of devices that the program is compiled for.

    Raises:
      ValueError: a collective, or its groups, are written in an unknown form.
    """
    operations = Program(program, devices).run()
    return [found.collective for found in operations if found.collective is not None]


def size(type_: str, *, everywhere: bool = False) -> int:
    """Bytes of a type's arrays, without those in the chip's own memory unless `everywhere`."""
    total = 0
    for dtype, shape, layout in _ARRAY.findall(type_):
        if dtype in _BYTES and (everywhere or not re.search(r"S\([1-9]", layout)):
            total += _BYTES[dtype] * _count(shape)
    return total


def _shapes(type_: str) -> list[list[int]]:
    return [[int(n) for n in shape.split(",") if n] for _, shape, _ in _ARRAY.findall(type_)]


def _count(shape: str) -> int:
    return math.prod(int(n) for n in shape.split(",") if n)


def _balanced(text: str) -> str:
    """The text up to the parenthesis that closes what is open."""
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return text[:place]
    return text


def _path(instruction: Instruction) -> str:
    return instruction.attribute(r'op_name="([^"]*)"') or ""


def _groups(text: str, devices: int) -> frozenset[frozenset[int]]:
    """Parses replica groups: {{0,1},{2,3}} ({} for all devices), or [2,2]<=[2,2]T(1,0)."""
    if text.startswith("{"):
        lists = re.findall(r"\{([\d,]+)\}", text) or [",".join(map(str, range(devices)))]
        return frozenset(frozenset(map(int, numbers.split(","))) for numbers in lists)
    match = re.fullmatch(r"\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if match is None:
        raise ValueError(f"replica groups of unknown form: {text}")
    shape = [int(n) for n in match[3].split(",")]
    order = np.arange(math.prod(shape)).reshape(shape)
    if match[4]:
        order = order.transpose([int(axis) for axis in match[4].split(",")])
    rows = order.reshape(int(match[1]), int(match[2]))
    return frozenset(frozenset(row) for row in rows.tolist())
