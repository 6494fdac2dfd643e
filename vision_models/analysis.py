"""Facts about a network found by tracing it: parameters, multiply-adds, activations."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


def count_parameters(model: nnx.Module) -> int:
    """Number of trainable parameters, of a real or an abstract (`nnx.eval_shape`) model."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def activations(model: Any, images: Array) -> dict[str, Array]:
    """Every layer's activations in evaluation, by the layer's name.

    Args:
      model: a network of this package.
      images: [batch, height, width, 3].

    Returns:
      Arrays [batch, ...] in the order in which the network computes them.
    """
    record: dict[str, Array] = {}
    model(images, record=record)
    return record


def activation_shapes(model: Any, image_size: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the activations of one image, in order; nothing is computed or allocated."""
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    graph, state = nnx.split(model)
    names: list[str] = []

    def values(state: Any, images: Array) -> list[Array]:
        record = activations(nnx.merge(graph, state), images)
        names.extend(record)
        return list(record.values())

    shapes = jax.eval_shape(values, state, images)
    return {name: value.shape[1:] for name, value in zip(names, shapes, strict=True)}


def multiply_adds(model: Any, image_size: int) -> int:
    """Multiply-adds of convolutions and matrix products, for one image in evaluation.

    Counted from the traced program, so that what is counted is what runs
    (grouping included). Biases, pooling and normalisation do not count, as in
    the papers. Works on abstract models; nothing is allocated.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    graph, state = nnx.split(model)
    program = jax.make_jaxpr(lambda s, x: nnx.merge(graph, s)(x))(state, images)
    return sum(_multiply_adds_of(equation) for equation in _equations(program.jaxpr))


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All equations, those of inner programs (jit, custom derivatives) included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def _multiply_adds_of(equation: Any) -> int:
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        out_dim = equation.params["dimension_numbers"].rhs_spec[0]
        # Each output value takes one product with every weight of its kernel.
        return math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // kernel[out_dim]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return math.prod(equation.outvars[0].aval.shape) * math.prod(shape[d] for d in contracted)
    return 0
