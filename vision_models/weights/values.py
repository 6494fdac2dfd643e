"""The values of tensors: read, cast to float32 and checked, for every file format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vision_models.weights.types import Tensor, WeightsError, some


def read_values(source: str, tensors: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Arrays, or tensors of a file, as float32.

    Args:
      source: where they are from, for messages.
      tensors: by name; their shapes have been found to fit.
      prefix: of the names, for messages.

    Raises:
      WeightsError: values that are not floating-point or not finite, or a variance below
        zero; the message names the tensor.
    """
    values, broken, count = {}, [], 0
    for name, tensor in tensors.items():
        held = tensor if isinstance(tensor, Tensor) else Tensor.of(np.asarray(tensor))
        if not held.kind.startswith(("float", "bfloat")):
            raise WeightsError(
                f"{source}: {prefix}{name} is {held.kind}; weights are floating-point numbers, "
                "saved as such (dequantised, dense)"
            )
        try:
            with np.errstate(over="ignore"):  # what is too large is found below
                value = held.read().astype(np.float32)
        except WeightsError:
            raise
        except Exception as error:
            raise WeightsError(f"{source}: {prefix}{name} cannot be read ({error})") from error
        finite = np.isfinite(value)
        if not finite.all():
            broken.append(f"{prefix}{name}")
            count += int(value.size - finite.sum())
        negative = name.rpartition("/")[2].rpartition(".")[2] in ("variance", "running_var")
        if negative and (value < 0).any():
            raise WeightsError(f"{source}: damaged, {prefix}{name} holds variances below zero")
        values[name] = value
    if broken:
        more = f", and {len(broken) - 1} more tensors do" if len(broken) > 1 else ""
        raise WeightsError(
            f"{source}: {broken[0]} holds numbers that are not finite{more} ({count:,} numbers "
            "in all); not usable"
        )
    return values


def check_normalization(path: Path, normalization: Mapping[str, Tensor] | None) -> None:
    """Checks the keys, shapes and values of a normalisation; None passes.

    Raises:
      WeightsError: the message names the tensor.
    """
    if normalization is None:
        return
    if normalization.keys() != {"mean", "deviation"}:
        wrong = sorted(normalization.keys() ^ {"mean", "deviation"})
        raise WeightsError(
            f"{path}: normalization/ has to be mean and deviation; missing or not of them: "
            f"{some(wrong)}"
        )
    mean, deviation = (normalization[name].shape for name in ("mean", "deviation"))
    square = len(mean) == 3 and mean[0] == mean[1] and mean[2] == 3
    if not (mean == (3,) or square):
        raise WeightsError(f"{path}: normalization/mean is {mean}, not [3] or [square, square, 3]")
    if deviation != (3,):
        raise WeightsError(f"{path}: normalization/deviation is {deviation}, not [3]")
    numbers = read_values(str(path), {"deviation": normalization["deviation"]}, "normalization/")
    if (numbers["deviation"] <= 0).any():
        raise WeightsError(
            f"{path}: normalization/deviation is {numbers['deviation'].tolist()}; images are "
            "divided by it, and it has to be above 0"
        )
