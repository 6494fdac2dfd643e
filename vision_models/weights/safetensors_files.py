"""Files in the safetensors format: a JSON header, then the numbers.

The header is parsed here rather than by the library, so that nothing is allocated for a tensor
before its shape is known to fit.
"""

import hashlib
import json
import math
import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vision_models.weights.types import Source, Tensor, WeightsError

_KINDS: dict[str, tuple[str, Any]] = {
    "F64": ("float64", np.float64),
    "F32": ("float32", np.float32),
    "F16": ("float16", np.float16),
    "BF16": ("bfloat16", ml_dtypes.bfloat16),
    "F8_E4M3": ("float8_e4m3fn", ml_dtypes.float8_e4m3fn),
    "F8_E5M2": ("float8_e5m2", ml_dtypes.float8_e5m2),
    "I64": ("int64", np.int64),
    "I32": ("int32", np.int32),
    "I16": ("int16", np.int16),
    "I8": ("int8", np.int8),
    "U64": ("uint64", np.uint64),
    "U32": ("uint32", np.uint32),
    "U16": ("uint16", np.uint16),
    "U8": ("uint8", np.uint8),
    "BOOL": ("bool", np.bool_),
}
_LONGEST_HEADER = 100_000_000
_SHA256 = re.compile("[0-9a-f]{64}")
_CHECKSUM = "sha256"  # a key of the metadata of our own files


def is_safetensors(start: bytes) -> bool:
    """Whether a file that begins so is of this format: a length, then JSON of that length."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < _LONGEST_HEADER


def read(path: Path) -> Source:
    """Reads the header.

    Raises:
      WeightsError: cut short, or a header that does not fit the file.
    """
    with open(path, "rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    begin = 8 + int.from_bytes(data[:8], "little")
    if begin > len(data):
        raise WeightsError(f"{path}: no .safetensors file, or cut short within its header")
    try:
        header = json.loads(bytes(data[8:begin]))
        metadata = dict(header.pop("__metadata__", None) or {})
        tensors, end = {}, 0
        for name, entry in header.items():
            tensors[name], stop = _tensor(entry, data[begin:])
            end = max(end, stop)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path}: damaged, its header is none of .safetensors") from error
    if begin + end != len(data):
        raise WeightsError(
            f"{path}: cut short or damaged, its header declares {begin + end:,} bytes and it has "
            f"{len(data):,}"
        )
    ours = metadata.get("format") == "vision_models"

    def verify() -> None:
        # Another program that casts the numbers of a file of ours may leave its metadata.
        as_written = all(tensor.kind == "float32" for tensor in tensors.values())
        expected = metadata.get(_CHECKSUM)
        # Files older than checksums have none under any name: one elsewhere was renamed.
        renamed = expected is None and any(map(_SHA256.fullmatch, metadata.values()))
        if renamed or (
            expected is not None and as_written and checksum(tensors, metadata) != expected
        ):
            raise WeightsError(
                f"{path}: damaged, or changed since it was saved (by the checksum in its "
                "metadata); copy or export it again"
            )

    return Source(
        "vision_models" if ours else "pytorch", tensors, str(path), metadata, verify=verify
    )


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes float32 tensors, and their checksum."""
    from safetensors.numpy import save

    whole = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    path.write_bytes(save(whole, {**metadata, _CHECKSUM: checksum(whole, metadata)}))


def checksum(tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
    """SHA-256 of names, shapes and numbers of float32 tensors, and of the other metadata."""
    others = {k: v for k, v in metadata.items() if k != _CHECKSUM}
    total = hashlib.sha256(json.dumps(others, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(json.dumps([name, list(tensor.shape)]).encode())
        values = tensor.read() if isinstance(tensor, Tensor) else tensor
        total.update(np.ascontiguousarray(values).astype("<f4", copy=False).data)
    return total.hexdigest()


def _tensor(entry: Mapping[str, Any], data: memoryview) -> tuple[Tensor, int]:
    """A tensor of the header, and where it ends."""
    shape = tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    kind, dtype = _KINDS.get(entry["dtype"], (str(entry["dtype"]), None))
    sized = dtype is None or math.prod(shape) * np.dtype(dtype).itemsize == end - begin
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)) or not sized:
        raise ValueError(f"a tensor of shape {shape} in bytes {begin} to {end}")

    def read() -> np.ndarray:
        return np.frombuffer(data[begin:end], dtype).reshape(shape)

    return Tensor(shape, kind, read), end
