"""The contents of weights files, and the weights that fill networks."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

# Options that all foreign networks read here share.
COMMON = {"neuron": "relu", "pool": "max"}


def vgg_by_convolutions(shapes: Iterable[tuple[int, ...]]) -> str | None:
    """The VGG network of these convolutions, [out, in, height, width]; None if there is none."""
    kernels = [shape for shape in shapes if len(shape) == 4]
    sixteen = "vgg_c" if any(shape[2] == 1 for shape in kernels) else "vgg_d"
    return {8: "vgg_a", 10: "vgg_b", 13: sixteen, 16: "vgg_e"}.get(len(kernels))


class WeightsError(ValueError):
    """Weights that cannot be used; the message says why and what to do."""


def some(names: Iterable[str]) -> str:
    """A few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that is still in its file: nothing is allocated before its shape is known to fit.

    Attributes:
      shape: as the file declares it.
      kind: type of its values, such as `float32`, `int8` or `sparse`.
      read: fetches the values; works for floating-point kinds only.
    """

    shape: tuple[int, ...]
    kind: str
    read: Callable[[], np.ndarray]

    @classmethod
    def of(cls, array: np.ndarray) -> "Tensor":
        """A tensor that is in memory already."""
        return cls(array.shape, str(array.dtype), lambda: array)


@dataclasses.dataclass
class Source:
    """The contents of a file.

    Attributes:
      format: `pytorch`, `caffe` or `vision_models`: how its tensors are named.
      tensors: by name.
      path: of the file.
      metadata: of a `.safetensors` file.
      layers: of a Caffe network, (name, type, settings) in order.
      notes: sentences about what else is in the file, for the log.
      verify: checks the whole of a file of ours against its checksum; raises WeightsError.
    """

    format: str
    tensors: dict[str, Tensor]
    path: str
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    layers: list[tuple[str, str, dict[str, Any]]] = dataclasses.field(default_factory=list)
    notes: tuple[str, ...] = ()
    verify: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True)
class Weights:
    """Variables of a network of ours.

    Attributes:
      name, options: of the network, as for `vision_models.create`.
      params, statistics: nested dicts of float32 arrays.
      normalization: `mean` ([3] or [square, square, 3]) and `deviation` [3] of the images
        that they expect; None where that is not known.
      source: where they are from.
      fresh: paths of the layers without weights, which keep their initial values.
      class_names: name of each logit's class; None where that is not known.
      imagenet: the logits are, as far as can be told, the 1,000 classes of ILSVRC-2012.
      notes: sentences about what was taken and what was left, for the log.
      images: how images are cropped for them, as `save` was told; None where that is not known.
      dataset: name of the dataset that they were trained on; None where that is not known.
      protocol: name of their evaluation protocol, as `save` was told; None where that is not known.
      validation_examples: number of the dataset's training images that they have not seen, which
        are its validation split; None where that is not known, or the dataset's default.
    """

    name: str
    options: dict[str, Any]
    params: dict[str, Any]
    statistics: dict[str, Any]
    normalization: dict[str, Any] | None
    source: str
    fresh: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    imagenet: bool = False
    notes: tuple[str, ...] = ()
    images: dict[str, Any] | None = None
    dataset: str | None = None
    protocol: str | None = None
    validation_examples: int | None = None
