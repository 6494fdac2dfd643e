"""Dense evaluation: whole images of any size, scored at every position of the last maps.

Simonyan and Zisserman 2015, section 3.2: fully connected layers slide over the maps as
convolutions. Images of several sizes share a batch: each lies at the top left and zeros fill the
rest. Every layer treats that rest as padding, so that an image's scores do not depend on it
(`vision_models.forward.Pass.valid`).
"""

import functools
import itertools

import jax.numpy as jnp
from jax import Array

from vision_models import analysis, layers
from vision_models.forward import Activations, Pass, each
from vision_models.modules import AdaptiveAveragePool, GlobalAveragePool, LocallyConnected, Pool
from vision_models.network import Auxiliary, Network, Sequential
from vision_models.pyramid import PyramidPool

# Layers that accept only one map size, and the reason.
TIED = {
    LocallyConnected: "has kernels of its own at every place",
    AdaptiveAveragePool: "shares any maps out to the same number of windows",
}


def score_map(
    network: Network, images: Array, valid: Array, *, windows: bool = False
) -> tuple[Array, Array]:
    """Scores whole images at every position where the network's window fits.

    The positions lie on the grid of the network's total stride. A network that ends in an
    average over the last maps averages over the whole image and gives one score, unless `windows`.

    Args:
      network: any that `check_dense` accepts. One with towers also runs inside `jax.shard_map`.
      images: floating, [batch, H, W, 3], normalised. Each image lies at the top left, and zeros
        fill the rest. Their dtype is the dtype of the computation.
      valid: int32 [batch, 2], height and width of each image in pixels.
      windows: see `Pass.windows`.

    Returns:
      Logits, float32 [batch, h, w, classes], 0 outside an image's own map; and the height and
      width of that map, int32 [batch, 2]. They may be 0 where an image is smaller than
      those that the network was built for.

    Raises:
      ValueError: see `check_dense`; or H or W is too small for a single score.
    """
    check_dense(network)
    run = Pass(valid=valid, windows=windows)
    scores = network.run(images, run)
    assert not isinstance(scores, list), "towers end in a head that sums them"
    scores = run.cut(scores)
    assert not isinstance(scores, list) and run.valid is not None
    return layers.widened(scores), run.valid


def score_maps(
    network: Network, images: Array, valid: Array, *, offsets: bool, windows: bool = False
) -> list[tuple[Array, Array]]:
    """Score maps of whole images, one for each offset of the last pool's windows.

    OverFeat (Sermanet et al. 2014, section 3.3) shifts these windows by every number of pixels
    below their stride, down and across, so that the pool costs no resolution.

    Args:
      network, images, valid, windows: as in `score_map`.
      offsets: use every offset; otherwise (0, 0) only.

    Returns:
      For each offset, row by row, what `score_map` returns. A map is empty, [batch, 0, 0,
      classes], if no window fits into what its offset leaves of the images.

    Raises:
      ValueError: see `score_map`, and with `offsets` `check_offsets`.
    """
    if not offsets:
        return [score_map(network, images, valid, windows=windows)]
    begin, run = check_offsets(network), Pass(valid=valid)
    maps: Activations = images
    for name in network.names[:begin]:
        maps = getattr(network, name)(maps, run, name)
    reached = run.valid
    found: list[tuple[Array, Array]] = []
    assert reached is not None
    stride = getattr(network, network.names[begin]).stride
    for down, across in itertools.product(range(stride), repeat=2):
        run.valid = jnp.maximum(reached - jnp.array([down, across]), 0)
        scores = each(functools.partial(_from, down, across), maps)
        try:
            for name in network.names[begin:]:
                scores = getattr(network, name)(scores, run, name)
        except ValueError:  # too small
            if not found:
                raise
            found.append((found[0][0][:, :0, :0], jnp.zeros_like(reached)))
            continue
        scores = run.cut(scores)
        assert not isinstance(scores, list) and run.valid is not None
        found.append((layers.widened(scores), run.valid))
    return found


def _from(row: int, column: int, maps: Array) -> Array:
    return maps[:, row:, column:]


def check_offsets(network: Network) -> int:
    """Finds the last pool, whose windows `score_maps` shifts.

    Returns:
      Its index in `network.names`.

    Raises:
      ValueError: see `check_dense`; or there is no pool, or there is pooling of the whole image.
    """
    check_dense(network)
    parts = [getattr(network, name) for name in network.names]
    pools = [number for number, part in enumerate(parts) if isinstance(part, Pool)]
    if not pools or any(isinstance(part, GlobalAveragePool | PyramidPool) for part in parts):
        raise ValueError("no last pool before fully connected layers, whose windows could move")
    return pools[-1]


def window_places(network: Network, *, offsets: bool) -> tuple[int, list[tuple[int, int]]]:
    """Where the windows lie whose scores `score_maps` returns with `windows`.

    Row i and column j of map m are of the window, as large as the images that the network was
    built for, whose first pixel is at (i * spacing + down, j * spacing + across).

    Args:
      network, offsets: as in `score_maps`.

    Returns:
      spacing; and (down, across) of each map m, all in pixels.

    Raises:
      ValueError: see `check_windows`, and with `offsets` `check_offsets`.
    """
    check_windows(network)
    spacing = analysis.spacing(network)
    if not offsets:
        return spacing, [(0, 0)]
    begin = check_offsets(network)
    before = analysis.spacing(network, begin)
    shifts = range(0, getattr(network, network.names[begin]).stride * before, before)
    return spacing, [(down, across) for down in shifts for across in shifts]


def check_windows(network: Network) -> None:
    """Checks that a network has an output for every position of its window.

    Raises:
      ValueError: see `check_dense`; or a layer pools the whole image.
    """
    check_dense(network)
    for name in network.names:
        if isinstance(getattr(network, name), PyramidPool):
            raise ValueError(f"{name} pools the whole image, so that boxes have no windows")


def check_dense(network: Network) -> None:
    """Checks that every layer can slide over larger maps.

    Raises:
      ValueError: a layer cannot; the message names the first such layer.
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
