"""From a layer's maps back to pixels: Zeiler and Fergus 2014, section 2, and its relatives.

A deconvolutional network is a vector-Jacobian product with a few rules changed. Most rules are
ordinary derivatives: filters are transposed, biases play no part, and max pooling sends a value to
the pixel that was the maximum (the "switch"). Overlapping windows with the same maximum add up
there, and BatchNorm in evaluation keeps its scale. Only the rules of the ReLU and of the contrast
normalisation differ.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vision_models import layers
from vision_models.forward import NO_PADDING, Function, Pass, sides
from vision_models.network import Auxiliary, Branches, Network, Sequential


def _with_backward(function: Function, backward: Callable[[Array, Array], Array]) -> Function:
    """The function, with `backward(input, cotangent)` in place of its derivative."""
    made = jax.custom_vjp(function)
    made.defvjp(lambda x: (function(x), x), lambda x, cotangent: (backward(x, cotangent),))
    return cast(Function, made)


# The backward rule of the ReLU by method; other activation functions keep their derivative.
# `deconv` rectifies the backward signal whatever the sign of the input was; `guided` (Springenberg
# et al. 2015) also requires a positive input; `gradient` (Simonyan et al. 2014) is the derivative.
RULES: dict[str, Callable[[Array, Array], Array] | None] = {
    "deconv": lambda x, cotangent: jnp.maximum(cotangent, 0),
    "guided": lambda x, cotangent: jnp.where(x > 0, jnp.maximum(cotangent, 0), 0),
    "gradient": None,
}


def rules(method: str, record: dict[str, Array], *, normalization_derivative: bool = False) -> Pass:
    """A forward pass whose backward pass follows a method.

    Args:
      method: a key of `RULES`.
      record: receives the activations by layer.
      normalization_derivative: contrast normalisations use their derivative; otherwise they pass
        the backward signal on unchanged. The paper does not discuss them. `gradient` uses the
        derivative in either case.
    """
    rule = RULES[method]
    run = Pass(record=record)
    if rule is None:
        return run
    rectified = _with_backward(layers.neuron("relu"), rule)
    run.neuron = lambda name: rectified if name == "relu" else layers.neuron(name)
    if not normalization_derivative:
        run.normalization = lambda function: _with_backward(
            function, lambda x, cotangent: cotangent
        )
    return run


def projector(
    model: Network,
    layer: str | Sequence[str],
    method: str = "deconv",
    *,
    normalization_derivative: bool = False,
) -> Callable[[Array, Array], Array]:
    """A compiled function that projects one unit for each image back to pixels.

    Args:
      model: the network.
      layer: the name of a layer that makes maps, or one name for each image. Many layers take one
        compilation together.
      method, normalization_derivative: see `rules`.

    Returns:
      (network inputs [B, H, W, 3], units int32 [B, 3]: row, column and map) -> reconstructions
      [B, H, W, 3]. The chosen unit is set to 1 and all others of the layer to 0.
    """
    graph, state = nnx.split(model)

    @jax.jit
    def project(state: Any, images: Array, units: Array) -> Array:
        layers = [layer] * len(images) if isinstance(layer, str) else list(layer)

        def maps(images: Array) -> dict[str, Array]:
            record: dict[str, Array] = {}
            run = rules(method, record, normalization_derivative=normalization_derivative)
            nnx.merge(graph, state).run(images, run)
            return {name: record[name] for name in layers}

        def one(name: str, found: Array) -> Array:
            of_layer = np.flatnonzero([name == other for other in layers])
            return jnp.zeros_like(found).at[of_layer, *units[of_layer].T].set(1)

        found, backward = jax.vjp(maps, images)
        return cast(Array, backward({name: one(name, x) for name, x in found.items()})[0])

    return lambda images, units: project(state, images, units)


# Along either side, output i of a layer sees pixels i * jump + low to i * jump + high.
Field = tuple[int, int, int]


def fields(model: Sequential) -> dict[str, Field]:
    """Receptive fields of all layers, (jump, low, high) in pixels, by name.

    The field of branches is the union of theirs, and that of windows that are no squares the
    square around what they see. The spatial neighbourhood of contrast normalisations is not
    counted.
    """
    rows, columns = (_fields(model, "", (1, 0, 0), axis) for axis in (0, 1))
    return {
        name: (jump, min(low, columns[name][1]), max(high, columns[name][2]))
        for name, (jump, low, high) in rows.items()
    }


def _fields(sequence: Sequential, path: str, field: Field, axis: int) -> dict[str, Field]:
    """The fields along one side; `path` begins the names, `field` is of the layer before."""
    found: dict[str, Field] = {}
    ends = []
    for name in sequence.names:
        layer, whole = getattr(sequence, name), f"{path}/{name}" if path else name
        if isinstance(layer, Auxiliary):
            found[whole] = field
            continue
        if isinstance(layer, Sequential):
            found |= _fields(layer, whole, field, axis)
            end = found[whole]
        else:
            jump, low, high = field
            window, stride = sides(getattr(layer, "window", 1))[axis], getattr(layer, "stride", 1)
            before = getattr(layer, "padding", NO_PADDING)[axis][0]
            end = (
                jump * stride,
                low - before * jump,
                high + (window - 1 - before) * jump,
            )
            found[whole] = end
        ends.append(end)
        if not isinstance(sequence, Branches):
            field = end
    if isinstance(sequence, Branches) and ends:
        field = ends[0][0], min(low for _, low, _ in ends), max(high for _, _, high in ends)
    found[path] = field
    return found
