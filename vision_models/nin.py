"""Network in Network: Lin, Chen and Yan, 2014 (arXiv 1312.4400).

Every convolution is followed by two of 1x1, a small fully connected network that slides over the
maps. The last of them has a map for each class, and the average over each map is the class's
score. "Code" is the authors' cuda-convnet (NIN/cifar-10_def), "model" their Caffe model
(nin_imagenet), which both name the 1x1 convolutions cccp1, cccp2, ...
"""

from collections.abc import Sequence

from flax import nnx

from vision_models import layers
from vision_models.layers import Initializer
from vision_models.network import Builder, Network


def _mlpconv(
    net: Builder,
    number: int,
    maps: tuple[int, int, int],
    window: int,
    *,
    stride: int = 1,
    padding: int = 0,
    first: Initializer | None = None,
    last: Initializer | None = None,
) -> None:
    """The paper's mlpconv layer: a convolution and two of 1x1; `first`, `last` draw kernels."""
    net.conv(f"conv{number}", maps[0], window, stride=stride, padding=padding, init=first)
    net.conv(f"cccp{2 * number - 1}", maps[1], 1)
    net.conv(f"cccp{2 * number}", maps[2], 1, init=last)


def nin_cifar10(
    num_classes: int = 10,
    *,
    image_size: int = 32,
    neuron: str = "relu",
    pools: Sequence[str] = ("max", "max"),
    dropout: float = 0.5,
    init: str = "gaussian",
    init_std: float = 0.05,
    rngs: nnx.Rngs,
) -> Network:
    """The network for CIFAR-10: three mlpconv layers, 966,986 parameters.

    Args:
      num_classes: number of logits.
      image_size: side of the square input in pixels.
      neuron: nonlinearity of all convolutions, the last included.
      pools: kinds of pool1 and pool2 (3/2, rounded up). The code has two maxima; the authors'
        Caffe model averages in pool2.
      dropout: probability of dropping after each pool (inverted).
      init, init_std: as for `alexnet`; the deviation .05 is the code's.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
    """
    if len(pools) != 2:
        raise ValueError(f"pools={tuple(pools)}: the kinds of pool1 and pool2")
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    _mlpconv(net, 1, (192, 160, 96), 5, padding=2)
    net.pool("pool1", 3, 2, kind=pools[0], ceil=True)
    net.dropout("drop1", dropout)
    _mlpconv(net, 2, (192, 192, 192), 5, padding=2)
    net.pool("pool2", 3, 2, kind=pools[1], ceil=True)
    net.dropout("drop2", dropout)
    _mlpconv(net, 3, (192, 192, num_classes), 3, padding=1)
    net.global_average_pool("average")
    net.ends_in("cccp6", num_classes)
    return net.network()


def nin_imagenet(
    num_classes: int = 1000,
    *,
    image_size: int = 224,
    neuron: str = "relu",
    pool: str = "max",
    dropout: float = 0.5,
    init: str = "gaussian",
    init_std: float = 0.05,
    init_std_conv1: float = 0.01,
    rngs: nnx.Rngs,
) -> Network:
    """The authors' network for ImageNet: four mlpconv layers, 7,595,176 parameters.

    The paper has none; this is their Caffe model. Maps have 54, 27, 13 and 6 pixels a side.

    Args:
      num_classes: number of logits.
      image_size: side of the square input in pixels.
      neuron: nonlinearity of all convolutions, the last included.
      pool: kind of the three pools (3/2, rounded up).
      dropout: probability of dropping after pool3 (inverted).
      init, init_std: as for `alexnet`; the deviation .05 is the model's.
      init_std_conv1: standard deviation of the Gaussians of conv1, conv3 and cccp8.
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
    """
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    small = layers.initializer(init, init_std_conv1)
    _mlpconv(net, 1, (96, 96, 96), 11, stride=4, first=small)
    net.pool("pool1", 3, 2, kind=pool, ceil=True)
    _mlpconv(net, 2, (256, 256, 256), 5, padding=2)
    net.pool("pool2", 3, 2, kind=pool, ceil=True)
    _mlpconv(net, 3, (384, 384, 384), 3, padding=1, first=small)
    net.pool("pool3", 3, 2, kind=pool, ceil=True)
    net.dropout("drop3", dropout)
    _mlpconv(net, 4, (1024, 1024, num_classes), 3, padding=1, last=small)
    net.global_average_pool("average")
    net.ends_in("cccp8", num_classes)
    return net.network()
