"""A network as pure functions of its variables, for compiled and sharded programs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import Array

from vision_models import dense, layers
from vision_models.forward import BatchStatistics, Pass
from vision_models.network import Network
from vision_models.towers import PER_TOWER
from vision_models.trees import keys_of

# Nested dicts of arrays, named as in the module: params["conv1"]["kernel"].
Params = dict[str, Any]
# The same for BatchNorm's statistics, which training changes without a gradient. Often empty.
Statistics = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PureNetwork:
    """A network without its variables.

    Attributes:
      init: random key -> (parameters, statistics).
      apply: (parameters, statistics, images) -> logits, in evaluation.
      sampled: (parameters, statistics, images, dropout keys [batch]) -> logits, in evaluation but
        for dropout, which draws masks.
      score_map: (parameters, statistics, images, valid) -> (scores, cells), in dense evaluation;
        see `vision_models.dense.score_map`.
      score_maps: (parameters, statistics, images, sizes, offsets, windows) -> score maps of whole
        images; see `vision_models.dense`.
      check_whole: offsets -> None; raises ValueError if the network cannot score whole images,
        or, with `offsets`, has no last pool whose windows can be shifted.
      window_places: offsets -> places of the windows of `score_maps`; see `dense.window_places`.
      train: (parameters, statistics, images, dropout keys [batch], how statistics are taken)
        -> (logits, logits of auxiliary classifiers by path, statistics), in training.
      per_tower: nested dicts like the parameters; True for those with a leading axis over towers.
      towers: number of towers; 1 for most networks.
      heads: paths of its classifiers, the main one first.
      layers: names of the layers that have parameters, in order; a block counts as one.
      has_statistics: whether some layer is a BatchNorm.
    """

    init: Callable[[Array], tuple[Params, Statistics]]
    apply: Callable[[Params, Statistics, Array], Array]
    sampled: Callable[[Params, Statistics, Array, Array], Array]
    score_map: Callable[[Params, Statistics, Array, Array], tuple[Array, Array]]
    score_maps: Callable[[Params, Statistics, Array, Array, bool, bool], list[tuple[Array, Array]]]
    check_whole: Callable[[bool], None]
    window_places: Callable[[bool], tuple[int, list[tuple[int, int]]]]
    train: Callable[
        [Params, Statistics, Array, Array, BatchStatistics],
        tuple[Array, dict[str, Array], Statistics],
    ]
    per_tower: dict[str, Any]
    towers: int
    heads: tuple[str, ...]
    layers: tuple[str, ...]
    has_statistics: bool


def functional(create: Callable[[nnx.Rngs], Network]) -> PureNetwork:
    """The functional form of the module that `create` makes; allocates nothing.

    Args:
      create: makes the module from random streams, such as
        `lambda rngs: vision_models.create("alexnet", rngs=rngs)`.
    """
    abstract = nnx.eval_shape(lambda: create(nnx.Rngs(0)))
    graph, *states = nnx.split(abstract, nnx.Param, nnx.BatchStat)
    params = states[0]

    def init(key: Array) -> tuple[Params, Statistics]:
        return variables(create(nnx.Rngs(key)))

    def apply(params: Params, statistics: Statistics, images: Array) -> Array:
        return nnx.merge(graph, params, statistics)(images)

    def sampled(params: Params, statistics: Statistics, images: Array, keys: Array) -> Array:
        model = nnx.merge(graph, params, statistics)
        logits = model.run(images, Pass(keys, sampling=True))
        assert not isinstance(logits, list), "towers end in a head that sums them"
        return layers.widened(logits)

    def score_map(
        params: Params, statistics: Statistics, images: Array, valid: Array
    ) -> tuple[Array, Array]:
        return dense.score_map(nnx.merge(graph, params, statistics), images, valid)

    def score_maps(
        params: Params,
        statistics: Statistics,
        images: Array,
        valid: Array,
        offsets: bool,
        windows: bool,
    ) -> list[tuple[Array, Array]]:
        model = nnx.merge(graph, params, statistics)
        return dense.score_maps(model, images, valid, offsets=offsets, windows=windows)

    def check_whole(offsets: bool) -> None:
        (dense.check_offsets if offsets else dense.check_dense)(abstract)

    def window_places(offsets: bool) -> tuple[int, list[tuple[int, int]]]:
        return dense.window_places(abstract, offsets=offsets)

    def train(
        params: Params,
        statistics: Statistics,
        images: Array,
        keys: Array,
        taken: BatchStatistics,
    ) -> tuple[Array, dict[str, Array], Statistics]:
        model = nnx.merge(graph, params, statistics)
        auxiliary: dict[str, Array] = {}
        logits = model(images, dropout_keys=keys, statistics=taken, auxiliary=auxiliary)
        return logits, auxiliary, variables(model)[1]

    per_tower = nnx.to_pure_dict(params, lambda leaf: bool(leaf.get_metadata(PER_TOWER, False)))
    with_parameters = tuple(name for name in abstract.names if name in per_tower)
    return PureNetwork(
        init, apply, sampled, score_map, score_maps, check_whole, window_places, train, per_tower,
        abstract.towers, abstract.heads, with_parameters,
        has_statistics=bool(nnx.to_pure_dict(states[1])),
    )  # fmt: skip


def variables(model: Network) -> tuple[Params, Statistics]:
    """Parameters and statistics of a module, real or abstract, as nested dicts."""
    return (
        nnx.to_pure_dict(nnx.state(model, nnx.Param)),
        nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)),
    )


def set_variables(model: Network, params: Params, statistics: Statistics) -> None:
    """Puts parameters and statistics into a module."""
    nnx.update(model, params)
    nnx.update(model, statistics)


def parameter_names(params: Params) -> list[str]:
    """Names such as `conv1/kernel`, in the order of `jax.tree.leaves`."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    return ["/".join(keys_of(path)) for path, _ in paths]
