"""Reading and writing files of weights."""

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vision_models.weights import caffe
from vision_models.weights.types import Source, WeightsError

PYTORCH = (".pth", ".pt", ".th", ".tar", ".bin", ".ckpt")
# Keys under which training scripts put the state dict.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "state_dict_ema")


def read(path: Path) -> Source:
    """Reads a file of any known format; nothing in it is executed.

    Raises:
      WeightsError: no such file, cut short, of no known format, or a missing extra.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file")
    suffix = path.suffix.lower()
    try:
        source = _read(path, suffix)
    except WeightsError:
        raise
    # What a damaged file makes the libraries raise is not to be foreseen.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        raise WeightsError(
            f"{path}: damaged, or no weights ({type(error).__name__}: {reason})"
        ) from error
    broken = [name for name, value in source.tensors.items() if not np.isfinite(value).all()]
    if broken:
        raise WeightsError(f"{path}: {broken[0]} holds numbers that are not finite; not usable")
    return source


def _read(path: Path, suffix: str) -> Source:
    if suffix == ".caffemodel":
        return caffe.parse(path.read_bytes(), str(path))
    if suffix == ".safetensors":
        return _read_safetensors(path)
    if suffix in PYTORCH:
        return Source("pytorch", _read_pytorch(path), {}, [], str(path))
    raise WeightsError(
        f"{path}: weights are read from {', '.join(PYTORCH[:3])} (PyTorch), .safetensors and "
        ".caffemodel files"
    )


def from_ours(
    source: Source,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray] | None]:
    """Parameters, statistics and normalisation of a file that `write_ours` made."""
    trees: dict[str, dict[str, Any]] = {"params": {}, "statistics": {}, "normalization": {}}
    for name, value in source.tensors.items():
        *parents, leaf = name.split("/")
        if parents == ["normalization"]:
            node = trees["normalization"]
        else:
            node = trees["statistics" if leaf in ("mean", "variance") else "params"]
            for parent in parents:
                node = node.setdefault(parent, {})
        node[leaf] = value
    return trees["params"], trees["statistics"], trees["normalization"] or None


def network_of(source: Source) -> tuple[str, dict[str, Any]]:
    """Name and options of the network of a file that `write_ours` made.

    Raises:
      WeightsError: it does not say.
    """
    try:
        options = json.loads(source.metadata["options"])
        return source.metadata["model"], dict(options)
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{source.path}: its metadata do not say whose weights it holds"
        ) from error


def write_ours(
    path: Path,
    name: str,
    options: Mapping[str, Any],
    params: Any,
    statistics: Any,
    normalization: Mapping[str, np.ndarray] | None,
) -> None:
    """Writes our `.safetensors`; see `vision_models.weights.save`."""
    from safetensors.numpy import save_file

    tensors: dict[str, np.ndarray] = {}

    def collect(tree: Mapping[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                collect(value, f"{prefix}{key}/")
            else:
                tensors[prefix + key] = np.ascontiguousarray(value)

    collect(params, "")
    collect(statistics, "")
    collect(normalization or {}, "normalization/")
    metadata = {"format": "vision_models", "model": name, "options": json.dumps(dict(options))}
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata)
        os.replace(temporary, path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written ({error.strerror or error})") from error


def _read_safetensors(path: Path) -> Source:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path}: no .safetensors file, or cut short ({str(error).splitlines()[0]})"
        ) from error
    ours = metadata.get("format") == "vision_models"
    if not ours:
        tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    return Source("vision_models" if ours else "pytorch", tensors, metadata, [], str(path))


def _read_pytorch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"{path}: PyTorch files need the torch extra: pip install -e '.[torch]' in the checkout"
        ) from error
    with open(path, "rb") as file:
        start = file.read(2)
    if start != b"PK" and start[:1] != b"\x80":  # an archive, or a pickle of older versions
        raise WeightsError(
            f"{path}: no PyTorch file, or cut short (it starts with {start!r}; a failed download?)"
        )
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            raise WeightsError(
                f"{path}: refused, for it holds more than tensors, and reading it could run code. "
                "Save the state dict alone: torch.save(model.state_dict(), FILE)"
            ) from error
        raise WeightsError(f"{path}: no PyTorch file, or cut short") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise WeightsError(f"{path}: no PyTorch file, or cut short") from error
    tensors = _state_dict(found, path, torch.Tensor)
    return {
        _plain_name(name): value.detach().to_dense().to(torch.float32).numpy()
        for name, value in tensors.items()
    }


def _plain_name(name: str) -> str:
    """Without what DataParallel and compilation put into names."""
    name = name.removeprefix("_orig_mod.").removeprefix("module.")
    return name.replace(".module.", ".")


def _state_dict(found: Any, path: Path, tensor: type) -> dict[str, Any]:
    """The dict of tensors, at the top or under one of the usual keys."""

    def tensors_of(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            return {}
        return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, tensor)}

    if isinstance(found, Mapping):
        # Training scripts keep a number or two as tensors beside the state dict.
        inside = [found[key] for key in (*_WRAPPERS, *found) if key in found]
        candidates = map(tensors_of, [*inside, found])
        best = next((tensors for tensors in candidates if len(tensors) > 1), None)
        if best:
            return best
        raise WeightsError(
            f"{path}: no tensors by name, but {', '.join(map(str, list(found)[:5]))}; save the "
            "state dict itself: torch.save(model.state_dict(), FILE)"
        )
    raise WeightsError(
        f"{path}: holds a {type(found).__name__}, not tensors by name; save model.state_dict()"
    )
