"""One forward pass: what layers read besides their input, and what they record."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from vision_models import layers
from vision_models.pooling import Padding, pooled_size

# The mesh axis that towers lie along.
TOWER_AXIS = "tower"

# The input and output of layers: maps [batch, height, width, channels] or features
# [batch, n]; between the layers of towers, a list with one such array per tower held
# on this device (see `vision_models.towers`).
Activations = Array | list[Array]
Function = Callable[[Array], Array]
Kind = TypeVar("Kind", bound=Activations)


@dataclasses.dataclass(frozen=True)
class BatchStatistics:
    """How BatchNorm takes its statistics in training.

    Attributes:
      axis: inside `jax.shard_map`, the mesh axis that batches are split over; None on one
        device.
      group: number of consecutive examples that are normalised together; 0 for the whole
        batch. Known as ghost batch normalisation (Hoffer et al. 2017): it is what several
        GPUs with that many examples each compute without communication. Either the group
        divides the examples held on a device, or these divide the group. Unless the group is
        the whole batch, each device updates the running statistics from its own groups, and
        the caller averages them over the axis.
      frozen: names of parameters that are not trained. A BatchNorm whose `scale` is among
        them normalises as in evaluation and keeps its statistics.
      pooled: None moves the running statistics towards those of each batch. A scalar, this
        batch's share of all batches so far, makes them the mean and variance of the
        activations of all these batches together.
    """

    axis: str | None = None
    group: int = 0
    frozen: frozenset[str] = frozenset()
    pooled: Array | None = None


WHOLE_BATCH = BatchStatistics()
NO_PADDING: Padding = ((0, 0), (0, 0))
Window = int | tuple[int, int]  # side of a square window, or height and width


@dataclasses.dataclass
class Pass:
    """A forward pass.

    Attributes:
      dropout_keys: one random key per example, [batch], in training; None in evaluation.
      sampling: evaluation in which dropout acts all the same.
      statistics: how BatchNorm takes its statistics in training.
      record: receives the activations of every layer by path.
      auxiliary: receives, in training, the logits of auxiliary classifiers by path.
      valid: in dense evaluation, int32 [batch, 2]: height and width of the part of each
        example's maps that stems from its image. It lies at the top left; the rest counts
        as padding, and fully connected layers slide over the maps. `valid` describes the
        maps that the next layer reads: a layer that changes their size updates it
        (`slide`). None outside dense evaluation, where the image fills the maps.
      windows: in dense evaluation an average over whole maps is one over windows of the size that
        the network was built for, so that there is an output at every position.
      neuron: the nonlinearity of a name; another than `layers.neuron` may have another
        derivative.
      normalization: the same for contrast normalisations: makes of one what is applied.
    """

    dropout_keys: Array | None = None
    statistics: BatchStatistics = WHOLE_BATCH
    record: dict[str, Array] | None = None
    auxiliary: dict[str, Array] | None = None
    valid: Array | None = None
    windows: bool = False
    neuron: Callable[[str], Function] = layers.neuron
    normalization: Callable[[Function], Function] = lambda function: function
    sampling: bool = False

    @property
    def training(self) -> bool:
        """Whether dropout acts, and BatchNorm uses and updates statistics of the batch."""
        return self.dropout_keys is not None and not self.sampling

    def note(self, path: str, x: Activations) -> None:
        """Records the output of the layer `path`; maps of towers are concatenated."""
        if self.record is not None:
            self.record[path] = jnp.concatenate(x, axis=-1) if isinstance(x, list) else x

    def keys_of(self, path: str) -> Array | None:
        """Random keys [batch] of the layer `path`; None in evaluation."""
        if self.dropout_keys is None:
            return None
        number = zlib.crc32(path.encode()) & 0x7FFFFFFF
        return jax.vmap(jax.random.fold_in, in_axes=(0, None))(self.dropout_keys, number)

    def slide(
        self,
        x: Kind,
        window: Window,
        stride: int = 1,
        padding: Padding = NO_PADDING,
        *,
        ceil: bool = False,
        outside: float = 0.0,
    ) -> Kind:
        """Prepares maps for a layer that slides windows, and updates `valid` to its output.

        Args:
          x: [B, H, W, C], of each tower.
          window, stride, padding, ceil: see `pooling.pooled_size`.
          outside: the value that windows see outside an image.

        Returns:
          `x`, filled with `outside` beyond each image if windows can reach there.

        Raises:
          ValueError: no window fits into the maps.
        """
        if self.valid is None:
            return x
        if ceil or padding != NO_PADDING:
            x = self.cut(x, outside)
        height, width = (x[0] if isinstance(x, list) else x).shape[1:3]
        sizes = []
        for axis, largest in enumerate((height, width)):
            moved = [
                pooled_size(size, sides(window)[axis], stride, *padding[axis], ceil=ceil)
                for size in range(largest + 1)
            ]
            if moved[largest] < 1:
                raise ValueError(f"maps of {height} x {width} in windows of {window}: too small")
            sizes.append(jnp.asarray(np.array(moved, np.int32))[self.valid[:, axis]])
        self.valid = jnp.stack(sizes, axis=1)
        return x

    def cut(self, x: Kind, outside: float = 0.0) -> Kind:
        """`x` with the value `outside` beyond each image."""
        if self.valid is None:
            return x
        return each(lambda maps: jnp.where(self.mask(maps), maps, np.array(outside, maps.dtype)), x)

    def mask(self, maps: Array) -> Array:
        """[B, H, W, C] -> bool [B, H, W, 1], true inside the images; needs `valid`."""
        assert self.valid is not None
        rows = jnp.arange(maps.shape[1]) < self.valid[:, :1]
        columns = jnp.arange(maps.shape[2]) < self.valid[:, 1:]
        return (rows[:, :, None] & columns[:, None, :])[..., None]


def sides(window: Window) -> tuple[int, int]:
    """Height and width of a window."""
    return (window, window) if isinstance(window, int) else window


def each(function: Callable[[Array], Array], x: Kind) -> Kind:
    """Applies a function to each tower's maps, or to the maps that all towers share."""
    found = [function(tower) for tower in x] if isinstance(x, list) else function(x)
    return cast(Kind, found)


def gather(x: list[Array], towers: int) -> Array:
    """One [..., maps] per tower held here -> [..., all maps], in the towers' order.

    If other devices hold some of the towers, this is an all-gather over the mesh axis
    "tower".
    """
    held = jnp.concatenate(x, axis=-1) if len(x) > 1 else x[0]
    if len(x) < towers:
        held = lax.all_gather(held, TOWER_AXIS, axis=held.ndim - 1, tiled=True)
    return held


def first_tower(held: int, towers: int) -> Array | int:
    """Index, among all towers, of the first tower held here."""
    return lax.axis_index(TOWER_AXIS) * held if held < towers else 0
