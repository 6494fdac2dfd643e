"""Dense evaluation: whole images of any size, scored at every place of the last maps.

Simonyan and Zisserman 2015, section 3.2: fully connected layers slide over the maps as
convolutions. Images of several sizes share a batch: each lies at the top left of zeros, and
every layer counts what lies outside of it as what lies outside of the maps, so that its scores
are those of the image alone (`vision_models.forward.Pass.valid`).
"""

import functools
import itertools

import jax.numpy as jnp
from jax import Array

from vision_models import layers
from vision_models.forward import Activations, Pass, each
from vision_models.modules import AdaptiveAveragePool, GlobalAveragePool, LocallyConnected, Pool
from vision_models.network import Auxiliary, Network, Sequential

# Layers that are tied to one size of maps, and by what.
TIED = {
    LocallyConnected: "has kernels of its own at every place",
    AdaptiveAveragePool: "shares any maps out to the same number of windows",
}


def score_map(network: Network, images: Array, valid: Array) -> tuple[Array, Array]:
    """Scores of whole images, wherever a window of the network's size fits on its grid.

    Networks that end in an average over the last maps take it over all of the image, and
    give one score.

    Args:
      network: any that `check_dense` lets pass; with towers inside `jax.shard_map` as well.
      images: floating, [batch, H, W, 3], normalised; zeros outside of each image, which lies
        at the top left. Their dtype is the dtype of the computation.
      valid: int32 [batch, 2], height and width of each image.

    Returns:
      Logits float32 [batch, h, w, classes], 0 where an image has none, and int32 [batch, 2]:
      how many there are along its height and its width. An image smaller than those that
      the network was built for may have none.

    Raises:
      ValueError: see `check_dense`; or H or W are too small for any score.
    """
    check_dense(network)
    run = Pass(valid=valid)
    scores = network.run(images, run)
    assert not isinstance(scores, list), "towers end in a head that sums them"
    scores = run.cut(scores)
    assert not isinstance(scores, list) and run.valid is not None
    return layers.widened(scores), run.valid


def score_maps(
    network: Network, images: Array, valid: Array, *, offsets: bool
) -> list[tuple[Array, Array]]:
    """Score maps of whole images, one for each place where the windows of the last pool may begin.

    OverFeat (Sermanet et al. 2014, section 3.3) shifts these windows by every number of pixels
    below their stride, down and across, so that no resolution is lost to the pool.

    Args:
      network, images, valid: as in `score_map`.
      offsets: all of these places; else the first alone.

    Returns:
      What `score_map` returns, for each.

    Raises:
      ValueError: see `score_map`; or no last pool where `offsets` are asked for.
    """
    if not offsets:
        return [score_map(network, images, valid)]
    begin, run = check_offsets(network), Pass(valid=valid)
    maps: Activations = images
    for name in network.names[:begin]:
        maps = getattr(network, name)(maps, run, name)
    reached, found = run.valid, []
    assert reached is not None
    stride = getattr(network, network.names[begin]).stride
    for down, across in itertools.product(range(stride), repeat=2):
        run.valid = jnp.maximum(reached - jnp.array([down, across]), 0)
        scores = each(functools.partial(_from, down, across), maps)
        for name in network.names[begin:]:
            scores = getattr(network, name)(scores, run, name)
        scores = run.cut(scores)
        assert not isinstance(scores, list) and run.valid is not None
        found.append((layers.widened(scores), run.valid))
    return found


def _from(row: int, column: int, maps: Array) -> Array:
    return maps[:, row:, column:]


def check_offsets(network: Network) -> int:
    """Looks for the last pool, whose windows may begin elsewhere.

    Returns:
      Its place among the network's layers.

    Raises:
      ValueError: see `check_dense`; or there is none, or an average over all the map follows.
    """
    check_dense(network)
    parts = [getattr(network, name) for name in network.names]
    pools = [number for number, part in enumerate(parts) if isinstance(part, Pool)]
    if not pools or any(isinstance(part, GlobalAveragePool) for part in parts):
        raise ValueError("no last pool before fully connected layers, whose windows could move")
    return pools[-1]


def check_dense(network: Network) -> None:
    """Looks for layers that cannot slide over larger maps.

    Raises:
      ValueError: the first such layer by name.
    """
    found = _tied(network, "")
    if found:
        raise ValueError(
            f"{found}, so that the network takes images of {network.image_size} pixels alone"
        )


def _tied(parts: Sequential, path: str) -> str:
    for name in parts.names:
        part, whole = getattr(parts, name), f"{path}{name}"
        if isinstance(part, Sequential) and not isinstance(part, Auxiliary):
            found = _tied(part, f"{whole}/")
            if found:
                return found
        for kind, why in TIED.items():
            if isinstance(part, kind):
                return f"{whole} ({kind.__name__}) {why}"
    return ""
