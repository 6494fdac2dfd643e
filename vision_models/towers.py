"""Networks cut into towers: the layers, and the exchange between towers.

The 2012 AlexNet was two half networks ("towers"), one on each GPU, which exchange
activations between some layers only. Here every parameter of such a layer has a leading
axis over towers, and activations are

  - a list with one array per tower held here, of that tower's maps, or
  - a single array with the maps of all towers, after an exchange.

The same code runs with all towers on one device (the list holds every tower) and inside
`jax.shard_map` over a mesh axis called "tower" (each device holds an equal share of the
leading axis, and the list holds its towers only). The length of the leading axis of its
parameters tells a layer how many towers are held here.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from vision_models.convolution import Normalization, Pooling, convolve, convolve_by_each
from vision_models.forward import (
    NO_PADDING,
    TOWER_AXIS,
    Activations,
    Pass,
    Window,
    each,
    first_tower,
    gather,
    sides,
)
from vision_models.layers import Initializer
from vision_models.modules import apply_dense
from vision_models.pooling import Padding
from vision_models.products import product_by_each

# Name of the metadata entry of parameters that have a leading axis over towers.
PER_TOWER = "per_tower"


@dataclasses.dataclass(frozen=True)
class Exchange:
    """Gives every tower the maps of all towers.

    It is the only communication below the head, but for normalisation across towers.
    """

    towers: int

    def __call__(self, x: list[Array], run: Pass, path: str) -> Array:
        """One [..., maps] per tower held here -> [..., all maps]."""
        return gather(x, self.towers)


class TowerConv(nnx.Module):
    """A convolution with its own kernels in every tower, and the neuron.

    Parameters: kernel [towers, size, size, in, out], bias [towers, out].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: Window,
        *,
        towers: int,
        stride: int = 1,
        padding: Padding = NO_PADDING,
        neuron: str = "relu",
        init: Initializer,
        bias: float = 0.0,
        rngs: nnx.Rngs,
    ):
        """`in_channels` and `out_channels` count the input and output maps of one tower."""
        self.window, self.stride, self.padding, self.neuron = window, stride, padding, neuron
        height, width = sides(window)
        shape = (towers, height, width, in_channels, out_channels)
        fans = height * width * in_channels, height * width * out_channels
        self.kernel = nnx.Param(init(rngs.params(), shape, *fans), **{PER_TOWER: True})
        self.bias = nnx.Param(
            jnp.full((towers, out_channels), bias, jnp.float32), **{PER_TOWER: True}
        )

    def __call__(
        self, x: Activations, run: Pass, path: str, *,
        pool: Pooling | None = None, norm: Normalization | None = None,
    ) -> list[Array]:  # fmt: skip
        """One output for each tower held here, from the tower's own or the shared input.

        For `pool` and `norm` see `together`.
        """
        x = run.slide(x, self.window, self.stride, self.padding)
        held = range(self.kernel.shape[0])
        kernels, biases = [self.kernel[i] for i in held], [self.bias[i] for i in held]
        added: list[Array | None] = [*biases] if norm is None else [None for _ in held]
        options: dict[str, Any] = {"stride": self.stride, "padding": self.padding, "pool": pool}
        if isinstance(x, list):
            outputs = [
                convolve(*of_tower, **options) for of_tower in zip(x, kernels, added, strict=True)
            ]
        else:
            outputs = convolve_by_each(x, kernels, added, **options)
        if norm is not None:
            return [norm(*of_tower) for of_tower in zip(outputs, biases, strict=True)]
        return each(run.neuron(self.neuron), outputs)


class TowerDense(nnx.Module):
    """A fully connected layer in every tower: kernel [towers, in, out], bias [towers, out].

    `convolutional` as in `vision_models.modules.Dense`.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        units: int,
        *,
        towers: int,
        neuron: str = "relu",
        init: Initializer,
        bias: float = 0.0,
        rngs: nnx.Rngs,
    ):
        """`in_shape`, (h, w, c) or (features,), and `units` are those of one tower."""
        self.in_shape = in_shape if len(in_shape) == 3 else (1, 1, *in_shape)
        self.neuron, self.convolutional = neuron, False
        features = math.prod(in_shape)
        shape = (towers, features, units)
        self.kernel = nnx.Param(init(rngs.params(), shape, features, units), **{PER_TOWER: True})
        self.bias = nnx.Param(jnp.full((towers, units), bias, jnp.float32), **{PER_TOWER: True})

    def __call__(self, x: Activations, run: Pass, path: str) -> list[Array]:
        """[B, h, w, c] or [B, features] -> one [B, units] for each tower held here."""
        neuron, sliding = run.neuron(self.neuron), self.convolutional or run.valid is not None
        x = run.slide(x, self.in_shape[0])
        held = range(self.kernel.shape[0])
        if isinstance(x, list) or sliding:
            maps = [_of_tower(x, tower) for tower in held]
            outputs = [
                apply_dense(of, self.kernel[tower], self.in_shape, sliding, of.dtype)
                for tower, of in zip(held, maps, strict=True)
            ]
        else:
            outputs = product_by_each(x.reshape(len(x), -1), self.kernel[...], x.dtype)
        biases = (self.bias[tower].astype(outputs[tower].dtype) for tower in held)
        return [neuron(out + bias) for out, bias in zip(outputs, biases, strict=True)]


class TowerHead(nnx.Module):
    """The classifier: each tower scores from its own features, and the scores are summed.

    Parameters: kernel [towers, in, classes], bias [classes]. The sum is the last
    exchange of the network (`lax.psum` over "tower" where towers are on several
    devices). It equals one matrix over the features of all towers, works for any
    number of classes, and lets each device hold its share of the matrix only.

    With `apart` every tower has the scores of its share of the classes, from its own features:
    kernel [towers, in, classes / towers]. No tower then reads what another has computed; their
    scores are put side by side.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        *,
        towers: int,
        apart: bool = False,
        init: Initializer,
        bias: float = 0.0,
        rngs: nnx.Rngs,
    ):
        """`in_shape` is (h, w, c) or (features,) of one tower."""
        self.in_shape = in_shape if len(in_shape) == 3 else (1, 1, *in_shape)
        self.towers, self.apart, self.convolutional = towers, apart, False
        features = math.prod(in_shape)
        shape = (towers, features, num_classes // towers if apart else num_classes)
        fans = features if apart else features * towers, shape[-1]
        self.kernel = nnx.Param(init(rngs.params(), shape, *fans), **{PER_TOWER: True})
        self.bias = nnx.Param(jnp.full((num_classes,), bias, jnp.float32))

    def __call__(self, x: Activations, run: Pass, path: str) -> Array:
        """Logits [batch, classes] in float32, the same on every tower."""
        held, sliding = self.kernel.shape[0], self.convolutional or run.valid is not None
        x = run.slide(x, self.in_shape[0])
        scores = []
        for tower in range(held):
            maps = _of_tower(x, tower)
            wide = jnp.promote_types(maps.dtype, jnp.float32)
            own = apply_dense(maps, self.kernel[tower], self.in_shape, sliding, wide)
            if self.apart:
                share, first = own.shape[-1], first_tower(held, self.towers) + tower
                none = jnp.zeros((*own.shape[:-1], share * self.towers), wide)
                own = lax.dynamic_update_slice_in_dim(none, own, first * share, own.ndim - 1)
            scores.append(own)
        total = sum(scores[1:], scores[0])
        if held < self.towers:
            total = lax.psum(total, TOWER_AXIS)
        return total + self.bias[...]


def _of_tower(x: Activations, tower: int) -> Array:
    """The input of one tower held here: its own, or the shared one."""
    return x[tower] if isinstance(x, list) else x
