"""What files hold, and what networks are filled with."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

# What every network of other projects that is read here has in common.
COMMON = {"neuron": "relu", "pool": "max"}


def vgg_by_convolutions(shapes: Iterable[tuple[int, ...]]) -> str | None:
    """The VGG network of these convolutions, [out, in, height, width]; None if there is none."""
    kernels = [shape for shape in shapes if len(shape) == 4]
    sixteen = "vgg_c" if any(shape[2] == 1 for shape in kernels) else "vgg_d"
    return {8: "vgg_a", 10: "vgg_b", 13: sixteen, 16: "vgg_e"}.get(len(kernels))


class WeightsError(ValueError):
    """Weights that cannot be used; the message says why and what to do."""


@dataclasses.dataclass
class Source:
    """What is in a file.

    Attributes:
      format: `pytorch`, `caffe` or `vision_models`, for the naming of its tensors.
      tensors: by name, float32 for the most part.
      metadata: of a `.safetensors` file.
      layers: of a Caffe network, (name, type, settings) in order.
      path: of the file.
    """

    format: str
    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    layers: list[tuple[str, str, dict[str, Any]]]
    path: str


@dataclasses.dataclass(frozen=True)
class Weights:
    """Variables of a network of ours.

    Attributes:
      name, options: of the network, as for `vision_models.create`.
      params, statistics: nested dicts of arrays.
      normalization: `mean` ([3] or [square, square, 3]) and `deviation` [3] of the images
        that they expect; None where that is not known.
      source: where they are from.
      fresh: layers that are not given, and start as they are drawn.
    """

    name: str
    options: dict[str, Any]
    params: dict[str, Any]
    statistics: dict[str, Any]
    normalization: dict[str, np.ndarray] | None
    source: str
    fresh: tuple[str, ...] = ()
