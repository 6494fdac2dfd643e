"""A network as pure functions of its parameters, for compiled and sharded programs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import Array

from vision_models.towers import PER_TOWER

# Nested dicts of arrays, named as in the module: params["conv1"]["kernel"].
Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Network:
    """A network without its parameters.

    Attributes:
      init: random key -> parameters.
      apply: (parameters, images, dropout keys or None) -> logits.
      per_tower: like the parameters, True where there is a leading axis over towers.
      towers: into how many towers the network is cut; 1 for most.
    """

    init: Callable[[Array], Params]
    apply: Callable[[Params, Array, Array | None], Array]
    per_tower: dict[str, Any]
    towers: int


def functional(create: Callable[[nnx.Rngs], Any]) -> Network:
    """The functional form of the module that `create` makes; allocates nothing.

    Args:
      create: random streams -> module, such as
        `lambda rngs: vision_models.create("alexnet", rngs=rngs)`.
    """
    abstract = nnx.eval_shape(lambda: create(nnx.Rngs(0)))
    graph, state = nnx.split(abstract)

    def init(key: Array) -> Params:
        return nnx.to_pure_dict(nnx.state(create(nnx.Rngs(key))))

    def apply(params: Params, images: Array, dropout_keys: Array | None = None) -> Array:
        return nnx.merge(graph, params)(images, dropout_keys=dropout_keys)

    per_tower = nnx.to_pure_dict(state, lambda leaf: bool(leaf.get_metadata(PER_TOWER, False)))
    return Network(init, apply, per_tower, getattr(abstract, "towers", 1))


def parameter_names(params: Params) -> list[str]:
    """Names such as `conv1/kernel`, in the order of `jax.tree.leaves`."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    return ["/".join(str(key.key) for key in path) for path, _ in paths]
