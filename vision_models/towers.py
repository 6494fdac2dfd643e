"""Networks cut into towers: the layers, and the exchange between towers.

The 2012 AlexNet was two half networks ("towers"), one on each GPU, which
exchange activations between some layers only. Here every parameter of such a
layer has a leading axis over towers, and activations are a list:

  - one array per tower held here, each with that tower's maps, or
  - a single array with the maps of all towers, after an exchange.

The same code runs with all towers on one device (the list holds every tower)
and inside `jax.shard_map` over a mesh axis called "tower" (each device holds an
equal share of the leading axis, and the list its towers only). A layer knows
which from its parameters: the held share of the leading axis.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from vision_models import layers

TOWER_AXIS = "tower"

# Name of the metadata entry of parameters that have a leading axis over towers.
PER_TOWER = "per_tower"

Towers = list[Array]
Initializer = Callable[..., Array]


def exchange(parts: Towers, towers: int) -> Towers:
    """Gives every tower the maps of all: the only communication between towers.

    Args:
      parts: the activations of the towers held here, each [..., channels].
      towers: how many towers the network has.

    Returns:
      A list of one array, [..., all channels], in the order of the towers. Where
      some towers are on other devices this is an all-gather over the mesh axis
      "tower".
    """
    held = jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
    if len(parts) < towers:
        held = lax.all_gather(held, TOWER_AXIS, axis=held.ndim - 1, tiled=True)
    return [held]


def first_tower(held: int, towers: int) -> Array | int:
    """Index, among all towers, of the first tower held here."""
    return lax.axis_index(TOWER_AXIS) * held if held < towers else 0


class TowerConv(nnx.Module):
    """A convolution in every tower, with kernels of its own.

    Parameters: kernel [towers, size, size, in, out], bias [towers, out].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        towers: int,
        stride: int = 1,
        padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
        kernel_init: Initializer,
        bias: float,
        rngs: nnx.Rngs,
    ):
        """`in_channels` and `out_channels` count the maps that one tower reads and makes."""
        self.stride = stride
        self.padding = tuple((before, after) for before, after in padding)
        shape = (towers, size, size, in_channels, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape), **{PER_TOWER: True})
        self.bias = nnx.Param(
            jnp.full((towers, out_channels), bias, jnp.float32), **{PER_TOWER: True}
        )

    def __call__(self, parts: Towers) -> Towers:
        """One output a tower held here, from that tower's input or from the shared one."""
        return [
            layers.convolve(
                _of_tower(parts, tower),
                self.kernel[tower],
                self.bias[tower],
                stride=self.stride,
                padding=self.padding,
            )
            for tower in range(self.kernel.shape[0])
        ]


class TowerDense(nnx.Module):
    """A fully connected layer in every tower: kernel [towers, in, out], bias [towers, out]."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        towers: int,
        kernel_init: Initializer,
        bias: float,
        rngs: nnx.Rngs,
    ):
        """`in_features` and `out_features` count what one tower reads and makes."""
        shape = (towers, in_features, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape), **{PER_TOWER: True})
        self.bias = nnx.Param(
            jnp.full((towers, out_features), bias, jnp.float32), **{PER_TOWER: True}
        )

    def __call__(self, parts: Towers) -> Towers:
        """Inputs [batch, ...] are flattened to [batch, in]."""
        outputs = []
        for tower in range(self.kernel.shape[0]):
            x = _of_tower(parts, tower)
            x = x.reshape(x.shape[0], -1)
            outputs.append(
                x @ self.kernel[tower].astype(x.dtype) + self.bias[tower].astype(x.dtype)
            )
        return outputs


class TowerHead(nnx.Module):
    """The classifier: each tower scores from its own features, and the scores are summed.

    Parameters: kernel [towers, in, classes], bias [classes]. The sum is the last
    exchange of the network (`lax.psum` over "tower" where towers are on several
    devices): it equals one matrix over the features of all towers, works for any
    number of classes, and leaves each device its share of the matrix.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        towers: int,
        kernel_init: Initializer,
        bias: float = 0.0,
        rngs: nnx.Rngs,
    ):
        """`in_features` counts what one tower reads."""
        self.towers = towers
        shape = (towers, in_features, num_classes)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape), **{PER_TOWER: True})
        self.bias = nnx.Param(jnp.full((num_classes,), bias, jnp.float32))

    def __call__(self, parts: Towers) -> Array:
        """Logits [batch, classes] in float32, the same on every tower."""
        held = self.kernel.shape[0]
        scores = []
        for tower in range(held):
            x = _of_tower(parts, tower)
            x = x.reshape(x.shape[0], -1)
            kernel = self.kernel[tower].astype(x.dtype)
            scores.append(jnp.matmul(x, kernel, preferred_element_type=jnp.float32))
        total = sum(scores[1:], scores[0])
        if held < self.towers:
            total = lax.psum(total, TOWER_AXIS)
        return total + self.bias[...]


def _of_tower(parts: Towers, tower: int) -> Array:
    """The input of one held tower: its own, or the one that all share."""
    return parts[0] if len(parts) == 1 else parts[tower]
