"""PyTorch's files, read without PyTorch: archives of `torch.save`, and its older pickles.

Nothing in a file is executed. Of all classes and functions that a pickle names, only those
that build tensors are known here; inert objects stand in for the others. Tensors are views of
storages, which are read on demand.
"""

import functools
import io
import mmap
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vision_models.weights.types import Source, Tensor, WeightsError, some

_DTYPES: dict[str, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "bool": np.bool_,
    "qint8": np.int8,
    "quint8": np.uint8,
    "qint32": np.int32,
    "complex64": np.complex64,
    "complex128": np.complex128,
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
# Functions that make tensors of other kinds: the place of the shape among their arguments.
_OTHER_TENSORS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "_rebuild_sparse_tensor": ("sparse", lambda data: data[1][2]),
    "_rebuild_qtensor": ("quantised", lambda data: data[2]),
    "_rebuild_meta_tensor_no_storage": ("without values (a meta tensor)", lambda data: data[1]),
    "_rebuild_nested_tensor": ("nested", lambda data: ()),
}
_SAVE = "torch.save(model.state_dict(), FILE)"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_archive(path: Path) -> Source:
    """Reads what `torch.save` writes since 2020, a ZIP archive; every entry has a CRC-32.

    Raises:
      WeightsError: cut short, damaged, or an archive of something else.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise WeightsError(f"{path}: no PyTorch file, or cut short ({error})") from error
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in names:
        raise WeightsError(f"{path}: {_archive_of(archive.namelist())}")
    if "constants.pkl" in names:
        raise WeightsError(
            f"{path}: a TorchScript archive, a program with its weights. Save the state dict "
            "alone: torch.save(torch.jit.load(FILE).state_dict(), OUT)"
        )
    entries = {entry.filename: entry for entry in archive.infolist()}
    if any(e.compress_type or e.file_size != e.compress_size for e in entries.values()):
        raise WeightsError(
            f"{path}: a compressed archive, as PyTorch writes none; save it again: {_SAVE}"
        )
    size = path.stat().st_size
    if any(e.header_offset + e.file_size > size for e in entries.values()):
        raise WeightsError(f"{path}: damaged, its entries are longer than the file")
    if entries[names["data.pkl"]].CRC == 0:  # written without checksums, as PyTorch can
        for entry in entries.values():
            del entry.CRC

    def read(name: str) -> bytes:
        try:
            return archive.read(entries[names[name]])
        except KeyError as error:
            raise WeightsError(f"{path}: damaged, {name} is missing from the archive") from error
        except zipfile.BadZipFile as error:
            raise WeightsError(f"{path}: damaged ({error}); fetch or copy it again") from error

    big = "byteorder" in names and read("byteorder") == b"big"
    last_read = functools.lru_cache(1)(lambda key: read(f"data/{key}"))
    storages = _Storages(path, last_read, ">" if big else "<")
    return _source(path, _unpickle(read("data.pkl"), storages), storages)


def read_pickle(path: Path) -> Source:
    """Reads what `torch.save` wrote before 2020: pickles, and behind them the storages.

    Raises:
      WeightsError: cut short, damaged, or a pickle of something else.
    """
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    parts = _pickles(data)
    where: dict[str, tuple[int, int]] = {}
    storages = _Storages(path, lambda key: data[slice(*where[key])], "<")
    try:
        content = _unpickle(next(parts)[0], storages)
        if content != _LEGACY_MAGIC:
            return _source(path, content, storages)
        next(parts), next(parts)  # the version of the format, and the sizes of types
        content = _unpickle(next(parts)[0], storages)
        keys, end = next(parts)
    except StopIteration:
        raise WeightsError(f"{path}: no PyTorch file, or cut short") from None
    for key in _unpickle(keys, storages):
        begin = end + 8  # how many numbers there are is written once more
        end = begin + storages.sizes.get(key, 0)
        where[key] = (begin, end)
    if end != len(data) or storages.sizes.keys() - where.keys():
        raise WeightsError(
            f"{path}: cut short or damaged, {end:,} bytes it should have, and has {len(data):,}"
        )
    return _source(path, content, storages)


class _Storages:
    """Makes tensors, which are views of storages.

    Attributes:
      sizes: in bytes, of the storages that tensors refer to.
      strange: names of the classes and functions that are not known here.
    """

    def __init__(self, path: Path, read: Callable[[str], bytes], order: str):
        self.path, self.read, self.order = path, read, order
        self.sizes: dict[str, int] = {}
        self.strange: dict[str, None] = {}

    def named(self, identity: Any) -> Any:
        """(kind, key) of a storage that a pickle refers to; or a class, with its source."""
        if identity[0] == "module":
            return identity[1]
        _, kind, key, _, count, *view = identity
        if any(view) or count < 0:
            raise ValueError("a storage within a storage, as PyTorch wrote before 0.4")
        self.sizes[key] = count * np.dtype(_DTYPES[kind]).itemsize
        return kind, key

    def tensor(self, key: str, kind: str, offset: int, shape: Any, stride: Any) -> Tensor:
        """A view of a storage."""
        shape, stride = tuple(map(int, shape)), tuple(map(int, stride))
        if len(stride) != len(shape) or min((offset, *shape, *stride)) < 0:
            raise ValueError(f"a tensor of shape {shape} and strides {stride}")
        dtype = np.dtype(_DTYPES[kind])
        if dtype.itemsize > 1:
            dtype = dtype.newbyteorder(self.order)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))

        def read() -> np.ndarray:
            content = self.read(key)
            if 0 in shape:
                return np.zeros(shape, dtype)
            if len(content) != self.sizes[key] or (last + 1) * dtype.itemsize > len(content):
                raise WeightsError(f"{self.path}: damaged, storage {key} is of another length")
            flat = np.frombuffer(content, dtype)
            steps = tuple(step * dtype.itemsize for step in stride)
            return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)

        return Tensor(shape, kind, read)


class _Object(dict):
    """Stands for an object of any class; what such a class does is not known here."""

    state: Any = None

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __new__(cls, *arguments: Any, **named: Any) -> "_Object":
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __eq__(self, other: object) -> bool:
        return self is other

    def append(self, item: Any) -> None:
        """Takes what a list or set would."""

    extend = add = append

    @property
    def is_module(self) -> bool:
        """Whether it is a whole network, of PyTorch's class Module."""
        return isinstance(self.state, dict) and {"_modules", "_parameters"} <= self.state.keys()


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, storages: _Storages):
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        make = self.storages.tensor
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in _DTYPES:
            return name
        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch", "Size":
                return tuple
            case "torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2":
                return lambda storage, offset, shape, stride, *_: make(
                    storage[1], storage[0], offset, shape, stride
                )
            case "torch._utils", "_rebuild_tensor_v3":
                return lambda storage, offset, shape, stride, _grad, _hooks, kind, *_: make(
                    storage[1], kind, offset, shape, stride
                )
            case "torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state":
                return lambda tensor, *_: tensor
            case "torch._tensor", "_rebuild_from_type_v2":
                return lambda build, _kind, arguments, _state: build(*arguments)
            case "torch._utils", other if other in _OTHER_TENSORS:
                kind, shape_of = _OTHER_TENSORS[other]
                return lambda *data: Tensor(tuple(shape_of(data)), kind, _unreadable)
        self.storages.strange[f"{module}.{name}"] = None
        return type(name, (_Object,), {"__module__": module})

    def persistent_load(self, identity: Any) -> Any:
        return self.storages.named(identity)


def _unreadable() -> np.ndarray:
    raise AssertionError("a tensor of another kind is not read")


def _unpickle(data: bytes, storages: _Storages) -> Any:
    for operation, argument, _ in pickletools.genops(data):
        # The table of objects is made as long as the highest number says.
        if operation.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise ValueError(f"a pickle of {len(data)} bytes with {argument} objects")
        # Nobody's pickles of weights have it; tuples of it take for ever to be compared.
        if operation.name == "DUP":
            raise ValueError("a pickle that no pickler writes")
    return _Unpickler(data, storages).load()


def _pickles(data: mmap.mmap) -> Iterator[tuple[bytes, int]]:
    """Pickles one after another, each with the place where it ends."""
    begin = 0
    while True:
        try:
            for _ in pickletools.genops(data):  # type: ignore[arg-type]
                pass
        except ValueError:  # cut short, or no pickle
            return
        end = data.tell()
        yield data[begin:end], end
        data.seek(end)
        begin = end


def _source(path: Path, found: Any, storages: _Storages) -> Source:
    """The tensors by name: dicts in dicts have their keys joined by dots."""
    strange = some(storages.strange)
    tensors = dict(_by_name(found, "", set()))
    if tensors:
        notes = (f"left out objects that are no tensors ({strange})",) if strange else ()
        return Source("pytorch", tensors, str(path), notes=notes)
    inside = (found, *found.values()) if isinstance(found, dict) else (found,)
    module = next((o for o in inside if isinstance(o, _Object) and o.is_module), None)
    if module is not None:
        name = f"{type(module).__module__}.{type(module).__qualname__}"
        raise WeightsError(
            f"{path}: refused, a whole pickled module ({name}), which only its own code can make. "
            f"Save the state dict alone: {_SAVE}"
        )
    if strange:
        raise WeightsError(
            f"{path}: refused, no tensors by name but objects ({strange}), and to make them could "
            f"run code. Save the state dict alone: {_SAVE}"
        )
    kind = "tensor" if isinstance(found, Tensor) else type(found).__name__
    what = f"but {some(map(str, found))}" if isinstance(found, dict) else f"but a {kind}"
    raise WeightsError(f"{path}: no tensors by name, {what}; save the state dict itself: {_SAVE}")


def _by_name(found: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(found, dict) or id(found) in seen or len(seen) > 100_000:
        return
    seen.add(id(found))
    for key, value in found.items():
        if isinstance(value, Tensor) and isinstance(key, str):
            yield prefix + key, value
        else:
            yield from _by_name(value, f"{prefix}{key}.", seen)


def _archive_of(names: list[str]) -> str:
    """What a ZIP archive without a state dict is."""
    if any(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays, not of PyTorch"
    if any("archive_format" in name or name.endswith((".pt2", "model.json")) for name in names):
        return f"an exported program (torch.export), not a state dict; save that: {_SAVE}"
    packed = [name for name in names if name.endswith((".pth", ".pt", ".th", ".safetensors"))]
    if packed:
        return f"an archive that holds {some(packed)}; unpack it first"
    return f"an archive without a state dict, of {some(names) or 'nothing'}"
