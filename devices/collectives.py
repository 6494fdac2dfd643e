"""Splitting over a mesh axis and summing over it, at no cost where the axis has one device.

XLA compiles a collective over one device to a copy, for example of every gradient.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

Tree = TypeVar("Tree")


def split(mesh: Mesh, axis: str) -> PartitionSpec:
    """Splits the leading dimension over `axis`; splits nothing if the axis has one device."""
    return PartitionSpec(axis) if mesh.shape[axis] > 1 else PartitionSpec()


def total(tree: Tree, mesh: Mesh, axis: str) -> Tree:
    """Inside `jax.shard_map`: the sum over `axis`."""
    return lax.psum(tree, axis) if mesh.shape[axis] > 1 else tree


def own(tree: Tree, mesh: Mesh, axis: str) -> Tree:
    """Inside `jax.shard_map`: marks arrays that are equal along `axis` as each device's own.

    A gradient with respect to them is then the device's own, not yet summed over the axis.
    """
    if mesh.shape[axis] == 1:
        return tree
    return jax.tree.map(lambda leaf: lax.pcast(leaf, axis, to="varying"), tree)


def rows(count: int, mesh: Mesh, axis: str) -> Array:
    """Inside `jax.shard_map`: global indices of the `count` rows on this device, int32 [count]."""
    first = lax.axis_index(axis) * count if mesh.shape[axis] > 1 else 0
    return first + jnp.arange(count)
