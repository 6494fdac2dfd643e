"""ZFNet: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx

from vision_models import layers, modules
from vision_models.alexnet import PAPER_LRN, check_sizes
from vision_models.contrast import LocalContrastNorm
from vision_models.network import Builder, Network
from vision_models.pyramid import PyramidPool


def zfnet(
    num_classes: int = 1000,
    *,
    image_size: int = 224,
    kernels: Sequence[int] = (96, 256, 384, 384, 256),
    hidden: Sequence[int] = (4096, 4096),
    neuron: str = "relu",
    pool: str = "max",
    lrn: bool = True,
    lrn_constants: Mapping[str, Any] = PAPER_LRN,
    lcn: bool = False,
    pyramid: Sequence[int] = (),
    dropout: float = 0.5,
    init: str = "gaussian",
    init_std: float = 0.01,
    rngs: nnx.Rngs,
) -> Network:
    """The network of the paper's Figure 3: AlexNet in one tower, with a finer conv1.

    Maps have 110, 55 (conv1 7x7/2, pool), 26, 13 (conv2 5x5/2, pool), 13, 13, 13 and 6
    pixels a side; pools round up. 62,357,608 parameters. The paper says of its "contrast
    normalization" after both pools only that it is across feature maps; here it is AlexNet's.

    Args:
      num_classes: number of logits.
      image_size: side of the square input in pixels.
      kernels: maps of conv1 to conv5. (96, 256, 512, 1024, 512) is the wide variant.
      hidden: sizes of fc6 and fc7.
      neuron: nonlinearity of all hidden layers.
      pool: one of `pooling.POOLS`.
      lrn: False leaves out the normalisations.
      lrn_constants: arguments of `layers.local_response_normalization`.
      lcn: Jarrett's local contrast normalisation in place of the response normalisation.
      pyramid: windows a side of each level of a pyramid that takes the place of pool5, so that
        the network takes images of any size: (6, 3, 2, 1) in SPP-net (He et al. 2014, section
        3.1). () for pool5.
      dropout: probability of dropping in fc6 and fc7 (inverted).
      init, init_std: as for `alexnet`; the paper's is a Gaussian of standard deviation 0.01
        with biases 0 (section 3.1).
      rngs: stream `params` draws the parameters.

    Raises:
      ValueError: an unknown or impossible option.
    """
    check_sizes(kernels, hidden)
    net = Builder(image_size, rngs=rngs, init=layers.initializer(init, init_std), neuron=neuron)
    response = modules.LocalResponseNorm(**lrn_constants)
    norm = LocalContrastNorm() if lcn else response
    net.conv("conv1", kernels[0], 7, stride=2, padding=1)
    net.pool("pool1", 3, 2, kind=pool, ceil=True)
    if lcn or lrn:
        net.add("norm1", norm)
    net.conv("conv2", kernels[1], 5, stride=2)
    net.pool("pool2", 3, 2, kind=pool, ceil=True)
    if lcn or lrn:
        net.add("norm2", norm)
    for number in (3, 4, 5):
        net.conv(f"conv{number}", kernels[number - 1], 3, padding=1)
    if pyramid:
        net.add("pool5", PyramidPool(tuple(pyramid), net.height))
        net.channels *= sum(level**2 for level in pyramid)
        net.height, net.width, net.flat = 1, 1, True
    else:
        net.pool("pool5", 3, 2, kind=pool, ceil=True)
    for number, units in zip((6, 7), hidden, strict=True):
        net.dense(f"fc{number}", units)
        net.dropout(f"drop{number}", dropout)
    net.head("fc8", num_classes)
    return net.network()
