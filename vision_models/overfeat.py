"""OverFeat: Sermanet, Eigen, Zhang, Mathieu, Fergus and LeCun, 2014 (arXiv 1312.6229).

"OverFeat: Integrated Recognition, Localization and Detection using Convolutional Networks". Tables
are the paper's. There is no response normalisation, and pools do not overlap.
"""

from collections.abc import Sequence

from flax import nnx

from vision_models import layers
from vision_models.alexnet import check_sizes
from vision_models.network import Builder, Network


def overfeat_fast(
    num_classes: int = 1000,
    *,
    image_size: int = 231,
    kernels: Sequence[int] = (96, 256, 512, 1024, 1024),
    hidden: Sequence[int] = (3072, 4096),
    neuron: str = "relu",
    pool: str = "max",
    dropout: float = 0.5,
    init: str = "gaussian",
    init_std: float = 0.01,
    rngs: nnx.Rngs,
) -> Network:
    """The fast network of Table 1: 145,920,872 parameters.

        conv1 11x11/4 | pool 2/2 | conv2 5x5 | pool 2/2 | conv3 to conv5 3x3 | pool 2/2 | fc6 to fc8

    Args:
      num_classes: number of logits.
      image_size: side of the square input in pixels.
      kernels: maps of the convolutions.
      hidden: sizes of fc6 and fc7.
      neuron: nonlinearity of all hidden layers.
      pool: kind of the pools.
      dropout: probability of dropping in fc6 and fc7 (inverted).
      init, init_std: as for `alexnet`; the paper's is a Gaussian of deviation 0.01.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
    """
    check_sizes(kernels, hidden, 5)
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    net.conv("conv1", kernels[0], 11, stride=4)
    net.pool("pool1", 2, 2, kind=pool)
    net.conv("conv2", kernels[1], 5)
    net.pool("pool2", 2, 2, kind=pool)
    for number in (3, 4, 5):
        net.conv(f"conv{number}", kernels[number - 1], 3, padding=1)
    net.pool("pool5", 2, 2, kind=pool)
    return _classified(net, 6, hidden, dropout, num_classes)


def overfeat_accurate(
    num_classes: int = 1000,
    *,
    image_size: int = 221,
    kernels: Sequence[int] = (96, 256, 512, 512, 1024, 1024),
    hidden: Sequence[int] = (4096, 4096),
    neuron: str = "relu",
    pool: str = "max",
    dropout: float = 0.5,
    init: str = "gaussian",
    init_std: float = 0.01,
    rngs: nnx.Rngs,
) -> Network:
    """The accurate network of Table 3: 144,656,488 parameters.

        conv1 7x7/2 | pool 3/3 | conv2 7x7 | pool 2/2 | conv3 to conv6 3x3 | pool 3/3 | fc7 to fc9

    Args:
      num_classes, image_size, kernels, hidden, neuron, pool, dropout, init, init_std, rngs: as
        for `overfeat_fast`, with one more convolution; `hidden` are fc7 and fc8.

    Raises:
      ValueError: an unknown or impossible option.
    """
    check_sizes(kernels, hidden, 6)
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    net.conv("conv1", kernels[0], 7, stride=2)
    net.pool("pool1", 3, 3, kind=pool)
    net.conv("conv2", kernels[1], 7)
    net.pool("pool2", 2, 2, kind=pool)
    for number in (3, 4, 5, 6):
        net.conv(f"conv{number}", kernels[number - 1], 3, padding=1)
    net.pool("pool6", 3, 3, kind=pool)
    return _classified(net, 7, hidden, dropout, num_classes)


def _classified(
    net: Builder, first: int, hidden: Sequence[int], dropout: float, num_classes: int
) -> Network:
    """The network with its fully connected layers, the first of which has the number `first`."""
    for number, units in enumerate(hidden, start=first):
        net.dense(f"fc{number}", units)
        net.dropout(f"drop{number}", dropout)
    net.head(f"fc{first + 2}", num_classes)
    return net.network()
