"""Inception-v3 and -v4, which follow GoogLeNet.

Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception Architecture for Computer
Vision", 2016, and Szegedy, Ioffe, Vanhoucke and Alemi, "Inception-v4, Inception-ResNet and the
Impact of Residual Connections on Learning", 2017. Sizes that figures leave open are those of the
authors' code (TF-Slim). Every convolution has batch normalisation (epsilon 0.001), and no bias.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from flax import nnx

from vision_models import layers
from vision_models.forward import Window, sides
from vision_models.googlenet import normalized_conv
from vision_models.network import Builder, Network


class Conv(NamedTuple):
    """A convolution of a branch; without padding where it is `valid` or has a stride."""

    maps: int
    window: Window = 1
    stride: int = 1
    valid: bool = False


# Parts of a branch: a convolution, a pool (of 3x3 pixels), or two that read the same maps.
Part = Conv | str | tuple[Conv, Conv]
Module = Mapping[str, Sequence[Part]]
AVERAGE, HALVED = "average", "max"  # of stride 1, padded; of stride 2, without padding

WIDE, TALL = (1, 7), (7, 1)


def _crossed(maps: int) -> tuple[Conv, Conv]:
    """1x3 and 3x1 side by side, for the coarsest maps ("Rethinking", Figure 7)."""
    return Conv(maps, (1, 3)), Conv(maps, (3, 1))


def _v3_35(pooled: int) -> Module:
    return {
        "branch1x1": [Conv(64)],
        "branch5x5": [Conv(48), Conv(64, 5)],
        "branch3x3dbl": [Conv(64), Conv(96, 3), Conv(96, 3)],
        "branch_pool": [AVERAGE, Conv(pooled)],
    }


def _v3_17(maps: int) -> Module:
    return {
        "branch1x1": [Conv(192)],
        "branch7x7": [Conv(maps), Conv(maps, WIDE), Conv(192, TALL)],
        "branch7x7dbl": [
            Conv(maps), Conv(maps, TALL), Conv(maps, WIDE), Conv(maps, TALL), Conv(192, WIDE),
        ],
        "branch_pool": [AVERAGE, Conv(192)],
    }  # fmt: skip


_V3_8: Module = {
    "branch1x1": [Conv(320)],
    "branch3x3": [Conv(384), _crossed(384)],
    "branch3x3dbl": [Conv(448), Conv(384, 3), _crossed(384)],
    "branch_pool": [AVERAGE, Conv(192)],
}

# Modules in order; those of 35, 17 and 8 pixels a side begin with mixed_5, _6 and _7.
V3: dict[str, Module] = {
    "mixed_5b": _v3_35(32),
    "mixed_5c": _v3_35(64),
    "mixed_5d": _v3_35(64),
    "mixed_6a": {
        "branch3x3": [Conv(384, 3, 2)],
        "branch3x3dbl": [Conv(64), Conv(96, 3), Conv(96, 3, 2)],
        "branch_pool": [HALVED],
    },
    "mixed_6b": _v3_17(128),
    "mixed_6c": _v3_17(160),
    "mixed_6d": _v3_17(160),
    "mixed_6e": _v3_17(192),
    "mixed_7a": {
        "branch3x3": [Conv(192), Conv(320, 3, 2)],
        "branch7x7x3": [Conv(192), Conv(192, WIDE), Conv(192, TALL), Conv(192, 3, 2)],
        "branch_pool": [HALVED],
    },
    "mixed_7b": _V3_8,
    "mixed_7c": _V3_8,
}

# "Inception-v4", Figures 4 to 9.
_V4_A: Module = {
    "branch0": [Conv(96)],
    "branch1": [Conv(64), Conv(96, 3)],
    "branch2": [Conv(64), Conv(96, 3), Conv(96, 3)],
    "branch3": [AVERAGE, Conv(96)],
}
_V4_B: Module = {
    "branch0": [Conv(384)],
    "branch1": [Conv(192), Conv(224, WIDE), Conv(256, TALL)],
    "branch2": [Conv(192), Conv(192, TALL), Conv(224, WIDE), Conv(224, TALL), Conv(256, WIDE)],
    "branch3": [AVERAGE, Conv(128)],
}
_V4_C: Module = {
    "branch0": [Conv(256)],
    "branch1": [Conv(384), _crossed(256)],
    "branch2": [Conv(384), Conv(448, (3, 1)), Conv(512, (1, 3)), _crossed(256)],
    "branch3": [AVERAGE, Conv(256)],
}
V4: dict[str, Module] = {
    "stem_a": {"branch0": [HALVED], "branch1": [Conv(96, 3, 2)]},
    "stem_b": {
        "branch0": [Conv(64), Conv(96, 3, valid=True)],
        "branch1": [Conv(64), Conv(64, WIDE), Conv(64, TALL), Conv(96, 3, valid=True)],
    },
    "stem_c": {"branch0": [Conv(192, 3, 2)], "branch1": [HALVED]},
    **{f"inception_a{n}": _V4_A for n in range(1, 5)},
    "reduction_a": {
        "branch0": [Conv(384, 3, 2)],
        "branch1": [Conv(192), Conv(224, 3), Conv(256, 3, 2)],
        "branch2": [HALVED],
    },
    **{f"inception_b{n}": _V4_B for n in range(1, 8)},
    "reduction_b": {
        "branch0": [Conv(192), Conv(192, 3, 2)],
        "branch1": [Conv(256), Conv(256, WIDE), Conv(320, TALL), Conv(320, 3, 2)],
        "branch2": [HALVED],
    },
    **{f"inception_c{n}": _V4_C for n in range(1, 4)},
}


def inception_v3(
    num_classes: int = 1000,
    *,
    image_size: int = 299,
    auxiliary: bool = True,
    count_padding: bool = False,
    neuron: str = "relu",
    dropout: float = 0.2,
    init: str = "he",
    init_std: float = 0.1,
    rngs: nnx.Rngs,
) -> Network:
    """Inception-v3: Table 1 of "Rethinking", with batch normalisation in the side classifier.

    23,834,568 parameters, and 3,326,696 in the auxiliary classifier. Between the first pool and
    the modules the code has 1x1 80, 3x3 192 and a pool, as here; the table has three convolutions
    of 3x3 and no pool.

    Args:
      num_classes: number of logits.
      image_size: side of the square input in pixels, at least 75; with `auxiliary` 299.
      auxiliary: adds the classifier over mixed_6e, which runs in training only.
      count_padding: average pools count zeros beyond the border as pixels, as in torchvision.
      neuron: nonlinearity of all convolutions.
      dropout: probability of dropping before the classifier (inverted).
      init, init_std: as for `alexnet`; He's is the code's.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
    """
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    average = "padded_average" if count_padding else "average"

    def classifier(net: Builder) -> None:
        net.pool("pool", 5, 3, kind="average")
        normalized_conv(net, "conv1", 128, 1)
        normalized_conv(net, "conv2", 768, 5)
        net.global_average_pool("average")
        net.head("classifier", num_classes)

    normalized_conv(net, "conv1a", 32, 3, stride=2)
    normalized_conv(net, "conv2a", 32, 3)
    normalized_conv(net, "conv2b", 64, 3, padding=1)
    net.pool("pool1", 3, 2)
    normalized_conv(net, "conv3b", 80, 1)
    normalized_conv(net, "conv4a", 192, 3)
    net.pool("pool2", 3, 2)
    for name, module in V3.items():
        _module(net, name, module, average)
        if auxiliary and name == "mixed_6e":
            net.auxiliary("aux", classifier)
    _end(net, num_classes, dropout)
    return net.network()


def inception_v4(
    num_classes: int = 1000,
    *,
    image_size: int = 299,
    neuron: str = "relu",
    dropout: float = 0.2,
    init: str = "he",
    init_std: float = 0.1,
    rngs: nnx.Rngs,
) -> Network:
    """Inception-v4: Figures 3 to 9 of its paper, 42,679,816 parameters.

    Args:
      num_classes: number of logits.
      image_size: side of the square input in pixels, at least 75.
      neuron: nonlinearity of all convolutions.
      dropout: probability of dropping before the classifier (inverted).
      init, init_std: as for `alexnet`; He's is the code's.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
    """
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    normalized_conv(net, "conv1", 32, 3, stride=2)
    normalized_conv(net, "conv2", 32, 3)
    normalized_conv(net, "conv3", 64, 3, padding=1)
    for name, module in V4.items():
        _module(net, name, module, "average")
    _end(net, num_classes, dropout)
    return net.network()


def _end(net: Builder, num_classes: int, dropout: float) -> None:
    net.global_average_pool("average")
    net.dropout("drop", dropout)
    net.head("classifier", num_classes)


def _module(net: Builder, name: str, module: Module, average: str) -> None:
    makers = {
        branch: functools.partial(_branch, parts=parts, average=average)
        for branch, parts in module.items()
    }
    try:
        net.branches(name, "concatenate", **makers)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _branch(net: Builder, parts: Sequence[Part], average: str) -> None:
    """Adds the parts of a branch; its convolutions are conv1, conv2, ..., or split/a and b."""
    number = 0
    for part in parts:
        if isinstance(part, Conv):
            number += 1
            _conv(net, f"conv{number}", part)
        elif isinstance(part, tuple):
            makers = {
                which: functools.partial(_conv, name="conv", conv=conv)
                for which, conv in zip("ab", part, strict=True)
            }
            net.branches("split", "concatenate", **makers)
        elif part == AVERAGE:
            net.pool("pool", 3, 1, kind=average, padding=1)
        else:
            net.pool("pool", 3, 2)


def _conv(net: Builder, name: str, conv: Conv) -> None:
    maps, window, stride, valid = conv
    tall, wide = (0, 0) if valid or stride > 1 else (side // 2 for side in sides(window))
    padding = ((tall, tall), (wide, wide))
    normalized_conv(net, name, maps, window, stride=stride, padding=padding)
