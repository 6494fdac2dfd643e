"""What files hold, and what networks are filled with."""

import dataclasses
from typing import Any

import numpy as np


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
