"""Networks made from networks: fully connected layers as convolutions, another head."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from vision_models.modules import Dense, GlobalAveragePool
from vision_models.network import Network, Sequential
from vision_models.towers import TowerDense, TowerHead
from vision_models.trees import keys_of


def fully_convolutional(model: Network) -> Network:
    """A copy of the network that takes larger images and returns maps of scores.

    Fully connected layers slide over the maps as convolutions with the same parameters,
    and global averages become averages over windows of the size that the network was
    built for: Simonyan and Zisserman 2015, section 3.2. The scores [batch, n, n, classes]
    are those of windows of `model.image_size` pixels that move by the network's total
    stride. They equal the scores of cut-out windows only for networks without padding:
    inside a larger image, a layer that pads sees the surroundings instead of zeros.

    Args:
      model: real or abstract; it is not changed, and the copy shares its arrays.

    Raises:
      ValueError: no layer of it is tied to the image size.
    """
    copy = nnx.merge(*nnx.split(model))
    if not _slide(copy):
        raise ValueError("nothing to turn into convolutions: the network takes images of any size")
    return copy


def _slide(sequence: Sequential) -> bool:
    """Turns the layers of `sequence` into convolutions; False if none could be turned."""
    turned = False
    for name in sequence.names:
        layer = getattr(sequence, name)
        if isinstance(layer, Dense | TowerDense | TowerHead):
            layer.convolutional, turned = True, True
        elif isinstance(layer, GlobalAveragePool):
            setattr(sequence, name, dataclasses.replace(layer, convolutional=True))
            turned = True
        elif isinstance(layer, Sequential):
            turned |= _slide(layer)
    return turned


def replace_head(model: Network, create: Callable[[nnx.Rngs], Network], rngs: nnx.Rngs) -> Network:
    """A network for other classes, with trained layers and a freshly drawn head.

        fresh = lambda rngs: vision_models.create("vgg_d", num_classes=20, rngs=rngs)
        model = vision_models.replace_head(trained, fresh, nnx.Rngs(0))

    Args:
      model: the trained network.
      create: makes the same network for other classes.
      rngs: draws the new classifiers, auxiliary ones included.

    Returns:
      A new network; the layers below the heads share their arrays with `model`.

    Raises:
      ValueError: the networks differ in more than their heads.
    """
    fresh = create(rngs)
    old, new = (nnx.to_pure_dict(nnx.state(m)) for m in (model, fresh))
    merged = take_layers(new, old, lambda path: not is_head(path, fresh.heads))
    nnx.update(fresh, merged)
    return fresh


def is_head(path: str, heads: tuple[str, ...]) -> bool:
    """Whether the parameter `path`, such as `fc8/kernel`, belongs to a classifier."""
    return any(path.startswith(f"{head}/") for head in heads)


def take_layers(into: Any, source: Any, wanted: Callable[[str], bool]) -> dict[str, Any]:
    """A copy of `into` in which the wanted parameters are those of `source`.

    Args:
      into, source: parameters, as nested dicts.
      wanted: path, such as `conv1/kernel` -> whether to take it from `source`.

    Raises:
      ValueError: a wanted parameter that the source lacks or has in another shape.
    """

    def pick(path: Any, value: Any) -> Any:
        keys = keys_of(path)
        name = "/".join(keys)
        if not wanted(name):
            return value
        found = source
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if found is None or found.shape != value.shape:
            shape = "none" if found is None else tuple(found.shape)
            raise ValueError(
                f"{name}: {tuple(value.shape)} is needed, the other network has {shape}"
            )
        return found

    return jax.tree_util.tree_map_with_path(pick, into)
