"""Facts about a network, found by tracing it: parameters, multiply-adds, activations."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vision_models.forward import Window, sides
from vision_models.modules import BatchNorm, LocalResponseNorm
from vision_models.network import Auxiliary, Branches, Network, Sequential
from vision_models.towers import Exchange, TowerHead


def count_parameters(model: Any) -> int:
    """Number of trainable parameters, of a real or an abstract (`nnx.eval_shape`) model."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def activations(model: Network, images: Array) -> dict[str, Array]:
    """Every layer's activations in evaluation, by the layer's path.

    Args:
      model: a network of this package.
      images: floating, [batch, height, width, 3], normalised.

    Returns:
      Arrays [batch, ...] in the order in which the network computes them. The output of a
      residual block or an Inception module is under the block's name, and that of its
      layers under `block/branch/layer`.
    """
    record: dict[str, Array] = {}
    model(images, record=record)
    return record


def activation_shapes(model: Network, image_size: int | None = None) -> dict[str, tuple[int, ...]]:
    """Shapes of one image's activations by path, in order; nothing is computed or allocated."""
    return _trace(model, image_size, training=False)[0]


def multiply_adds(model: Network, image_size: int | None = None) -> int:
    """Multiply-adds of convolutions and matrix products, for one image in evaluation.

    Counted from the traced program, so that the count is of what runs, grouping included.
    Products with zeros do not count: those of LeNet-5's sparse layer, and those that make
    some convolutions faster on CPUs. Nor do biases, pooling and normalisation, as in the
    papers. Works on abstract models; nothing is allocated.

    Args:
      model: a network of this package.
      image_size: pixels; None for the size that the network was built for.
    """
    return sum(_trace(model, image_size, training=False)[1].values())


@dataclasses.dataclass(frozen=True)
class Layer:
    """A row of `layer_table`.

    Attributes:
      name: path in the network, such as `inception_3a/branch2/3x3`.
      kind: class of the layer, such as `Conv`.
      output: (height, width, maps) or (features,) for one image.
      window, stride, padding: in pixels, a window that is no square as (height, width), padding
        as (top, bottom, left, right); None for layers that slide no window.
      parameters: number of trainable values.
      multiply_adds: for one image.
      neurons: number of outputs, for one image, of a layer with kernels.
      connections: of these neurons: their weights, each where it acts, and their biases. Without
        weight sharing the layer would have as many parameters.
      exchanged_bytes: sent from tower to tower, for one image, in float32.
      receptive_field: side, in pixels of the image, of the square that one output sees; the
        spatial neighbourhood of normalisations is not counted.
      activation_bytes: size of the output for one image, in float32.
      auxiliary: whether the layer belongs to an auxiliary classifier.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    window: Window | None
    stride: int | None
    padding: tuple[int, int, int, int] | None
    parameters: int
    multiply_adds: int
    neurons: int
    connections: int
    exchanged_bytes: int
    receptive_field: int
    activation_bytes: int
    auxiliary: bool


def layer_table(model: Network, image_size: int | None = None) -> list[Layer]:
    """Every layer of a real or abstract network, in order; allocates nothing.

    Args:
      model: a network of this package.
      image_size: pixels; None for the size that the network was built for.
    """
    # Auxiliary classifiers take part in training alone; evaluation is traced in less time.
    training = any(isinstance(module, Auxiliary) for _, module in nnx.iter_modules(model))
    shapes, products = _trace(model, image_size, training)
    rows = []
    for name, layer, field, auxiliary in _layers(model, "", PIXEL, False)[0]:
        sliding = hasattr(layer, "window")
        output = shapes[name]
        neurons, connections = _connections(layer, output, products[name])
        rows.append(
            Layer(
                name=name,
                kind=type(layer).__name__,
                output=output,
                window=layer.window if sliding else None,
                stride=layer.stride if sliding else None,
                padding=sum(map(tuple, layer.padding), ()) if sliding else None,
                parameters=count_parameters(layer) if isinstance(layer, nnx.Module) else 0,
                multiply_adds=products[name],
                neurons=neurons,
                connections=connections,
                exchanged_bytes=4 * _exchanged(layer, output),
                receptive_field=max(field),
                activation_bytes=4 * math.prod(output),
                auxiliary=auxiliary,
            )
        )
    return rows


def _connections(layer: Any, output: tuple[int, ...], products: int) -> tuple[int, int]:
    """The neurons of a layer and their connections; (0, 0) for one without kernels."""
    if not isinstance(layer, nnx.Module) or isinstance(layer, BatchNorm):
        return 0, 0
    neurons = math.prod(output)
    if hasattr(layer, "reads"):
        return neurons, neurons * layer.reads
    return neurons, products + neurons * hasattr(layer, "bias")


def _exchanged(layer: Any, output: tuple[int, ...]) -> int:
    """Numbers that towers send each other, for one image, if each is on a device of its own."""
    if isinstance(layer, Exchange) or (isinstance(layer, TowerHead) and layer.apart):
        return math.prod(output) * (layer.towers - 1)  # each sends its share to all others
    if isinstance(layer, TowerHead):
        return math.prod(output) * layer.towers * (layer.towers - 1)  # each sends all scores
    if isinstance(layer, LocalResponseNorm):
        return math.prod(output) * (layer.across - 1)  # each sends its maps to all others
    return 0


# Rows and columns that one output sees, and pixels between neighbouring outputs.
Field = tuple[int, int, int]
PIXEL: Field = (1, 1, 1)


def _layers(
    sequence: Sequential, path: str, field: Field, auxiliary: bool
) -> tuple[list[tuple[str, Any, tuple[int, int], bool]], Field]:
    """(path, layer, receptive field, auxiliary) of all layers below, and the field after them."""
    found = []
    ends = []
    for name in sequence.names:
        layer, whole = getattr(sequence, name), f"{path}/{name}" if path else name
        if isinstance(layer, Sequential):
            inner, end = _layers(layer, whole, field, auxiliary or isinstance(layer, Auxiliary))
            found += inner
            if not isinstance(layer, Auxiliary):
                ends.append(end)
        else:
            (rows, columns, jump), (tall, wide) = field, _reach(layer)
            end = (
                rows + (tall - 1) * jump,
                columns + (wide - 1) * jump,
                jump * getattr(layer, "stride", 1),
            )
            found.append((whole, layer, end[:2], auxiliary))
            ends.append(end)
        if ends and not isinstance(sequence, Branches):
            field = ends[-1]
    if isinstance(sequence, Branches) and ends:
        talls, wides, jumps = zip(*ends, strict=True)
        field = max(talls), max(wides), max(jumps)
    return found, field


def spacing(model: Network, layers: int | None = None) -> int:
    """Pixels of the image between neighbouring outputs.

    Args:
      model: a network of this package.
      layers: of the first so many in `model.names`; None for all.
    """
    field = PIXEL
    for name in model.names[:layers]:
        part = getattr(model, name)
        if isinstance(part, Sequential):
            if not isinstance(part, Auxiliary):
                field = _layers(part, name, field, False)[1]
        else:
            field = (*field[:2], field[2] * getattr(part, "stride", 1))
    return field[2]


def _reach(layer: Any) -> tuple[int, int]:
    """Rows and columns of a layer's input that one of its outputs sees."""
    if hasattr(layer, "in_shape"):
        return layer.in_shape[:2]
    return sides(getattr(layer, "window", 1))


def _trace(
    model: Network, image_size: int | None, training: bool
) -> tuple[dict[str, tuple[int, ...]], Counter[str]]:
    """Shapes of one image's activations, and multiply-adds, both by layer."""
    size = image_size or model.image_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1)) if training else None
    graph, state = nnx.split(model)
    names: list[str] = []

    def values(state: Any, images: Array, keys: Array | None) -> list[Array]:
        record: dict[str, Array] = {}
        nnx.merge(graph, state)(images, dropout_keys=keys, record=record, auxiliary={})
        names.extend(record)
        return list(record.values())

    program = jax.make_jaxpr(values)(state, images, keys)
    shapes = {
        name: tuple(value.aval.shape[1:])
        for name, value in zip(names, program.jaxpr.outvars, strict=True)
    }
    products: Counter[str] = Counter()
    for scope, equation in _equations(program.jaxpr, ""):
        while scope and scope not in shapes:  # JAX functions add scopes inside a layer's
            scope = scope.rpartition("/")[0]
        products[scope] += _multiply_adds_of(equation)
    for name, layer, _, _ in _layers(model, "", PIXEL, False)[0]:
        if hasattr(layer, "density"):  # a sparse kernel, whose zeros are not to count
            products[name] = int(products[name] * layer.density)
    return shapes, products


def _equations(jaxpr: Any, outer: str) -> Iterator[tuple[str, Any]]:
    """(scope, equation) of all equations, those of inner programs included."""
    for equation in jaxpr.eqns:
        scope = outer or str(equation.source_info.name_stack)
        yield scope, equation
        inside = equation.params
        if equation.primitive.name == "cond":  # a choice by platform, the plain form last
            inside = {"branch": inside["branches"][-1]}
        for value in inside.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner, scope)


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


@dataclasses.dataclass(frozen=True)
class Totals:
    """What the layers of a network come to, for one image; without auxiliary classifiers.

    Attributes:
      layers: with kernels, on the longest path from the image to the scores.
      neurons, connections, parameters, multiply_adds, activation_bytes: sums of `Layer`'s.
      held_bytes: the most that evaluation holds at once, if layers are computed in order: what
        a layer reads and makes, what a block reads, and what its other branches have made.
      auxiliary_parameters, auxiliary_multiply_adds, auxiliary_activation_bytes: in training only.
    """

    layers: int
    neurons: int
    connections: int
    parameters: int
    multiply_adds: int
    activation_bytes: int
    held_bytes: int
    auxiliary_parameters: int
    auxiliary_multiply_adds: int
    auxiliary_activation_bytes: int


def totals(model: Network, rows: list[Layer]) -> Totals:
    """Sums over a network's `layer_table`."""
    main = [row for row in rows if not row.auxiliary]
    side = [row for row in rows if row.auxiliary]
    image = 4 * 3 * model.image_size**2
    path = _path(model, "", {row.name: row for row in main}, image, 0)
    return Totals(
        layers=path.layers,
        neurons=sum(row.neurons for row in main),
        connections=sum(row.connections for row in main),
        parameters=sum(row.parameters for row in main),
        multiply_adds=sum(row.multiply_adds for row in main),
        activation_bytes=sum(row.activation_bytes for row in main),
        held_bytes=path.held,
        auxiliary_parameters=sum(row.parameters for row in side),
        auxiliary_multiply_adds=sum(row.multiply_adds for row in side),
        auxiliary_activation_bytes=sum(row.activation_bytes for row in side),
    )


class _Path(NamedTuple):
    """Layers with kernels on a sequence's longest path, bytes of its output, most bytes held."""

    layers: int
    made: int
    held: int


def _path(
    sequence: Sequential, path: str, rows: dict[str, Layer], reads: int, beside: int
) -> _Path:
    """Follows a sequence that reads `reads` bytes while `beside` more are held for others."""
    layers, held = 0, beside + reads
    for name in sequence.names:
        layer, whole = getattr(sequence, name), f"{path}/{name}" if path else name
        if isinstance(layer, Auxiliary):
            continue
        if isinstance(layer, Branches):
            ends: list[_Path] = []
            for branch in layer.names:
                # An empty branch passes on what the block reads, and makes nothing more to hold.
                others = sum(end.made for end in ends if end.layers)
                inner = getattr(layer, branch)
                ends.append(_path(inner, f"{whole}/{branch}", rows, reads, beside + others + reads))
            layers += max(end.layers for end in ends)
            held = max(held, *(end.held for end in ends))
            made = [end.made for end in ends]
            reads = max(made) if layer.join == "add" else sum(made)
        elif isinstance(layer, Sequential):
            inside = _path(layer, whole, rows, reads, beside)
            layers, reads, held = layers + inside.layers, inside.made, max(held, inside.held)
        else:
            made_here = rows[whole].activation_bytes
            layers += rows[whole].neurons > 0
            held = max(held, beside + reads + made_here)
            reads = made_here
    return _Path(layers, reads, held)


COLUMNS = (
    *("layer", "kind", "output", "window", "parameters", "neurons", "connections"),
    *("multiply-adds", "sees", "bytes"),
)


def format_table(model: Network) -> str:
    """`layer_table` as text, with totals for one image."""
    rows = layer_table(model)
    lines = [COLUMNS, *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]

    def aligned(line: tuple[str, ...]) -> str:
        numbers = [cell.rjust(w) for cell, w in zip(line[4:], widths[4:], strict=True)]
        texts = [cell.ljust(w) for cell, w in zip(line[:4], widths[:4], strict=True)]
        return "  ".join([*texts, *numbers])

    whole = totals(model, rows)
    said = [
        f"layers            {whole.layers:,}",
        f"parameters        {whole.parameters:,}",
        f"neurons           {whole.neurons:,}",
        f"connections       {whole.connections:,}",
        f"multiply-adds     {whole.multiply_adds:,}",
        f"activation bytes  {whole.activation_bytes:,}",
    ]
    sent = {row.name: row.exchanged_bytes for row in rows if row.exchanged_bytes}
    if sent:
        each = ", ".join(f"{name} {count:,}" for name, count in sent.items())
        said.append(f"bytes exchanged   {sum(sent.values()):,} by all towers ({each})")
    if whole.auxiliary_parameters:
        said.append(
            f"auxiliary classifiers, in training only: {whole.auxiliary_parameters:,} "
            f"parameters, {whole.auxiliary_multiply_adds:,} multiply-adds"
        )
    size = model.image_size
    said.append(
        f"for one image of {size} x {size} pixels; window is size/stride and padding (top, bottom, "
        "left, right); sees is the receptive field in pixels; bytes are of float32 activations"
    )
    said.append(
        "connections are the neurons' weights and biases: the parameters that a layer would hold "
        "without weight sharing"
    )
    return "\n".join([aligned(lines[0]), *map(aligned, lines[1:]), "", *said])


def cells(row: Layer) -> tuple[str, ...]:
    """A row as text, a cell for each of `COLUMNS`."""
    window = ""
    if row.window is not None and row.padding is not None:
        around = row.padding
        pads = str(around[0]) if len(set(around)) == 1 else ",".join(map(str, around))
        shape = "x".join(map(str, sides(row.window)))
        window = f"{shape}/{row.stride}" + (f" pad {pads}" if any(around) else "")
    return (
        row.name,
        row.kind,
        " x ".join(map(str, row.output)),
        window,
        f"{row.parameters:,}",
        f"{row.neurons:,}",
        f"{row.connections:,}",
        f"{row.multiply_adds:,}",
        str(row.receptive_field),
        f"{row.activation_bytes:,}",
    )
