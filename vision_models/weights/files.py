"""Weights files: recognised by their content; and our own format."""

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from files import replacing
from vision_models.trees import flatten
from vision_models.weights import caffe, safetensors_files, torch_files
from vision_models.weights.types import Source, Tensor, WeightsError

PYTORCH = (".pth", ".pt", ".th", ".tar", ".bin", ".ckpt")
SUFFIXES = (*PYTORCH, ".safetensors", ".caffemodel")
# First bytes of files that are not read here, and what to say of them.
_OTHERS = {
    b"<": "a page of the web, or XML; a failed download?",
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself; git lfs pull",
    b"\x89HDF": "an HDF5 file, as Keras writes; it is not read here",
    b"\x93NUMPY": "a NumPy array, not tensors by name",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"\xfd7zXZ": "compressed by xz; unpack it first",
    b"BZh": "compressed by bzip2; unpack it first",
    b"(\xb5/\xfd": "compressed by Zstandard; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"GGUF": "a GGUF file of a language model",
}
# torchvision and timm name a file after the SHA-256 of its content: resnet50-0676ba61.pth.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})(?![0-9A-Za-z])")


def read(path: Path) -> Source:
    """Reads a file of any known format; nothing in it is executed.

    Raises:
      WeightsError: no such file, cut short, damaged, or of no known format.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise WeightsError(f"{path}: {kind}, where a file of weights is expected")
        if not status.st_size:
            raise WeightsError(f"{path}: empty, or cut short; a failed download?")
        with open(path, "rb") as file:
            start = file.read(512)
        _check_name(path)
        return _read(path, start)
    except WeightsError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise WeightsError(f"{path}: there is no such file or directory") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    # The libraries may raise anything on a damaged file.
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else ""
        raise WeightsError(
            f"{path}: damaged, or no weights ({type(error).__name__}: {reason})"
        ) from error


def _read(path: Path, start: bytes) -> Source:
    """Chooses the format by content; the suffix serves for messages and Caffe's files."""
    suffix = path.suffix.lower()
    # First, because the length that it begins with may look like another format's mark.
    if safetensors_files.is_safetensors(start):
        return safetensors_files.read(path)
    if start.startswith(b"PK"):
        return torch_files.read_archive(path)
    if start.startswith(b"\x80"):
        return torch_files.read_pickle(path)
    other = next((what for magic, what in _OTHERS.items() if start.startswith(magic)), None)
    if start[257:262] == b"ustar":
        other = "a tar archive; unpack it first"
    if other:
        raise WeightsError(f"{path}: {other}")
    # A message of protobuf has no mark of its own; a network's begins with its name or a layer.
    if suffix == ".caffemodel" or start[:1] in b"\x0a\x12" or start.startswith(b"\xa2\x06"):
        return caffe.read(path)
    if suffix in PYTORCH:
        raise WeightsError(
            f"{path}: no PyTorch file, or cut short (it starts with {start[:2]!r}; a failed "
            "download?)"
        )
    if suffix == ".safetensors":
        raise WeightsError(f"{path}: no .safetensors file, or cut short")
    raise WeightsError(
        f"{path}: weights are read from {', '.join(PYTORCH[:3])} (PyTorch), .safetensors and "
        ".caffemodel files"
    )


def _check_name(path: Path) -> None:
    """Raises WeightsError if the hash in the file's name is not that of its content."""
    found = _HASH_IN_NAME.findall(path.name)
    if not found or len(found[-1]) == 40:  # the length of a commit of Git
        return
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    # Digits alone may as well be a date.
    if not actual.startswith(found[-1]) and not found[-1].isdigit():
        raise WeightsError(
            f"{path}: damaged or cut short, by its name its SHA-256 begins with {found[-1]}, but "
            f"that is {actual[: len(found[-1])]}. Fetch it again (or rename it, if that is no hash)"
        )


def from_ours(
    source: Source,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor] | None]:
    """Parameters, statistics and normalisation of a file that `write_ours` made.

    Raises:
      WeightsError: one tensor's name is a directory of another's.
    """
    trees: dict[str, dict[str, Any]] = {"params": {}, "statistics": {}, "normalization": {}}
    for name, value in source.tensors.items():
        *parents, leaf = name.split("/")
        if parents == ["normalization"]:
            node = trees["normalization"]
        else:
            node = trees["statistics" if leaf in ("mean", "variance") else "params"]
            for parent in parents:
                node = node.setdefault(parent, {})
                if not isinstance(node, dict):
                    break
        if not isinstance(node, dict) or leaf in node:
            raise WeightsError(f"{source.path}: {name} lies below another tensor, or above one")
        node[leaf] = value
    return trees["params"], trees["statistics"], trees["normalization"] or None


def network_of(source: Source) -> tuple[str, dict[str, Any], tuple[str, ...] | None]:
    """Name, options and class names of the network of a file that `write_ours` made.

    Raises:
      WeightsError: its metadata lack them or are malformed.
    """
    try:
        options = dict(json.loads(source.metadata["options"]))
        names = json.loads(source.metadata.get("class_names", "[]"))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("no list of names")
        return source.metadata["model"], options, tuple(names) or None
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"{source.path}: its metadata do not say whose weights it holds"
        ) from error


def images_of(source: Source) -> dict[str, Any] | None:
    """How images are cropped for the weights of a file that `write_ours` made; None if unsaid."""
    try:
        images = json.loads(source.metadata["images"])
        return images if isinstance(images, dict) else None
    except (KeyError, ValueError, RecursionError):
        return None


def named_network(path: Path) -> tuple[str, dict[str, Any]] | None:
    """Name and options of the network in a file of ours; None for files from elsewhere.

    Raises:
      WeightsError: see `read`.
    """
    source = read(path)
    return network_of(source)[:2] if source.format == "vision_models" else None


def class_names(path: Path) -> tuple[str, ...] | None:
    """Class names in a file of ours; None if it has none, is missing or is not ours."""
    try:
        if not path.is_file():  # opening a FIFO would wait
            return None
        with open(path, "rb") as file:
            if not safetensors_files.is_safetensors(file.read(9)):
                return None
        return network_of(safetensors_files.read(path))[2]
    except (OSError, ValueError):
        return None


def held_out_of(source: Source) -> int | None:
    """The number of training images held out from what one of our files holds; None if not said.

    Raises:
      WeightsError: it is no number.
    """
    said = source.metadata.get("validation_examples")
    if said is not None and not said.isdecimal():
        raise WeightsError(f"{source.path}: its metadata say validation_examples={said[:20]!r}")
    return None if said is None else int(said)


def write_ours(
    path: Path,
    name: str,
    options: Mapping[str, Any],
    params: Any,
    statistics: Any,
    normalization: Mapping[str, np.ndarray] | None,
    class_names: Any = None,
    images: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    protocol: str | None = None,
    validation_examples: int | None = None,
) -> None:
    """Writes our `.safetensors`; see `vision_models.weights.save`."""
    tensors = flatten(params) | flatten(statistics)
    tensors |= flatten({"normalization": normalization or {}})
    metadata = {"format": "vision_models", "model": name, "options": json.dumps(dict(options))}
    if class_names is not None:
        metadata["class_names"] = json.dumps(list(class_names))
    if images is not None:
        metadata["images"] = json.dumps(dict(images))
    if dataset is not None:
        metadata["dataset"] = dataset
    if protocol is not None:
        metadata["protocol"] = protocol
    if validation_examples is not None:
        metadata["validation_examples"] = str(validation_examples)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            safetensors_files.write(temporary, tensors, metadata)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written ({error.strerror or error})") from error
