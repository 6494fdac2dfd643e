"""Arrays of other frameworks in our layout."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from vision_models.modules import BatchNorm, Conv, Dense
from vision_models.network import Sequential
from vision_models.towers import TowerConv, TowerDense, TowerHead
from vision_models.weights.types import Tensor


@dataclasses.dataclass(frozen=True)
class LayerVariables:
    """A layer with variables.

    Attributes:
      module: real or abstract.
      shapes: of its variables, by name.
    """

    module: Any
    shapes: dict[str, tuple[int, ...]]


def layers_with_variables(sequence: Sequential, path: str = "") -> dict[str, LayerVariables]:
    """The layers that have parameters or statistics, by path, in order."""
    found: dict[str, LayerVariables] = {}
    for name in sequence.names:
        layer, whole = getattr(sequence, name), f"{path}/{name}" if path else name
        if isinstance(layer, Sequential):
            found |= layers_with_variables(layer, whole)
        elif isinstance(layer, nnx.Module):
            state = nnx.to_pure_dict(nnx.state(layer, nnx.Any(nnx.Param, nnx.BatchStat)))
            if state:
                found[whole] = LayerVariables(layer, {k: tuple(v.shape) for k, v in state.items()})
    return found


def convert(
    layer: LayerVariables, variable: str, found: Tensor | None
) -> tuple[tuple[int, ...], Callable[[np.ndarray], np.ndarray]]:
    """The shape of a layer's variable in PyTorch and Caffe, and the conversion to ours.

    There kernels of convolutions are [out, in, height, width], matrices are [out, in] with
    maps flattened as (map, row, column), and towers are groups of consecutive maps.

    Args:
      layer: the layer.
      variable: such as `kernel`.
      found: the tensor in the file, None if it is missing. A matrix may be stored as a
        convolution, [out, maps, height, width].

    Returns:
      The shape that the tensor must have in the file, and a function from its values to
      ours.

    Raises:
      NotImplementedError: no other framework's layer corresponds to this one.
    """
    module, shape = layer.module, layer.shapes[variable]
    if variable != "kernel":
        flat = (int(np.prod(shape)),)
        return flat, lambda array: array.reshape(shape)
    match module:
        case Conv():
            height, width, maps_in, maps_out = shape
            return (maps_out, maps_in, height, width), lambda a: a.transpose(2, 3, 1, 0)
        case TowerConv():
            towers, height, width, maps_in, maps_out = shape

            def split(array: np.ndarray) -> np.ndarray:
                groups = array.reshape(towers, maps_out, maps_in, height, width)
                return groups.transpose(0, 3, 4, 2, 1)

            return (towers * maps_out, maps_in, height, width), split
        case Dense():
            height, width, maps = module.in_shape
            outputs = shape[1]

            def dense(array: np.ndarray) -> np.ndarray:
                cube = array.reshape(outputs, maps, height, width)
                return cube.transpose(2, 3, 1, 0).reshape(shape)

            return _matrix(found, outputs, maps, height, width), dense
        case TowerDense():
            height, width, maps = module.in_shape
            towers, _, outputs = shape

            def tower_dense(array: np.ndarray) -> np.ndarray:
                cube = array.reshape(towers, outputs, maps, height, width)
                return cube.transpose(0, 3, 4, 2, 1).reshape(shape)

            return _matrix(found, towers * outputs, maps, height, width), tower_dense
        case TowerHead():
            height, width, maps = module.in_shape
            towers, _, classes = shape

            def head(array: np.ndarray) -> np.ndarray:
                cube = array.reshape(classes, towers, maps, height, width)
                return cube.transpose(1, 3, 4, 2, 0).reshape(shape)

            return _matrix(found, classes, towers * maps, height, width), head
    raise NotImplementedError(f"no conversion for {type(module).__name__}")


def is_norm(layer: LayerVariables) -> bool:
    """Whether the layer is a batch normalisation."""
    return isinstance(layer.module, BatchNorm)


def _matrix(
    found: Tensor | None, outputs: int, maps: int, height: int, width: int
) -> tuple[int, ...]:
    """The shape of a matrix in the file; that of a convolution if it is stored as one."""
    if found is not None and len(found.shape) == 4:
        return outputs, maps, height, width
    return outputs, maps * height * width
